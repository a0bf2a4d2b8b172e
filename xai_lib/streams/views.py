"""What a user passes in: checked, moved out of inference mode, and how the model is called."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from xai_lib.errors import InputError, OptionError, UnsupportedModelError
from xai_lib.streams.checks import (
    check_content,
    check_extra,
    check_ids,
    check_modality,
    check_pixels,
    takes_keyword,
)
from xai_lib.streams.patches import Layout, TokenLayout
from xai_lib.streams.words import TextLayout
from xai_lib.tracing import Trace


@dataclass
class Prepared(ABC):
    """Checked inputs of a batch; `extra` reaches the model as it came.

    stream: "image", "text" or "regions". channel: the dimension of the features over which a method
    sums to get one number per pixel or token. advice: how to make inputs that the model takes.
    For models of several streams: fixed holds what belongs to all samples together (the texts that
    an image is compared with); sources names the stream of each input that tokens are made of, and
    focus the one to look at; transposed: samples are the columns of the scores (texts are explained
    by images), and rows the given texts that they are, with repetition; position: the row of
    (batch, rows, classes) scores that is explained; known: where the tokens lie, if an earlier pass
    has shown it.
    """

    stream: ClassVar[str]
    channel: ClassVar[int]
    advice: ClassVar[str]

    extra: dict
    fixed: dict = field(default_factory=dict, kw_only=True)
    sources: dict[str, str] = field(default_factory=dict, kw_only=True)
    focus: str | None = field(default=None, kw_only=True)
    transposed: bool = field(default=False, kw_only=True)
    rows: Tensor | None = field(default=None, kw_only=True)
    position: int | None = field(default=None, kw_only=True)
    known: Layout | None = field(default=None, kw_only=True)

    @property
    @abstractmethod
    def batch(self) -> int: ...

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The floating-point type in which the model computes."""

    @abstractmethod
    def call(self, model, features: Tensor | None = None):
        """Run the model, on `features` (k·batch, ...) instead of its input where they are given.

        Tensors of `extra` that have a row per sample are repeated to fit.
        """

    @abstractmethod
    def samples(self) -> list[Tensor]:
        """Return the input of each sample alone, without padding."""

    @abstractmethod
    def layout(self, trace: Trace) -> Layout:
        """Return where the tokens lie, once a pass has shown it."""

    def forward(self, model, copies: int, **given):
        """Run the model on what is `given` and on the rest, which is repeated `copies` times."""
        rest = {
            name: value.repeat(copies, *[1] * (value.dim() - 1))
            if isinstance(value, Tensor) and value.dim() and value.shape[0] == self.batch
            else value
            for name, value in self.extra.items()
        }
        everything = given | rest | self.fixed
        for name, stream in self.sources.items():
            if name in everything:
                everything[name]._xai_origin = stream
        return model(**everything)

    def logits(self, output) -> Tensor:
        """Return the (batch, classes) scores in what the model returned."""
        logits = logits_of(output, self.position)
        return logits.t() if self.transposed else logits


@dataclass
class ImageInputs(Prepared):
    """`pixels` (batch, channels, H, W), which are the features; `keyword` names them, or None."""

    pixels: Tensor
    keyword: str | None

    stream = "image"
    channel = -3
    advice = "processor(image) makes inputs of the size it was built for."

    @property
    def batch(self) -> int:
        return self.pixels.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.pixels.dtype

    @property
    def given(self) -> Tensor:
        return self.pixels

    def samples(self) -> list[Tensor]:
        return list(self.pixels)

    def layout(self, trace: Trace) -> Layout:
        return TokenLayout.of(trace, self.pixels)

    def call(self, model, features: Tensor | None = None):
        pixels = self.pixels if features is None else features
        if self.keyword is None:
            return model(pixels)
        return self.forward(model, pixels.shape[0] // self.batch, **{self.keyword: pixels})


@dataclass
class TextInputs(Prepared):
    """`ids` and `present` (batch, tokens); the features are the embeddings that the model makes.

    Those are put in place of the model's own by the trace, which sees them being made; ids are
    passed all the same. special: what the tokenizer added, or None where nobody knows.
    """

    ids: Tensor
    present: Tensor
    kind: torch.dtype
    special: Tensor | None = None
    encodings: tuple | None = field(default=None, repr=False)
    texts: tuple[tuple[str, ...], ...] | None = field(default=None, repr=False)

    stream = "text"
    channel = -1
    advice = "processor(text) makes inputs that its tokenizer and length limit fit."

    @property
    def batch(self) -> int:
        return self.ids.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.kind

    def samples(self) -> list[Tensor]:
        return [row[kept] for row, kept in zip(self.ids, self.present, strict=True)]

    def layout(self, trace: Trace) -> Layout:
        return TextLayout.of(self.ids, self.present, self.special, self.encodings, self.texts)

    def call(self, model, features: Tensor | None = None):
        copies = 1 if features is None else features.shape[0] // self.batch
        return self.forward(model, copies, input_ids=self.ids.repeat(copies, 1))

    def logits(self, output) -> Tensor:
        """Return the scores; a row of them that belongs to padding is no prediction."""
        found = super().logits(output)
        scores = None if self.position is None or self.sources else scores_of(output)
        if scores is not None and scores.shape[1:2] == self.ids.shape[1:2] and scores.dim() == 3:
            absent = (~self.present[:, self.position]).nonzero().flatten().tolist()
            if absent:
                raise OptionError(
                    f"position {self.position} of text {absent[0]} is padding, so its scores are "
                    "no prediction. Choose a position that all texts have, or explain texts of "
                    "different length one by one; tokenizers can also pad on the left."
                )
        return found

    @property
    def given(self) -> Tensor:
        return self.ids

    @property
    def tokens(self) -> int:
        """The length of the sequence whose embeddings are the features."""
        return self.ids.shape[1]


def unwrap(model: nn.Module) -> nn.Module:
    """Return the eager module inside DataParallel or torch.compile wrappers."""
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError(
            f"model is {type(model).__name__}, expected a torch.nn.Module. "
            "xai.load(...) returns (model, processor): pass the first."
        )
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
        else:
            break
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            where = f"The model's part {name!r} is" if name else "The model is"
            raise UnsupportedModelError(
                f"{where} a TorchScript module, which runs outside Python and cannot be "
                "intercepted. Pass the eager module that it was made from."
            )
    if any(p.is_inference() for p in model.parameters()):
        raise UnsupportedModelError(
            "The model's parameters were made under torch.inference_mode(), so no gradient can "
            "pass them. Load the model outside inference_mode."
        )
    return model


def prepare(model: nn.Module, inputs) -> Prepared:
    """Check `inputs` (a tensor of pixels, or what a processor or tokenizer returns)."""
    if not isinstance(inputs, Mapping):
        check_modality(model, "pixel_values", "input_ids")
        check_pixels(model, inputs)
        return ImageInputs({}, fresh(inputs), None)
    if "input_ids" in inputs and "pixel_values" not in inputs:
        return prepare_text(model, inputs)
    if "pixel_values" not in inputs:
        raise InputError(
            f"inputs has the keys {sorted(inputs)}; expected 'pixel_values', as an image "
            "processor returns it, or 'input_ids', as a tokenizer does."
        )
    pixels = inputs["pixel_values"]
    extra = {k: v for k, v in inputs.items() if k != "pixel_values"}
    keyword = "pixel_values" if takes_keyword(model, "pixel_values") else None
    check_pixels(model, pixels)
    check_extra(model, extra, keyword, "pixel_values")
    return ImageInputs(extra, fresh(pixels), keyword)


def prepare_text(model: nn.Module, inputs: Mapping) -> TextInputs:
    """Check `inputs` with input_ids, as a tokenizer or a processor returns them."""
    check_modality(model, "input_ids", "pixel_values")
    ids = inputs["input_ids"]
    extra = {k: v for k, v in inputs.items() if k != "input_ids"}
    mask, special = extra.get("attention_mask"), extra.pop("special_tokens_mask", None)
    check_ids(model, ids, mask)
    if mask is None and "attention_mask" in inspect.signature(model.forward).parameters:
        mask = extra["attention_mask"] = torch.ones_like(ids)
    # Tokenizers offer token types also to models that have none.
    if "token_type_ids" in extra and not takes_keyword(model, "token_type_ids"):
        del extra["token_type_ids"]
    check_extra(model, extra, "input_ids", "input_ids")
    present = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    encodings, added = _encodings(inputs, ids)
    special = added if special is None else special.bool()
    if special is not None:
        check_content(present & ~special)
    texts = getattr(inputs, "texts", None)
    if texts is not None and len(texts) != ids.shape[0]:
        texts = None
    return TextInputs(extra, fresh(ids), present, dtype, special, encodings, texts)


def _encodings(inputs: Mapping, ids: Tensor) -> tuple[tuple | None, Tensor | None]:
    """Return a fast tokenizer's encodings of `ids`, and which tokens it added; None if unknown.

    Inputs that were sorted, cut or edited after tokenizing are not what their encodings describe.
    """
    encodings = tuple(getattr(inputs, "encodings", None) or ())
    if [len(e.ids) for e in encodings] != [ids.shape[1]] * ids.shape[0]:
        return None, None
    added = torch.tensor([e.special_tokens_mask for e in encodings], device=ids.device).bool()
    same = ids == torch.tensor([e.ids for e in encodings], device=ids.device)
    return encodings if same.all() else None, added if same[added].all() else None


def fresh(x: Tensor) -> Tensor:
    """Return a normal leaf tensor, also where the caller's was made in inference mode."""
    with torch.inference_mode(False):
        return x.detach().clone()


# What models call the scores that are explained, the first that is there.
SCORES = ("logits", "logits_per_image", "question_answering_score", "itm_score", "itm_logits")


def scores_of(output) -> Tensor | None:
    """Return the tensor of scores in whatever the model returned, None where there is none."""
    logits = next((x for x in (getattr(output, n, None) for n in SCORES) if x is not None), None)
    if logits is None and isinstance(output, Mapping):
        logits = output.get("logits")
    if logits is None and isinstance(output, tuple | list) and output:
        logits = output[0]
    if logits is None and isinstance(output, Tensor):
        logits = output
    return logits if isinstance(logits, Tensor) else None


def logits_of(output, position: int | None = None) -> Tensor:
    """Return the (batch, classes) logits of whatever the model returned.

    position: which row of (batch, rows, classes) logits, such as a detector's query or the place of
    a token; negative ones count from the end.
    """
    logits = scores_of(output)
    if isinstance(logits, Tensor) and logits.dim() == 3 and position is not None:
        return _row(logits, position)
    if position is not None and isinstance(logits, Tensor):
        raise OptionError(
            f"position is {position!r}, but the model returned {tuple(logits.shape)} scores: one "
            "row per sample, so there is nothing to choose. Leave position out."
        )
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        found = "no logits" if logits is None else f"a tensor of shape {tuple(logits.shape)}"
        raise UnsupportedModelError(
            f"The model returned {type(output).__name__} with {found}; expected (batch, classes) "
            "logits. Put a classification head on a backbone, e.g. a small nn.Module around it; of "
            "(batch, rows, classes) logits choose a row with position=..."
        )
    return logits


def _row(logits: Tensor, position: int | None) -> Tensor:
    rows = logits.shape[1]
    if not isinstance(position, int) or isinstance(position, bool) or not -rows <= position < rows:
        raise OptionError(
            f"The model returned {tuple(logits.shape)} scores: {rows} rows for each sample (tokens "
            f"or detection queries), and position is {position!r}; expected an integer from "
            f"{-rows} to {rows - 1} that says which of them to explain."
        )
    return logits[:, position]
