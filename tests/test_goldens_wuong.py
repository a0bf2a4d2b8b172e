"""Every attribution, intermediate and single rule of Wu & Ong's published code is reproduced."""

import re
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from golden_berts import FILES, FOLDER, golden, golden_bert, golden_inputs, relative_error

import xai_lib as xai
from xai_lib.explainers.published.wu_ong import PublishedLRP
from xai_lib.passes.call import Call
from xai_lib.passes.loan import borrowed
from xai_lib.rules import published_alpha_beta
from xai_lib.rules.gate import Switch
from xai_lib.rules.recorded import Recorder
from xai_lib.streams.prepare import prepare

pytestmark = pytest.mark.usefixtures("one_thread")

BOUNDS = {"quick": 1e-8, "jacobian": 1e-7}


def cases(prefix):
    return [(name, key) for name in FILES for key in golden(name) if key.startswith(prefix)]


SCORES = [case for case in cases("out/wuong/") if "_raw/" not in case[1]]
RAW = cases("out/wuong/gs_raw/") + cases("out/wuong/gi_raw/") + cases("out/wuong/lrp_raw/")
ON_THE_WAY = cases("mid/wuong/lrp_after_layer0/")


def parts(key):
    """Return function, variant, input number and class (None where there is none) of a key."""
    _, _, function, variant, *_ = key.split("/")
    number, target = re.search(r"/i(\d+)(?:/c(\d+))?$", key).groups()
    return function, variant, int(number), None if target is None else int(target)


def call_of(function, variant):
    """Return (method, options) of a golden function and variant."""
    if function == "lat":
        return "lat", {}
    detour, _, seed = variant.rpartition("seed=")
    seed = "one" if seed == "onehot" else seed
    if function == "lrp":
        options = {"variant": detour.strip(","), "compat": "reference"}
        return "lrp_alpha_beta", options | {"seed": seed}
    if function == "gi":
        return "gradient_x_input", {"reduce": "l2sq", "seed": seed}
    return "gradient_sensitivity", {"seed": seed}


@contextmanager
def call_for(name, number, target, **options):
    """Run a golden model once, as an explainer does; yield the call and the run."""
    model = golden_bert(name)
    inputs = prepare(model, golden_inputs(name, number))
    chosen = torch.tensor([[target]])
    call = Call(model, inputs, lambda logits: chosen, reference=True)
    with borrowed(model):
        yield call, call.forward(at_input=True, **options)


def test_every_function_of_the_code_is_among_the_goldens():
    assert {parts(key)[0] for _, key in SCORES} == {"gs", "gi", "lrp", "lat"}
    assert len(SCORES) == 2 * 4 * (2 * 2 * 4 + 1) and len(RAW) == 2 * 4 * 2 * 4


@pytest.mark.parametrize("name, key", SCORES, ids=lambda value: value)
def test_golden_scores(name, key):
    function, variant, number, target = parts(key)
    method, options = call_of(function, variant)
    inputs = golden_inputs(name, number)
    found = xai.explain(golden_bert(name), inputs, method, target=target, **options)
    bound = BOUNDS[options.get("variant", "quick")]
    assert relative_error(found.relevance[0], golden(name)[key]) <= bound
    assert relative_error(found.logits[0], golden(name)[f"logits/{number}"].reshape(-1)) <= 1e-12


@pytest.mark.parametrize("name, key", RAW, ids=lambda value: value)
def test_golden_vectors_of_each_token(name, key):
    """What the scores are the norm or the sum of, [tokens, hidden]."""
    function, variant, number, target = parts(key)
    detour = variant.partition(",")[0]
    recorder = Recorder(Switch())
    rules = {"rules": recorder} if function == "lrp_raw" else {}
    with call_for(name, number, target, **rules) as (call, run):
        seed = call.seed(call.targets[0], run.logits, "logit")
        if function == "lrp_raw":
            found = PublishedLRP(run, recorder, 0.5, detour).relevance(seed)
        else:
            (found,) = run.gradients([run.features], seed)
            found = found * run.features.detach() if function == "gi_raw" else found
    assert relative_error(found[0], golden(name)[key]) <= BOUNDS.get(detour, 1e-8)


@pytest.mark.parametrize("name, key", ON_THE_WAY, ids=lambda value: value)
def test_golden_relevance_on_its_way_down(name, key):
    number, target = (int(x) for x in re.search(r"/i(\d+)/c(\d+)$", key).groups())
    recorder = Recorder(Switch())
    with call_for(name, number, target, rules=recorder) as (call, run):
        seed = call.seed(call.targets[0], run.logits, "logit")
        found = list(PublishedLRP(run, recorder, 0.5, "quick").stages(seed))
    layers = range(len(found) - 3, -1, -1)
    names = ["classifier", "pooler_CLS", *(f"layer{layer}" for layer in layers)]
    for stage, relevance in zip(names, found, strict=True):
        expected = golden(name)[f"mid/wuong/lrp_after_{stage}/i{number}/c{target}"]
        assert relative_error(relevance[0], expected) <= 1e-8, stage


@pytest.fixture(scope="module")
def units():
    """Return {name: tensor} of the single rules."""
    with np.load(FOLDER / "units.npz") as file:
        found = {k: torch.from_numpy(file[k]) for k in file.files if k.startswith("wuong/")}
    return {key.removeprefix("wuong/"): value for key, value in found.items()}


@pytest.mark.parametrize("dim", ["2d", "3d"])
def test_unit_of_the_linear_rule_and_of_rescaling(units, dim):
    names = ("R", "x", "W", "bias", "out")
    relevance, x, weight, bias, expected = (units[f"fc_{dim}/{name}"] for name in names)
    found = published_alpha_beta.linear_map(relevance, x, weight, bias)
    assert relative_error(found, expected) <= 1e-12
    given = (units[f"rescale_{dim}/{name}"] for name in ("post_A", "inp"))
    found = published_alpha_beta.rescale(*given)
    assert relative_error(found, units[f"rescale_{dim}/out"]) <= 1e-12


def test_unit_of_maps_that_differ_from_row_to_row(units):
    relevance, x = (units[f"nl/{name}"].unsqueeze(-2) for name in ("R", "x"))
    below = published_alpha_beta.STABILISER
    found = published_alpha_beta.linear_map(relevance, x, units["nl/W"], below=below)
    assert relative_error(found.squeeze(-2), units["nl/out"]) <= 1e-12


def test_unit_of_an_attention_head(units):
    given = {name: units[f"jacobian/{name}"] for name in "qkvR"}
    mask = torch.ones(1, 1, given["k"].shape[1], dtype=torch.bool)
    found = published_alpha_beta.attention(
        given["R"], given["q"], given["k"], given["v"], mask, alpha=0.5
    )
    for name, relevance in zip("qkv", found, strict=True):
        assert relative_error(relevance, units[f"jacobian/out_{name}"]) <= 1e-12, name


def test_the_stored_jacobian_is_that_of_a_head(units):
    """The relevance of a head is checked above without one; this is what it stands for."""
    q, k, v = (units[f"jacobian/{name}"] for name in "qkv")

    def head(q, k, v):
        # The published mask adds -1e9 to every key that is kept, which costs nine digits.
        return ((q @ k.mT) / q.shape[-1] ** 0.5 - 1e9).softmax(-1) @ v

    for name, found in zip("qkv", torch.autograd.functional.jacobian(head, (q, k, v)), strict=True):
        assert relative_error(found, units[f"jacobian/jac_{name}"]) <= 1e-12, name


def test_what_the_published_code_comes_down_to():
    """Its relevance is (∂h_L/∂embeddings)ᵀ R of the pooler's input, but for 1e-7 a token."""
    name, number, target = FILES[0], 1, int(golden(FILES[0])["targets/1"][0])
    recorder = Recorder(Switch())
    with call_for(name, number, target, rules=recorder) as (call, run):
        seed = call.seed(call.targets[0], run.logits, "logit")
        lrp = PublishedLRP(run, recorder, 0.5, "quick")
        at_pooler = list(lrp.stages(seed))[1]
        (short,) = torch.autograd.grad(lrp.head[0].x, run.features, at_pooler, retain_graph=True)
        full = lrp.relevance(seed)
    assert 1e-9 < (short - full).abs().max() < 2.2e-7
