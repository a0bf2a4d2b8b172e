"""Every explanation that the published LXMERT and VisualBERT code gives is reproduced.

Head and layer scores and pruning are in test_goldens_heads.py.
"""

import re
from contextlib import contextmanager

import pytest
import torch
from golden_questions import NAMES, answers, golden, golden_inputs, golden_model

import xai_lib as xai
from xai_lib.explainers.lrp import rule_set
from xai_lib.explainers.mixing import Mixer, positive_head_mean
from xai_lib.passes.call import Call
from xai_lib.passes.loan import borrowed
from xai_lib.passes.meeting import Meeting
from xai_lib.streams.prepare import prepare

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

REFERENCE = {"compat": "reference"}
# Of the maximum; the relevance of LRP itself moves by 2e-7 when the last bits of weights do.
GRADIENT, LRP = 1e-8, 1e-6

# Of each recorded function: the method, its options, and what its arrays are held to.
LXMERT = {
    "ours_no_lrp": ("generic_attention", {}, GRADIENT),
    "ours_no_lrp_no_norm": ("generic_attention", {"bimodal": {"normalize": False}}, GRADIENT),
    "ablation_no_self_in_10": (
        "generic_attention",
        {"bimodal": {"self_in_cross": False}},
        GRADIENT,
    ),
    "ablation_no_aggregation": ("generic_attention", {"bimodal": {"aggregate": False}}, GRADIENT),
    "ours_with_lrp": ("transformer_attribution", REFERENCE, LRP),
    "ours_with_lrp_no_normalization": (
        "transformer_attribution",
        REFERENCE | {"bimodal": {"normalize": False}},
        LRP,
    ),
    "transformer_att": (
        "transformer_attribution",
        REFERENCE | {"bimodal": {"carry": False, "self_in_cross": False}},
        LRP,
    ),
    "partial_lrp": ("partial_lrp", REFERENCE, LRP),
    "attn_gradcam": ("attn_gradcam", {}, GRADIENT),
    "raw_attn": ("raw_attention", {}, GRADIENT),
    "rollout": ("rollout", REFERENCE, GRADIENT),
}
VISUALBERT = {
    "ours_no_lrp": ("generic_attention", {}, GRADIENT),
    "transformer_attribution": ("transformer_attribution", REFERENCE, LRP),
    "partial_lrp": ("partial_lrp", REFERENCE, LRP),
    "attn_gradcam": ("attn_gradcam", REFERENCE, GRADIENT),
    "raw_attn": ("raw_attention", REFERENCE, GRADIENT),
    "rollout": ("rollout", {"normalize_rows": False}, GRADIENT),
}


def call_of(name, function):
    """Return (method, options, tolerance) of a recorded function of a file."""
    if name == "lxmert":
        return LXMERT[function]
    function, _, start = function.partition("_start")
    method, options, tolerance = VISUALBERT[function]
    return method, options | ({"start_layer": int(start)} if start else {}), tolerance


def cases():
    """Return (file, function, input, target) of all recorded explanations."""
    found = {}
    for name in NAMES:
        for key in golden(name):
            if key.startswith("out/mm/") and not key.startswith("out/mm/pert_"):
                number, target = re.search(r"/in(\d)(?:/t(\d))?$", key).groups()
                found[name, key.split("/")[2], number, target] = None
    return list(found)


CASES = cases()


def target_of(name, number, target):
    return int(golden(name)[f"in{number}/targets"][int(target or 0)])


def recorded(name, function, array, number, target):
    suffix = f"in{number}" if target is None else f"in{number}/t{target}"
    return torch.from_numpy(golden(name)[f"out/mm/{function}/{array}/{suffix}"])


def assert_close(found, expected, tolerance):
    """Compare with the largest magnitude as the unit; NaN must stand where NaN stands."""
    assert found.shape == expected.shape
    assert torch.equal(found.isnan(), expected.isnan())
    scale = expected.nan_to_num().abs().max()
    assert (found - expected).nan_to_num().abs().max() <= tolerance * scale


def test_every_function_of_the_published_code_is_among_the_goldens():
    functions = {(name, function) for name, function, _, _ in CASES}
    assert {f for name, f in functions if name == "lxmert"} == set(LXMERT)
    later = {f"{f}_start{s}" for f in ("transformer_attribution", "rollout") for s in (1, 2, 3)}
    for name in NAMES[1:]:
        assert {f for n, f in functions if n == name} == set(VISUALBERT) | later
    assert len(CASES) > 200


@pytest.mark.parametrize("name, function, number, target", CASES)
def test_golden_row_that_the_head_reads(name, function, number, target):
    method, options, tolerance = call_of(name, function)
    att = xai.explain(
        golden_model(name),
        golden_inputs(name, number),
        method,
        target=target_of(name, number, target),
        first_token="zero",
        **options,
    )
    if name == "lxmert":
        for stream, array in (("text", "R_t_t"), ("image", "R_t_i")):
            expected = recorded(name, function, array, number, target)[0]
            assert_close(att.streams[stream][0], expected, tolerance)
    else:
        expected = recorded(name, function, "cls_per_token_score", number, target)
        assert_close(att.relevance, expected, tolerance)


@contextmanager
def traced(number, target):
    """Yield a traced pass of the golden LXMERT, with the published rules, and its target's seed."""
    model = golden_model("lxmert")
    inputs = prepare(model, golden_inputs("lxmert", number))
    chosen = torch.tensor([[[target_of("lxmert", number, target), -1]]])
    with borrowed(model):
        view = Meeting.of(model, inputs).together()
        call = Call(model, view, lambda logits: chosen, reference=True)
        run = call.forward(graph="sites", rules=rule_set(call, "zplus", 1.0))
        yield run, call.first_seed(run)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("target", range(2))
def test_golden_matrices_between_all_tokens(number, target):
    with traced(number, target) as (run, seed):
        probs = [site.probs for site in run.sites]
        grads, relevances = run.gradients(probs, seed), run.relevances(probs, seed)
    maps = {
        "generic_attention": [g * p.detach() for g, p in zip(grads, probs, strict=True)],
        "transformer_attribution": [g * r for g, r in zip(grads, relevances, strict=True)],
    }
    for function, (method, options, tolerance) in LXMERT.items():
        if method not in maps:
            continue
        # The published code leaves out the sites that the logits take nothing from.
        used = [place for place, grad in enumerate(grads) if (grad != 0).any()]
        sites = [run.sites[place] for place in used]
        cams = [positive_head_mean(maps[method][place]) for place in used]
        mixer = Mixer(chains=True, **options.get("bimodal", {})).mix(sites, cams)
        chains = {site.query[0].name: site.query[0] for site in run.sites}
        for query in ("text", "image"):
            for key, part in mixer.relevance(chains[query], probs[0]).items():
                array = f"R_{query[0]}_{key[0]}"
                if f"out/mm/{function}/{array}/in0/t0" not in golden("lxmert"):
                    continue
                expected = recorded("lxmert", function, array, number, target)
                found = part[0].detach().clone()
                if array == "R_t_t":
                    found[0, 0] = 0
                assert_close(found, expected, tolerance)


# The sites of LXMERT in the order in which the model runs them.
CROSSED = ("cross_lang", "cross_visn", "self_lang", "self_visn")
BLOCKS = (
    *("l0.self", "l1.self", "l2.self", "r0.self", "r1.self"),
    *(f"x{number}.{kind}" for number in range(3) for kind in CROSSED),
)


@pytest.mark.parametrize("target", range(2))
def test_attention_gradient_and_relevance_of_every_site_of_lxmert(target):
    with traced(0, target) as (run, seed):
        probs = [site.probs for site in run.sites]
        grads, relevances = run.gradients(probs, seed), run.relevances(probs, seed)
    assert len(BLOCKS) == len(run.sites)
    found = {"attn": [p.detach() for p in probs], "grad": grads, "cam": relevances}
    for kind, tolerance in (("attn", GRADIENT), ("grad", GRADIENT), ("cam", LRP)):
        for block, x in zip(BLOCKS, found[kind], strict=True):
            # No gradient is recorded where the logits take nothing from a site.
            expected = golden("lxmert").get(f"mid/nlp/{block}/{kind}/in0/t{target}")
            expected = torch.zeros_like(x) if expected is None else torch.from_numpy(expected)
            assert_close(x, expected, tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_published_models(name):
    for number in range(3 if name == "lxmert" else 4):
        with torch.no_grad():
            found = answers(golden_model(name)(**golden_inputs(name, number)))
        assert_close(found, torch.from_numpy(golden(name)[f"in{number}/logits"]), 1e-12)
