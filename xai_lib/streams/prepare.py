"""The one door: what a user passes in becomes an ordered list of streams, checked and copied.

This is the one place that knows names of inputs. Which tokens attend to which is read off a pass
(`tracing.chains`), so that a model needs no entry anywhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Number
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from xai_lib.errors import InputError, OptionError, XAIError
from xai_lib.streams.beside import check_position, refuse_text, without_truth
from xai_lib.streams.layouts import Layout, PlainLayout, StreamsLayout
from xai_lib.streams.outputs import (
    PARTS,
    TURNED,
    Choice,
    chosen,
    outputs_of,
    rows_of,
    without_padding,
)
from xai_lib.streams.patches import Patches, check_pixels
from xai_lib.streams.regions import Regions, check_regions
from xai_lib.streams.stream import Grid, Stream
from xai_lib.streams.texts import Words
from xai_lib.streams.towers import KEYWORDS, OWN_NAMES, are_unit, compared, features_of
from xai_lib.tracing import Trace
from xai_lib.tracing.marks import ORIGIN, leave

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
    "text": ("input_ids", "text", "attention_mask", "token_type_ids", "position_ids"),
    "image": (
        *("pixel_values", "image", "pixel_mask", "visual_feats", "visual_embeds", "visual_pos"),
        *("visual_attention_mask", "visual_token_type_ids", "bool_masked_pos"),
    ),
    "decoder": ("decoder_input_ids", "decoder_attention_mask"),
}


@dataclass
class Numbers(Stream):
    """A decoder's own tokens: an input that no question is asked about."""

    present: Bool[Tensor, "batch tokens"] | None = None

    kind: ClassVar[str] = "tokens"

    def samples(self) -> list[Shaped[Tensor, "..."]]:
        return list(self.data.unbind(0))

    def layout(self, trace: Trace) -> PlainLayout:
        return PlainLayout(self.data.shape[1])

    def layout_among(self, tokens: int, grid: Grid, patch: Grid) -> PlainLayout:
        return PlainLayout(tokens)


@dataclass(kw_only=True)
class Inputs:
    """The checked inputs of a batch, and how a pass looks at them.

    streams: in order. extra: all other inputs, which reach the model as they came. several: whether
    a pass has chains of tokens to follow, of several streams or of an encoder and its decoder.
    position: the row of (batch, rows, classes) scores that is explained. output: which of several
    outputs the scores are (`outputs.chosen`); found_output: the path of the one that they were.
    asked: what the model is asked for beside the inputs. towers: whether it returns the features of
    images and texts and leaves it to us to compare them; None before the first pass. focus: the
    stream whose features a method takes, the others being constant; None looks at all together.
    fixed: inputs that belong to all samples together (the texts that an image is compared with).
    rows: where texts are explained by the images they are paired with, samples being texts and
    classes images, the given texts that they are, with repetition. known: where the tokens lie, if
    an earlier pass has shown it. in_pairs: whether the last scores were, by their name and shape,
    of every image with every text. chain: the stream whose tokens a pass follows; None for all.
    sizes: the number of samples of each stream.
    """

    streams: tuple[Stream, ...]
    extra: dict[str, Any]
    dtype: torch.dtype
    several: bool = False
    position: int | None = None
    output: Choice = None
    asked: dict[str, Any] = field(default_factory=dict)
    towers: bool | None = None
    focus: Stream | None = None
    fixed: frozenset[str] = frozenset()
    rows: Int[Tensor, " rows"] | None = None
    known: Layout | StreamsLayout | None = None
    in_pairs: bool = field(default=False, init=False)
    found_output: str = field(default="", init=False)
    batch: int = field(init=False)
    chain: str | None = field(init=False)
    sizes: dict[str, int] = field(init=False)

    def __post_init__(self):
        self.batch = len((self.focus or self.streams[0]).data)
        self.chain = next((s.name for s in self.streams if s is self.focus), None)
        self.sizes = {stream.name: len(stream.data) for stream in self.streams}

    @property
    def everything(self) -> dict[str, Any]:
        """All inputs by name."""
        named = {s.keyword: s.data for s in self.streams if s.keyword is not None}
        return named | self.extra

    def stream(self, name: str) -> Stream | None:
        """Return the stream of that name, None where there is none."""
        return next((stream for stream in self.streams if stream.name == name), None)

    def named(self, name: str) -> Stream:
        """Return the stream of that name, which there is."""
        return next(stream for stream in self.streams if stream.name == name)

    @property
    def only(self) -> Stream:
        """The stream in focus, of a view that looks at one."""
        assert self.focus is not None, "a view of all streams together"
        return self.focus

    def focused(self, name: str, *, pairwise: bool = False) -> Inputs:
        """Return a view of one stream, the others being constant.

        pairwise: scores are (images, texts), so that the other stream belongs to no sample alone.
        """
        own = COMPANIONS[name]
        fixed = frozenset(k for k in self.everything if k not in own) if pairwise else frozenset()
        return replace(self, focus=self.stream(name), fixed=fixed)

    def first(self, count: int) -> Inputs:
        """Return a view of so many samples, of inputs of one stream; of fewer some come again."""
        if self.focus is None or self.several or self.batch == count:
            return self
        rows = torch.arange(count, device=self.focus.data.device) % self.batch
        stream = self.focus.take(rows)
        extra = {
            k: x[rows.to(x.device)] if self._repeats(k, x) else x for k, x in self.extra.items()
        }
        return replace(self, streams=(stream,), extra=extra, focus=stream)

    def texts_against(self, rows: Int[Tensor, " rows"]) -> Inputs:
        """Return a view of the texts `rows`, explained by the images they are paired with.

        Samples are texts then and classes images: no text's explanation mixes images.
        """
        view = self.focused("text", pairwise=True)
        extra = {k: x if k in view.fixed else x[rows] for k, x in self.extra.items()}
        texts = view.only.take(rows)
        streams = tuple(texts if stream is view.focus else stream for stream in self.streams)
        return replace(view, streams=streams, extra=extra, focus=texts, rows=rows)

    def run(self, model: Callable, features: Float[Tensor, "..."] | None = None) -> Any:
        """Run the model, on `features` (k·batch, ...) in the place of the stream in focus.

        Features that the model makes itself are exchanged by the trace; all else is repeated k
        times where it has a row for each sample.
        """
        copies = 1 if features is None else len(features) // self.batch
        # The model gets tensors of its own in every pass: it may write into what it is given.
        given = {
            name: x.repeat(copies, *[1] * (x.dim() - 1)) if self._repeats(name, x) else _own(x)
            for name, x in self.everything.items()
        }
        focus = self.focus
        if focus is not None and not focus.embeds:
            own = _own(focus.data if features is None else features)
            if focus.keyword is None:
                return model(own, **self.asked)
            given[focus.keyword] = own
        given = self.asked | given
        if not self.several:
            return model(**given)
        for stream in self.streams:
            if stream.keyword is not None:
                leave(given[stream.keyword], ORIGIN, stream.name)
        try:
            return model(**given)
        except RuntimeError as error:
            if isinstance(error, XAIError) or len(set(self.sizes.values())) == 1 or self.fixed:
                raise
            raise self.unpaired() from error

    def _repeats(self, name: str, x) -> bool:
        rows = isinstance(x, Tensor) and x.dim() > 0 and x.shape[0] == self.batch
        return rows and name not in self.fixed

    def scores(
        self, model: Callable, features: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, "samples classes"]:
        """Run the model and return its (batch, classes) scores."""
        output = self.run(model, features)
        if self._are_towers(output):
            found = features_of(output)
            assert found is not None, "a model that returned features once"
            scores = compared(found)
            self.in_pairs = self.pairs_fit(scores)
            return scores if self.rows is None else scores.t()
        self.found_output, scores = chosen(output, self.output)
        if self.several:
            whole = None if self.fixed or len(set(self.sizes.values())) > 1 else self.batch
            logits = rows_of(scores, self.position, whole if scores.dim() < 2 else None)
            self.in_pairs = self._in_pairs(output, scores)
            return logits if self.rows is None else logits.t()
        copies = 1 if features is None else len(features) // self.batch
        logits = rows_of(scores, self.position, copies * self.batch)
        present = self.only.present
        if self.position is not None and present is not None and scores.dim() == 3:
            check_position(self.position, present, scores.shape[1], self.extra)
        return logits

    def _are_towers(self, output: object) -> bool:
        """Whether a model returned features of images and texts that are to be compared."""
        if self.towers is None:
            both = set(self.sizes) == {"image", "text"} and self.output is None
            found = features_of(output) if both else None
            self.towers = found is not None and are_unit(found)
        return self.towers

    def _in_pairs(self, output: object, scores: Tensor) -> bool:
        found = outputs_of(output)
        if found.get(TURNED) is scores:
            raise OptionError(
                f"output is {TURNED!r}: samples are images and classes texts, so these scores are "
                "those of 'logits_per_image', turned. Leave output out; target= chooses a text."
            )
        # BLIP's itm_score is of this kind without its matching head, which attends to the image.
        named = (found.get(name) for name in ("logits_per_image", "itm_score"))
        return self.pairs_fit(scores) and any(x is scores for x in named)

    @property
    def scores_tokens(self) -> bool:
        """Whether the last scores were of the tokens of a text: where an answer begins or ends."""
        named = self.found_output.rpartition(".")[2], self.output
        return any(name in PARTS.values() for name in named)

    def scored(self, logits: Float[Tensor, "samples classes"]) -> Float[Tensor, "samples classes"]:
        """Return scores, -inf for tokens that are padding where tokens are what is scored."""
        text = self.stream("text")
        if text is None or not self.scores_tokens:
            return logits
        return without_padding(logits, text.present)

    def pairs_fit(self, logits: Float[Tensor, "..."]) -> bool:
        """Return whether scores have a row for each image and a column for each text."""
        sizes = self.sizes
        if set(sizes) != {"image", "text"}:
            return False
        return tuple(logits.shape) == (sizes["image"], sizes["text"])

    def unpaired(self) -> InputError:
        """Return the refusal of streams that have other numbers of samples."""
        return InputError(
            f"inputs has {self.counted()}, which do not pair; this model reads them together: "
            "expected one of each for every sample."
        )

    def counted(self) -> str:
        """Return the number of samples of each stream in words."""
        return " and ".join(f"{count} of {name}" for name, count in self.sizes.items())


def prepare(
    model: nn.Module,
    inputs: Float[Tensor, "..."] | Mapping,
    position: int | None = None,
    output: Choice = None,
) -> Inputs:
    """Return the streams in `inputs`: a tensor of pixels, or what a processor or tokenizer returns.

    They look at all streams together where there are several inputs that tokens are made of, or an
    encoder and a decoder, which may make its own input; else at the only one.
    Raises InputError or UnsupportedModelError for what does not fit the model.
    """
    refuse_text(inputs)
    decodes = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
    if isinstance(inputs, Tensor) and decodes and takes_keyword(model, "pixel_values"):
        inputs = {"pixel_values": inputs}
    if not isinstance(inputs, Mapping):
        _check_modality(model, "pixel_values", "input_ids")
        return _of_pixels(model, inputs, {}, None, position, output)
    given, inputs = inputs, _in_our_names(model, inputs)
    main = [name for name in SOURCES if name in inputs]
    several = len(main) > 1 or (decodes and bool(main))
    if not several and main not in (["input_ids"], ["pixel_values"]):
        raise InputError(
            f"inputs has the keys {sorted(inputs)}; expected 'pixel_values', as an image "
            "processor returns it, or 'input_ids', as a tokenizer does."
        )
    extra = {k: v for k, v in inputs.items() if k not in main}
    extra = without_truth(model, extra, decodes and "decoder_input_ids" not in main)
    if main == ["pixel_values"] and not several:
        keyword = "pixel_values" if takes_keyword(model, "pixel_values") else None
        return _of_pixels(model, inputs["pixel_values"], extra, keyword, position, output)
    _check_kinds(main)
    own = {name: _fresh(inputs[name]) for name in main}
    streams: list[Stream] = []
    if "input_ids" in main:
        _check_modality(model, "input_ids", "pixel_values")
        _check_device(model, own["input_ids"], "inputs['input_ids']")
        streams.append(Words.of(model, given, own["input_ids"]))
        extra = _beside_words(model, own["input_ids"], extra)
    names = [_keyword(model, name) for name in main]
    _check_names(model, names)
    _check_extra(model, extra | dict.fromkeys(names[1:]), names[0], names[0])
    extra = {k: _fresh(v) for k, v in extra.items()}
    boxes = extra.get("visual_pos", getattr(given, "boxes", None))
    streams += [_seen(model, name, own | extra, boxes) for name in main if name != "input_ids"]
    for stream, name in zip(streams, main, strict=True):
        stream.keyword = _keyword(model, name)
    found = Inputs(
        streams=tuple(streams),
        extra=extra,
        dtype=_dtype(model, streams),
        several=several,
        position=position,
        output=output,
        asked=_asked(model),
        focus=None if several else streams[0],
    )
    if min(found.sizes.values()) == 0:
        raise InputError(f"inputs holds {found.sizes} samples; expected at least one of each.")
    return found


def _in_our_names(model: nn.Module, inputs: Mapping) -> Mapping:
    """Return inputs by the names that transformers has, where the model calls them otherwise."""
    if not any(_keyword(model, name) != name for name in KEYWORDS):
        return inputs
    return {OWN_NAMES.get(name, name): value for name, value in inputs.items()}


def _keyword(model: nn.Module, name: str) -> str:
    """Return what the model calls an input: "image" and "text" where it takes both by these names.

    As open_clip's models do, and not by those of transformers.
    """
    own = KEYWORDS.get(name)
    if own is None or any(takes_keyword(model, known) for known in KEYWORDS):
        return name
    return own if all(takes_keyword(model, other) for other in OWN_NAMES) else name


def _of_pixels(
    model: nn.Module, pixels, extra: dict, keyword: str | None, position, output
) -> Inputs:
    """Return the inputs of an image model."""
    _check_device(model, pixels, "inputs")
    check_pixels(model, pixels)
    _check_extra(model, extra, keyword, "pixel_values")
    stream = Patches("image", keyword, _fresh(pixels))
    return Inputs(
        streams=(stream,),
        extra=extra,
        dtype=pixels.dtype,
        position=position,
        output=output,
        asked=_asked(model),
        focus=stream,
    )


def _asked(model: nn.Module) -> dict[str, Any]:
    """Return what makes a model of transformers name its outputs where its config does not."""
    named = getattr(getattr(model, "config", None), "return_dict", None)
    parameters = inspect.signature(model.forward).parameters.values()
    free = any(p.kind is p.VAR_KEYWORD or p.name == "return_dict" for p in parameters)
    return {"return_dict": True} if named is False and free else {}


def _seen(model: nn.Module, name: str, inputs: dict, boxes: Tensor | None) -> Stream:
    """Return the stream that begins with the input `name`, checked: an image, or what decodes."""
    if name == "pixel_values":
        _check_device(model, inputs[name], "inputs['pixel_values']")
        check_pixels(model, inputs[name])
        return Patches("image", name, inputs[name])
    if name not in REGIONS:
        mask = inputs.get("decoder_attention_mask")
        return Numbers(SOURCES[name], name, inputs[name], None if mask is None else mask.bool())
    check_regions(model, inputs, name)
    features, mask = inputs[name], inputs.get("visual_attention_mask")
    if mask is None:
        mask = torch.ones(features.shape[:2], device=features.device)
    # A model that takes no boxes (VisualBERT) has them where the processor left them.
    return Regions("image", name, features, present=mask.bool(), boxes=boxes)


def _beside_words(model: nn.Module, ids: Tensor, extra: dict) -> dict:
    """Return what goes with a text: a mask where the model takes one, token types if it has any."""
    extra = {k: v for k, v in extra.items() if k != "special_tokens_mask"}
    takes_mask = "attention_mask" in inspect.signature(model.forward).parameters
    if extra.get("attention_mask") is None and takes_mask:
        extra["attention_mask"] = torch.ones_like(ids)
    # Tokenizers offer token types also to models that have none.
    if "token_type_ids" in extra and not takes_keyword(model, "token_type_ids"):
        del extra["token_type_ids"]
    return extra


def _check_kinds(main: list[str]) -> None:
    names: dict[str, str] = {}
    for name in main:
        other = names.setdefault(SOURCES[name], name)
        if other != name:
            raise InputError(
                f"inputs has both {other!r} and {name!r}, two kinds of one image; expected one of "
                "them."
            )


def _dtype(model: nn.Module, streams: list[Stream]) -> torch.dtype:
    """Return the floating-point type in which the model computes."""
    given = (stream.data.dtype for stream in streams if stream.data.is_floating_point())
    own = (p.dtype for p in model.parameters() if p.is_floating_point())
    return next(given, None) or next(own, torch.float32)


def _fresh(x):
    """Return a normal leaf tensor, also where the caller's was made in inference mode."""
    if not isinstance(x, Tensor):
        return x
    with torch.inference_mode(False):
        return x.detach().clone()


def _own(x):
    """Return a copy that the model may write into, on the graph of x."""
    return x.clone() if isinstance(x, Tensor) else x


def takes_keyword(model: nn.Module, name: str) -> bool:
    """Return whether the model's forward takes the argument `name`."""
    parameter = inspect.signature(model.forward).parameters.get(name)
    if parameter is None:
        return getattr(model, "main_input_name", None) == name
    return parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def _check_modality(model: nn.Module, given: str, other: str) -> None:
    """Raise an InputError where the model takes `other` and not `given`: a text for an image."""
    if takes_keyword(model, other) and not takes_keyword(model, given):
        raise InputError(
            f"{type(model).__name__} takes {other!r}, and inputs are {given!r}: they were made for "
            "another kind of model. The processor that xai.load returns with it makes the right "
            "ones."
        )


def _check_names(model: nn.Module, names: list[str]) -> None:
    """Raise an InputError for a model of texts whose forward calls its one input otherwise."""
    parameters = inspect.signature(model.forward).parameters.values()
    needed = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if names == ["input_ids"] and needed and "input_ids" not in needed:
        raise InputError(
            f"{type(model).__name__}.forward takes {', '.join(map(repr, needed))}, and inputs are "
            "'input_ids': wrap it in a small nn.Module whose forward takes input_ids and "
            "attention_mask and returns scores. A sentence encoder, which takes one dictionary, "
            "has no classes: xai_lib.models.TextSimilarity(encoder, processor(other)) explains "
            "how similar two texts are."
        )


def _is_plain(value) -> bool:
    """Whether an input is a tensor or a number, or sequences of numbers: no pass can change it."""
    if isinstance(value, dict):
        return _is_plain(list(value.values()))
    if isinstance(value, tuple | list):
        return all(_is_plain(x) and not isinstance(x, Tensor) for x in value)
    return value is None or isinstance(value, Tensor | np.ndarray | np.generic | Number | str)


def _check_extra(model: nn.Module, extra: dict, keyword: str | None, main: str) -> None:
    """Refuse what the model cannot be given: leaving it out would explain another prediction."""
    for name, value in extra.items():
        if not _is_plain(value):
            raise InputError(
                f"inputs[{name!r}] is {type(value).__name__}, which is no tensor of the samples: a "
                "cache of an earlier pass holds words that are not among the inputs and grows with "
                "every pass. Leave it out, and give the whole text at once."
            )
    kinds = {p.kind for p in inspect.signature(model.forward).parameters.values()}
    if keyword is not None and inspect.Parameter.VAR_KEYWORD in kinds:
        return
    unknown = [k for k in extra if keyword is None or not takes_keyword(model, k)]
    if unknown:
        raise InputError(
            f"inputs has the entries {sorted(map(str, unknown))}, which "
            f"{type(model).__name__}.forward does not take beside it. Pass "
            f"inputs[{main!r}] alone if the model needs none of them."
        )


def _check_device(model: nn.Module, x, what: str) -> None:
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is not None and parameter.device.type == "meta":
        _check_offloaded(model)
        return
    if isinstance(x, Tensor) and parameter is not None and parameter.device != x.device:
        raise InputError(
            f"The model is on {parameter.device} and {what} on {x.device}. "
            f"Move one: inputs.to({str(parameter.device)!r})."
        )


def _check_offloaded(model: nn.Module) -> None:
    """Refuse weights that hold no numbers, unless something brings them when a layer runs."""
    if not any(hasattr(module, "_hf_hook") for module in model.modules()):
        raise InputError(
            f"The weights of {type(model).__name__} are on the device 'meta', where they hold no "
            "numbers. Load them: Model.from_pretrained(...) without device_map, or "
            "model.to_empty(device='cpu') and model.load_state_dict(...)."
        )
