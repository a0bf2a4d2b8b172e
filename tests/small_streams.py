"""Small models of several streams with random weights in float64, and batches for them."""

import torch
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BlipConfig,
    BlipForImageTextRetrieval,
    DetrConfig,
    DetrForObjectDetection,
    LxmertConfig,
    LxmertForQuestionAnswering,
    ResNetConfig,
    T5Config,
    T5ForConditionalGeneration,
    ViltConfig,
    ViltForQuestionAnswering,
    VisualBertConfig,
    VisualBertForQuestionAnswering,
)

WIDTHS = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
BATCH, WORDS, REGIONS, FEATURES, VOCABULARY = 2, 6, 4, 10, 40
EOS = 2


def lxmert():
    """Three language, one visual and two cross layers."""
    config = LxmertConfig(
        **WIDTHS,
        vocab_size=VOCABULARY,
        num_qa_labels=5,
        l_layers=2,
        r_layers=1,
        x_layers=2,
        visual_feat_dim=FEATURES,
    )
    return LxmertForQuestionAnswering(config)


def visualbert():
    """A text and regions in one sequence."""
    config = VisualBertConfig(
        **WIDTHS,
        vocab_size=VOCABULARY,
        num_hidden_layers=2,
        visual_embedding_dim=FEATURES,
        num_labels=5,
    )
    return VisualBertForQuestionAnswering(config)


def vilt():
    """A text and patches in one sequence."""
    config = ViltConfig(
        **WIDTHS,
        vocab_size=VOCABULARY,
        num_hidden_layers=2,
        image_size=16,
        patch_size=8,
        max_image_length=-1,
        num_labels=5,
    )
    return ViltForQuestionAnswering(config)


def blip():
    """Image-text matching: the text attends to the image."""
    text = WIDTHS | {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "encoder_hidden_size": 16}
    text |= {"bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": 0, "sep_token_id": EOS}
    vision = WIDTHS | {"num_hidden_layers": 2, "image_size": 16, "patch_size": 8}
    config = BlipConfig(
        text_config=text, vision_config=vision, projection_dim=8, image_text_hidden_size=8
    )
    return BlipForImageTextRetrieval(config)


def bart():
    """An encoder and a decoder that reads the same text, classified at its end."""
    layers = {f"{part}_layers": 2 for part in ("encoder", "decoder")}
    heads = {f"{part}_attention_heads": 2 for part in ("encoder", "decoder")}
    widths = {f"{part}_ffn_dim": 24 for part in ("encoder", "decoder")}
    config = BartConfig(
        **layers | heads | widths,
        d_model=16,
        vocab_size=VOCABULARY,
        num_labels=5,
        eos_token_id=EOS,
        pad_token_id=0,
        forced_eos_token_id=None,
    )
    return BartForSequenceClassification(config)


def t5():
    """An encoder, and a decoder whose next token is explained."""
    config = T5Config(
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        vocab_size=VOCABULARY,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config)


def detr():
    """Detection: queries that attend to the image."""
    backbone = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8],
        depths=[1, 1],
        layer_type="basic",
        out_features=["stage2"],
    )
    layers = {f"{part}_layers": 2 for part in ("encoder", "decoder")}
    heads = {f"{part}_attention_heads": 2 for part in ("encoder", "decoder")}
    widths = {f"{part}_ffn_dim": 24 for part in ("encoder", "decoder")}
    config = DetrConfig(
        **layers | heads | widths,
        d_model=16,
        num_queries=4,
        num_labels=4,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
    )
    return DetrForObjectDetection(config)


MODELS = {f.__name__: f for f in (lxmert, visualbert, vilt, blip, bart, t5, detr)}


def random_model(name, seed=0):
    """Return a model in eval mode whose maps are far from uniform."""
    torch.manual_seed(seed)
    model = MODELS[name]().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
    return model


def random_inputs(name, batch=BATCH, seed=1):
    """Return a batch; texts and regions have padding where the model knows masks of them."""
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randn(batch, 3, 16, 16, generator=draw, dtype=torch.float64)
    if name == "detr":
        return {"pixel_values": pixels}
    ids = torch.randint(5, VOCABULARY, (batch, WORDS), generator=draw)
    mask = torch.ones_like(ids)
    ids[:, -1] = EOS
    ids[0, -3:], mask[0, -2:] = torch.tensor([EOS, 0, 0]), 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if name == "t5":
        return inputs | {"decoder_input_ids": torch.tensor([[0, 7]]).repeat(batch, 1)}
    if name in ("vilt", "blip"):
        return inputs | {"pixel_values": pixels}
    if name in ("lxmert", "visualbert"):
        regions = torch.randn(batch, REGIONS, FEATURES, generator=draw, dtype=torch.float64)
        present = torch.ones(batch, REGIONS, dtype=torch.long)
        present[-1, -1] = 0
        inputs["visual_attention_mask"] = present
        if name == "visualbert":
            return inputs | {"visual_embeds": regions}
        boxes = torch.rand(batch, REGIONS, 4, generator=draw, dtype=torch.float64)
        return inputs | {"visual_feats": regions, "visual_pos": boxes}
    return inputs


def sample(inputs, number):
    """Return one sample as a batch of its own."""
    return {name: x[number : number + 1] for name, x in inputs.items()}
