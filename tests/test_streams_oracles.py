"""The bi-modal rules against slow oracles that know the architecture and one sample at a time."""

import numpy as np
import pytest
import torch
from small_streams import BATCH, random_inputs, random_model, sample

import xai_lib as xai

pytestmark = pytest.mark.usefixtures("one_thread")


def maps_of(model, inputs, logit):
    """Return the name and E_h[(∇A ⊙ A)⁺] of every attention call, from a plain backward pass."""
    with xai.trace(model) as trace:
        score = logit(model(**inputs))
    probs = [site.probs for site in trace.sites]
    grads = torch.autograd.grad(score, probs, allow_unused=True)
    found = []
    for site, grad in zip(trace.sites, grads, strict=True):
        grad = torch.zeros_like(site.probs) if grad is None else grad
        found.append((site.name, (grad * site.probs)[0].clamp(min=0).mean(0).detach().numpy()))
    return found


def normalised(R):
    """Eq. 8-9, entry by entry."""
    result = np.eye(len(R))
    for i in range(len(R)):
        total = sum(R[i, j] - (i == j) for j in range(len(R)))
        for j in range(len(R)):
            if total:
                result[i, j] += (R[i, j] - (i == j)) / total
    return result


def through_self(own, cross, C):
    """Eq. 6-7."""
    return own + C @ own, cross + C @ cross


def through_cross(own, cross, other, back, C):
    """Eq. 10-11, from what stood before the layer."""
    return own + C @ back, cross + normalised(own).T @ C @ normalised(other)


def lxmert_oracle(maps, words, regions):
    """Return R of the text to itself and to the regions."""
    tt, ii = np.eye(words), np.eye(regions)
    ti, it = np.zeros((words, regions)), np.zeros((regions, words))
    calls = iter(maps)
    for name, C in calls:
        if ".x_layers." in name:
            (_, back), (_, text), (_, image) = next(calls), next(calls), next(calls)
            (tt, ti), (ii, it) = (
                through_cross(tt, ti, ii, it, C),
                through_cross(ii, it, tt, ti, back),
            )
            tt, ti = through_self(tt, ti, text)
            ii, it = through_self(ii, it, image)
        elif ".r_layers." in name:
            ii, it = through_self(ii, it, C)
        else:
            tt, ti = through_self(tt, ti, C)
    return tt, ti


def decoder_oracle(maps, source, target):
    """Return R of a decoder to itself and to the encoder, which never looks back."""
    ee, dd, de = np.eye(source), np.eye(target), np.zeros((target, source))
    for name, C in maps:
        if "encoder_attn" in name or "EncDec" in name:
            dd, de = through_cross(dd, de, ee, np.zeros((source, target)), C)
        elif "decoder" in name:
            dd, de = through_self(dd, de, C)
        else:
            ee = ee + C @ ee
    return dd, de


def assert_row(found, expected):
    assert np.abs(found.numpy() - expected).max() <= 1e-10 * np.abs(expected).max()


@pytest.mark.parametrize("number", range(BATCH))
def test_lxmert(number):
    model, inputs = random_model("lxmert"), sample(random_inputs("lxmert"), number)
    maps = maps_of(model, inputs, lambda output: output.question_answering_score[0, 2])
    tt, ti = lxmert_oracle(maps, inputs["input_ids"].shape[1], inputs["visual_feats"].shape[1])
    att = xai.explain(model, inputs, "generic_attention", target=2)
    present = inputs["attention_mask"][0].bool()
    assert_row(att.streams["text"][0, present], tt[0][present])
    assert_row(att.streams["image"][0], ti[0])


@pytest.mark.parametrize("name", ["bart", "t5", "detr"])
def test_encoder_and_decoder(name):
    model, inputs = random_model(name), sample(random_inputs(name), 1)
    row = {"t5": 1, "detr": 2, "bart": None}[name]

    def logit(output):
        return output.logits[0, 3] if row is None else output.logits[0, row, 3]

    maps = maps_of(model, inputs, logit)
    cross = next(C for kind, C in maps if "encoder_attn" in kind or "EncDec" in kind)
    dd, de = decoder_oracle(maps, cross.shape[1], cross.shape[0])
    read = len(dd) - 1 if row is None else row
    options = {} if row is None else {"position": row}
    att = xai.explain(model, inputs, "generic_attention", target=3, **options)
    encoder, decoder = att.streams["image" if name == "detr" else "text"], list(att.streams)[-1]
    assert_row(encoder[0], de[read])
    assert_row(att.streams[decoder][0], dd[read])
