"""Time of explanations of a BERT-base-sized classifier, relative to B, by batch and length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks import measure

GRADIENTS = ("gradient", "gradient_x_input", "gradient_sensitivity")
METHODS = (
    *("attn_gradcam", *GRADIENTS, "transformer_attribution", "bi_head", "bi_token"),
    *("generic_attention", "lat", "lrp_alpha_beta", "attnlrp", "lrp"),
)
# The most that a method may take, in B. Goals, not measurements.
TARGETS = {
    **dict.fromkeys(GRADIENTS, 1.05),
    "attn_gradcam": 0.6,
    "transformer_attribution": 2.4,
    "bi_head": 9.0,
    "bi_token": 9.0,
}
STEPPED = ("bi_head", "bi_token")
LENGTHS = (128, 256, 512)
LONG = 1024


@dataclass(frozen=True)
class TextSetting:
    """One model and batch: a BERT classifier on `tokens` tokens a text, none of them padding."""

    batch: int = 1
    tokens: int = 256
    width: int = 768
    depth: int = 12
    heads: int = 12
    dtype: str = "float32"
    device: str = "cpu"

    def build(self) -> tuple[nn.Module, dict[str, Tensor]]:
        """Return the model with random weights (frozen, eval) and an input batch."""
        from transformers import BertConfig, BertForSequenceClassification

        torch.manual_seed(0)
        config = BertConfig(
            hidden_size=self.width,
            num_hidden_layers=self.depth,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.width,
            max_position_embeddings=max(512, self.tokens),
        )
        dtype = getattr(torch, self.dtype)
        model = BertForSequenceClassification(config).eval().requires_grad_(False)
        ids = torch.randint(1000, config.vocab_size, (self.batch, self.tokens))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        return model.to(self.device, dtype), inputs

    @staticmethod
    def baseline(model: nn.Module, inputs: dict[str, Tensor]) -> Callable[[], object]:
        """Return B: one forward pass and the gradient of the predicted logits at the embeddings."""
        table, mask = model.get_input_embeddings(), inputs["attention_mask"]

        def run():
            leaf = table(inputs["input_ids"]).detach().requires_grad_()
            logits = model(inputs_embeds=leaf, attention_mask=mask).logits
            return torch.autograd.grad(logits.amax(-1).sum(), leaf)

        return run


def ratios(base: TextSetting, rounds: int, batches=(1, 8)) -> pd.DataFrame:
    """Return one row a method, batch and length: ratio to B, its target, texts per second."""
    rows = []
    for setting, methods in _settings(base, batches):
        for method in methods:
            slow = method in STEPPED or setting.batch * setting.tokens > LONG
            few = max(2, rounds // 2) if slow else rounds
            row = measure.ratio(
                setting, lambda m, x, name=method: measure.explanation(m, x, name), few
            )
            row["texts_per_second"] = row.pop("images_per_second")
            head = {"method": method, "batch": setting.batch, "tokens": setting.tokens}
            rows.append(head | row | {"target": TARGETS.get(method)})
            print(f"  {method:24s} {setting.batch} x {setting.tokens}  {row['ratio']:6.2f} B")
    return pd.DataFrame(rows)


def _settings(base: TextSetting, batches) -> Iterator[tuple[TextSetting, tuple[str, ...]]]:
    """Yield what is measured: all methods on one text, what has a target on several.

    The longest batches take minutes a round: what steps through twenty passes is left out there.
    """
    for batch in batches:
        for tokens in LENGTHS:
            methods = METHODS if batch == 1 and tokens == base.tokens else tuple(TARGETS)
            if batch * tokens > LONG:
                methods = tuple(m for m in methods if m not in STEPPED)
            if batch * tokens > 2 * LONG:
                methods = ("attn_gradcam", "transformer_attribution")
            yield replace(base, batch=batch, tokens=tokens), methods
