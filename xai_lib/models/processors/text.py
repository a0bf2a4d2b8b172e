"""From texts to what a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from xai_lib.errors import InputError
from xai_lib.models.processors.messages import Message, conversations, written
from xai_lib.models.processors.tokenizers import STATED, TokenLimit, check_fast
from xai_lib.streams.words import Span, joined_words

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import BatchEncoding, PreTrainedTokenizerBase

# What to do about a special token that would stand twice.
COMPLETE = (
    "give add_special_tokens=False for texts that are complete (True if both are meant), or a "
    "conversation as messages=[...]."
)


@dataclass(frozen=True)
class TextProcessor:
    """Tokenize texts for one model: pad them to the longest, never cut them silently.

    tokenizer: a fast tokenizer of transformers, whose offsets lead from tokens back to characters.
    class_names: the model's classes in order, or empty. max_length: the most tokens that the model
    takes, special ones included; None for no limit.
    """

    modality: ClassVar[str] = "text"
    classes_are_texts: ClassVar[bool] = False
    # Fields that tell the inputs of one processor from those of another.
    identity: ClassVar[tuple[str, ...]] = ("tokenizer", "max_length")
    # How a fraction of heads becomes a number, see `HeadScores.mask`.
    head_counts: ClassVar[str] = "floor_pruned"

    tokenizer: PreTrainedTokenizerBase
    class_names: tuple[str, ...] = ()
    max_length: TokenLimit = STATED

    def __post_init__(self):
        check_fast(self.tokenizer)

    def __call__(
        self,
        texts: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        pairs: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        *,
        truncate: bool = False,
        messages: Sequence[Message] | Sequence[Sequence[Message]] | None = None,
        add_special_tokens: bool | None = None,
        is_split_into_words: bool = False,
    ) -> BatchEncoding:
        """Return input_ids, attention_mask and what else the model takes, as (batch, tokens) ints.

        The texts travel along as `.texts`, a tuple of one or two strings a sample, so that an
        explanation knows its words, and `.special`, bool (batch, tokens), says which tokens the
        tokenizer added, a chat template wrote or a person typed ("[SEP]"): these are no words.
        pairs: the second texts of a task on two. truncate: cut what is longer than `max_length`;
        without it a long text is an InputError (`xai.explain_long` explains it in windows).

        messages: a conversation or a list of them, each a list of {"role": ..., "content": ...},
        instead of texts; the tokenizer's chat template writes them, special tokens included, and
        the words are those of the messages. add_special_tokens: False for texts that hold the
        special tokens already. Left open, they are added, and a text that begins or ends with one
        that is added as well is an InputError. is_split_into_words: texts are a list of words, or
        a list of such lists, and these are the words that are explained.
        Raises InputError for texts that are empty or no text.
        """
        if (messages is None) == (texts is None):
            raise InputError("Give texts or messages: one of them, not both and not neither.")
        if messages is not None:
            return self._chat(messages, pairs, truncate, add_special_tokens, is_split_into_words)
        listed = _word_lists if is_split_into_words else listed_texts
        first, second = listed(texts, "texts"), None
        if pairs is not None:
            second = listed(pairs, "pairs")
            if len(second) != len(first):
                raise InputError(f"There are {len(first)} texts and {len(second)} pairs of theirs.")
        encoded = self._encoded(
            first, second, truncate, add_special_tokens, is_split_into_words=is_split_into_words
        )
        samples = tuple(zip(first, second, strict=True) if second else ((t,) for t in first))
        if is_split_into_words:
            encoded.given_words = tuple(tuple(tuple(w) for w in sample) for sample in samples)
            samples = tuple(tuple(joined_words(w)[0] for w in sample) for sample in samples)
        return self._finished(encoded, samples, add_special_tokens)

    def _chat(self, messages, pairs, truncate, add_special_tokens, split) -> BatchEncoding:
        if pairs is not None or split:
            raise InputError("messages go without pairs and without is_split_into_words.")
        found = [written(self.tokenizer, one) for one in conversations(messages)]
        # The template has written them.
        added = bool(add_special_tokens)
        encoded = self._encoded([text for text, _ in found], None, truncate, added)
        samples = tuple((text,) for text, _ in found)
        return self._finished(encoded, samples, added, [spans for _, spans in found])

    def _encoded(self, first, second, truncate, add_special_tokens, **options) -> BatchEncoding:
        if len(first) > 1 and self.tokenizer.pad_token is None:
            raise InputError(
                "The tokenizer has no padding token, so texts of several lengths make no batch. "
                "Set one, e.g. tokenizer.pad_token = tokenizer.eos_token and "
                "model.config.pad_token_id = tokenizer.pad_token_id, or give one text at a time."
            )
        limit = {} if self.max_length is None else {"max_length": self.max_length}
        try:
            return self.tokenizer(
                first,
                second,
                padding=len(first) > 1,
                truncation=bool(truncate and limit),
                return_tensors="pt",
                verbose=False,  # of long texts: `_check` speaks of these
                add_special_tokens=add_special_tokens is not False,
                **options,
                **(limit if truncate else {}),
            )
        except AssertionError as error:
            # Tokenizers of bytes want to know whether a word begins with a space.
            raise InputError(
                f"The tokenizer takes no words one by one: {error} Or join them into a text, "
                "processor(' '.join(words))."
            ) from error

    def _finished(
        self,
        encoded: BatchEncoding,
        samples: tuple[tuple[str, ...], ...],
        add_special_tokens: bool | None,
        counted: Sequence[Sequence[Span]] | None = None,
    ) -> BatchEncoding:
        """Check an encoding and add its texts and special tokens.

        counted: the characters of each text that count, where not all of them do.
        """
        encoded.tokenizer = self.tokenizer
        encoded.texts = samples
        encoded.special = self._special(encoded, counted)
        self._check(encoded)
        if add_special_tokens is None:
            self.check_doubled(encoded.encodings)
        return encoded

    def _special(
        self, encoded: BatchEncoding, counted: Sequence[Sequence[Span]] | None
    ) -> Bool[Tensor, "batch tokens"]:
        rows = [
            self.special_tokens(encoding, texts)
            for encoding, texts in zip(encoded.encodings, encoded.texts, strict=True)
        ]
        if counted is not None:
            for row, encoding, spans in zip(rows, encoded.encodings, counted, strict=True):
                for place, (start, end) in enumerate(encoding.offsets):
                    row[place] |= not any(a < end and start < b for a, b in spans)
        return torch.tensor(rows, dtype=torch.bool)

    def special_tokens(self, encoding: Encoding, texts: Sequence[str]) -> list[bool]:
        """Return which tokens of an encoding are special: added, or typed in one of its texts."""
        tokenizer = self.tokenizer
        known = set(tokenizer.all_special_ids)
        known |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        # [UNK] stands for characters of the text; some tokenizers call their end token so too.
        unknown = tokenizer.unk_token_id
        known -= {unknown}
        ends = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        found = []
        for number, added, (start, end), text in zip(
            encoding.ids,
            encoding.special_tokens_mask,
            encoding.offsets,
            encoding.sequence_ids,
            strict=True,
        ):
            typed = number in known
            if number == unknown and unknown in ends:
                typed = texts[text or 0][start:end].strip() == tokenizer.unk_token
            found.append(bool(added) or typed)
        return found

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

    def _check(self, encoded: BatchEncoding) -> None:
        for i, encoding in enumerate(encoded.encodings):
            real = sum(encoding.attention_mask)
            if bool(encoded.special[i].all()):
                raise InputError(
                    f"Text {i} ({encoded.texts[i][0][:40]!r}) is only special tokens to the "
                    "tokenizer, so there is nothing to explain."
                )
            if self.max_length is not None and real > self.max_length:
                raise InputError(
                    f"Text {i} has {real} tokens, the model takes {self.max_length}. Explain it in "
                    "windows with xai.explain_long(model, processor, text), or cut it with "
                    "processor(text, truncate=True)."
                )

    def check_doubled(self, encodings: Sequence[Encoding], advice: str = COMPLETE) -> None:
        """Refuse texts that begin or end with a special token that the tokenizer adds once more."""
        for i, encoding in enumerate(encodings):
            rows = zip(
                encoding.ids, encoding.special_tokens_mask, encoding.attention_mask, strict=True
            )
            tokens = [(number, added) for number, added, real in rows if real]
            for (outer, added), (inner, other) in (tokens[:2], tokens[:-3:-1]):
                if added and not other and outer == inner:
                    token = self.tokenizer.convert_ids_to_tokens(outer)
                    raise InputError(
                        f"Text {i} holds {token!r} already, and the tokenizer adds another beside "
                        f"it: {advice}"
                    )


def _word_lists(texts: Sequence[str] | Sequence[Sequence[str]], name: str) -> list[list[str]]:
    """Return a list of words, or several, as a list of lists, or raise an InputError."""
    if isinstance(texts, str) or not isinstance(texts, Sequence) or not len(texts):
        raise InputError(
            f"{name} is {type(texts).__name__}; expected a list of words, or a list of such lists."
        )
    single = all(isinstance(word, str) for word in texts)
    return [listed_texts(words, name) for words in ([texts] if single else texts)]


def listed_texts(texts: str | Sequence[str], name: str) -> list[str]:
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
