"""Small randomly initialised text classifiers of the real classes, and what is known of each.

Texts are padded to one length, on the right, and for causal models on the left as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers
from torch import Tensor, nn

from support.catalogue import CLASSES, Asked, redraw

VOCABULARY = 40
# Lengths of the texts of a batch; the longest is wider than the windows of ModernBERT.
LENGTHS = (9, 6, 3)
PAD, FIRST, LAST = 1, 2, 3


@dataclass(frozen=True)
class TextEntry(Asked):
    """One model. `reads`: the rows of the last attention that the head reads: "first", "last" or
    "all" tokens of a text.

    eager: a builder of the same model with unfused attention, where the family has one.
    draw: where the weights are drawn from; another one where Grad-CAM came out as zero everywhere.
    causal: whether texts may be padded on the left as well, given their position numbers.
    """

    name: str
    build: Callable[[], nn.Module]
    reads: str
    eager: Callable[[], nn.Module] | None = None
    causal: bool = False
    draw: int = 2

    def model(self, eager: bool = False) -> nn.Module:
        """Return the model in float64, with the same weights for either attention."""
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = (self.eager if eager else self.build)()
        return redraw(model, self.draw).double().eval()

    def texts(self) -> list[Tensor]:
        """Return the ids of each text: a first token, words, a last token."""
        generator = torch.Generator().manual_seed(1)
        shape = len(LENGTHS), max(LENGTHS)
        words = torch.randint(LAST + 1, VOCABULARY, shape, generator=generator)
        rows = [row[:n].clone() for row, n in zip(words, LENGTHS, strict=True)]
        for row in rows:
            row[0], row[-1] = FIRST, LAST
        return rows

    def batch(self, left: bool = False) -> dict[str, Tensor]:
        """Return model inputs padded to one length, on the right or on the left."""
        return self._inputs(self.texts(), left)

    def samples(self) -> list[dict[str, Tensor]]:
        """Return the texts one by one, without padding."""
        return [self._inputs([row]) for row in self.texts()]

    def batches(self) -> list[dict[str, Tensor]]:
        """Return the batches that have to equal the samples."""
        return [self.batch(), self.batch(left=True)] if self.causal else [self.batch()]

    def unpadded(self, relevance: Tensor, batch: dict[str, Tensor]) -> list[Tensor]:
        """Return each sample's relevance (targets, tokens), after a look at its padding."""
        present = batch["attention_mask"].bool()
        assert (relevance[:, ~present] == 0).all(), f"{self.name}: padding has relevance"
        return [relevance[:, i, kept] for i, kept in enumerate(present)]

    def check(self, att, where: str) -> None:
        """Assert that an attribution of the batch has a number for each token."""
        shape = (CLASSES, len(LENGTHS), max(LENGTHS))
        assert att.relevance.shape == shape, f"{where}: shape {tuple(att.relevance.shape)}"
        assert att.content.sum(1).tolist() == list(LENGTHS), f"{where}: content"
        assert att.stream == "text", f"{where}: stream {att.stream}"

    def _inputs(self, rows: list[Tensor], left: bool = False) -> dict[str, Tensor]:
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), PAD)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            place = slice(width - len(row), width) if left else slice(0, len(row))
            ids[i, place], mask[i, place] = row, 1
        made = {"input_ids": ids, "attention_mask": mask}
        if left:
            # Left alone, these models count positions from the padding on.
            made["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        return made


SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "pad_token_id": PAD,
    "num_labels": CLASSES,
}


def _entry(family, reads, name=None, head="ForSequenceClassification", **changes) -> TextEntry:
    model_class = getattr(transformers, f"{family}{head}")
    flags = {k: changes.pop(k) for k in ("causal", "draw") if k in changes}

    def build(attention: str = "sdpa") -> nn.Module:
        config = getattr(transformers, f"{family}Config")(**SIZES | changes)
        return model_class._from_config(config, attn_implementation=attention)

    name = f"HF {family}{head}" + (f", {name}" if name else "")
    if not model_class._supports_sdpa:
        return TextEntry(name, lambda: build("eager"), reads, **flags)
    return TextEntry(name, build, reads, lambda: build("eager"), **flags)


def _causal(family, name=None, **changes) -> TextEntry:
    return _entry(family, "last", name, causal=True, **changes)


class MeanPooled(nn.Module):
    """A user's own classifier: a linear head on the mean of an encoder's token states."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.hidden_size, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        kept = attention_mask.unsqueeze(-1).to(states.last_hidden_state.dtype)
        return self.head((states.last_hidden_state * kept).sum(1) / kept.sum(1))


T5_SIZES = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "pad_token_id": PAD,
    "eos_token_id": LAST,
}


def _t5(family: str, attention: str = "sdpa", **changes) -> nn.Module:
    config = transformers.T5Config(**T5_SIZES | changes)
    return getattr(transformers, family)._from_config(config, attn_implementation=attention)


def _pooled_t5(name: str, **changes) -> TextEntry:
    def build(attention: str = "sdpa") -> nn.Module:
        return MeanPooled(_t5("T5EncoderModel", attention, **changes))

    return TextEntry(name, build, "all", lambda: build("eager"))


DISENTANGLED = {
    "relative_attention": True,
    "position_buckets": 8,
    "max_relative_positions": -1,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}
SHARED_KEYS = DISENTANGLED | {"share_att_key": True, "norm_rel_ebd": "layer_norm"}
GROUPED = {"num_key_value_heads": 2}

TEXTS: tuple[TextEntry, ...] = (
    _entry("Bert", "first"),
    _entry("Roberta", "first"),
    _entry("XLMRoberta", "first"),
    _entry("RobertaPreLayerNorm", "first"),
    _entry("DistilBert", "first", dim=32, n_layers=3, n_heads=4, hidden_dim=64),
    _entry("Albert", "first", embedding_size=16),
    _entry("Electra", "first", embedding_size=16, draw=3),
    _entry("MegatronBert", "first"),
    _entry("MPNet", "first"),
    _entry("Deberta", "first", **DISENTANGLED),
    _entry("DebertaV2", "first", **DISENTANGLED),
    _entry("DebertaV2", "first", "shared keys", **SHARED_KEYS),
    _entry("DebertaV2", "first", "conv layer", conv_kernel_size=3, **DISENTANGLED),
    _entry("RoFormer", "first"),
    _entry("NomicBert", "first"),
    _entry("ModernBert", "first", local_attention=4),
    _entry("ModernBert", "all", "mean pooling", local_attention=4, classifier_pooling="mean"),
    _entry("EuroBert", "all"),
    _pooled_t5("HF T5EncoderModel + mean pooling and linear head"),
    _pooled_t5("HF T5EncoderModel, gated + same head", feed_forward_proj="gated-gelu"),
    _causal("GPT2"),
    _causal("GPTNeoX"),
    _causal("OPT"),
    _causal("Bloom"),
    _causal("Llama", **GROUPED),
    _causal("Mistral", sliding_window=4, **GROUPED),
    _causal("Qwen2", **GROUPED),
    _causal("Qwen3", head_dim=8, **GROUPED),
    _causal("Gemma2", head_dim=8, **GROUPED),
    _causal("Phi3", **GROUPED),
)
