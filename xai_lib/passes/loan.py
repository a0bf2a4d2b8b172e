"""A model on loan: in eval mode, frozen, for one thread, and given back exactly as it was."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock, RLock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from xai_lib.errors import UnsupportedModelError
from xai_lib.passes.checkpointing import stepped_around
from xai_lib.passes.kernels import seen_attention
from xai_lib.passes.offloading import offloaded_again

HALF = (torch.float16, torch.bfloat16)

_LOCKS: WeakKeyDictionary[nn.Module, RLock] = WeakKeyDictionary()
_LOCKS_LOCK = Lock()


def unwrap(model: nn.Module) -> nn.Module:
    """Return the eager module inside DataParallel or torch.compile wrappers."""
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError(
            f"model is {type(model).__name__}, expected a torch.nn.Module. "
            "xai.load(...) returns (model, processor): pass the first."
        )
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        else:
            inner = getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            break
        model = inner
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            where = f"The model's part {name!r} is" if name else "The model is"
            raise UnsupportedModelError(
                f"{where} a TorchScript module, which runs outside Python and cannot be "
                "intercepted. Pass the eager module that it was made from."
            )
    if any(p.is_inference() for p in model.parameters()):
        raise UnsupportedModelError(
            "The model's parameters were made under torch.inference_mode(), so no gradient can "
            "pass them. Load the model outside inference_mode."
        )
    return model


@contextmanager
def borrowed(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode with frozen parameters; give it back as it was, come what may.

    One thread at a time borrows a model. Inside, attention is torch's own, torch.compile runs
    eagerly, checkpointed parts run as plain calls and autocast is off.
    """
    with _LOCKS_LOCK:
        lock = _LOCKS.setdefault(model, RLock())
    with lock, eager(), seen_attention(model), _as_stated(model), offloaded_again(model):
        yield


@contextmanager
def eager() -> Iterator[None]:
    """Let compiled modules run their Python code, which is what a trace can see.

    Checkpointed ones run it once, with a graph.
    """
    stance = getattr(torch.compiler, "set_stance", None)
    with stance("force_eager") if stance else nullcontext(), stepped_around():
        yield


@contextmanager
def _as_stated(model: nn.Module):
    training = [(m, m.training) for m in model.modules()]
    # By their places: what accelerate offloads is another tensor after each pass.
    frozen = [
        (m, name)
        for m in model.modules()
        for name, p in m.named_parameters(recurse=False)
        if p.requires_grad
    ]
    # They belong to the user's own backward passes, and put an alias of torch's in the place of
    # each tensor that a module takes and gives.
    hooks = [
        (m, m._backward_hooks, m._backward_pre_hooks)
        for m in model.modules()
        if m._backward_hooks or m._backward_pre_hooks
    ]
    try:
        for module, _ in training:
            module.training = False
        for module, name in frozen:
            getattr(module, name).requires_grad_(False)
        for module, *_ in hooks:
            module._backward_hooks, module._backward_pre_hooks = OrderedDict(), OrderedDict()
        device = next((p.device.type for p in model.parameters()), "cpu")
        autocast = torch.autocast(device, enabled=False) if device != "meta" else nullcontext()
        with torch.inference_mode(False), torch.enable_grad(), autocast:
            yield
    finally:
        for module, after, before in hooks:
            module._backward_hooks, module._backward_pre_hooks = after, before
        for module, name in frozen:
            getattr(module, name).requires_grad_(True)
        for module, mode in training:
            module.training = mode


def in_float32(model: nn.Module) -> Callable:
    """Return the model as a function that computes with float32 copies of its tensors and inputs.

    The copies stand in for the length of a call; the model's own tensors are not touched.
    """
    tensors = (*model.named_parameters(), *model.named_buffers())
    wide = {name: t.detach().float() for name, t in tensors if t.dtype in HALF}

    def widened(x):
        return x.float() if isinstance(x, Tensor) and x.dtype in HALF else x

    def call(*args, **kwargs):
        args, kwargs = tuple(map(widened, args)), {k: widened(x) for k, x in kwargs.items()}
        return torch.func.functional_call(model, wide, args, kwargs)

    return call
