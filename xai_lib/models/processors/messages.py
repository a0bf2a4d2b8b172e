"""Chat messages as the one text that a tokenizer's template makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from xai_lib.errors import InputError
from xai_lib.streams.words import Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, object]

# Stands for a message's text while the template's own is found; no template contains it.
_PLACE = "\u2060xai{}\u2060"


def conversations(messages: Sequence[Message] | Sequence[Sequence[Message]]) -> list[list[Message]]:
    """Return one conversation or several as a list of lists of {"role": ..., "content": ...}.

    A content is a text, or a list of parts of which each is {"type": "text", "text": ...}. Raises
    InputError for anything else.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InputError(
            f"messages is {type(messages).__name__}; expected a list of messages such as "
            "[{'role': 'user', 'content': 'Hello'}], or a list of such lists."
        )
    several = messages if not isinstance(messages[0], Mapping) else [messages]
    return [[_checked(message) for message in conversation] for conversation in several]


def _checked(message: object) -> Message:
    content = message.get("content") if isinstance(message, Mapping) else None
    parts = [] if isinstance(content, str) or not isinstance(content, Sequence) else list(content)
    if parts and all(isinstance(p, Mapping) and isinstance(p.get("text"), str) for p in parts):
        content = "".join(part["text"] for part in parts)
    if not isinstance(message, Mapping) or "role" not in message or not isinstance(content, str):
        raise InputError(
            f"messages holds {message!r}; expected {{'role': ..., 'content': a text}}. What holds "
            "no text, such as an image, goes through the model's own processor."
        )
    return {**message, "content": content}


def written(
    tokenizer: PreTrainedTokenizerBase, conversation: Sequence[Message]
) -> tuple[str, tuple[Span, ...]]:
    """Return the text that the template makes of a conversation, and where its messages stand.

    The template's prompt for an answer is added where the last message is not the assistant's. It
    is the template that says where messages stand: it is filled in a second time, with marks for
    their texts. Where it does something else with these (cuts a thought out), the whole text
    counts. Raises InputError for a tokenizer without a template, and what the template refuses.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"{type(tokenizer).__name__} has no chat template, so nobody knows how it writes "
            "messages: give the text itself, processor(text), or set tokenizer.chat_template."
        )
    text = _filled(tokenizer, conversation)
    marks = [_PLACE.format(number) for number in range(len(conversation))]
    marked = _filled(
        tokenizer,
        [{**m, "content": mark} for m, mark in zip(conversation, marks, strict=True)],
    )
    spans, rebuilt = [], ""
    for message, mark in zip(conversation, marks, strict=True):
        before, found, marked = marked.partition(mark)
        rebuilt += before
        rest = text[len(rebuilt) :]
        # Most templates cut white space at the ends of a message.
        content = str(message["content"])
        own = content if rest.startswith(content) else content.strip()
        if not found or text[: len(rebuilt)] != rebuilt or not rest.startswith(own):
            return text, ((0, len(text)),)
        spans.append((len(rebuilt), len(rebuilt) + len(own)))
        rebuilt += own
    return text, tuple(spans) if rebuilt + marked == text else ((0, len(text)),)


def _filled(tokenizer: PreTrainedTokenizerBase, conversation: Sequence[Message]) -> str:
    from jinja2.exceptions import TemplateError

    asks = conversation[-1]["role"] != "assistant"
    try:
        return tokenizer.apply_chat_template(
            list(conversation), tokenize=False, add_generation_prompt=asks
        )
    except TemplateError as error:
        raise InputError(f"The tokenizer's chat template refuses the messages: {error}") from error
