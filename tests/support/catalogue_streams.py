"""Small randomly initialised models of several streams of the real classes."""

from __future__ import annotations

import torch
import transformers
from torch import Tensor, nn

from support.catalogue import CLASSES
from support.stream_entry import FEATURES, FIRST, LAST, PAD, SIDE, VOCABULARY, StreamEntry


def _entry(family: str, meet: str, *, config: str, name: str = "", **flags) -> StreamEntry:
    """Return an entry; what is no flag of it is a setting of the model's config."""
    own = StreamEntry.__dataclass_fields__
    settings = {k: flags.pop(k) for k in list(flags) if k not in own}
    model_class = getattr(transformers, family)

    def build(attention: str | None = None) -> nn.Module:
        """Unasked, attention is sdpa where there is any: DETR's backbone refuses to be asked."""
        made = getattr(transformers, f"{config}Config")(**settings)
        return model_class._from_config(made, attn_implementation=attention)

    name = f"HF {family}" + (f", {name}" if name else "")
    if not model_class._supports_sdpa:
        return StreamEntry(name, build, meet, **flags)
    return StreamEntry(name, build, meet, eager=lambda: build("eager"), **flags)


SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
NAMED = {"pad_token_id": PAD, "bos_token_id": FIRST, "eos_token_id": LAST}
WORDS = SIZES | NAMED | {"vocab_size": VOCABULARY, "max_position_embeddings": 16}
SIGHT = SIZES | {"image_size": SIDE, "patch_size": 8}
GELU = {"hidden_act": "gelu"}


def _towers(family: str, name: str = "", act: dict | None = None, **changes) -> StreamEntry:
    text, vision = WORDS | (act or {}), SIGHT | (act or {})
    text |= changes.pop("text", {})
    vision |= changes.pop("vision", {})
    changes = {"meet": "towers", "config": family} | changes
    return _entry(f"{family}Model", name=name, text_config=text, vision_config=vision, **changes)


def _blip(family: str, meet: str, name: str = "", **flags) -> StreamEntry:
    text = WORDS | {"encoder_hidden_size": 32, "sep_token_id": LAST}
    sizes = {"text_config": text, "vision_config": SIGHT, "image_text_hidden_size": 16}
    return _entry(family, meet, config="Blip", name=name, **sizes, **flags)


def _flava(family: str, meet: str, **flags) -> StreamEntry:
    words = WORDS | {"num_hidden_layers": 2}
    sizes = {"text_config": words, "image_config": SIGHT, "multimodal_config": SIZES}
    more = {"hidden_size": 32, "projection_dim": 16, "init_codebook": False}
    return _entry(family, meet, config="Flava", **sizes, **more, **flags)


class Matched(nn.Module):
    """A user's own matching: a linear head on FLAVA's joint sequence."""

    def __init__(self):
        super().__init__()
        sizes = {"text_config": WORDS, "image_config": SIGHT, "multimodal_config": SIZES}
        self.flava = transformers.FlavaModel(transformers.FlavaConfig(hidden_size=32, **sizes))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor) -> Tensor:
        found = self.flava(input_ids, pixel_values, attention_mask)
        return self.head(found.multimodal_embeddings[:, 0])


LXMERT = SIZES | {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 16,
    "l_layers": 2,
    "r_layers": 1,
    "x_layers": 2,
    "visual_feat_dim": FEATURES,
    "num_qa_labels": CLASSES,
    "pad_token_id": PAD,
}
LXMERT.pop("num_hidden_layers")
CODER = {"encoder_layers": 2, "decoder_layers": 2}
CODER |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
CODER |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "d_model": 32}
BART = CODER | NAMED | {"vocab_size": VOCABULARY, "max_position_embeddings": 16}
T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "pad_token_id": PAD,
    "eos_token_id": LAST,
    "decoder_start_token_id": PAD,
}


def _detr() -> dict:
    backbone = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8],
        depths=[1, 1],
        layer_type="basic",
        out_features=["stage2"],
    )
    unused = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    return CODER | unused | {"backbone_config": backbone, "num_queries": 4, "num_labels": 4}


def _encoder_decoder(family: str, **flags) -> StreamEntry:
    flags = {"inputs": ("text",), "adds": ("decoder",), "meet": "coupled"} | flags
    return _entry(family, **flags)


STREAMS: tuple[StreamEntry, ...] = (
    _towers("CLIP", projection_dim=16),
    _towers("CLIP", "gelu, as exports of OpenCLIP have it", act=GELU, projection_dim=16),
    _towers("Siglip", masked=False, text={"projection_size": 32}),
    _towers(
        "Siglip2",
        "patches (NaFlex)",
        meet="refused",
        inputs=("text", "patches"),
        masked=False,
        text={"projection_size": 32},
        vision={"num_patches": 4},
    ),
    _towers("AltCLIP", projection_dim=16, text={"project_dim": 16}, draw=3),
    _blip(
        "BlipForImageTextRetrieval",
        "towers",
        "without its matching head",
        extra=(("use_itm_head", False),),
    ),
    _blip("BlipForImageTextRetrieval", "coupled", classes=2),
    _blip(
        "BlipForQuestionAnswering",
        "refused",
        extra=(("decoder_input_ids", torch.tensor([[FIRST, 7]])),),
    ),
    _flava("FlavaModel", "refused"),
    _flava("FlavaForPreTraining", "refused", classes=2, extra=(("return_loss", False),)),
    StreamEntry("HF FlavaModel + linear head", Matched, "coupled"),
    _entry(
        "ViltForQuestionAnswering",
        "joint",
        config="Vilt",
        num_labels=CLASSES,
        max_image_length=-1,
        **WORDS | SIGHT,
    ),
    _entry(
        "VisualBertForQuestionAnswering",
        "joint",
        config="VisualBert",
        inputs=("text", "embeds"),
        visual_embedding_dim=FEATURES,
        num_labels=CLASSES,
        **WORDS,
    ),
    _entry(
        "LxmertForQuestionAnswering",
        "coupled",
        config="Lxmert",
        inputs=("text", "regions"),
        **LXMERT,
    ),
    _entry(
        "DetrForObjectDetection",
        "coupled",
        config="Detr",
        name="one query",
        inputs=("image",),
        adds=("queries",),
        position=0,
        **_detr(),
    ),
    _encoder_decoder(
        "T5ForConditionalGeneration",
        config="T5",
        name="one word",
        position=0,
        extra=(("decoder_input_ids", torch.tensor([[PAD, 7]])),),
        **T5,
    ),
    _encoder_decoder(
        "T5ForSequenceClassification", config="T5", echoes=True, num_labels=CLASSES, **T5
    ),
    _encoder_decoder(
        "BartForSequenceClassification", config="Bart", echoes=True, num_labels=CLASSES, **BART
    ),
)
