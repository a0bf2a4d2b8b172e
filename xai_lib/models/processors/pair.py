"""From images and texts to what a model of both takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from xai_lib.errors import InputError
from xai_lib.files.images import ImageLike
from xai_lib.models.processors.image import Processor
from xai_lib.models.processors.text import TextProcessor
from xai_lib.models.processors.tokenizers import STATED, TokenLimit, check_fast

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase


@dataclass(frozen=True)
class PairProcessor:
    """Prepare images and texts for one model, as transformers' CLIPProcessor does.

    images: the `Processor` of the image side. tokenizer: a fast tokenizer. class_names: what a
    zero-shot classifier of this model names by default, or empty. max_length: the most tokens that
    the model takes, special ones included; None for no limit. pad_to: pad every text to this number
    of tokens (SigLIP was trained so); None pads to the longest text of the batch.
    """

    # What is studied of it is a classifier of images: `zero_shot`.
    modality: ClassVar[str] = "image"
    classes_are_texts: ClassVar[bool] = True

    images: Processor
    tokenizer: PreTrainedTokenizerBase
    class_names: tuple[str, ...] = ()
    max_length: TokenLimit = STATED
    pad_to: int | None = None

    def __post_init__(self):
        check_fast(self.tokenizer)

    @property
    def _texts(self) -> TextProcessor:
        return TextProcessor(self.tokenizer, (), self.max_length)

    def __call__(
        self,
        images: ImageLike | Sequence[ImageLike],
        texts: str | Sequence[str],
        *,
        truncate: bool = False,
    ) -> BatchEncoding:
        """Return pixel_values (images, 3, H, W), input_ids and attention_mask (texts, tokens).

        The numbers of images and texts are free: the model scores every image with every text. The
        texts travel along as `.texts`, and `.encodings` leads from tokens to characters. truncate:
        cut texts that are longer than the model takes; without it they are an InputError, as are
        empty texts and images that cannot be read.
        """
        if isinstance(images, str) and not isinstance(texts, (str, list, tuple)):
            raise InputError("The images come first, then the texts: processor(images, texts).")
        encoded = self.tokenize(texts, truncate=truncate)
        encoded.data = self.images(images) | encoded.data
        return encoded

    def denormalize(self, pixels: Tensor) -> Tensor:
        """Return the images behind `pixels` (batch, 3, H, W), in [0, 1], as of a `Processor`."""
        return self.images.denormalize(pixels)

    def tokenize(self, texts: str | Sequence[str], *, truncate: bool = False) -> BatchEncoding:
        """Return input_ids and attention_mask alone, (texts, tokens); errors as above."""
        encoded = self._texts(texts, truncate=truncate)
        if self.pad_to is None:
            return encoded
        padded = self.tokenizer(
            [text for (text,) in encoded.texts],
            padding="max_length",
            max_length=self.pad_to,
            truncation=truncate,
            return_tensors="pt",
        )
        padded.texts = encoded.texts
        rows = zip(padded.encodings, padded.texts, strict=True)
        padded.special = torch.tensor([self._texts.special_tokens(*row) for row in rows])
        return padded
