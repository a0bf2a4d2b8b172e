"""From images and texts to what a model of open_clip takes, by its own transforms and tokenizer."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from xai_lib.errors import InputError
from xai_lib.files.images import ImageLike, read_each, read_image
from xai_lib.models.processors.text import listed_texts
from xai_lib.streams.words import Span

END_OF_WORD = "</w>"


@dataclass(frozen=True)
class Pieces:
    """The tokens of one text: number, name, characters (start, end); (0, 0) for added ones.

    The attributes are those of an encoding of the `tokenizers` library.
    """

    ids: list[int]
    tokens: list[str]
    offsets: list[Span]
    special_tokens_mask: list[int]
    word_ids: list[int | None]

    @property
    def sequence_ids(self) -> list[int | None]:
        """0 for tokens of the text, None for added ones."""
        return [None if added else 0 for added in self.special_tokens_mask]


class PairInputs(UserDict[str, Tensor]):
    """What the model takes, by name; `texts` and `encodings` say which words the tokens are."""

    texts: tuple[tuple[str], ...]
    encodings: tuple[Pieces, ...]
    special: Tensor

    def to(self, device: torch.device | str) -> PairInputs:
        """Move the tensors, in place as transformers does."""
        self.data = {name: x.to(device) for name, x in self.data.items()}
        return self


@dataclass(frozen=True)
class OpenClipProcessor:
    """Prepare images and texts for one model of open_clip.

    transform: of one PIL image, the last that `open_clip.create_model_and_transforms(...)` returns.
    tokenizer: `open_clip.get_tokenizer(...)`. Neither is imported here: whatever acts so will do.

    >>> model, _, transform = open_clip.create_model_and_transforms("ViT-B-32", pretrained=...)
    >>> processor = OpenClipProcessor(transform, open_clip.get_tokenizer("ViT-B-32"))
    >>> xai.explain(model, processor(picture, ["a cat", "a dog"]), target="a cat").show()
    """

    modality: ClassVar[str] = "image"
    classes_are_texts: ClassVar[bool] = True

    transform: Callable[[Image.Image], Tensor]
    tokenizer: Any
    class_names: tuple[str, ...] = field(default=())

    def __call__(
        self,
        images: ImageLike | Sequence[ImageLike],
        texts: str | Sequence[str],
        *,
        truncate: bool = False,
    ) -> PairInputs:
        """Return image (images, 3, H, W) and text (texts, tokens).

        The texts travel along as `.texts`, with the characters of their tokens where the tokenizer
        is one of open_clip's two kinds. truncate: cut texts that are longer than the model takes;
        without it they are an InputError, as are empty texts and images that cannot be read.
        """
        pixels = torch.stack(read_each(images, self._transformed, "explain"))
        inputs = self.tokenize(texts, truncate=truncate)
        inputs.data = {"image": pixels, **inputs.data}
        return inputs

    def tokenize(self, texts: str | Sequence[str], *, truncate: bool = False) -> PairInputs:
        """Return text (texts, tokens) alone; errors as above."""
        written = listed_texts(texts, "texts")
        ids = self.tokenizer(written)
        found = PairInputs({"text": ids})
        rows = [self._pieces(text, row, truncate) for text, row in zip(written, ids, strict=True)]
        found.texts = tuple((text,) for text, _ in rows)
        pieces = [piece for _, piece in rows if piece is not None]
        if len(pieces) == len(rows):
            found.encodings = tuple(pieces)
            found.special = torch.tensor([p.special_tokens_mask for p in pieces]).bool()
        return found

    def denormalize(
        self, pixels: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the images behind `pixels`, in [0, 1]: the transform's normalisation undone."""
        steps = getattr(self.transform, "transforms", ())
        step = next((s for s in steps if hasattr(s, "mean") and hasattr(s, "std")), None)
        if step is None:
            return pixels.clamp(0, 1)
        mean, std = (pixels.new_tensor(x).view(-1, 1, 1) for x in (step.mean, step.std))
        return (pixels * std + mean).clamp(0, 1)

    def _transformed(self, image: ImageLike) -> Tensor:
        read = read_image(image)
        if isinstance(read, Tensor):
            levels = (read * 255).round().to(torch.uint8)
            read = Image.fromarray(levels.permute(1, 2, 0).numpy())
        return self.transform(read)

    def _pieces(
        self, text: str, row: Int[Tensor, " tokens"], truncate: bool
    ) -> tuple[str, Pieces | None]:
        """Return the text that offsets count in, and its tokens, None where they are not known."""
        clean = getattr(self.tokenizer, "clean_fn", str)(text)
        # A tokenizer in lower case leaves the characters where they were.
        shown = text if len(text) == len(clean) and text.lower() == clean.lower() else clean
        own = getattr(self.tokenizer, "tokenizer", None)
        spans = _of_bytes(self.tokenizer, clean) if own is None else _of_fast(own, clean)
        if spans is None:
            return text, None
        numbers, length = row.tolist(), len(row)
        known = list(spans)
        if len(known) > length and not truncate:
            raise InputError(
                f"The text {text[:40]!r} has {len(known)} tokens, the model takes {length}. Cut it "
                "with processor(images, texts, truncate=True)."
            )
        known += [Token(number, "", (0, 0), None) for number in numbers[len(known) :]]
        cut = known[:length]
        if len(known) > length:
            # The last one is the end of the text there.
            cut[-1] = Token(numbers[-1], "", (0, 0), None)
        if [token.number for token in cut] != numbers:
            return text, None
        return shown, Pieces(
            numbers,
            [token.name for token in cut],
            [token.span for token in cut],
            [int(token.word is None) for token in cut],
            [token.word for token in cut],
        )


@dataclass(frozen=True)
class Token:
    """One token: its number and name, its characters, its word's number or None if added."""

    number: int
    name: str
    span: Span
    word: int | None


def _of_bytes(tokenizer: Any, text: str) -> Iterator[Token] | None:
    """Return the tokens of open_clip's own byte-pair tokenizer, None for another kind."""
    needed = ("pat", "bpe", "encoder", "byte_encoder", "sot_token_id", "eot_token_id")
    if not all(hasattr(tokenizer, name) for name in needed):
        return None

    def tokens() -> Iterator[Token]:
        yield Token(tokenizer.sot_token_id, "<start_of_text>", (0, 0), None)
        for word, match in enumerate(tokenizer.pat.finditer(text)):
            letters = [letter.encode("utf-8") for letter in match.group()]
            # The character that each byte is of.
            places = [place for place, letter in enumerate(letters) for _ in letter]
            coded = "".join(tokenizer.byte_encoder[byte] for byte in b"".join(letters))
            start = 0
            for piece in tokenizer.bpe(coded).split(" "):
                end = start + len(piece.removesuffix(END_OF_WORD))
                span = match.start() + places[start], match.start() + places[end - 1] + 1
                yield Token(tokenizer.encoder[piece], piece, span, word)
                start = end
        yield Token(tokenizer.eot_token_id, "<end_of_text>", (0, 0), None)

    return tokens()


def _of_fast(tokenizer: Any, text: str) -> Iterator[Token] | None:
    """Return the tokens of a fast tokenizer of transformers, None for a slow one."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    (found,) = tokenizer([text], verbose=False).encodings
    rows = zip(
        found.ids,
        found.tokens,
        found.offsets,
        found.word_ids,
        found.special_tokens_mask,
        strict=True,
    )
    return (
        Token(number, name, span, None if added else word or 0)
        for number, name, span, word, added in rows
    )
