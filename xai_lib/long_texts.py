"""Documents longer than their model takes: explained in overlapping windows, merged by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xai_lib.api import explain
from xai_lib.attribution import Attribution
from xai_lib.errors import InputError, OptionError, unknown_name
from xai_lib.options import check_range
from xai_lib.passes.loan import borrowed, unwrap
from xai_lib.streams.labels import class_names
from xai_lib.streams.layouts import StreamsLayout
from xai_lib.streams.outputs import PARTS, choice_of, logits_of
from xai_lib.streams.prepare import takes_keyword
from xai_lib.streams.scales import scale_of
from xai_lib.streams.targets import Target, resolve
from xai_lib.streams.texts import TextLayout

MERGES = ("mean", "max", "sum")


@dataclass(frozen=True)
class _Window:
    """Part of a document as the model sees it, and the document's token at each of its places."""

    encoding: object
    places: tuple[int, ...]


def explain_long(
    model: nn.Module,
    processor,
    texts: str | Sequence[str],
    method: str = "transformer_attribution",
    target: Target = None,
    *,
    window: int | None = None,
    overlap: int | None = None,
    merge: str = "mean",
    batch_size: int = 8,
    **options,
) -> Attribution:
    """Explain texts of any length: `xai.explain` on windows, merged into one score a token.

    window: tokens that the model sees at once, special ones included (default: the most that it
    takes); overlap: text tokens that a window shares with the one before (default: a quarter).
    att.logits, and with them the predicted class, are the mean of the windows' logits; every
    window is explained for the same class. A token in several windows gets the "mean" of its
    scores, the "max", or their "sum" over the number of windows, which is what an additive method
    gives for the mean logit. Special tokens get theirs from all windows. A text that fits into one
    window is explained as `xai.explain` does. processor: a `TextProcessor`.
    """
    if merge not in MERGES:
        raise unknown_name("merge", merge, MERGES)
    size, shared = _sizes(processor, window, overlap)
    check_range("batch_size", batch_size, 1, 100_000, "windows per forward pass.")
    if "targets" in options:
        raise OptionError("explain_long takes one target a text: call it for each of several.")
    listed = [texts] if isinstance(texts, str) else list(texts)
    if not listed:
        raise InputError("texts is empty; expected a text or a list of texts.")
    model, tokenizer = unwrap(model), processor.tokenizer
    device = next(model.parameters()).device
    cuts = [_cut(tokenizer, text, number, size, shared) for number, text in enumerate(listed)]
    processor.check_doubled([document for document, _ in cuts], "leave it out of the text.")
    windows = [window for _, parts in cuts for window in parts]
    owners = [number for number, (_, parts) in enumerate(cuts) for _ in parts]
    step = batch_size if tokenizer.pad_token is not None else 1
    places = [slice(i, i + step) for i in range(0, len(windows), step)]
    batches = [_batch(tokenizer, windows[part]).to(device) for part in places]
    with borrowed(model), torch.no_grad():
        seen = torch.cat([_scores(model, batch, options) for batch in batches])
        scale = scale_of(model, seen, lambda: _scores(model, batches[0], options))
    counts = torch.bincount(torch.tensor(owners, device=device)).to(seen.dtype)
    sums = seen.new_zeros(len(listed), seen.shape[1])
    logits = sums.index_add_(0, torch.tensor(owners, device=device), seen) / counts[:, None]
    names = class_names(model, logits.shape[1])
    chosen = resolve(target, logits, names)

    layout = _layout([document for document, _ in cuts], listed, processor, device)
    found: list[list[list[Tensor]]] = [[[] for _ in document.ids] for document, _ in cuts]
    for part, batch in zip(places, batches, strict=True):
        att = explain(model, batch, method, chosen[owners[part]], **options)
        present = batch["attention_mask"].bool()
        for k, number in enumerate(owners[part]):
            scores = att.relevance[k][present[k]]
            for place, score in zip(windows[part][k].places, scores, strict=True):
                found[number][place].append(score)
    relevance = torch.zeros(layout.ids.shape, dtype=att.relevance.dtype, device=device)
    for number, tokens in enumerate(found):
        merged = [_merged(scores, merge, int(counts[number])) for scores in tokens]
        relevance[number, : len(tokens)] = torch.stack(merged)
    return Attribution(
        relevance=relevance,
        target=chosen,
        logits=logits,
        content=layout.content,
        method=method,
        options=options | {"window": size, "overlap": shared, "merge": merge},
        layouts=StreamsLayout.side_by_side({layout.stream: layout}),
        inputs=layout.ids,
        class_names=names,
        scale=scale,
    )


def _sizes(processor, window: int | None, overlap: int | None) -> tuple[int, int]:
    """Return the window's size and its overlap with the one before, in tokens."""
    added = processor.tokenizer.num_special_tokens_to_add()
    limit = processor.max_length
    if window is None and limit is None:
        raise OptionError("The model has no length limit: say how many tokens a window has.")
    size = limit if window is None else window
    most = limit if limit is not None else 10**9
    check_range("window", size, added + 1, most, "tokens at once, special ones included.")
    shared = (size - added) // 4 if overlap is None else overlap
    check_range("overlap", shared, 0, size - added - 1, "tokens shared with the window before.")
    return size, shared


def _cut(tokenizer, text: str, number: int, size: int, shared: int):
    """Return the encoding of a document and its windows."""
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"texts[{number}] is empty or no text; expected a text.")
    document = tokenizer(text, verbose=False).encodings[0]
    parts = tokenizer(
        text,
        truncation=True,
        max_length=size,
        stride=shared,
        return_overflowing_tokens=True,
        verbose=False,
    ).encodings
    special = [i for i, added in enumerate(document.special_tokens_mask) if added]
    content = [i for i, added in enumerate(document.special_tokens_mask) if not added]
    if not content:
        raise InputError(f"texts[{number}] ({text[:40]!r}) is only special tokens: nothing to say.")
    # A tokenizer that truncates at the left begins with the last window and goes backwards.
    backwards = tokenizer.truncation_side == "left"
    windows, passed = [], 0
    for part in parts:
        inside = sum(not added for added in part.special_tokens_mask)
        start = len(content) - passed - inside if backwards else passed
        own, ends = iter(content[start : start + inside]), iter(special)
        places = tuple(next(ends) if added else next(own) for added in part.special_tokens_mask)
        windows.append(_Window(part, places))
        passed += inside - shared
    return document, windows


def _batch(tokenizer, windows: list[_Window]):
    names = {*tokenizer.model_input_names, "attention_mask", "special_tokens_mask"} & set(_FIELDS)
    fields = {n: [getattr(w.encoding, _FIELDS[n]) for w in windows] for n in sorted(names)}
    return tokenizer.pad(fields, padding=len(windows) > 1, return_tensors="pt")


# What a tokenizer calls its outputs, and what the `tokenizers` library does.
_FIELDS = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "special_tokens_mask": "special_tokens_mask",
    "token_type_ids": "type_ids",
}


def _scores(model: nn.Module, batch, options: dict) -> Tensor:
    choice = choice_of(options.get("output"), options.get("part"))
    if choice in PARTS.values():
        raise OptionError(
            "An answer begins and ends at a token of one window, so that windows have no mean "
            "score: explain the window that holds the answer, with xai.explain(..., part=)."
        )
    return logits_of(model(**_taken(model, batch)), None, choice, len(batch["input_ids"]))


def _taken(model: nn.Module, batch) -> dict:
    """Return what of a batch the model takes: tokenizers offer token types to all."""
    return {name: value for name, value in batch.items() if takes_keyword(model, name)}


def _layout(documents, texts: list[str], processor, device) -> TextLayout:
    longest = max(len(document.ids) for document in documents)

    def padded(values: list[int]) -> list[int]:
        return values + [0] * (longest - len(values))

    ids, present = (
        torch.tensor([padded(getattr(d, name)) for d in documents], device=device)
        for name in ("ids", "attention_mask")
    )
    pairs = tuple((text,) for text in texts)
    rows = [processor.special_tokens(d, own) for d, own in zip(documents, pairs, strict=True)]
    special = torch.tensor([padded(row) for row in rows], device=device)
    return TextLayout.of(ids, present.bool(), special.bool(), tuple(documents), pairs)


def _merged(scores: list[Tensor], merge: str, windows: int) -> Tensor:
    stacked = torch.stack(scores)
    if merge == "max":
        return stacked.amax(0)
    return stacked.mean(0) if merge == "mean" else stacked.sum(0) / windows
