"""Every attribution of the published BERT pipelines of Chefer et al. and Chen et al. is reproduced.

Wu & Ong's methods are in test_goldens_wuong.py.
"""

import re

import pytest
import torch
from golden_berts import FILES, golden, golden_bert, golden_inputs, relative_error

import xai_lib as xai

pytestmark = pytest.mark.usefixtures("one_thread")

RULES = {"ours": {"rules": "zplus"}, "orig": {"rules": "zplus_split"}}


def call_of(key):
    """Return (method, options) of a golden key out/SOURCE/FUNCTION/VARIANT."""
    _, source, function, variant = key.split("/")[:4]
    rules, _, start = variant.partition(",start_layer=")
    chen = {"compat": "reference", "first_token": "zero"}
    if function == "generate_LRP":
        first = "min" if source == "chefer" else "zero"
        options = {"start_layer": int(start), "normalize_rows": True, "first_token": first}
        return "transformer_attribution", RULES[rules] | options | {"compat": "reference"}
    if function == "generate_rollout":
        number = int(variant.partition("=")[2])
        return "rollout", {"start_layer": number, "first_token": "zero"}
    if function in ("generate_ours", "generate_ours_c"):
        method = "bi_head" if function == "generate_ours" else "bi_token"
        return method, chen | {"steps": int(variant.partition("=")[2])}
    if function == "generate_genattr":
        return "generic_attention", chen | {"start_layer": "last"}
    if function == "generate_LRP_last_layer":
        return "partial_lrp", RULES[variant] | chen
    if function == "generate_full_lrp":
        return "lrp", RULES[variant] | chen
    return {
        "generate_attn_gradcam": ("attn_gradcam", chen),
        "generate_attn_last_layer": ("raw_attention", chen),
    }[function]


def cases():
    found = []
    for name in FILES:
        for key in golden(name):
            if key.startswith(("out/chefer/", "out/chen/")):
                found.append((name, key))
    return found


CASES = cases()


def test_every_function_of_both_pipelines_is_among_the_goldens():
    assert len(CASES) > 300
    assert {key.split("/")[2] for _, key in CASES} == {
        "generate_LRP",
        "generate_LRP_last_layer",
        "generate_full_lrp",
        "generate_attn_gradcam",
        "generate_attn_last_layer",
        "generate_rollout",
        "generate_ours",
        "generate_ours_c",
        "generate_genattr",
    }


@pytest.mark.parametrize("name, key", CASES, ids=lambda value: value)
def test_golden_attribution(name, key):
    expected = golden(name)[key]
    number, target = re.search(r"/i(\d+)(?:/c(\d+))?$", key).groups()
    method, options = call_of(key)
    model = golden_bert(name)
    if options.get("start_layer") == "last":
        options = options | {"start_layer": model.config.num_hidden_layers - 1}
    att = xai.explain(
        model,
        golden_inputs(name, number),
        method,
        target=None if target is None else int(target),
        **options,
    )
    assert relative_error(att.relevance[0], expected) < 1e-8


@pytest.mark.parametrize("name", FILES)
def test_logits_and_attention_are_those_of_the_published_models(name):
    arrays = golden(name)
    model = golden_bert(name)
    with xai.trace(model) as trace:
        output = model(**golden_inputs(name, 0))
    assert relative_error(output.logits.detach()[0], arrays["logits/0"].reshape(-1)) < 1e-12
    for number, site in enumerate(trace.sites):
        expected = arrays[f"mid/hf/attn/layer{number}/i0"]
        assert relative_error(site.probs.detach()[0], expected) < 1e-12


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "method", ["transformer_attribution", "lrp", "attnlrp", "bi_head", "bi_token"]
)
def test_sdpa_gives_what_eager_attention_gives(name, method):
    inputs = golden_inputs(name, 3)
    eager = xai.explain(golden_bert(name), inputs, method)
    sdpa = xai.explain(golden_bert(name, "sdpa"), inputs, method)
    scale = eager.relevance.abs().max()
    assert torch.allclose(sdpa.relevance, eager.relevance, atol=1e-7 * scale, rtol=0)
