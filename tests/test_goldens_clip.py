"""Every array of the published CLIP explainers is reproduced (tests/goldens/mm/clip_seed0.npz).

The published text matrices are whole; explained is the row that the score reads, the end of the
text, and that row alone is compared: their other rows lead to no score (those of Beyond Intuition
are zero). Its notebook's rollout is not offered: it takes each layer's first head, averaged over
queries, for the map between all tokens; here that is computed from the attention of our trace.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_berts import relative_error
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel

import xai_lib as xai

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

with np.load(Path(__file__).parent / "goldens" / "mm" / "clip_seed0.npz") as arrays:
    GOLDEN = dict(arrays)
IDS = torch.from_numpy(GOLDEN["in/input_ids"])
PIXELS = torch.from_numpy(GOLDEN["in/pixel_values"]).double()
# The end of a text, whose state is scored.
END = IDS.argmax(1).tolist()
ALL = [0, 1, 2]
USED = {"meta/config_json", "in/input_ids", "in/pixel_values", "logits_per_image"}


@cache
def clip():
    config = CLIPConfig(**json.loads(str(GOLDEN["meta/config_json"])), attn_implementation="sdpa")
    model = CLIPModel(config)
    weights = {k[6:]: torch.from_numpy(v) for k, v in GOLDEN.items() if k.startswith("state/")}
    model.load_state_dict(weights)
    return model.double().eval()


def explain(image, method, **options):
    """Explain one image, or "both", with all three texts."""
    return _explain(image, method, json.dumps(options))


@cache
def _explain(image, method, options):
    rows = slice(0, 2) if image == "both" else slice(image, image + 1)
    inputs = {"pixel_values": PIXELS[rows], "input_ids": IDS}
    return xai.explain(clip(), inputs, method, **json.loads(options))


def patches(att):
    """Return the relevance of the image's patches, a row for each target of each image."""
    return att.streams["image"][..., 1:].reshape(-1, 16)


def text_rows(key, texts):
    """Return the rows of whole matrices at the end of each text."""
    return np.stack([m[END[j]] for m, j in zip(GOLDEN[key], texts, strict=True)])


def start_of(number):
    """The start that leaves out `number` layers of either stream, or all but the last."""
    return number if 0 <= number < 3 else -1


def cases():
    """Return {golden key: (image, stream, targets, method, options)}; None: the predicted text."""
    found = {}
    for image in (0, 1):
        end = f"/im{image}"
        for s in (-1, 0, 1, 2, 3):
            case = image, ALL, "generic_attention", {"start_layer": start_of(s)}
            found[f"out/mm/interpret/image_start{s}{end}"] = ("image", *case)
            if s < 3:
                found[f"out/mm/interpret/text_start{s}{end}"] = ("text", *case)
        for n in (-1, 0, 1, 2):
            # Blocks i > n are used.
            start, key = {"start_layer": start_of(n + 1)}, f"_layers{n}{end}"
            later = start | {"compat": "reference"}
            found[f"out/chen/generate_generic_attribution/batch3{key}"] = (
                *("image", image, ALL, "generic_attention"),
                start,
            )
            found[f"out/chen/generate_ours/pred{key}"] = "image", image, None, "bi_head", start
            found[f"out/chen/generate_ours_c/batch3{key}"] = "image", image, ALL, "bi_token", later
            for j in ALL:
                head, token = (
                    ("image", image, [j], "bi_head", start),
                    ("image", image, [j], "bi_token", later),
                )
                found[f"out/chen/generate_ours/index{j}{key}"] = head
                found[f"out/chen/generate_ours_single/text{j}{key}"] = head
                found[f"out/chen/generate_ours_c_single/text{j}{key}"] = token
                if n == 2:
                    continue
                place = f"text{j}_layers{n}{end}"
                for stream in ("image", "text"):
                    # There the image is not scaled along the path.
                    plain = later | ({"feedback": "gradient"} if stream == "image" else {})
                    for name, method, options in (
                        ("interpret", "generic_attention", start),
                        ("interpret_ours", "bi_head", plain),
                        ("interpret_ours_c", "bi_token", plain),
                    ):
                        case = stream, image, [j], method, options
                        found[f"out/chen_notebook/{name}/{stream}_{place}"] = case
        for steps in (5, 40):
            options = {"start_layer": 1, "steps": steps}
            key = f"out/chen/generate_ours/pred_layers0_steps{steps}{end}"
            found[key] = "image", image, None, "bi_head", options
        for s in range(4):
            case = "image", image, None, "rollout", {"start_layer": start_of(s)}
            found[f"out/chen/generate_rollout/start{s}{end}"] = case
        published = {"compat": "reference"}
        for name, targets in (("batch3", ALL), *((f"text{j}", [j]) for j in ALL)):
            case = "image", image, targets, "attn_gradcam", published
            found[f"out/chen/generate_cam_attn/{name}{end}"] = case
        raw = "image", image, None, "raw_attention", published
        found[f"out/chen/generate_raw_attention/last{end}"] = raw
        found[f"out/chen_notebook/interpret_raw_attention/image{end}"] = raw
        for j in ALL:
            case = "text", image, [j], "raw_attention", published
            found[f"out/chen_notebook/interpret_raw_attention/text_text{j}{end}"] = case
    return found


CASES = cases()
USED |= set(CASES)


def test_logits():
    both = {"pixel_values": PIXELS, "input_ids": IDS}
    logits = xai.explain(clip(), both, "rollout").logits
    np.testing.assert_allclose(logits, GOLDEN["logits_per_image"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("key", CASES)
def test_published_output(key):
    stream, image, targets, method, options = CASES[key]
    wanted = {} if targets is None else {"targets": targets}
    att = explain(image, method, **wanted, **options)
    if stream == "text":
        found, expected = att.streams["text"][:, 0], text_rows(key, targets)
    else:
        found, expected = patches(att), GOLDEN[key].reshape(-1, 16)
    assert relative_error(found, expected) <= 1e-8


@pytest.mark.parametrize("image", [0, 1])
def test_the_notebooks_word_scores_are_the_relevance_of_the_words_as_shares(image):
    att = explain(image, "generic_attention", targets=ALL)
    for j in ALL:
        key = f"out/mm/interpret/text_scores_start0/im{image}/text{j}"
        USED.add(key)
        scores = att.streams["text"][j, 0, 1 : END[j]]
        assert relative_error(scores / scores.sum(), GOLDEN[key]) <= 1e-8


BATCHES = [key for key in GOLDEN if "batch2images" in key]
USED |= set(BATCHES)


@pytest.mark.parametrize("key", BATCHES)
def test_head_importance_leaks_between_images_in_the_reference_alone(key):
    """Both images are explained for the text that the first one is closest to."""
    predicted = int(GOLDEN["logits_per_image"][0].argmax())
    options = {"target": predicted, "start_layer": start_of(int(key.split("layers")[1]) + 1)}
    published = patches(explain("both", "bi_head", compat="reference", **options))
    assert relative_error(published, GOLDEN[key]) <= 1e-8
    ours = patches(explain("both", "bi_head", **options))
    alone = torch.cat([patches(explain(i, "bi_head", **options)) for i in (0, 1)])
    assert relative_error(ours, alone) <= 1e-8
    assert relative_error(published, alone) > 0.01


NOTEBOOK_ROLLOUTS = [key for key in GOLDEN if "interpret_rollout" in key]
USED |= set(NOTEBOOK_ROLLOUTS)


@pytest.mark.parametrize("key", NOTEBOOK_ROLLOUTS)
def test_the_notebooks_rollout_takes_one_heads_mean_query_for_a_map(key):
    image, text = int(key[-1]), "text_text" in key
    probs = [p for p, _ in live_sites(image, 0)["text" if text else "vision"]]
    row = int(key.split("text_text")[1][0]) if text else 0
    tokens = probs[0].shape[-1]
    R = torch.eye(tokens, dtype=torch.float64)
    for A in probs:
        C = torch.eye(tokens, dtype=torch.float64) + A[row, 0].mean(0)
        R = C / C.sum(-1, keepdim=True) @ R
    found = R if text else R[0, 1:]
    assert relative_error(found, GOLDEN[key][0]) <= 1e-8


@cache
def live_sites(image, target):
    """Return the attention of each tower and its gradient, of one image with all texts."""
    model = clip()
    with xai.trace(model) as trace:
        scores = model(pixel_values=PIXELS[image : image + 1], input_ids=IDS).logits_per_image
    probs = [site.probs for site in trace.sites]
    grads = torch.autograd.grad(scores[0, target], probs)
    found = {"vision": [], "text": []}
    for site, grad in zip(trace.sites, grads, strict=True):
        found[site.name.split("_")[0]].append((site.probs.detach(), grad))
    return found


TOWERS = [("vision", layer) for layer in range(4)] + [("text", layer) for layer in range(3)]


@pytest.mark.parametrize(("tower", "layer"), TOWERS)
def test_attention_and_its_gradient(tower, layer):
    """The published batch is an image with three texts, so that a text's gradient has one row."""
    USED.update(f"mid/mm/{tower}{layer}/{kind}/im0" for kind in ("attn", "grad"))
    per_text = [live_sites(0, j)[tower][layer] for j in ALL]
    rows = [0, 0, 0] if tower == "vision" else ALL
    for kind, place in (("attn", 0), ("grad", 1)):
        found = torch.cat([pair[place][row] for pair, row in zip(per_text, rows, strict=True)])
        assert relative_error(found, GOLDEN[f"mid/mm/{tower}{layer}/{kind}/im0"]) <= 1e-8


@pytest.mark.parametrize("layer", range(4))
def test_what_beyond_intuition_weights_heads_and_tokens_by(layer):
    USED.update(f"mid/chen/vision{layer}/{kind}/im0" for kind in ("z", "vproj", "Ih_pred"))
    expected = {k: GOLDEN[f"mid/chen/vision{layer}/{k}/im0"] for k in ("z", "vproj", "Ih_pred")}
    with xai.trace(clip()) as trace:
        clip()(pixel_values=PIXELS[:1], input_ids=IDS)
    site = [s for s in trace.sites if s.name.startswith("vision")][layer]
    z, block = site.residual, clip().vision_model.encoder.layers[layer]
    assert relative_error(z.detach().expand(3, -1, -1), expected["z"]) <= 1e-8
    after = z + block.self_attn.out_proj(site.output.transpose(1, 2).flatten(2))
    values = block.self_attn.v_proj(block.layer_norm1(after))
    moved = F.linear(values, block.self_attn.out_proj.weight).detach()
    assert relative_error(moved.expand(3, -1, -1), expected["vproj"]) <= 1e-8
    A, G = live_sites(0, int(GOLDEN["logits_per_image"][0].argmax()))["vision"][layer]
    importance = (A.transpose(-1, -2) @ G).abs().mean((-2, -1))
    found = (importance / importance.sum()).reshape(expected["Ih_pred"].shape)
    assert relative_error(found, expected["Ih_pred"]) <= 1e-8


def test_the_feedback_factor():
    USED.add("mid/chen/W_state_pred/im0")
    with_, without = (
        explain(0, "bi_head", start_layer=0, feedback=feedback).streams["image"]
        for feedback in ("ig", "none")
    )
    assert relative_error((with_ / without)[0], GOLDEN["mid/chen/W_state_pred/im0"]) <= 1e-8


def test_perturbation_given_its_masks():
    """The map is bi_head from layer 2 on, enlarged and min-maxed; what it removes becomes zero."""
    name = "out/chen/perturbation"
    for image in (0, 1):
        att = explain(image, "bi_head", start_layer=2)
        assert relative_error(patches(att), GOLDEN[f"{name}/relevance16/im{image}"]) <= 1e-8
        heat = att.heatmap().flatten()
        scaled = (heat - heat.min()) / (heat.max() - heat.min())
        assert relative_error(scaled[None], GOLDEN[f"{name}/map1024/im{image}"]) <= 1e-8
        for order in ("pos", "neg"):
            mask = torch.from_numpy(GOLDEN[f"{name}/mask_{order}/im{image}"]).double()
            kept = PIXELS[image] * (1 - mask).view(-1, 1, 32, 32)
            with torch.no_grad():
                logits = clip()(pixel_values=kept, input_ids=IDS).logits_per_image
            assert relative_error(logits, GOLDEN[f"{name}/logits_{order}/im{image}"]) <= 1e-8
            counts = [int(1024 * level) for level in GOLDEN["meta/pert_levels"]]
            assert mask.sum(1).tolist() == counts
    USED.update(key for key in GOLDEN if name in key)
    USED.add("meta/pert_levels")


def test_every_array_is_used():
    assert {key for key in GOLDEN if not key.startswith("state/")} - USED == set()
