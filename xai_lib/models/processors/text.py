"""From texts to what a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from xai_lib.errors import InputError

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

# Tokenizers that state no limit have this or a larger number as their model_max_length.
NO_LIMIT = 10**6


@dataclass(frozen=True)
class TextProcessor:
    """Tokenize texts for one model: pad them to the longest, never cut them silently.

    tokenizer: a fast tokenizer of transformers, whose offsets lead from tokens back to characters.
    class_names: the model's classes in order, or empty. max_length: the most tokens that the model
    takes, special ones included; None for no limit.
    """

    modality: ClassVar[str] = "text"
    # Fields that tell the inputs of one processor from those of another.
    identity: ClassVar[tuple[str, ...]] = ("tokenizer", "max_length")
    # How a fraction of heads becomes a number, see `HeadScores.mask`.
    head_counts: ClassVar[str] = "floor_pruned"

    tokenizer: PreTrainedTokenizerBase
    class_names: tuple[str, ...] = ()
    max_length: int | None = None

    def __post_init__(self):
        if not getattr(self.tokenizer, "is_fast", False):
            raise InputError(
                f"{type(self.tokenizer).__name__} is no fast tokenizer, so it does not say which "
                "characters a token stands for. Load it with AutoTokenizer.from_pretrained(...)."
            )
        limit = self.tokenizer.model_max_length
        if self.max_length is None and limit < NO_LIMIT:
            object.__setattr__(self, "max_length", int(limit))

    def __call__(
        self,
        texts: str | Sequence[str],
        pairs: str | Sequence[str] | None = None,
        *,
        truncate: bool = False,
    ) -> BatchEncoding:
        """Return input_ids, attention_mask and what else the model takes, as (batch, tokens) ints.

        The texts travel along as `.texts`, a tuple of one or two strings a sample, so that an
        explanation knows its words. pairs: the second texts of a task on two. truncate: cut what
        is longer than `max_length`; without it a long text is an InputError (`xai.explain_long`
        explains it in windows). Raises InputError for texts that are empty or no text.
        """
        first, second = _listed(texts, "texts"), None
        if pairs is not None:
            second = _listed(pairs, "pairs")
            if len(second) != len(first):
                raise InputError(f"There are {len(first)} texts and {len(second)} pairs of theirs.")
        if len(first) > 1 and self.tokenizer.pad_token is None:
            raise InputError(
                "The tokenizer has no padding token, so texts of several lengths make no batch. "
                "Set one, e.g. tokenizer.pad_token = tokenizer.eos_token and "
                "model.config.pad_token_id = tokenizer.pad_token_id, or give one text at a time."
            )
        limit = {} if self.max_length is None else {"max_length": self.max_length}
        encoded = self.tokenizer(
            first,
            second,
            padding=len(first) > 1,
            truncation=bool(truncate and limit),
            return_tensors="pt",
            verbose=False,  # of long texts: `_check` speaks of these
            **(limit if truncate else {}),
        )
        self._check(encoded, first)
        encoded.texts = tuple(zip(first, second, strict=True) if second else ((t,) for t in first))
        return encoded

    def inputs_of(self, samples: Sequence) -> BatchEncoding:
        """Return what the model takes of samples of a text data set."""
        pairs = [sample.pair for sample in samples]
        return self([sample.text for sample in samples], None if None in pairs else pairs)

    def save_pretrained(self, folder: Path) -> None:
        """Write the tokenizer, as transformers reads it."""
        self.tokenizer.save_pretrained(folder)

    def of(self, samples: Sequence[tuple[str, ...]], *, truncate: bool = False) -> BatchEncoding:
        """Return what the model takes for samples of one text each, or two each."""
        first, *second = (list(column) for column in zip(*samples, strict=True))
        return self(first, second[0] if second else None, truncate=truncate)

    def length(self, sample: tuple[str, ...]) -> int:
        """Return the number of tokens of one text or two, special ones included, uncut."""
        return len(self.tokenizer(*sample, verbose=False).input_ids)

    def _check(self, encoded: BatchEncoding, texts: list[str]) -> None:
        tokenizer = self.tokenizer
        # [UNK] stands for characters of the text.
        special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        for i, encoding in enumerate(encoded.encodings):
            real = sum(encoding.attention_mask)
            if special.issuperset(encoding.ids):
                raise InputError(
                    f"Text {i} ({texts[i][:40]!r}) is only special tokens to the tokenizer, so "
                    "there is nothing to explain."
                )
            if self.max_length is not None and real > self.max_length:
                raise InputError(
                    f"Text {i} has {real} tokens, the model takes {self.max_length}. Explain it in "
                    "windows with xai.explain_long(model, processor, text), or cut it with "
                    "processor(text, truncate=True)."
                )


def _listed(texts: str | Sequence[str], name: str) -> list[str]:
    """Return texts as a list, or raise an InputError for what is no text or empty."""
    listed = [texts] if isinstance(texts, str) else texts
    if not isinstance(listed, Sequence) or isinstance(listed, bytes) or not len(listed):
        raise InputError(f"{name} is {type(texts).__name__}; expected a text or a list of texts.")
    for i, text in enumerate(listed):
        if isinstance(text, bytes):
            raise InputError(f"{name}[{i}] is bytes; decode it first, e.g. with .decode('utf-8').")
        if not isinstance(text, str):
            raise InputError(f"{name}[{i}] is {type(text).__name__}; expected a text.")
        if not text.strip():
            raise InputError(f"{name}[{i}] is empty; expected a text.")
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise InputError(
                f"{name}[{i}] holds half a character (a lone surrogate): it was read with the "
                "wrong encoding. Read the file as UTF-8."
            )
    return list(listed)
