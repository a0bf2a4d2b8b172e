"""The support matrix: what works works rightly, what is refused says why, the page is current."""

from pathlib import Path

import pytest
import torch
from support.catalogue import CATALOGUE
from support.catalogue_streams import STREAMS
from support.catalogue_texts import TEXTS
from support.matrix import row
from support.report import PAGE, TABLE, page, recorded, table

import xai_lib as xai
from xai_lib.cli.methods import renewed
from xai_lib.explainers.registry import all_methods
from xai_lib.passes.meeting import Meeting
from xai_lib.streams.prepare import prepare

ROOT = Path(__file__).parents[1]
GRADIENT_AND_LRP = (
    "gradient",
    "gradient_x_input",
    "integrated_gradients",
    "smoothgrad",
    "gradient_sensitivity",
    "lrp",
    "attnlrp",
    "lrp_alpha_beta",
)
ONE_MAP = [entry for entry in CATALOGUE if entry.reads is not None]
READ = [entry for entry in STREAMS if entry.meet != "refused"]
REFUSED = [entry for entry in STREAMS if entry.meet == "refused"]
# One model of each kind is tried before every commit; all of them, before a change is done.
QUICK = (
    "timm vit_tiny_patch16_224",
    "timm deit_tiny_distilled_patch16_224",
    "HF BertForSequenceClassification",
    "HF CLIPModel",
    "HF LxmertForQuestionAnswering",
    "HF VisualBertForQuestionAnswering",
)
ALL = (*CATALOGUE, *TEXTS, *READ)
RENEW = "run `xai methods --write` and look at what changed"


def slow_but(entry):
    """Mark an entry as slow unless it is one of a few."""
    marks = () if entry.name in QUICK else pytest.mark.slow
    return pytest.param(entry, id=entry.name, marks=marks)


@pytest.mark.parametrize("entry", [slow_but(entry) for entry in ALL])
def test_every_method_works_or_refuses_with_a_way_out(entry):
    cells = {cell.method: cell for cell in row(entry)}
    assert set(cells) == set(all_methods())
    for cell in cells.values():
        if cell.works:
            continue
        assert cell.reason.endswith(".") and ". " not in cell.reason, cell.reason
        assert cell.named, f"{cell.reason} names no method"
        assert all(cells[name].works for name in cell.named), cell.reason
    assert all(cells[name].works for name in GRADIENT_AND_LRP)
    assert recorded()[entry.name] == row(entry), RENEW


@pytest.mark.slow
@pytest.mark.parametrize("entry", REFUSED, ids=lambda e: e.name)
def test_a_model_whose_outputs_or_inputs_do_not_allow_it_is_refused_by_every_method(entry):
    for cell in row(entry):
        # Random scores ask nothing of a model but its tokens.
        assert cell.method == "random" or not cell.works
        assert cell.works or cell.reason.endswith(".")
    assert recorded()[entry.name] == row(entry), RENEW


@pytest.mark.parametrize("entry", READ, ids=lambda e: e.name)
def test_streams_meet_as_the_catalogue_says(entry):
    model, inputs = entry.model(), entry.batch()
    prepared = prepare(model, inputs, entry.position)
    assert Meeting.of(model, prepared).kind == entry.meet


@pytest.mark.parametrize("entry", ONE_MAP, ids=lambda e: e.name)
def test_the_rows_are_those_that_the_head_reads(entry):
    """Generic attention, computed anew on the full token matrix with the readout known."""
    model, pixels = entry.model(), entry.pixels(2)
    found = xai.explain(model, pixels, "generic_attention", target=1).relevance
    last = xai.explain(model, pixels, "raw_attention").relevance
    torch.testing.assert_close(
        found, slow_generic_attention(entry, model, pixels), rtol=1e-9, atol=0
    )
    torch.testing.assert_close(last, slow_raw_attention(entry, model, pixels), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["timm cait_xxs24_224", "timm vit_base_patch16_siglip_224"])
def test_a_late_start_knows_the_tokens_that_joined_or_were_pooled(name):
    entry = next(entry for entry in CATALOGUE if entry.name == name)
    model, pixels = entry.model(), entry.pixels(2)
    for start in range(len(live_sites(model, pixels))):
        found = xai.explain(model, pixels, "generic_attention", target=1, start_layer=start)
        expected = slow_generic_attention(entry, model, pixels, start)
        torch.testing.assert_close(found.relevance, expected, rtol=1e-9, atol=0)


def test_a_probe_that_the_logits_do_not_use_is_left_out():
    entry = next(e for e in CATALOGUE if e.name == "HF SiglipForImageClassification")
    model, pixels = entry.model(), entry.pixels(2)
    with xai.trace(model) as trace:
        model(pixels)
    assert len(trace.sites) == len(live_sites(model, pixels)) + 1
    for method in ("raw_attention", "attn_gradcam", "rollout", "bi_token", "partial_lrp"):
        shown = xai.explain(model, pixels, method, targets=[0, 1, 2])
        assert shown.relevance.abs().sum() > 0


def readme():
    path = ROOT / "README.md"
    return path, renewed(path.read_text(encoding="utf-8"))


def as_recorded(path, write):
    """Write the page from the recorded cells, each of which its model's test has computed anew."""
    cells = recorded()
    parts = ([c for e in part for c in cells[e.name]] for part in (CATALOGUE, TEXTS, STREAMS))
    return path, write(*parts)


@pytest.mark.parametrize(
    "current",
    [readme, lambda: as_recorded(PAGE, page), lambda: as_recorded(TABLE, table)],
    ids=["README.md", "support.md", "support.csv"],
)
def test_what_is_said_of_the_methods_is_current(current):
    path, text = current()
    assert path.read_text(encoding="utf-8") == text, RENEW


def test_the_catalogue_has_the_models_that_the_project_promises():
    assert len(CATALOGUE) >= 28
    names = [entry.name for entry in (*CATALOGUE, *TEXTS, *STREAMS)]
    assert len(set(names)) == len(names)


def live_sites(model, pixels):
    """Return attention maps and their gradients, of the sites that the logits depend on."""
    with xai.trace(model) as trace:
        output = model(pixels)
    logits = getattr(output, "logits", output)
    probs = [site.probs for site in trace.sites]
    grads = torch.autograd.grad(logits[:, 1].sum(), probs, allow_unused=True)
    return [(p.detach(), g) for p, g in zip(probs, grads, strict=True) if g is not None]


def read(entry, rows):
    """Average the rows that the entry says its head reads: (batch, rows, tokens)."""
    if entry.reads == "patches":
        return rows[:, entry.prefix :].mean(1)
    if entry.reads == "class and patches":
        return torch.cat([rows[:, :1], rows[:, entry.prefix :]], 1).mean(1)
    return rows.mean(1) if isinstance(entry.reads, str) else rows[:, list(entry.reads)].mean(1)


def slow_raw_attention(entry, model, pixels):
    return read(entry, live_sites(model, pixels)[-1][0].mean(1))


def slow_generic_attention(entry, model, pixels, start=0):
    R = torch.eye(entry.tokens, dtype=torch.float64).repeat(len(pixels), 1, 1)
    for probs, grad in live_sites(model, pixels)[start:]:
        C = (probs * grad).clamp(min=0).mean(1)
        queries, keys = C.shape[1:]
        if queries == keys:
            # Before class tokens join, the trunk works on the tokens behind their places.
            here = slice(entry.tokens - keys, None)
            R[:, here, here] += C @ R[:, here, here]
        elif entry.reads == "probe":
            R = C @ R
        else:
            R[:, :queries] += C @ R
    return read(entry, R)
