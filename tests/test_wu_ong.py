"""Wu & Ong's methods: the alpha-beta rule against its definition, and what must hold on texts."""

import pytest
import torch
from golden_berts import relative_error
from small_berts import TEXTS, small_bert
from small_vits import random_pixels, random_vit

import xai_lib as xai
from xai_lib.errors import MethodNotApplicableError, OptionError
from xai_lib.rules import alpha_beta
from xai_lib.rules.linear import LinearMap

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS = {
    "gradient_sensitivity": {},
    "gradient_x_input": {"reduce": "l2sq"},
    "lrp_alpha_beta": {},
    "lat": {},
}
ALPHAS = (0.0, 0.5, 1.0, 2.0)


@pytest.fixture(scope="module")
def bert():
    return small_bert(classes=3, layers=3, heads=4)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def eq_60(contributions, relevance, alpha):
    """Bach et al. 2015, Eq. 60, term by term: contributions (inputs, outputs) -> (inputs, outputs).

    A sign that is missing leaves all relevance to the other one.
    """
    shares = torch.zeros_like(contributions)
    for o in range(contributions.shape[1]):
        column = contributions[:, o]
        up, down = column.clamp(min=0), column.clamp(max=0)
        a, b = (alpha, 1 - alpha) if up.any() and down.any() else (1.0, 1.0)
        for part, weight in ((up, a), (down, b)):
            if part.any():
                shares[:, o] += weight * part / part.sum() * relevance[o]
    return shares


@pytest.mark.parametrize("alpha", ALPHAS)
def test_linear_rule_is_equation_60(alpha):
    weight, bias, x, relevance = draw(5, 7), draw(5, seed=1), draw(7, seed=2), draw(5, seed=3)
    weight[0] = weight[0].abs() * x.sign()
    weight[1] = -weight[1].abs() * x.sign()
    op = LinearMap(weight, bias)
    found = alpha_beta.linear_map(op, relevance[None], (weight @ x + bias)[None], x[None], alpha)
    expected = eq_60(weight.t() * x[:, None], relevance, alpha).sum(1)
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(found.sum(), relevance.sum())


@pytest.mark.parametrize("alpha", ALPHAS)
def test_sums_and_averages_follow_the_same_equation(alpha):
    a, b, relevance = draw(6), draw(6, seed=1), draw(6, seed=2)
    shares = alpha_beta.add(relevance, a + b, a, b, (True, True), alpha)
    expected = eq_60(torch.stack([a, b]), relevance, alpha)
    torch.testing.assert_close(torch.stack(shares), expected)
    # Of one sign: in proportion.
    (share, _) = alpha_beta.add(relevance, a.abs() + b.abs(), a.abs(), b.abs(), (True, True), alpha)
    torch.testing.assert_close(share, relevance * a.abs() / (a.abs() + b.abs()))

    x, r = draw(4, 6, seed=3), relevance
    (found,) = alpha_beta.pool(lambda x: x.mean(0), r, x.mean(0), x, alpha=alpha)
    torch.testing.assert_close(found, eq_60(x / 4, r, alpha))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_products_share_their_terms_by_halves(alpha):
    a, b, relevance = draw(3, 4), draw(4, 5, seed=1), draw(3, 5, seed=2)
    of_a, of_b = torch.zeros_like(a), torch.zeros_like(b)
    for i in range(3):
        terms = eq_60(a[i][:, None] * b, relevance[i], alpha)
        of_a[i] += terms.sum(1) / 2
        of_b += terms / 2
    found = alpha_beta.matmul(relevance, a @ b, a, b, (True, True), alpha)
    torch.testing.assert_close(found, (of_a, of_b))
    scaled = alpha_beta.matmul(relevance, (a @ b) * 0.3, a, b, (True, True), alpha, factor=0.3)
    torch.testing.assert_close(scaled, (of_a, of_b))
    named = alpha_beta.bilinear(
        lambda a, b: torch.einsum("ij,jk->ik", a, b), relevance, a @ b, a, b, (True, True), alpha
    )
    torch.testing.assert_close(named, (of_a, of_b))


@pytest.mark.parametrize("blocked", [float("-inf"), torch.finfo(torch.float64).min])
def test_masked_scores_take_and_give_nothing_but_numbers(blocked):
    scores, mask = draw(4), torch.tensor([0.0, 0.0, blocked, blocked], dtype=torch.float64)
    relevance = torch.tensor([1.0, -2.0, 0.0, 0.0], dtype=torch.float64)
    share, none = alpha_beta.add(relevance, scores + mask, scores, mask, (True, False), 0.5)
    torch.testing.assert_close(share, relevance)
    assert none is None


@pytest.mark.parametrize("seed", ["one", "logit", "prob"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_relevance_of_the_embeddings_adds_up_to_the_seed(bert, alpha, seed):
    model, processor = bert
    options = {"method": "lrp_alpha_beta", "alpha": alpha, "seed": seed, "target": 1}
    att = xai.explain(model, processor(TEXTS), reduce="sum", **options)
    start = {
        "one": torch.ones(len(TEXTS), dtype=torch.float64),
        "logit": att.logits[:, 1],
        "prob": att.logits.softmax(-1)[:, 1],
    }[seed]
    # With beta < 0 shares of both signs cancel, and the Clone rule's 1e-9 weighs more.
    torch.testing.assert_close(att.relevance.sum(1), start, rtol=1e-5, atol=1e-7)
    sizes = xai.explain(model, processor(TEXTS), **options).relevance
    assert (sizes >= 0).all()
    if alpha <= 1:
        # All relevance has the sign of the seed, so that its size adds up as well.
        torch.testing.assert_close(sizes.sum(1), start.abs(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_a_padded_batch_is_its_unpadded_samples(bert, method):
    model, processor = bert
    batch = processor(TEXTS)
    found = xai.explain(model, batch, method, targets=[0, 2], **METHODS[method])
    present = batch["attention_mask"].bool()
    assert not present.all() and (found.relevance[:, ~present] == 0).all()
    for number, text in enumerate(TEXTS):
        alone = xai.explain(model, processor([text]), method, targets=[0, 2], **METHODS[method])
        length = alone.relevance.shape[-1]
        assert present[number].sum() == length
        for target in (0, 1):
            error = relative_error(
                found.relevance[target, number, :length], alone.relevance[target, 0]
            )
            assert error <= 1e-7, text


@pytest.mark.parametrize("method", METHODS)
def test_several_targets_and_one_by_one(bert, method):
    model, processor = bert
    inputs = processor(TEXTS)
    several = xai.explain(model, inputs, method, targets=[0, 1, 2], **METHODS[method])
    for target in range(3):
        one = xai.explain(model, inputs, method, target=target, **METHODS[method])
        assert torch.equal(several.relevance[target], one.relevance)
    alike = torch.equal(several.relevance[0], several.relevance[1])
    assert alike == (method == "lat")


@pytest.mark.parametrize("compat", [None, "reference"])
@pytest.mark.parametrize("method", METHODS)
def test_eager_and_fused_attention_agree(method, compat):
    model, processor = small_bert(layers=2)
    inputs = processor(TEXTS)
    found = []
    for kind in ("eager", "sdpa"):
        model.set_attn_implementation(kind)
        att = xai.explain(model, inputs, method, target=1, compat=compat, **METHODS[method])
        assert model.config._attn_implementation == kind
        found.append(att.relevance)
    assert relative_error(*found) <= 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_float32_is_float64_rounded(method):
    model, processor = small_bert(layers=3)
    exact = xai.explain(model, processor(TEXTS), method, **METHODS[method]).relevance
    rounded = xai.explain(model.float(), processor(TEXTS), method, **METHODS[method]).relevance
    assert rounded.dtype == torch.float32
    assert relative_error(rounded, exact) <= 1e-3


def traced(attentions, mix):
    """Layerwise attention tracing by its definition, every path written out as matrix products."""
    heads = attentions[0].shape[1]
    maps = [a.mean(1, keepdim=True).expand_as(a) for a in attentions] if mix else attentions
    total = 0
    for head in range(heads):
        product = torch.eye(maps[0].shape[-1], dtype=maps[0].dtype)
        for a in maps:
            product = a[:, head] @ product
        total = total + product[:, 0]
    return total


@pytest.mark.parametrize("heads", ["separate", "all"])
def test_attention_tracing_is_the_product_over_each_head(bert, heads):
    model, processor = bert
    inputs = processor(TEXTS)
    with torch.no_grad():
        attentions = model(**inputs, output_attentions=True).attentions
    found = xai.explain(model, inputs, "lat", heads=heads).relevance
    torch.testing.assert_close(found, traced(attentions, heads == "all"))
    torch.testing.assert_close(found.sum(1), torch.full((len(TEXTS),), 4.0, dtype=torch.float64))


def test_heads_of_different_number_are_traced_only_when_they_mix():
    model, processor = small_bert(layers=2, heads=2)
    last = model.bert.encoder.layer[1].attention.self
    last.num_attention_heads, last.attention_head_size = 4, 4
    with pytest.raises(MethodNotApplicableError, match=r"different numbers of heads \(\[2, 4\]\)"):
        xai.explain(model, processor(TEXTS), "lat")
    mixed = xai.explain(model, processor(TEXTS), "lat", heads="all").relevance
    torch.testing.assert_close(mixed.sum(1), torch.full((len(TEXTS),), 4.0, dtype=torch.float64))


def test_images_are_explained_by_the_same_call():
    model = random_vit(depth=3)
    pixels = random_pixels(model)
    for method, options in METHODS.items():
        att = xai.explain(model, pixels, method, target=1, **options)
        assert (att.relevance >= 0).all() and att.relevance.sum() > 0
        assert (att.pixels is None) == (method == "lat")
    att = xai.explain(model, pixels, "lrp_alpha_beta", target=1, reduce="sum")
    torch.testing.assert_close(att.relevance.sum(1), att.logits[:, 1], rtol=1e-6, atol=1e-7)
    (x,) = torch.autograd.grad(model(pixels.requires_grad_())[:, 1].sum(), pixels)
    found = xai.explain(model, pixels.detach(), "gradient_sensitivity", target=1).pixels
    torch.testing.assert_close(found, x.square().sum(1))


def test_the_published_code_is_refused_where_it_does_not_fit():
    model = random_vit()
    with pytest.raises(MethodNotApplicableError, match="written for BERT's layout"):
        xai.explain(model, random_pixels(model), "lrp_alpha_beta", compat="reference")


@pytest.mark.parametrize(
    "method, option, value, words",
    [
        ("lrp_alpha_beta", "alpha", -0.1, "at least 0"),
        ("lrp_alpha_beta", "alpha", float("nan"), "at least 0"),
        ("lrp_alpha_beta", "seed", "logits", "Did you mean 'logit'"),
        ("lrp_alpha_beta", "reduce", "l2", "Unknown reduce"),
        ("lrp_alpha_beta", "variant", "quik", "Did you mean 'quick'"),
        ("gradient_sensitivity", "seed", "oneh", "Did you mean 'one'"),
        ("lat", "heads", "separated", "Did you mean 'separate'"),
        ("lat", "readout", 99, "expected a token number"),
    ],
)
def test_options_that_mean_nothing_are_refused(bert, method, option, value, words):
    model, processor = bert
    with pytest.raises(OptionError, match=words):
        xai.explain(model, processor(TEXTS), method, **{option: value})
