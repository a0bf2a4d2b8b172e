"""Explaining leaves no trace on the model, the inputs, torch's global state or the memory."""

import gc
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from memory_held import live_objects
from small_vits import METHODS, random_pixels, random_vit
from torch import nn
from torch.nn.modules import module as module_globals

import xai_lib as xai

pytestmark = pytest.mark.usefixtures("one_thread")

HOOKS = [name for name in vars(nn.Module()) if "hooks" in name]
GLOBAL_HOOKS = [name for name in vars(module_globals) if name.startswith("_global_")]


class Interrupted(RuntimeError):
    pass


class Breaking(nn.Module):
    """Raises in the middle of a model once it is armed."""

    armed = False

    def forward(self, x):
        if self.armed:
            raise Interrupted
        return x


@pytest.fixture
def vit():
    """A ViT in a mixed state: partly in train mode, partly frozen, with gradients and a hook."""
    model = random_vit(depth=2, reg_tokens=1, proj_drop_rate=0.5, init_values=0.5)
    model.blocks[1].ls2 = nn.Sequential(model.blocks[1].ls2, Breaking())
    model.eval().blocks[0].train()
    model.blocks[0].mlp.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    model.norm.register_forward_hook(lambda *_: None)
    return model


def snapshot(model):
    """Return everything about the model and about torch that an explanation could disturb."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "objects": {name: (id(t), t.data_ptr(), t._version) for name, t in tensors.items()},
        "values": {name: t.detach().clone() for name, t in tensors.items()},
        "marks": {name: dict(vars(t)) for name, t in tensors.items()},
        "requires_grad": {name: t.requires_grad for name, t in tensors.items()},
        "grad": {name: None if t.grad is None else t.grad.clone() for name, t in tensors.items()},
        "training": {name: m.training for name, m in model.named_modules()},
        "attributes": {name: sorted(vars(m)) for name, m in model.named_modules()},
        "forward": {name: m.forward.__func__ for name, m in model.named_modules()},
        "hooks": {
            (name, kind): list(getattr(m, kind).items() if getattr(m, kind) else ())
            for name, m in model.named_modules()
            for kind in HOOKS
        },
        "global hooks": {kind: repr(getattr(module_globals, kind)) for kind in GLOBAL_HOOKS},
        "modes": len(torch.overrides._get_current_function_mode_stack()),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "random state": torch.get_rng_state(),
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


def assert_untouched(before, model):
    after = snapshot(model)
    for part in before:
        assert same(before[part], after[part]), part


@pytest.mark.parametrize("method", METHODS)
def test_the_model_comes_back_as_it_was(vit, method):
    inputs = random_pixels(vit)
    kept = inputs.clone()
    expected = vit.eval()(inputs)
    vit.blocks[0].train()
    before = snapshot(vit)
    found = xai.explain(vit, inputs, method, **METHODS[method])
    assert_untouched(before, vit)
    assert torch.equal(inputs, kept) and not inputs.requires_grad and not vars(inputs)
    # The kernels of a traced pass may differ from the model's own by round-off, not by more.
    torch.testing.assert_close(found.logits, expected.detach(), rtol=1e-12, atol=1e-12)
    assert torch.equal(vit.eval()(inputs), expected)


@pytest.mark.parametrize("method", METHODS)
def test_the_model_comes_back_after_an_exception_inside_it(vit, method):
    vit.blocks[1].ls2[1].armed = True
    before = snapshot(vit)
    with pytest.raises(Interrupted):
        xai.explain(vit, random_pixels(vit), method, **METHODS[method])
    assert_untouched(before, vit)


@pytest.mark.parametrize("method", METHODS)
def test_the_model_comes_back_after_a_refusal(vit, method):
    before = snapshot(vit)
    with pytest.raises(xai.errors.TargetError):
        xai.explain(vit, random_pixels(vit), method, target=99, **METHODS[method])
    assert_untouched(before, vit)


def test_trace_leaves_the_model_alone(vit):
    inputs = random_pixels(vit)
    before = snapshot(vit)
    with torch.random.fork_rng():
        expected = vit(inputs)
    with torch.random.fork_rng(), xai.trace(vit) as trace:
        logits = vit(inputs)
    assert len(trace.sites) == 2
    assert_untouched(before, vit)
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)


def test_trace_leaves_the_model_alone_after_an_exception(vit):
    vit.eval().blocks[1].ls2[1].armed = True
    before = snapshot(vit)
    with pytest.raises(Interrupted), xai.trace(vit):
        vit(random_pixels(vit))
    assert_untouched(before, vit)
    with pytest.raises(KeyError), xai.trace(vit):
        raise KeyError
    assert_untouched(before, vit)


def test_trace_gives_gradients_to_the_callers_graph(vit):
    """Parameters keep their requires_grad inside a trace, so a caller can train through it."""
    vit.eval()
    inputs = random_pixels(vit)
    vit(inputs).sum().backward()
    expected = {name: p.grad for name, p in vit.named_parameters() if p.requires_grad}
    vit.zero_grad()
    with xai.trace(vit):
        vit(inputs).sum().backward()
    for name, parameter in vit.named_parameters():
        if parameter.requires_grad and name != "head.weight":
            torch.testing.assert_close(parameter.grad, expected[name])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", (torch.no_grad, torch.inference_mode))
def test_grad_modes_of_the_caller_change_nothing(vit, method, mode):
    expected = xai.explain(vit, random_pixels(vit), method, **METHODS[method]).relevance
    with mode():
        inputs = random_pixels(vit)
        before = snapshot(vit)
        found = xai.explain(vit, inputs, method, **METHODS[method])
        assert_untouched(before, vit)
    assert torch.equal(found.relevance, expected)
    assert not found.relevance.requires_grad
    assert not found.relevance.is_inference()


@pytest.mark.parametrize("method", METHODS)
def test_a_model_in_train_mode_is_explained_in_eval_mode(vit, method):
    inputs = random_pixels(vit)
    expected = xai.explain(vit.eval(), inputs, method, **METHODS[method])
    vit.train()
    found = xai.explain(vit, inputs, method, **METHODS[method])
    assert vit.training
    assert torch.equal(found.relevance, expected.relevance)
    assert torch.equal(found.logits, expected.logits)


@pytest.mark.parametrize("method", METHODS)
def test_an_explanation_does_not_depend_on_earlier_ones(vit, method):
    inputs = random_pixels(vit)
    first = xai.explain(vit, inputs, method, **METHODS[method]).relevance
    xai.explain(vit, inputs, "lrp")
    xai.explain(vit, inputs, "attnlrp")
    assert torch.equal(xai.explain(vit, inputs, method, **METHODS[method]).relevance, first)


@pytest.fixture(scope="module")
def memory():
    """What each method holds, and what it leaves once its result is deleted."""
    program = Path(__file__).with_name("memory_held.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    return {row["method"]: row for row in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("method", METHODS)
def test_memory_is_free_once_the_result_is_deleted(memory, method):
    """Without the help of the garbage collector."""
    assert memory[method]["left"] == {}
    # The result's own tensors, some of them views, and no graph.
    held = memory[method]["held"]
    assert held.keys() == {"Tensor"} and held["Tensor"] <= 9


def test_trace_is_freed_with_its_block(vit):
    inputs = random_pixels(vit)
    vit.eval()

    def attend():
        with torch.no_grad(), xai.trace(vit) as trace:
            vit(inputs)
        return len(trace.sites)

    attend()
    gc.collect()
    gc.disable()
    try:
        before = live_objects()
        assert attend() == 2
        assert live_objects() - before == Counter()
    finally:
        gc.enable()
