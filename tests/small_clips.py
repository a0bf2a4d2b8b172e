"""Small CLIP-type models with random weights, shared by the tests, and their processors."""

import torch
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

from xai_lib.models.embedded import WEIGHTS
from xai_lib.models.processors.image import Processor
from xai_lib.models.processors.pair import PairProcessor

SIDE, LENGTH = 32, 24
WIDTHS = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
TEXTS = ["a red star", "a big blue heart on the left", "ring"]


def tokenizer():
    """Return the tokenizer of `clip-scenes`."""
    roles = {"unk": "<|unk|>", "bos": "<|startoftext|>"}
    roles |= {"eos": "<|endoftext|>", "pad": "<|endoftext|>"}
    return PreTrainedTokenizerFast(
        tokenizer_file=str(WEIGHTS / "clip-scenes.tokenizer.json"),
        model_max_length=LENGTH,
        model_input_names=["input_ids", "attention_mask"],
        **{f"{role}_token": token for role, token in roles.items()},
    )


def random_clip(kind="clip", seed=0):
    """Return a CLIP, SigLIP or AltCLIP in eval mode for images of 32 pixels."""
    words = tokenizer()
    text = WIDTHS | {
        "vocab_size": len(words),
        "pad_token_id": words.pad_token_id,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "max_position_embeddings": LENGTH,
    }
    vision = WIDTHS | {"image_size": SIDE, "patch_size": 8}
    torch.manual_seed(seed)
    if kind == "clip":
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    elif kind == "siglip":
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    else:
        text |= {"project_dim": 8, "max_position_embeddings": LENGTH + words.pad_token_id + 1}
        config = AltCLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        model = AltCLIPModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return model.eval()


def pair_processor(pad_to=None):
    """Return the processor of `random_clip`."""
    images = Processor((SIDE, SIDE), (0.5,) * 3, (0.25,) * 3)
    return PairProcessor(images, tokenizer(), max_length=LENGTH, pad_to=pad_to)


def write_folder(folder, kind="clip"):
    """Save a random model with its processor's files to `folder`, and return the model."""
    model = random_clip(kind)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    CLIPImageProcessor(
        size={"height": SIDE, "width": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    ).save_pretrained(folder)
    return model
