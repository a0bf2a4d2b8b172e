"""Time of explanations of models of text and image, relative to B of the same model.

LXMERT of the published size, 20 tokens and 36 regions: head scores. CLIP ViT-B/32: the relevance of
one image for several texts, which share the image's forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor, nn

import xai_lib as xai
from benchmarks import measure

SCORES = {
    "grad_x_attention": ("grad_x_attention",),
    "grad_x_attention and lrp": ("grad_x_attention", "lrp"),
}
# The most that scoring may take, in B. Goals, not measurements.
TARGETS = {"grad_x_attention": 1.1, "grad_x_attention and lrp": 2.6}
EXPLAINED = ("generic_attention", "transformer_attribution", "attn_gradcam")
TEXTS = 8


@dataclass(frozen=True)
class LxmertSetting:
    """LXMERT of its published size with random weights; smaller ones by depth and width."""

    batch: int = 1
    tokens: int = 20
    regions: int = 36
    width: int = 768
    heads: int = 12
    layers: tuple[int, int, int] = (9, 5, 5)
    features: int = 2048
    dtype: str = "float32"
    device: str = "cpu"

    def build(self) -> tuple[nn.Module, dict[str, Tensor]]:
        """Return the model (frozen, eval) and a batch of questions on regions."""
        from transformers import LxmertConfig, LxmertForQuestionAnswering

        torch.manual_seed(0)
        text, visual, cross = self.layers
        config = LxmertConfig(
            hidden_size=self.width,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.width,
            visual_feat_dim=self.features,
            l_layers=text,
            r_layers=visual,
            x_layers=cross,
            num_qa_labels=3129,
        )
        model = LxmertForQuestionAnswering(config).eval().requires_grad_(False)
        ids = torch.randint(1000, config.vocab_size, (self.batch, self.tokens))
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "visual_feats": torch.randn(self.batch, self.regions, config.visual_feat_dim),
            "visual_pos": torch.rand(self.batch, self.regions, 4),
        }
        dtype = getattr(torch, self.dtype)
        inputs = {
            name: x.to(self.device, dtype if x.is_floating_point() else x.dtype)
            for name, x in inputs.items()
        }
        return model.to(self.device, dtype), inputs

    @staticmethod
    def baseline(model: nn.Module, inputs: dict[str, Tensor]) -> Callable[[], object]:
        """Return B: a forward pass and the gradient at the word embeddings and region features."""
        rest = {k: v for k, v in inputs.items() if k not in ("input_ids", "visual_feats")}
        table = model.get_input_embeddings()

        def run():
            words = table(inputs["input_ids"]).detach().requires_grad_()
            regions = inputs["visual_feats"].detach().requires_grad_()
            output = model(inputs_embeds=words, visual_feats=regions, **rest)
            best = output.question_answering_score.amax(-1).sum()
            return torch.autograd.grad(best, (words, regions))

        return run


@dataclass(frozen=True)
class ClipSetting:
    """CLIP ViT-B/32 with random weights, one image and one text."""

    batch: int = 1
    tokens: int = 16
    device: str = "cpu"

    def build(self) -> tuple[nn.Module, dict[str, Tensor]]:
        """Return the model (frozen, eval), an image and `TEXTS` texts."""
        from transformers import CLIPConfig, CLIPModel

        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig()).eval().requires_grad_(False)
        ids = torch.randint(1000, 40000, (TEXTS, self.tokens))
        ids[:, 0], ids[:, -1] = 49406, 49407
        inputs = {
            "pixel_values": torch.randn(1, 3, 224, 224),
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
        }
        inputs = {name: x.to(self.device) for name, x in inputs.items()}
        return model.to(self.device), inputs

    @staticmethod
    def baseline(model: nn.Module, inputs: dict[str, Tensor]) -> Callable[[], object]:
        """Return B: the image and the first text, forward and gradient to the pixels."""
        one = {name: x[:1] for name, x in inputs.items()}

        def run():
            leaf = one["pixel_values"].clone().requires_grad_()
            logits = model(**one | {"pixel_values": leaf}).logits_per_image
            return torch.autograd.grad(logits.sum(), leaf)

        return run


def ratios(rounds: int, batches=(1, 16), base: LxmertSetting | None = None) -> pd.DataFrame:
    """Return one row a task and batch: ratio to B, its target, samples per second."""
    rows = []
    base = base or LxmertSetting()
    for batch in batches:
        setting, few = replace(base, batch=batch), rounds if batch == 1 else max(2, rounds // 2)
        for name, methods in SCORES.items():
            row = measure.ratio(setting, lambda m, x, which=methods: _scores(m, x, which), few)
            rows.append(_row("LXMERT head scores", name, batch, row, TARGETS[name]))
        for method in EXPLAINED if batch == 1 else ():
            row = measure.ratio(
                setting, lambda m, x, one=method: measure.explanation(m, x, one), few
            )
            rows.append(_row("LXMERT relevance", method, batch, row, None))
    for count in (1, TEXTS):
        for method in EXPLAINED[:2]:
            row = measure.ratio(
                ClipSetting(device=base.device),
                lambda m, x, one=(method, count): _texts(m, x, *one),
                rounds,
            )
            rows.append(_row(f"CLIP relevance, {count} texts", method, 1, row, None))
    return pd.DataFrame(rows)


def _scores(model: nn.Module, inputs, methods: tuple[str, ...]) -> Callable[[], object]:
    return lambda: xai.head_scores(model, inputs, methods=methods)


def _texts(model: nn.Module, inputs, method: str, count: int) -> Callable[[], object]:
    some = {k: v if k == "pixel_values" else v[:count] for k, v in inputs.items()}
    return lambda: xai.explain(model, some, method, targets=list(range(count)))


def _row(task: str, method: str, batch: int, row: dict, target: float | None) -> dict:
    row["samples_per_second"] = row.pop("images_per_second")
    print(f"  {task}: {method} x {batch}  {row['ratio']:6.2f} B")
    return {"task": task, "method": method, "batch": batch} | row | {"target": target}
