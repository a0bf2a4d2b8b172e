"""Small randomly initialised models of the real classes, and what is known of each.

Every entry is the published architecture with its widths and depth turned down; weights are drawn
anew so that nothing is left at an initial zero (class tokens, biases, LayerScale), where a wrong
answer could hide.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import timm
import torch
import transformers
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT

CLASSES = 5


class Asked:
    """How a model of the matrix is explained, and what of it can be compared between targets."""

    asked: ClassVar[dict] = {"targets": list(range(CLASSES))}

    def of_one_input(self, relevance: Tensor) -> Tensor:
        """Return the relevance of tokens that are the same for all targets."""
        return relevance


@dataclass(frozen=True)
class Entry(Asked):
    """One model. `tokens` counts what it sees, `prefix` of them before the patches.

    reads: the rows of the last attention that the head reads, as written in its source: row
    numbers, "patches", "class and patches", or "probe" (an attention-pooling query); None for
    windows.
    eager: a builder of the same model with unfused attention, where the family has one.
    """

    name: str
    build: Callable[[], nn.Module]
    size: tuple[int, int]
    grid: tuple[int, int]
    prefix: int
    reads: str | tuple[int, ...] | None
    eager: Callable[[], nn.Module] | None = None

    @property
    def tokens(self) -> int:
        return self.prefix + self.grid[0] * self.grid[1]

    def model(self, eager: bool = False) -> nn.Module:
        """Return the model in float64, with the same weights for either attention."""
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = (self.eager if eager else self.build)()
        return redraw(model).double().eval()

    def batch(self, size: int = 3):
        """Return model inputs, as the family's processor makes them."""
        return self._inputs(self.pixels(size))

    def samples(self) -> list:
        """Return the batch's samples one by one."""
        return [self._inputs(one[None]) for one in self.pixels()]

    def batches(self) -> list:
        """Return the batches that have to equal the samples."""
        return [self.batch()]

    def unpadded(self, relevance: Tensor, batch) -> list[Tensor]:
        """Return each sample's relevance (targets, tokens)."""
        return list(relevance.unbind(1))

    def check(self, att, where: str) -> None:
        """Assert that an attribution of the batch has the model's tokens."""
        shape = (CLASSES, 3, self.tokens)
        assert att.relevance.shape == shape, f"{where}: shape {tuple(att.relevance.shape)}"
        assert att.content.shape == shape[1:], f"{where}: content {tuple(att.content.shape)}"
        assert int(att.content[0].sum()) == self.grid[0] * self.grid[1], f"{where}: prefix"
        assert att.grid == self.grid, f"{where}: grid {att.grid}"

    def _inputs(self, pixels: Tensor):
        return {"pixel_values": pixels} if self.name.startswith("HF") else pixels

    def pixels(self, batch: int = 3) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randn(batch, 3, *self.size, generator=generator, dtype=torch.float64)


def redraw(model: nn.Module, seed: int = 2) -> nn.Module:
    """Draw every parameter anew: vectors around their start, matrices at 1/sqrt(n)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            if name.endswith(("gamma", "gamma_1", "gamma_2", "lambda1", "lambda_1", "lambda_2")):
                p.copy_(0.6 + 0.2 * noise)
            elif p.dim() < 2 or "token" in name or ("embed" in name and "proj" not in name):
                p.add_(0.2 * noise)
            elif "relative" not in name and p[0].numel() > 1:
                p.copy_(noise * p[0].numel() ** -0.5)
            else:
                p.add_(0.3 * noise)
    return model


def _unfused(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return model


def _timm(architecture, reads, prefix, size=(32, 32), patch=8, name=None, **changes) -> Entry:
    settings = {"img_size": size, "embed_dim": 32, "depth": 3, "num_heads": 4, "patch_size": patch}
    settings |= {"num_classes": CLASSES} | changes

    def build() -> nn.Module:
        return timm.create_model(architecture, **settings)

    grid = size[0] // patch, size[1] // patch
    eager = lambda: _unfused(build())  # noqa: E731
    return Entry(name or f"timm {architecture}", build, size, grid, prefix, reads, eager)


def _swin(architecture, **changes) -> Entry:
    settings = {"img_size": 32, "patch_size": 2, "embed_dim": 16, "depths": (2, 2)}
    settings |= {"num_heads": (2, 4), "window_size": 4, "num_classes": CLASSES} | changes

    def build() -> nn.Module:
        return timm.create_model(architecture, **settings)

    eager = lambda: _unfused(build())  # noqa: E731
    return Entry(f"timm {architecture}", build, (32, 32), (16, 16), 0, None, eager)


HF_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}


def _hf(family, reads, prefix, head="ForImageClassification", **changes) -> Entry:
    def config():
        made = getattr(transformers, f"{family}Config")(**HF_SIZES | changes)
        made.num_labels = CLASSES
        return made

    return _hf_entry(f"HF {family}{head}", f"{family}{head}", config, reads, prefix)


def _hf_entry(name, class_name, config, reads, prefix, grid=(4, 4)) -> Entry:
    model_class = getattr(transformers, class_name)

    def build(attention: str = "sdpa") -> nn.Module:
        return model_class._from_config(config(), attn_implementation=attention)

    if not model_class._supports_sdpa:
        return Entry(name, lambda: build("eager"), (32, 32), grid, prefix, reads)
    return Entry(name, build, (32, 32), grid, prefix, reads, lambda: build("eager"))


def _with_vision_config(family, reads, prefix) -> Entry:
    def config():
        made = getattr(transformers, f"{family}Config")(vision_config=HF_SIZES)
        made.num_labels = CLASSES
        return made

    name = f"{family}ForImageClassification"
    return _hf_entry(f"HF {name}", name, config, reads, prefix)


class BackboneWithHead(nn.Module):
    """A user's own classifier: a linear head on a backbone's pooled class token."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.config.hidden_size, CLASSES)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.head(self.backbone(pixel_values=pixel_values).pooler_output)


def _dinov3(attention: str = "sdpa") -> nn.Module:
    config = transformers.DINOv3ViTConfig(**HF_SIZES, num_register_tokens=4)
    backbone = transformers.DINOv3ViTModel._from_config(config, attn_implementation=attention)
    return BackboneWithHead(backbone)


def _torchvision() -> nn.Module:
    return TorchvisionViT(
        image_size=32,
        patch_size=8,
        num_layers=3,
        num_heads=4,
        hidden_dim=32,
        mlp_dim=64,
        num_classes=CLASSES,
    )


def _swin_config(family: str):
    def config():
        made = getattr(transformers, f"{family}Config")(
            image_size=32,
            patch_size=2,
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=4,
        )
        made.num_labels = CLASSES
        return made

    return config


def _hf_swin(family: str) -> Entry:
    name = f"{family}ForImageClassification"
    return _hf_entry(f"HF {name}", name, _swin_config(family), None, 0, grid=(16, 16))


CATALOGUE: tuple[Entry, ...] = (
    _timm("vit_tiny_patch16_224", (0,), 1),
    _timm("vit_small_patch32_384", (0,), 1, size=(96, 96), patch=32),
    _timm(
        "vit_tiny_patch16_224", (0,), 1, size=(32, 48), name="timm vit_tiny_patch16, 32x48 pixels"
    ),
    _timm(
        "vit_small_patch16_224",
        "patches",
        1,
        name="timm vit_small_patch16, pooled",
        global_pool="avg",
    ),
    _timm("vit_medium_patch16_gap_240", "patches", 0),
    _timm("vit_medium_patch16_reg4_gap_256", "patches", 4),
    _timm("vit_base_patch16_clip_quickgelu_224", (0,), 1),
    _timm("deit_tiny_patch16_224", (0,), 1),
    _timm("deit_tiny_distilled_patch16_224", (0, 1), 2),
    _timm("deit3_small_patch16_224", (0,), 1),
    _timm("vit_small_patch14_reg4_dinov2", (0,), 5),
    _timm("vit_small_patch16_dinov3", "patches", 5),
    _timm("vit_base_patch16_siglip_224", "probe", 0),
    _timm("beit_base_patch16_224", "patches", 1),
    _timm("beitv2_base_patch16_224", "patches", 1),
    _timm("eva02_tiny_patch14_224", "patches", 1),
    _timm("eva02_base_patch14_448", "patches", 1),
    _timm("cait_xxs24_224", (0,), 1),
    _swin("swin_tiny_patch4_window7_224"),
    _swin("swinv2_tiny_window8_256"),
    _hf("ViT", (0,), 1),
    _hf("DeiT", (0,), 2),
    _hf("DeiT", (0, 1), 2, head="ForImageClassificationWithTeacher"),
    _hf("Dinov2", "class and patches", 1, mlp_ratio=2),
    _hf("Dinov2WithRegisters", "class and patches", 5, mlp_ratio=2, num_register_tokens=4),
    Entry(
        "HF DINOv3ViTModel + linear head",
        _dinov3,
        (32, 32),
        (4, 4),
        5,
        (0,),
        lambda: _dinov3("eager"),
    ),
    _hf("Beit", "patches", 1, use_relative_position_bias=True),
    _with_vision_config("Siglip", "patches", 0),
    _with_vision_config("CLIP", "patches", 1),
    _hf_swin("Swin"),
    _hf_swin("Swinv2"),
    Entry("torchvision VisionTransformer (vit_b_16)", _torchvision, (32, 32), (4, 4), 1, (0,)),
)
