"""What every explanation leaves in memory: `python memory_held.py`, a line of JSON by method.

A program of its own, since the tests' checks of types hold on to what they look at.
"""

import gc
import json
from collections import Counter

import torch
from small_vits import METHODS, random_pixels, random_vit

import xai_lib as xai


def live_objects():
    """Count tensors and autograd nodes by type."""
    alive = (type(x) for x in gc.get_objects())
    wanted = (torch.Tensor, torch.autograd.function.FunctionCtx)
    return Counter(kind.__name__ for kind in alive if issubclass(kind, wanted))


def main():
    torch.set_num_threads(1)
    vit = random_vit(depth=2, reg_tokens=1, init_values=0.5)
    inputs = random_pixels(vit)
    for method, options in METHODS.items():
        xai.explain(vit, inputs, method, **options)
        gc.collect()
        # The collector does not see how large a tensor is, so nothing may wait for it.
        gc.disable()
        before = live_objects()
        found = xai.explain(vit, inputs, method, **options)
        held = live_objects() - before
        del found
        left = live_objects() - before
        gc.enable()
        print(json.dumps({"method": method, "held": held, "left": left}))


if __name__ == "__main__":
    main()
