"""Explanations from attention maps, alone or weighted by their gradient."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from xai_lib.explainers.mixing import Mixer, head_mean, positive_head_mean
from xai_lib.explainers.output import Output
from xai_lib.explainers.reading import Reader, mixer_options
from xai_lib.explainers.registry import explainer
from xai_lib.explainers.signs import ATTENTION, POSITIVE_PART
from xai_lib.explainers.steps import step
from xai_lib.passes.call import Call
from xai_lib.tracing import HeadMask, Site


@explainer(
    "raw_attention",
    family="attention",
    cite="vaswani2017",
    sign=ATTENTION,
    class_specific=False,
    streams="together",
)
def raw_attention(call: Call, *, layer: int = -1, readout: int | None = None) -> Output:
    """Attention of one layer, averaged over heads: E_h[A], in the rows the prediction reads.

    Where two streams attend to each other, the last map from what the head reads to each of them.
    """
    maps: list[Tensor] = []
    mixed: list[bool] = []

    def see(site: Site) -> None:
        maps.append(head_mean(site))
        mixed.append(site.mixes_heads)

    reader, at_outputs = Reader.watching(call, see, layer=layer, readout=readout)
    relevance = step(call, "raw_attention", Reader.last)(reader, maps, at_outputs, layer)
    if mixed[layer]:
        call.require_distributions(reader.run)
    return Output.agnostic(call, relevance)


@explainer(
    "rollout",
    family="attention",
    cite="abnar2020",
    sign=ATTENTION,
    class_specific=False,
    streams="together",
)
def rollout(
    call: Call, *, start_layer: int = 0, normalize_rows: bool = True, readout: int | None = None
) -> Output:
    """Attention rollout: R = Π_l (E_h[A_l] + I), each factor's rows normalised to sum to 1.

    Where two streams attend to each other, R of the tokens that look takes the same share of R of
    those they look at, R^q ← (R^q + A R^k) / 2. compat="reference": each stream's rollout over its
    self-attention, joined by the last cross-attention, (R^qq)ᵀ A R^kk, as ICCV 2021 compares with.
    """
    options = {"normalize_rows": normalize_rows} | step(call, "rollout.options", {})
    mixer = Mixer(chains=call.coupled, **options)
    reader, at_outputs = Reader.watching(
        call,
        lambda site: mixer.update(site, head_mean(site)),
        start_layer=start_layer,
        skip=mixer.skip,
        readout=readout,
    )
    call.require_distributions(reader.run)
    return Output.agnostic(call, reader.rows(mixer, at_outputs))


@explainer(
    "attn_gradcam",
    family="attention x gradient",
    cite="selvaraju2017",
    sign=POSITIVE_PART,
    needs=("gradient",),
    streams="together",
)
def attn_gradcam(call: Call, *, readout: int | None = None) -> Output:
    """Grad-CAM on the last attention: (E_h[w_h A_h])⁺, w_h the row's mean gradient over content.

    Of Chefer et al. (CVPR 2021, section 4). Content is the patches, or the tokens of the text.
    compat="reference" min-maxes the map as they do; on texts it averages over the whole map first.
    """
    reader = Reader.of_layer(call, readout=readout)
    run, read = reader.run, step(call, "attn_gradcam", _gradcam)

    def explain(seed: Tensor) -> Tensor:
        return read(reader, *reader.split(run.gradients(reader.tensors, seed)))

    found = call.each_target(run, explain).detach()
    return Output(step(call, "attn_gradcam.targets", lambda call, found: found)(call, found))


def _gradcam(reader: Reader, grads: Sequence[Tensor], at_outputs: Sequence[Tensor]) -> Tensor:
    # Between streams a map is weighted as a whole, as ICCV 2021 compares with.
    over = (-1, -2) if reader.call.coupled else (-1,)
    cams = []
    for site, grad in zip(reader.sites, grads, strict=True):
        kept = reader.content_of(site).to(grad.dtype)
        weight = (grad * kept).sum(over, keepdim=True) / kept.sum(over, keepdim=True)
        cams.append((weight * site.probs.detach()).mean(1))
    return reader.last(cams, at_outputs).clamp(min=0)


@explainer(
    "generic_attention",
    family="attention x gradient",
    cite="chefer2021iccv",
    sign=POSITIVE_PART,
    needs=("gradient",),
    streams="together",
)
def generic_attention(
    call: Call,
    *,
    start_layer: int = 0,
    normalize_rows: bool = False,
    clamp_after_mean: bool = False,
    readout: int | None = None,
    bimodal: dict | None = None,
    head_mask: HeadMask | None = None,
) -> Output:
    """Generic attention explainability: R ← R + C R with C = E_h[(∇A ⊙ A)⁺] (ICCV 2021, Eq. 5-6).

    clamp_after_mean: (E_h[∇A ⊙ A])⁺, as the code of Beyond Intuition compares against. Where two
    streams attend to each other, the bi-modal rules (Eq. 8-11); bimodal: ablations of these, see
    `explainers.stream_mixer.StreamMixer`, e.g. {"normalize": False}. head_mask: heads left out of
    E_h, which still divides by all of them, while the model is whole (the published pruned
    visualisations of LXMERT and VisualBERT; `xai.prune_heads` explains the pruned model instead).
    """
    run = call.forward(graph="sites", first_site=start_layer)
    options = mixer_options(call, bimodal, normalize_rows)
    reader = Reader(call, run, start_layer=start_layer, readout=readout, options=options)

    def explain(seed: Tensor) -> Tensor:
        grads, at_outputs = reader.split(run.gradients(reader.tensors, seed))
        pairs = list(zip(reader.sites, grads, strict=True))
        products = (grad * site.probs.detach() for site, grad in pairs)
        if head_mask is not None:
            products = (
                head_mask.apply(s.call, x) for (s, _), x in zip(pairs, products, strict=True)
            )
        maps = (positive_head_mean(x, clamp_after_mean) for x in products)
        return reader.read(maps, at_outputs)

    return Output(call.each_target(run, explain))
