"""Models of several streams: what holds of every explanation of them, whichever model it is."""

import copy

import pytest
import torch
from small_clips import tokenizer
from small_streams import BATCH, MODELS, REGIONS, WORDS, random_inputs, random_model, sample

import xai_lib as xai
from xai_lib.models import TextProcessor

pytestmark = pytest.mark.usefixtures("one_thread")

# The row that is explained of a decoder's words, or of a detector's queries.
ROWS = {"t5": {"position": 1}, "detr": {"position": 2}}
MAPS = (
    "generic_attention",
    "transformer_attribution",
    "rollout",
    "raw_attention",
    "attn_gradcam",
    "partial_lrp",
)
METHODS = (*MAPS, "lrp", "gradient_x_input", "integrated_gradients")
FEW_STEPS = {"integrated_gradients": {"steps": 3}}


def explain(name, inputs, method="generic_attention", model=None, **options):
    """Explain with a model of `small_streams`, one with weights of its own if it is given."""
    options = ROWS.get(name, {}) | FEW_STEPS.get(method, {}) | options
    return xai.explain(model or random_model(name), inputs, method, **options)


def assert_close(found, expected, tolerance=1e-9):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_samples(name, method):
    model, inputs = random_model(name), random_inputs(name)
    batch = explain(name, inputs, method, model)
    assert batch.relevance.isfinite().all()
    for number in range(BATCH):
        alone = explain(
            name, sample(inputs, number), method, model, target=int(batch.target[number])
        )
        assert_close(batch.relevance[number], alone.relevance[0])


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_left_as_it_was(name):
    model, inputs = random_model(name), random_inputs(name)
    before = copy.deepcopy(model.state_dict())
    grads = [p.requires_grad for p in model.parameters()]
    explain(name, inputs, "transformer_attribution", model)
    assert all(torch.equal(x, before[key]) for key, x in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == grads
    assert all(p.grad is None for p in model.parameters()) and not model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("bart", "generic_attention"),
        ("bart", "transformer_attribution"),
        ("bart", "rollout"),
        ("detr", "lrp"),
        ("detr", "random"),
    ],
)
def test_fused_attention_gives_what_eager_attention_gives(name, method):
    inputs, fused = random_inputs(name), random_model(name)
    assert fused.config._attn_implementation == "sdpa"
    eager = copy.deepcopy(fused)
    eager.set_attn_implementation("eager")
    found = explain(name, inputs, method, fused)
    assert_close(found.relevance, explain(name, inputs, method, eager).relevance, 1e-6)


@pytest.mark.parametrize("name", ["lxmert", "bart"])
def test_the_flow_of_rollout_keeps_a_sum_of_one(name):
    inputs = random_inputs(name)
    inputs.pop("attention_mask")
    inputs.pop("visual_attention_mask", None)
    if name == "bart":
        inputs["input_ids"][0, -2:] = inputs["input_ids"][0, :2]
        inputs["input_ids"][0, -3:] = torch.tensor([8, 9, 2])
    att = explain(name, inputs, "rollout")
    assert torch.allclose(att.relevance.sum(-1), torch.ones(BATCH, dtype=torch.float64))
    assert (att.relevance >= 0).all() and all(part.any() for part in att.streams.values())


@pytest.mark.parametrize("name", ["lxmert", "visualbert"])
@pytest.mark.parametrize("method", ["generic_attention", "transformer_attribution", "lrp"])
def test_padded_regions_change_nothing_and_get_nothing(name, method):
    inputs = random_inputs(name)
    last = sample(inputs, BATCH - 1)
    assert not last["visual_attention_mask"][0, -1]
    cut = {key: x[:, :-1] if key.startswith("visual") else x for key, x in last.items()}
    padded, alone = explain(name, last, method), explain(name, cut, method)
    assert (padded.streams["image"][:, -1] == 0).all()
    assert_close(padded.streams["image"][:, :-1], alone.streams["image"])
    assert_close(padded.streams["text"], alone.streams["text"])


@pytest.mark.parametrize("name", ["lxmert", "blip", "visualbert"])
def test_a_contrast_is_the_difference_of_two_explanations(name):
    model, inputs = random_model(name), random_inputs(name)
    one, other = (explain(name, inputs, "gradient_x_input", model, target=t) for t in (0, 1))
    both = explain(name, inputs, "gradient_x_input", model, target=(0, 1))
    assert_close(both.relevance, one.relevance - other.relevance)
    assert both.against.tolist() == [1] * BATCH


def test_integrated_gradients_of_each_stream_are_complete():
    """The path moves one stream from zero to what it is; the other stays."""
    model, inputs = random_model("lxmert"), sample(random_inputs("lxmert"), 0)
    # Without biases its normalisations jump at the path's start, which no quadrature sees.
    for key, parameter in model.named_parameters():
        if key.endswith("bias"):
            torch.nn.init.normal_(parameter)
    att = explain("lxmert", inputs, "integrated_gradients", model, target=3, steps=60)

    def score(**changed):
        with torch.no_grad():
            return model(**inputs | changed).question_answering_score[0, 3]

    full = score()
    without_image = score(visual_feats=torch.zeros_like(inputs["visual_feats"]))
    hook = model.lxmert.embeddings.register_forward_hook(lambda *found: found[-1] * 0)
    without_text = score()
    hook.remove()
    assert abs(att.streams["image"].sum() - (full - without_image)) < 1e-3 * abs(full)
    assert abs(att.streams["text"].sum() - (full - without_text)) < 1e-3 * abs(full)


def test_the_first_token_of_the_text_is_kept_zeroed_or_the_least():
    inputs = random_inputs("lxmert")
    kept = explain("lxmert", inputs).streams
    zero = explain("lxmert", inputs, first_token="zero").streams
    least = explain("lxmert", inputs, first_token="min").streams
    assert (zero["text"][:, 0] == 0).all() and (kept["text"][:, 0] > 0).all()
    for found in (zero, least):
        assert torch.equal(found["text"][:, 1:], kept["text"][:, 1:])
        assert torch.equal(found["image"], kept["image"])
    words = inputs["attention_mask"].bool()
    for row, scores, present in zip(least["text"], kept["text"], words, strict=True):
        assert row[0] == scores[present].min()


@pytest.mark.parametrize("method", ["generic_attention", "gradient_x_input"])
def test_of_a_joint_sequence_it_is_the_token_that_is_read(method):
    inputs = random_inputs("visualbert")
    kept = explain("visualbert", inputs, method).relevance
    zero = explain("visualbert", inputs, method, first_token="zero").relevance
    least = explain("visualbert", inputs, method, first_token="min").relevance
    # The head reads the last token but one of each text.
    read = inputs["attention_mask"].sum(1) - 2
    for number, place in enumerate(read.tolist()):
        assert kept[number, place] != 0 and zero[number, place] == 0
        changed = (zero[number] != kept[number]).nonzero().flatten().tolist()
        assert changed == [place]
        present = inputs["attention_mask"][number], inputs["visual_attention_mask"][number]
        assert least[number, place] == kept[number][torch.cat(present).bool()].min()


@pytest.mark.parametrize("name", MODELS)
def test_streams_are_named_and_lie_side_by_side(name):
    att = explain(name, random_inputs(name))
    sizes = {stream: part.shape[-1] for stream, part in att.streams.items()}
    patches = {"vilt": 5, "blip": 5, "detr": att.streams.get("image", torch.empty(0, 0)).shape[-1]}
    expected = {} if name == "detr" else {"text": WORDS}
    if name not in ("bart", "t5"):
        expected["image"] = patches.get(name, REGIONS)
    others = {"bart": {"decoder": WORDS}, "t5": {"decoder": 2}, "detr": {"queries": 4}}
    assert sizes == expected | others.get(name, {})
    assert att.relevance.shape == (BATCH, sum(sizes.values()))


def test_parts_have_words_and_heatmaps():
    words = tokenizer()
    model = random_model("blip")
    model.text_encoder.resize_token_embeddings(len(words))
    texts = ["a red star", "a big blue heart"]
    inputs = TextProcessor(words)(texts)
    inputs["pixel_values"] = random_inputs("blip")["pixel_values"]
    att = explain("blip", inputs, model=model.double())
    assert [" ".join(found.labels) for found in att.part("text").words()] == texts
    assert att.part("image").heatmap().shape == (BATCH, 16, 16)
    assert att.part("image").grid == (2, 2)


def test_vilt_keeps_its_patches_in_their_places():
    """Its forward pass draws them in an order of chance, which the logits do not show."""
    model, inputs = random_model("vilt"), sample(random_inputs("vilt"), 0)
    first, second = (explain("vilt", inputs, "raw_attention", model) for _ in range(2))
    assert_close(first.relevance, second.relevance)
    mirrored = inputs | {"pixel_values": inputs["pixel_values"].flip(-1)}
    maps = explain("vilt", mirrored, "gradient_x_input", model).pixels
    assert maps is None or maps.shape[-2:] == (16, 16)
