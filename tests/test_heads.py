"""Heads and layers of any model: scores by their definitions, masks by site, and bad masks."""

import pytest
import torch
from small_berts import TEXTS, small_bert
from small_vits import random_pixels, random_vit
from transformers import CLIPConfig, CLIPModel

import xai_lib as xai
from xai_lib.errors import InputError, OptionError
from xai_lib.heads import HeadScores
from xai_lib.tracing import HeadMask

pytestmark = pytest.mark.usefixtures("one_thread")

FIRST = {"vit": "blocks.0.attn", "bert": "bert.encoder.layer.0.attention.self"}


def vit():
    model = random_vit()
    return model, random_pixels(model, batch=3)


def bert():
    model, processor = small_bert()
    return model, dict(processor(list(TEXTS[:3])))


def logits_of(model, inputs):
    with torch.no_grad():
        output = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    return getattr(output, "logits", output)


def sample(inputs, i):
    return (
        {k: v[i : i + 1] for k, v in inputs.items()}
        if isinstance(inputs, dict)
        else inputs[i : i + 1]
    )


@pytest.fixture(params=["vit", "bert"])
def case(request):
    """Return the kind of a model, the model and a batch of three."""
    model, inputs = {"vit": vit, "bert": bert}[request.param]()
    if isinstance(inputs, dict):
        inputs.pop("special_tokens_mask", None)
    return request.param, model, inputs


@pytest.fixture(scope="module")
def clip():
    """Return a small CLIP and two images with three texts."""
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=tower
        | {
            "num_hidden_layers": 2,
            "vocab_size": 50,
            "eos_token_id": 49,
            "max_position_embeddings": 8,
            "projection_dim": 8,
        },
        vision_config=tower
        | {"num_hidden_layers": 3, "image_size": 16, "patch_size": 8, "projection_dim": 8},
        projection_dim=8,
    )
    torch.manual_seed(0)
    model = CLIPModel(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    ids = torch.randint(1, 48, (3, 6))
    ids[:, -1] = 49
    pixels = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    return model, {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_taylor_is_the_derivative_by_what_a_head_is_multiplied_with(case):
    """|∂y/∂ξ| by finite differences of the mask itself; the same of the loss."""
    kind, model, inputs = case
    label = 1
    for quantity in ("logit", "loss"):
        found = xai.head_scores(model, inputs, "taylor", target=label, quantity=quantity)
        step = 1e-6
        for head in range(2):
            moved = []
            for sign in (0, -1):
                keep = torch.ones(2, dtype=torch.float64)
                keep[head] += sign * step
                with xai.prune_heads(model, {FIRST[kind]: keep}):
                    logits = logits_of(model, inputs)
                y = logits[:, label] if quantity == "logit" else -logits.log_softmax(-1)[:, label]
                moved.append(y)
            expected = ((moved[0] - moved[1]) / step).abs()
            assert torch.allclose(found.values[:, head], expected, rtol=1e-4, atol=1e-7)


def test_scores_of_a_batch_are_those_of_its_samples(case):
    _, model, inputs = case
    methods = ["grad_x_attention", "lrp", "taylor", "random"]
    batch = xai.head_scores(model, inputs, methods=methods)
    for method in methods:
        parts = [xai.head_scores(model, sample(inputs, i), method) for i in range(3)]
        alone = HeadScores.joined(parts)
        assert torch.allclose(batch[method].values, alone.values, rtol=1e-6, atol=1e-12)
        assert batch[method].sites == alone.sites
        assert (batch[method].target == alone.target).all()


def test_the_gradient_score_is_what_its_definition_says(case):
    _, model, inputs = case
    found = xai.head_scores(model, inputs, target=0)
    with xai.trace(model) as trace:
        output = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    probs = [site.probs for site in trace.sites]
    grads = torch.autograd.grad(getattr(output, "logits", output)[:, 0].sum(), probs)
    means = torch.cat([(g * p).mean((-1, -2)) for g, p in zip(grads, probs, strict=True)], 1)
    published = xai.head_scores(model, inputs, target=0, compat="reference")
    assert torch.allclose(published.values, means, rtol=1e-9)
    # By default the mean is over a sample's own tokens, without padding.
    mask = inputs.get("attention_mask") if isinstance(inputs, dict) else None
    share = 1.0 if mask is None else mask.double().mean(1, keepdim=True) ** 2
    assert torch.allclose(found.values, means / share, rtol=1e-9)
    table = found.table
    assert list(table.call) == [0, 0, 1, 1] and list(table["head"]) == [0, 1, 0, 1]
    assert torch.allclose(torch.tensor(table.score.values), found.values.mean(0))
    layers = xai.head_scores(model, inputs, target=0, level="layer")
    assert torch.allclose(layers.values, found.values.unflatten(1, (2, 2)).mean(-1))


def test_masks_of_samples_in_a_batch_prune_each_its_own(case):
    _, model, inputs = case
    scores = xai.head_scores(model, inputs)
    with xai.prune_heads(model, scores.mask(0.5, per_sample=True)):
        together = logits_of(model, inputs)
    for i in range(3):
        one = xai.head_scores(model, sample(inputs, i))
        with xai.prune_heads(model, one.mask(0.5)):
            alone = logits_of(model, sample(inputs, i))
        assert torch.allclose(together[i], alone[0], rtol=1e-9)


def test_all_ways_to_name_a_head_prune_the_same(case):
    kind, model, inputs = case
    name = FIRST[kind]
    results = []
    for mask in (
        {name: [1]},
        {(name, 0): [1]},
        {0: {1}},
        {0: torch.tensor([1.0, 0.0])},
        {name: torch.tensor([[1, 0]] * 3)},
        HeadMask({0: torch.tensor([True, False])}),
    ):
        with xai.prune_heads(model, mask):
            results.append(logits_of(model, inputs))
    assert all(torch.equal(result, results[0]) for result in results[1:])
    assert not torch.allclose(results[0], logits_of(model, inputs))
    with xai.prune_heads(model, {name: "all"}):
        whole_layer = logits_of(model, inputs)
    with xai.prune_heads(model, {name: [1]}), xai.prune_heads(model, {name: [0]}):
        assert torch.equal(logits_of(model, inputs), whole_layer)


def test_pruning_nothing_changes_nothing(case):
    _, model, inputs = case
    scores = xai.head_scores(model, inputs)
    whole = logits_of(model, inputs)
    for mask in ({}, scores.mask(0), {0: []}):
        with xai.prune_heads(model, mask):
            assert torch.allclose(logits_of(model, inputs), whole, rtol=1e-12)


@pytest.mark.parametrize("method", ["generic_attention", "lrp", "integrated_gradients", "rollout"])
def test_explanations_see_the_pruned_model(case, method):
    """Also where a method runs the batch several times over, each sample with its own mask."""
    kind, model, inputs = case
    keep = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    options = {"steps": 3} if method == "integrated_gradients" else {}
    with xai.prune_heads(model, {FIRST[kind]: keep}):
        att = xai.explain(model, inputs, method, **options)
        logits = logits_of(model, inputs)
        scores = xai.head_scores(model, inputs, methods=["grad_x_attention", "lrp"])
    assert torch.allclose(att.logits, logits, rtol=1e-9)
    for found in scores.values():
        assert torch.allclose(found.logits, logits, rtol=1e-9)
        assert ((found.values[:, :2] == 0) == (keep == 0)).all()
    for i, row in enumerate(keep):
        with xai.prune_heads(model, {FIRST[kind]: row}):
            alone = xai.explain(model, sample(inputs, i), method, **options)
        assert torch.allclose(att.relevance[i], alone.relevance[0], rtol=1e-6, atol=1e-12)


def test_eager_and_fused_attention_agree():
    model, processor = small_bert()
    inputs = {k: v for k, v in processor(list(TEXTS)).items() if k != "special_tokens_mask"}
    found = []
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        scores = xai.head_scores(model, inputs, methods=["grad_x_attention", "lrp"])
        with xai.prune_heads(model, scores["lrp"].mask(0.5)):
            found.append(
                [scores["grad_x_attention"].values, scores["lrp"].values, logits_of(model, inputs)]
            )
    for eager, fused in zip(*found, strict=True):
        assert torch.allclose(eager, fused, rtol=1e-6, atol=1e-12)


def test_clip_scores_both_towers_for_each_image(clip):
    model, inputs = clip
    found = xai.head_scores(model, inputs, methods=["grad_x_attention", "taylor"], target=[2, 0])
    table = found["taylor"].table
    assert list(table.drop_duplicates("call").stream) in (
        ["image"] * 3 + ["text"] * 2,
        ["text"] * 2 + ["image"] * 3,
    )
    for i, target in enumerate([2, 0]):
        one = inputs | {"pixel_values": inputs["pixel_values"][i : i + 1]}
        pair = one | {k: inputs[k][target : target + 1] for k in ("input_ids", "attention_mask")}
        for method, scores in found.items():
            alone = xai.head_scores(model, one, method, target=target)
            assert torch.allclose(scores.values[i], alone.values[0], rtol=1e-8, atol=1e-14)
            # The other texts take no part.
            only = xai.head_scores(model, pair, method, target=0)
            # Means run over all tokens of a site, sums over those of one text.
            assert torch.allclose(alone.values, only.values, rtol=1e-8, atol=1e-14)
    with xai.prune_heads(model, found["taylor"].mask(0.3)):
        pruned = model(**inputs).logits_per_image
    assert not torch.allclose(pruned, model(**inputs).logits_per_image)


@pytest.mark.parametrize("fraction, kept", [(0.8, (11, 12)), (0.9, (5, 6)), (0.0, (60, 60))])
def test_published_counts(fraction, kept):
    """60 heads as in the goldens of LXMERT: the float product is cut off."""
    from xai_lib.heads.ranking import ScoredSite

    sites = tuple(ScoredSite(i, f"site {i}", "text", i, "self", 4) for i in range(15))
    values = torch.randn(1, 60, generator=torch.Generator().manual_seed(0))
    scores = HeadScores(sites, values, "random", "head", torch.tensor([[0, -1]]), torch.zeros(1, 2))
    for counts, number in zip(("floor_kept", "floor_pruned"), kept, strict=True):
        for order, keeps in (("negative", "largest"), ("positive", "smallest")):
            keep = scores.kept(fraction, order, counts=counts)[0]
            assert keep.sum() == number
            if number < 60:
                inside, outside = values[0][keep], values[0][~keep]
                assert (inside.min() > outside.max()) == (keeps == "largest")
                assert (inside.max() < outside.min()) == (keeps == "smallest")


def test_layers_are_normalised_by_the_norm_of_their_means(case):
    _, model, inputs = case
    scores = xai.head_scores(model, inputs, "taylor").normalised()
    for layer in scores.values.mean(0).split(scores.widths):
        assert layer.norm() == pytest.approx(1)


def test_random_scores_are_seeded(case):
    _, model, inputs = case
    first, again, other = (
        xai.head_scores(model, inputs, "random", seed=s).values for s in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert (first == first[0]).all()
    each = xai.head_scores(model, inputs, "random", seed=[2, 1, 2]).values
    assert torch.equal(each[1], first[0]) and torch.equal(each[0], other[0])


BAD_MASKS = {
    "no such module": ({"blocks.9.attn": [0]}, "blocks.9.attn"),
    "a module that does not attend": ({"norm": [0]}, "'norm'"),
    "a call too many": ({("blocks.0.attn", 1): [0]}, r"'blocks\.0\.attn', 1"),
    "a number too high": ({7: [0]}, "7"),
    "no site": ({1.5: [0]}, "names the site 1.5"),
    "no such head": ({0: [2]}, "head 2"),
    "a negative head": ({0: [-1]}, "numbers of heads"),
    "one head without a list": ({0: 1}, "list of heads"),
    "three heads": ({0: torch.ones(3)}, r"\(2,\)"),
    "other samples": ({0: torch.ones(2, 2)}, "3 samples"),
    "three dimensions": ({0: torch.ones(1, 1, 2)}, r"\(samples, heads\)"),
    "NaN": ({0: torch.full((2,), float("nan"))}, "outside 0 to 1"),
    "everything": ({0: "all", 1: [0, 1]}, "Leave at least one head"),
    "everything of one sample": (
        {i: torch.tensor([[1], [0], [1]]) for i in (0, 1)},
        "Leave at least one head",
    ),
    "no mapping": ([0, 1], "expected HeadScores.mask"),
}


@pytest.mark.parametrize("mask, message", BAD_MASKS.values(), ids=BAD_MASKS)
def test_bad_masks(mask, message):
    model, pixels = vit()
    whole = logits_of(model, pixels)
    with pytest.raises(InputError, match=message), xai.prune_heads(model, mask):
        logits_of(model, pixels)
    with pytest.raises(InputError, match=message), xai.prune_heads(model, mask):
        xai.explain(model, pixels, "generic_attention")
    assert torch.equal(logits_of(model, pixels), whole)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), "half", True, 1.0])
def test_bad_fractions(fraction):
    scores = xai.head_scores(*vit())
    with pytest.raises(OptionError, match="fraction"):
        scores.mask([fraction])


def test_bad_options():
    model, pixels = vit()
    for options in (
        {"method": "gradient"},
        {"level": "block"},
        {"quantity": "entropy"},
        {"methods": []},
        {"compat": "published"},
        {"method": "random", "seed": [1]},
        {"target": (0, 1), "quantity": "loss"},
    ):
        with pytest.raises(OptionError):
            xai.head_scores(model, pixels, **options)
    scores = xai.head_scores(model, pixels)
    for options in ({"order": "up"}, {"counts": "ceil"}):
        with pytest.raises(OptionError):
            scores.mask(0.5, **options)
    with pytest.raises(OptionError, match="stream"):
        scores.grid("text")


def test_the_model_comes_back_as_it_was(case):
    kind, model, inputs = case
    hooks = [name for name in vars(model) if "hooks" in name]
    before = {name: dict(getattr(model, name)) for name in hooks}
    attributes = sorted(vars(model))
    with pytest.raises(ZeroDivisionError), xai.prune_heads(model, {FIRST[kind]: [0]}):
        logits_of(model, inputs)
        raise ZeroDivisionError
    broken = torch.ones(1, 99, 99, 99)
    with xai.prune_heads(model, {FIRST[kind]: [0]}):
        pruned = logits_of(model, inputs)
        with pytest.raises(Exception):  # noqa: B017  whatever the model says of it
            model(broken)
        # A forward pass that failed leaves no trace behind.
        assert torch.equal(logits_of(model, inputs), pruned)
    assert {name: dict(getattr(model, name)) for name in hooks} == before
    assert sorted(vars(model)) == attributes
    assert all(p.requires_grad for p in model.parameters())


def test_the_same_share_of_every_layer(case):
    _, model, inputs = case
    scores = xai.head_scores(model, inputs)
    for order in ("positive", "negative"):
        kept = scores.kept([0.5, 0.2], order, per_layer=True)
        assert kept.unflatten(1, (2, 2)).sum(-1).tolist() == [[1, 1], [2, 2]]
        stays = scores.values.mean(0).unflatten(0, (2, 2))
        stays = stays.argmin(1) if order == "positive" else stays.argmax(1)
        assert kept[0].unflatten(0, (2, 2))[range(2), stays].all()
