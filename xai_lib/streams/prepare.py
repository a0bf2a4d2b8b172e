"""Models of several streams: what their inputs are called, and how each stream is looked at.

This is the one place that knows names of inputs. Which tokens attend to which is read off a pass
(`tracing.chains`), so that a model needs no entry anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from xai_lib.errors import InputError
from xai_lib.streams.checks import check_extra, check_pixels, takes_keyword
from xai_lib.streams.layouts import RegionLayout, StreamsLayout
from xai_lib.streams.patches import Layout
from xai_lib.streams.regions import check_regions
from xai_lib.streams.views import ImageInputs, Prepared, TextInputs, fresh, prepare_text
from xai_lib.tracing import Trace

# The inputs that tokens are made of, and the stream that they begin.
SOURCES = {
    "input_ids": "text",
    "pixel_values": "image",
    "visual_feats": "image",
    "visual_embeds": "image",
    "decoder_input_ids": "decoder",
}
REGIONS = ("visual_feats", "visual_embeds")
# What belongs to a text or to regions and must go with them where samples are chosen or repeated.
COMPANIONS = {
    "text": ("input_ids", "attention_mask", "token_type_ids", "position_ids"),
    "image": (
        *("pixel_values", "pixel_mask", "visual_feats", "visual_embeds", "visual_pos"),
        *("visual_attention_mask", "visual_token_type_ids", "bool_masked_pos"),
    ),
    "decoder": ("decoder_input_ids", "decoder_attention_mask"),
}


# The masks that tell tokens from padding, by stream.
MASKS = {
    "text": "attention_mask",
    "image": "visual_attention_mask",
    "decoder": "decoder_attention_mask",
}


@dataclass
class RegionInputs(Prepared):
    """`features` (batch, regions, dim) of image regions, under the name `keyword`."""

    features: Tensor
    keyword: str
    boxes: Tensor | None = None
    present: Tensor | None = None

    stream = "regions"
    channel = -1
    advice = "processor(question, features, boxes) makes inputs that fit."

    @property
    def batch(self) -> int:
        return self.features.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.features.dtype

    @property
    def given(self) -> Tensor:
        return self.features

    def samples(self) -> list[Tensor]:
        return [row[kept] for row, kept in zip(self.features, self.present, strict=True)]

    def layout(self, trace: Trace) -> RegionLayout:
        return RegionLayout(self.present, self.boxes)

    def call(self, model, features: Tensor | None = None):
        features = self.features if features is None else features
        copies = features.shape[0] // self.batch
        return self.forward(model, copies, **{self.keyword: features})


@dataclass
class CoupledInputs(Prepared):
    """All inputs of a model whose streams look at each other; `streams` is their layout.

    Nothing stands for the features of all streams, so methods at the input take one at a time.
    """

    kind: torch.dtype
    streams: StreamsLayout
    given: None = None

    stream = "streams"
    channel = -1
    advice = "The processor of xai.load makes inputs that fit."

    @property
    def batch(self) -> int:
        return next(self.extra[name].shape[0] for name in SOURCES if name in self.extra)

    @property
    def dtype(self) -> torch.dtype:
        return self.kind

    def samples(self) -> list[Tensor]:
        return self.extra[next(name for name in SOURCES if name in self.extra)].unbind(0)

    def layout(self, trace: Trace) -> Layout:
        return self.streams

    def call(self, model, features: Tensor | None = None):
        return self.forward(model, 1)


@dataclass
class JointInputs(TextInputs):
    """A text and an image in one sequence (VisualBERT, ViLT): the features are its embeddings."""

    streams: StreamsLayout = field(kw_only=True)

    @property
    def tokens(self) -> int:
        return self.streams.tokens

    def samples(self) -> list[Tensor]:
        where = self.streams.slices()
        found = []
        for i, present in enumerate(self.present):
            parts = [self.ids[i, present[where["text"]]]]
            for name in SOURCES:
                if name in self.extra:
                    x = self.extra[name][i]
                    x = x[present[where["image"]]] if name in REGIONS else x
                    parts.append(x.flatten())
            found.append(torch.cat([part.double() for part in parts]))
        return found

    def layout(self, trace: Trace) -> Layout:
        return self.streams


@dataclass
class StreamInputs:
    """The checked inputs of a model of several streams, and one view of them per question.

    everything: all inputs by name, copied. names: the input behind each stream. boxes: of regions
    whose model takes none (VisualBERT), where the processor left them beside the inputs.
    """

    everything: dict
    names: dict[str, str]
    text: TextInputs | None
    position: int | None
    boxes: Tensor | None = None

    @property
    def sources(self) -> dict[str, str]:
        return {keyword: stream for stream, keyword in self.names.items()}

    @property
    def dtype(self) -> torch.dtype:
        floats = (x for x in self.everything.values() if _is_float(x))
        return next((x.dtype for x in floats), self.text.dtype if self.text else torch.float32)

    def sizes(self) -> dict[str, int]:
        """Return the number of samples of each stream."""
        return {stream: len(self.everything[name]) for stream, name in self.names.items()}

    def part(self, stream: str) -> dict:
        """Return the inputs that belong to one stream."""
        return {k: self.everything[k] for k in COMPANIONS[stream] if k in self.everything}

    def rest(self, stream: str) -> dict:
        """Return the inputs that belong to other streams."""
        return {k: v for k, v in self.everything.items() if k not in COMPANIONS[stream]}

    def text_names(self) -> tuple[str, ...] | None:
        """Return the texts as names of classes, None where only their ids are known."""
        texts = self.text.texts
        return None if texts is None else tuple(" ".join(parts) for parts in texts)

    def common(self) -> dict:
        """Return what every view has: names of the streams, and the row of scores."""
        return {"sources": self.sources, "position": self.position}

    def focused(self, stream: str, *, pairwise: bool) -> Prepared:
        """Return a view of one stream, the others being constant.

        pairwise: scores are (images, texts), so that the other stream belongs to no sample alone.
        """
        others = self.rest(stream)
        common = self.common() | {"focus": stream, "fixed": others if pairwise else {}}
        extra = {} if pairwise else others
        keyword = self.names[stream]
        part = {k: v for k, v in self.part(stream).items() if k != keyword}
        main = self.everything[keyword]
        if keyword == "pixel_values":
            return ImageInputs(extra | part, main, keyword, **common)
        if keyword in REGIONS:
            return RegionInputs(extra | part, main, keyword, *self.regions(), **common)
        if stream == "decoder":
            raise InputError("A decoder's own tokens are no input to explain alone.")
        text = self.text
        return TextInputs(
            extra | part,
            main,
            text.present,
            text.dtype,
            text.special,
            text.encodings,
            text.texts,
            **common,
        )

    def texts_against(self, rows: Tensor) -> TextInputs:
        """Return the texts `rows` (with repetition), explained by the images they are paired with.

        Samples are texts then and classes images: no text's explanation mixes images.
        """
        view = self.focused("text", pairwise=True)
        chosen = {k: v[rows] for k, v in view.extra.items()}
        numbers = rows.tolist()
        return TextInputs(
            chosen,
            view.ids[rows],
            view.present[rows],
            view.dtype,
            None if view.special is None else view.special[rows],
            None if view.encodings is None else tuple(view.encodings[n] for n in numbers),
            None if view.texts is None else tuple(view.texts[n] for n in numbers),
            **self.common()
            | {"focus": "text", "fixed": view.fixed, "transposed": True, "rows": rows},
        )

    def whole(self, streams: StreamsLayout) -> CoupledInputs:
        """Return a view of all streams together."""
        return CoupledInputs(self.everything, self.dtype, streams, **self.common())

    def joint(self, streams: StreamsLayout) -> JointInputs:
        """Return a view of the one sequence that all streams are put into."""
        text, ids = self.text, self.everything["input_ids"]
        others = {k: v for k, v in self.everything.items() if k != "input_ids"}
        batch, device = ids.shape[0], ids.device
        present = torch.ones(batch, streams.tokens, dtype=torch.bool, device=device)
        special = torch.zeros_like(present)
        for name, where in streams.slices().items():
            layout = streams.layout(name)
            present[:, where] = getattr(layout, "present", present[:, where])
            special[:, where] = ~layout.content_of(batch, device) & present[:, where]
        return JointInputs(
            others, ids, present, text.dtype, special, streams=streams, **self.common()
        )

    def regions(self) -> tuple[Tensor | None, Tensor]:
        """Return boxes (batch, regions, 4) or None, and which regions are no padding."""
        features = next(self.everything[name] for name in REGIONS if name in self.everything)
        mask = self.everything.get(MASKS["image"])
        if mask is None:
            mask = torch.ones(features.shape[:2], device=features.device)
        return self.everything.get("visual_pos", self.boxes), mask.bool()


def prepare_streams(model: nn.Module, inputs, position: int | None) -> StreamInputs | None:
    """Return the inputs of a model of several streams, or None where there is but one.

    Several are several inputs that tokens are made of, or an encoder and a decoder, which may make
    its own input.
    """
    decodes = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
    if isinstance(inputs, Tensor) and decodes and takes_keyword(model, "pixel_values"):
        inputs = {"pixel_values": inputs}
    if not isinstance(inputs, Mapping):
        return None
    main = [name for name in SOURCES if name in inputs]
    if len(main) < 2 and not (decodes and main):
        return None
    names: dict[str, str] = {}
    for name in main:
        if SOURCES[name] in names:
            raise InputError(
                f"inputs has both {names[SOURCES[name]]!r} and {name!r}, two kinds of one image; "
                "expected one of them."
            )
        names[SOURCES[name]] = name
    text, taken = None, dict(inputs)
    if "input_ids" in inputs:
        text = prepare_text(model, inputs)
        taken = {"input_ids": text.ids} | text.extra
    else:
        extra = {k: v for k, v in taken.items() if k not in main}
        check_extra(model, extra, main[0], main[0])
    everything = {k: fresh(v) if isinstance(v, Tensor) else v for k, v in taken.items()}
    if "pixel_values" in inputs:
        check_pixels(model, everything["pixel_values"])
    for name in REGIONS:
        if name in inputs:
            check_regions(model, everything, name)
    boxes = getattr(inputs, "boxes", None)
    prepared = StreamInputs(everything, names, text, position, boxes)
    if min(prepared.sizes().values()) == 0:
        raise InputError(f"inputs holds {prepared.sizes()} samples; expected at least one of each.")
    return prepared


def _is_float(x) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()
