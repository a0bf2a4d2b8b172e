"""Two texts and the cosine of their embeddings: a sentence encoder as a classifier of texts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from xai_lib.errors import InputError, UnsupportedModelError, unknown_name

POOLINGS = ("mean", "first")
# What models call the embedding of a whole text, the first that is there.
_WHOLE = ("sentence_embedding", "text_embeds")


class TextSimilarity(nn.Module):
    """A classifier of texts whose classes are other texts, around an unmodified sentence encoder.

    The score of a text for the other text j is the cosine ⟨e, o_j⟩ / (‖e‖ ‖o_j‖) of their
    embeddings (Reimers & Gurevych, EMNLP 2019). Those of the others are computed once, here, and
    carry no gradient, so the words of one text are explained at a time: why is it close to the
    other. For the words of the other, exchange the two.

    model: a SentenceTransformer, an encoder of transformers (`AutoModel`), or any module that takes
    token numbers and returns an embedding (batch, dim) or hidden states (batch, tokens, dim).
    others: what the processor returns for the other texts, `processor(["...", ...])`. pooling: how
    hidden states become an embedding, their "mean" over all tokens but padding, or the "first".

    Raises InputError for others without token numbers, UnsupportedModelError for a model that
    returns no embeddings.

    >>> encoder = SentenceTransformer(...)
    >>> processor = TextProcessor(encoder.tokenizer)
    >>> similarity = TextSimilarity(encoder, processor("A man eats."))
    >>> xai.explain(similarity, processor("Someone is having lunch."), target="A man eats.").show()
    """

    main_input_name = "input_ids"

    def __init__(self, model: nn.Module, others: Mapping[str, Tensor], pooling: str = "mean"):
        super().__init__()
        if pooling not in POOLINGS:
            raise unknown_name("pooling", pooling, POOLINGS)
        ids = others.get("input_ids") if isinstance(others, Mapping) else None
        if not isinstance(ids, Tensor) or ids.dim() != 2 or not len(ids):
            raise InputError(
                f"others is {type(others).__name__}; expected what the processor returns for the "
                "other texts, processor(['...', ...]), with input_ids of shape (texts, tokens)."
            )
        self.model, self.pooling = model, pooling
        device = next((p.device for p in model.parameters()), ids.device)
        given = {name: x.to(device) for name, x in others.items() if isinstance(x, Tensor)}
        self.register_buffer("others", self._of_others(given), persistent=False)
        texts = getattr(others, "texts", None) or [(f"text {i}",) for i in range(len(ids))]
        names = dict(enumerate(" ".join(sample) for sample in texts))
        inner = getattr(_encoder(model), "config", None)
        self.config = SimpleNamespace(
            id2label=names,
            label2id={name: i for i, name in names.items()},
            num_labels=len(names),
            max_position_embeddings=getattr(inner, "max_position_embeddings", None),
        )
        self.training = model.training

    def get_input_embeddings(self) -> nn.Module:
        """Return the encoder's table of words."""
        encoder = _encoder(self.model)
        if encoder is None:
            raise NotImplementedError
        return encoder.get_input_embeddings()

    def forward(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        attention_mask: Int[Tensor, "batch tokens"] | None = None,
        token_type_ids: Int[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch others"]:
        """Return the cosine of every text with every other text."""
        given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        known = {name: x for name, x in given.items() if x is not None}
        embedded = self._embedded({"input_ids": input_ids} | known)
        return F.normalize(embedded, dim=-1) @ F.normalize(self.others, dim=-1).T

    @torch.no_grad()
    def _of_others(self, given: dict[str, Tensor]) -> Float[Tensor, "others dim"]:
        training = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            return self._embedded(given)
        finally:
            for module, was in training:
                module.training = was

    def _embedded(self, given: dict[str, Tensor]) -> Float[Tensor, "batch dim"]:
        parameters = inspect.signature(self.model.forward).parameters
        if "input_ids" in parameters:
            free = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
            output = self.model(**{n: x for n, x in given.items() if free or n in parameters})
        else:
            # Sentence transformers take one dictionary, and write what they find into it.
            output = self.model(dict(given))
        found = _entry(output, _WHOLE)
        if found is None:
            found = output if isinstance(output, Tensor) else _entry(output, ("last_hidden_state",))
        if isinstance(found, Tensor) and found.dim() == 3:
            found = self._pooled(found, given.get("attention_mask"))
        if not isinstance(found, Tensor) or found.dim() != 2:
            raise UnsupportedModelError(
                f"{type(self.model).__name__} returned {type(output).__name__}; expected an "
                "embedding (batch, dim), hidden states (batch, tokens, dim), or an output with "
                "'sentence_embedding' or 'last_hidden_state'."
            )
        return found

    def _pooled(self, states: Tensor, mask: Tensor | None) -> Float[Tensor, "batch dim"]:
        if self.pooling == "first":
            return states[:, 0]
        if mask is None:
            return states.mean(1)
        weights = mask.to(states).unsqueeze(-1)
        return (states * weights).sum(1) / weights.sum(1)


def _entry(output: object, names: Sequence[str]) -> Any:
    """Return the first of `names` that an output has, by attribute or by key."""
    for name in names:
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if found is not None:
            return found
    return None


def _encoder(model: nn.Module) -> Any:
    """Return the first module that tells its table of words, None where none does."""
    for module in model.modules():
        try:
            if isinstance(module.get_input_embeddings(), nn.Module):
                return module
        except (AttributeError, NotImplementedError):
            continue
    return None
