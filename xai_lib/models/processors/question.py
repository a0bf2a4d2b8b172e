"""From questions and image regions to what LXMERT and VisualBERT take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from xai_lib.errors import InputError, OptionError
from xai_lib.models.processors.question_families import FAMILIES, Family
from xai_lib.models.processors.text import TextProcessor
from xai_lib.models.processors.tokenizers import NO_LIMIT, STATED, TokenLimit, check_fast

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

    from xai_lib.datasets.base import QuestionSample

Regions = Tensor | np.ndarray | Sequence[Tensor | np.ndarray]
BOX = 4
# Dividing by the image's size may end this far outside of [0, 1].
_ROUNDING = 1e-4


@dataclass(frozen=True)
class QuestionProcessor:
    """Tokenize questions, check and pad the regions of their images, for one model.

    tokenizer: a fast tokenizer of transformers; it pads at the right from here on, since
    VisualBERT reads its answer at the last but one token that is no padding. kind: "lxmert" or
    "visual_bert", the model type of the configuration. feature_dim: the numbers that the model
    takes for a region. class_names: the answers in order, or empty. max_length: the most tokens of
    a question, special ones included; None for no limit.

    LXMERT takes boxes beside the features. VisualBERT takes none: features that are four numbers
    short of `feature_dim` get their box at the end (`visual_embeds = [features, boxes]`), features
    of `feature_dim` are given as they are.
    """

    modality: ClassVar[str] = "question"
    classes_are_texts: ClassVar[bool] = False
    # Fields that tell the inputs of one processor from those of another.
    identity: ClassVar[tuple[str, ...]] = ("tokenizer", "max_length", "feature_dim")

    tokenizer: PreTrainedTokenizerBase
    kind: str
    feature_dim: int
    class_names: tuple[str, ...] = ()
    max_length: TokenLimit = STATED

    def __post_init__(self):
        if self.kind not in FAMILIES:
            raise OptionError(f"kind is {self.kind!r}; expected one of {', '.join(FAMILIES)}.")
        check_fast(self.tokenizer)
        self.tokenizer.padding_side = "right"

    @property
    def family(self) -> Family:
        """What the published evaluations of this kind of model take away, and how many."""
        return FAMILIES[self.kind]

    @property
    def head_counts(self) -> str:
        """How a fraction of heads becomes a number, see `HeadScores.mask`."""
        return self.family.head_counts

    @property
    def _texts(self) -> TextProcessor:
        # Without its limit: what it says of long texts does not hold for questions.
        return TextProcessor(self.tokenizer, max_length=NO_LIMIT)

    def __call__(
        self, questions: str | Sequence[str], features: Regions, boxes: Regions | None = None
    ) -> BatchEncoding:
        """Return what the model takes, for a question or a list of n.

        features: (regions, dim) of the one image, or n of them as a list or as (n, regions, dim).
        boxes: as x0, y0, x1, y1 in parts of the image's width and height, (regions, 4) likewise;
        VisualBERT does without where its features are whole. Images of fewer regions are padded
        with zeros, which the mask hides.

        Returned: input_ids, attention_mask, token_type_ids, all (n, tokens); visual_attention_mask
        (n, regions); for LXMERT visual_feats (n, regions, dim) and visual_pos (n, regions, 4); for
        VisualBERT visual_embeds (n, regions, feature_dim) and visual_token_type_ids, all 1. The
        questions travel along as `.texts`, a tuple of one string each, and the boxes as `.boxes`,
        (n, regions, 4) or None, so that an explanation can draw them. Raises InputError for
        questions, features and boxes that do not pair, have another shape, are not finite or not
        in parts of the image, and for a question that is longer than `max_length`.
        """
        encoded = self._texts(questions)
        self._check_length(encoded)
        if "token_type_ids" not in encoded:
            encoded["token_type_ids"] = torch.zeros_like(encoded["input_ids"])
        n = len(encoded.texts)
        seen = _listed(features, "features", n)
        places = [None] * n if boxes is None else _listed(boxes, "boxes", n)
        embedded = [
            self._region_features(i, *pair) for i, pair in enumerate(zip(seen, places, strict=True))
        ]
        encoded["visual_attention_mask"] = _mask(embedded)
        encoded.boxes = None if boxes is None else _padded(places)
        if self.kind == "lxmert":
            encoded["visual_feats"], encoded["visual_pos"] = _padded(embedded), encoded.boxes
        else:
            encoded["visual_embeds"] = _padded(embedded)
            encoded["visual_token_type_ids"] = torch.ones_like(encoded["visual_attention_mask"])
        return encoded

    def inputs_of(self, samples: Sequence[QuestionSample]) -> BatchEncoding:
        """Return what the model takes of samples of a data set of questions."""
        return self.of(samples)

    def save_pretrained(self, folder: Path) -> None:
        """Write the tokenizer, as transformers reads it."""
        self.tokenizer.save_pretrained(folder)

    def of(self, samples: QuestionSample | Sequence[QuestionSample]) -> BatchEncoding:
        """Return what the model takes for samples of a data set of questions.

        Raises InputError for a sample without regions.
        """
        listed = samples if isinstance(samples, Sequence) else [samples]
        for sample in listed:
            if sample.features is None or sample.boxes is None:
                raise InputError(
                    f"The sample {sample.key!r} has no regions: open its data set with features "
                    "and boxes of a detector."
                )
        return self(
            [sample.question for sample in listed],
            [sample.features for sample in listed],
            [sample.boxes for sample in listed],
        )

    def _check_length(self, encoded: BatchEncoding) -> None:
        if self.max_length is None:
            return
        for i, encoding in enumerate(encoded.encodings):
            real = sum(encoding.attention_mask)
            if real > self.max_length:
                raise InputError(
                    f"Question {i} ({encoded.texts[i][0][:40]!r}...) has {real} tokens, the model "
                    f"takes {self.max_length}: ask it in fewer words."
                )

    def _region_features(self, i: int, features: Tensor, boxes: Tensor | None) -> Tensor:
        """Return the checked features of image i as the model takes them."""
        if features.ndim != 2 or 0 in features.shape:
            raise InputError(
                f"features[{i}] has the shape {tuple(features.shape)}; expected (regions, dim) "
                "with at least one region."
            )
        if not features.isfinite().all():
            raise InputError(f"features[{i}] holds NaN or infinite numbers.")
        regions, dim = features.shape
        if boxes is not None:
            _check_boxes(i, boxes, regions)
        elif self.kind == "lxmert":
            raise InputError(
                "LXMERT takes boxes beside the features: give boxes=, (regions, 4) an image."
            )
        if dim == self.feature_dim:
            return features
        if self.kind == "visual_bert" and dim == self.feature_dim - BOX:
            if boxes is None:
                raise InputError(
                    f"features[{i}] has {dim} numbers a region, VisualBERT takes "
                    f"{self.feature_dim}, the last four a box: give boxes= as well."
                )
            return torch.cat([features, boxes], 1)
        also = f", or {self.feature_dim - BOX} and boxes" if self.kind == "visual_bert" else ""
        raise InputError(
            f"features[{i}] has {dim} numbers a region, the model takes {self.feature_dim}{also}: "
            "take the detector that the model was trained with."
        )


def _listed(regions: Regions, name: str, n: int) -> list[Tensor]:
    """Return the regions of n images as float32 tensors; counts that do not pair raise."""
    if isinstance(regions, Tensor | np.ndarray):
        if regions.ndim not in (2, 3):
            raise InputError(
                f"{name} has the shape {tuple(regions.shape)}; expected (regions, numbers) for one "
                "image or (images, regions, numbers)."
            )
        regions = [regions] if regions.ndim == 2 else list(regions)
    if not isinstance(regions, Sequence) or isinstance(regions, str | bytes):
        raise InputError(
            f"{name} is {type(regions).__name__}; expected a tensor or an array, or a list of them."
        )
    if len(regions) != n:
        raise InputError(
            f"There are {n} questions and {name} of {len(regions)} images; give one image a "
            f"question ({name}=[{name}] * {n} asks several of one)."
        )
    return [_tensor(value, f"{name}[{i}]") for i, value in enumerate(regions)]


def _tensor(value: object, name: str) -> Tensor:
    if not isinstance(value, Tensor | np.ndarray):
        raise InputError(f"{name} is {type(value).__name__}; expected a tensor or an array.")
    try:
        return torch.as_tensor(value).detach().to("cpu", torch.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} holds no numbers ({error}).") from error


def _check_boxes(i: int, boxes: Tensor, regions: int) -> None:
    if boxes.shape != (regions, BOX):
        raise InputError(
            f"boxes[{i}] has the shape {tuple(boxes.shape)}, its features are of {regions} "
            f"regions; expected ({regions}, {BOX})."
        )
    if not boxes.isfinite().all():
        raise InputError(f"boxes[{i}] holds NaN or infinite numbers.")
    low, high = boxes.min().item(), boxes.max().item()
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise InputError(
            f"boxes[{i}] reaches from {low:g} to {high:g}; expected x0, y0, x1, y1 in parts of the "
            "image: divide x by its width and y by its height."
        )
    if (boxes[:, 2:] < boxes[:, :2]).any():
        raise InputError(
            f"boxes[{i}] has a right or lower edge before its left or upper one; expected x0, y0, "
            "x1, y1, not x, y, width, height."
        )


def _padded(rows: Sequence[Tensor]) -> Float[Tensor, "n r d"]:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def _mask(rows: Sequence[Tensor]) -> Int[Tensor, "n r"]:
    return torch.nn.utils.rnn.pad_sequence(
        [torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True
    )
