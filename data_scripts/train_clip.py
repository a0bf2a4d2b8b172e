"""Train `clip-scenes`, a small CLIP, on generated scenes and their captions.

    python data_scripts/train_clip.py

A real `CLIPModel` on a WordPiece tokenizer of the captions' words. The image tower starts with the
first layers of `vit-scenes`, the text tower from nothing. The loss is CLIP's (Radford et al. 2021,
section 2.3) over scenes and captions, except that a caption that happens to be true of another
scene of the batch is no negative there. Beside it the prompts of all classes classify the scene
("a red star"), scenes without their object are to give every class the same probability, and
through linear heads that are dropped afterwards every patch token learns which shape and colour
cover it, and the image's feature the four attributes. As in FLIP (Li et al. 2023) half of the
patches are dropped at first, though none of an object where that is possible.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated

import storing
import torch
import torch.nn.functional as F
import typer
from proofs.captions import (
    Matcher,
    labels_of,
    measure_clip,
    prove_clip_evidence,
    zero_shot,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from training import LOGS, WEIGHTS, Stage, fit, minutes, read_weights
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from xai_lib.datasets.worlds.attribute_scenes import AttributeScenes
from xai_lib.datasets.worlds.attributes import (
    ATTRIBUTE_CLASSES,
    ATTRIBUTE_SIZE,
    CAPTION_ZOOM,
    COLOURS,
    PLACES,
    SHAPES,
    SIZES,
    AttributeScene,
)
from xai_lib.datasets.worlds.captions import Caption, caption_of, prompts, vocabulary
from xai_lib.datasets.worlds.wording import Draw
from xai_lib.files.writing import write_text
from xai_lib.models.processors.image import Processor
from xai_lib.models.processors.pair import PairProcessor

NAME, TOKENIZER, START = "clip-scenes", "clip-scenes.tokenizer.json", "vit-scenes"
BATCH, BLANK, HELD, LENGTH, PATCH = 64, 6, 384, 40, 8
TOKEN_WEIGHT = 2.0
MEAN, STD = (0.5,) * 3, (0.25,) * 3
UNKNOWN, BEGIN, END = "<|unk|>", "<|startoftext|>", "<|endoftext|>"
WORDS = (SHAPES, COLOURS, SIZES, PLACES)
# One object first; then two as well, of which a caption names one or both.
MIXES = ((1,), (1, 1, 2), (1, 1, 2))
# Patches that the image tower sees: half of the background is dropped in the first stage.
SEEN = (32, 64, 64)
STAGES = (
    Stage(steps=1000, size=ATTRIBUTE_SIZE, zoom=CAPTION_ZOOM, rate=1e-3, final=6e-4),
    Stage(steps=900, size=ATTRIBUTE_SIZE, zoom=CAPTION_ZOOM, rate=7e-4, final=2e-6),
    Stage(steps=1300, size=ATTRIBUTE_SIZE, zoom=CAPTION_ZOOM, rate=5e-4, final=2e-6),
)
TEMPLATES = ("{}", "a photo of {}", "a picture of {}", "an image of {}", "this is {}")
TOWER = {"hidden_act": "gelu", "attention_dropout": 0.0}
VISION = TOWER | {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": ATTRIBUTE_SIZE,
    "patch_size": PATCH,
}
TEXT = TOWER | {
    "hidden_size": 96,
    "intermediate_size": 288,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": LENGTH,
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a lower-case WordPiece tokenizer of the captions' words and the ASCII characters.

    As in CLIP a text begins with <|startoftext|>, ends with <|endoftext|>, whose id is the largest,
    and is padded with the latter.
    """
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [UNKNOWN, *characters, *(f"##{c}" for c in characters)]
    pieces += [word for word in vocabulary() if len(word) > 1] + [BEGIN, END]
    ids = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", special_tokens=[(t, ids[t]) for t in (BEGIN, END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=UNKNOWN, bos_token=BEGIN, eos_token=END,
        pad_token=END, model_max_length=LENGTH, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def kwargs_of(tokenizer: PreTrainedTokenizerFast) -> dict:
    """Return what a `CLIPConfig` is made of, for the card."""
    text = TEXT | {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return {"text_config": text, "vision_config": VISION, "projection_dim": 96}


def start_from(model: CLIPModel, weights: dict[str, Tensor]) -> None:
    """Fill the image tower with the first layers of a timm ViT of the same width."""
    tower, width = model.vision_model, VISION["hidden_size"]
    state = {
        "embeddings.class_embedding": weights["cls_token"][0, 0],
        "embeddings.patch_embedding.weight": weights["patch_embed.proj.weight"],
    }
    first, grid = weights["pos_embed"][0, :1], weights["pos_embed"][0, 1:]
    side, new = math.isqrt(len(grid)), VISION["image_size"] // PATCH
    grid = F.interpolate(grid.T.reshape(1, width, side, side), (new, new), mode="bicubic")
    # CLIP's patch embedding has no bias of its own.
    grid = grid.reshape(width, -1).T + weights["patch_embed.proj.bias"]
    state["embeddings.position_embedding.weight"] = torch.cat((first, grid))
    for layer in range(VISION["num_hidden_layers"]):
        old, own = f"blocks.{layer}.", f"encoder.layers.{layer}."
        pairs = {"norm1": "layer_norm1", "norm2": "layer_norm2", "attn.proj": "self_attn.out_proj"}
        pairs |= {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
        for kind in ("weight", "bias"):
            parts = weights[f"{old}attn.qkv.{kind}"].chunk(3)
            for letter, part in zip("qkv", parts, strict=True):
                state[f"{own}self_attn.{letter}_proj.{kind}"] = part
            state |= {f"{own}{b}.{kind}": weights[f"{old}{a}.{kind}"] for a, b in pairs.items()}
    tower.load_state_dict(state, strict=False)
    # CLIP's first norm makes tokens of deviation 1; those of the ViT deviate by about this much.
    tower.pre_layrnorm.weight.data.fill_(0.3)


def attribute_table(scenes: list[AttributeScene]) -> Tensor:
    """Return the index of each attribute of each object, (scenes, objects, 4), -1 if none."""
    table = torch.full((len(scenes), max(len(s.objects) for s in scenes), len(WORDS)), -1)
    for i, scene in enumerate(scenes):
        for k, each in enumerate(scene.objects):
            values = (each.shape, each.colour, each.size, each.place)
            table[i, k] = torch.tensor([w.index(v) for w, v in zip(WORDS, values, strict=True)])
    return table


def true_of(captions: list[Caption], table: Tensor) -> Tensor:
    """Return which captions are true of which scenes, bool (scenes, captions).

    Caption i is of scene i. A caption is true where every mention fits some object.
    """
    kinds = ("shape", "colour", "size", "place")
    truth = torch.ones(len(table), len(captions), dtype=torch.bool)
    for j, caption in enumerate(captions):
        for mention in caption.mentions:
            said = torch.tensor([kind in mention.words for kind in kinds])
            fits = ((table == table[j, mention.slot]) | ~said).all(-1) & (table[..., 0] >= 0)
            truth[:, j] &= fits.any(1)
    return truth


def contrastive(logits: Tensor, truth: Tensor) -> Tensor:
    """Return CLIP's symmetric cross-entropy; other captions that are true are no negatives."""
    own = torch.eye(len(logits), dtype=torch.bool)
    logits, wanted = logits.masked_fill(truth & ~own, -math.inf), torch.arange(len(logits))
    return 0.5 * (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted))


def learnt_caption(scene: AttributeScene, draw: Draw) -> Caption:
    """Return a caption of one or two objects; some have lost words of some kinds of attribute."""
    number = min(len(scene.objects), draw.pick((1, 1, 2)))
    caption = caption_of(scene.objects, draw, draw.some(range(len(scene.objects)), number))
    if draw.chance(0.1):
        caption = caption.without(UNKNOWN, draw.some(("shape", "colour", "size", "place"), 1))
    return caption


def class_targets(table: Tensor) -> Tensor:
    """Return equal shares of the objects' classes, (scenes, classes)."""
    there = table[..., 0] >= 0
    classes = (table[..., 1] * len(SHAPES) + table[..., 0]).clamp_min(0)
    shares = (F.one_hot(classes, len(ATTRIBUTE_CLASSES)) * there[..., None]).sum(1)
    return shares / shares.sum(1, keepdim=True)


class Helpers(nn.Module):
    """Linear heads that are dropped after training: what covers each patch, what the image shows.

    A patch says shape and colour, or nothing (the last index); the image's feature says all four
    attributes of an only object.
    """

    def __init__(self, width: int, features: int):
        super().__init__()
        self.patches = nn.ModuleList(nn.Linear(width, len(words) + 1) for words in WORDS[:2])
        self.image = nn.ModuleList(nn.Linear(features, len(words)) for words in WORDS)

    def losses(
        self, patches: Tensor, covers: Tensor, image: Tensor, table: Tensor
    ) -> dict[str, Tensor]:
        """Return the cross-entropies over patches and over images of one object.

        covers: the area share of each object in each patch, (scenes, patches, objects).
        """
        patch_loss = 0.0
        for axis, head in enumerate(self.patches):
            kinds = F.one_hot(table[..., axis].clamp_min(0), head.out_features).float()
            target = covers @ kinds
            target[..., -1] = 1 - target[..., :-1].sum(-1)
            patch_loss += F.cross_entropy(head(patches).flatten(0, 1), target.flatten(0, 1))
        alone = (table[..., 0] >= 0).sum(1) == 1
        found = [
            F.cross_entropy(head(image[alone]), table[alone, 0, axis])
            for axis, head in enumerate(self.image)
        ]
        terms = {"tokens": TOKEN_WEIGHT * patch_loss}
        return terms | {"shape": found[0], "others": sum(found[1:])}


def covers_of(scenes: list[AttributeScene], slots: int) -> Tensor:
    """Return the area share of each object in each patch, (scenes, patches, slots)."""
    found = torch.zeros(len(scenes), (VISION["image_size"] // PATCH) ** 2, slots)
    for i, scene in enumerate(scenes):
        shares = F.avg_pool2d(scene.masks.float(), PATCH).flatten(1)
        found[i, :, : len(shares)] = shares.T
    return found


def see(model: CLIPModel, pixels: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last states of the patches `kept` (batch, k) and the image's features."""
    tower = model.vision_model
    tokens = tower.embeddings(pixels)
    index = torch.cat((torch.zeros_like(kept[:, :1]), kept + 1), 1)
    tokens = tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))
    states = tower.encoder(inputs_embeds=tower.pre_layrnorm(tokens)).last_hidden_state
    return states[:, 1:], model.visual_projection(tower.post_layernorm(states[:, 0]))


def batch_losses(
    model: CLIPModel,
    helpers: Helpers,
    processor: PairProcessor,
    scenes: list[AttributeScene],
    seen: int,
    key: tuple,
) -> dict[str, Tensor]:
    """Return the loss terms of one batch of scenes, `seen` patches of each.

    What is drawn (captions, wording of the prompts, patches) follows from `key`.
    """
    with torch.no_grad():
        model.logit_scale.clamp_(max=math.log(60))
    draw, count = Draw("template", *key), len(scenes)
    captions = [learnt_caption(scene, Draw("caption", *key, i)) for i, scene in enumerate(scenes)]
    asked = prompts(ATTRIBUTE_CLASSES, draw.pick(TEMPLATES))
    blank = max(1, count * BLANK // BATCH)
    images = torch.stack([s.image for s in scenes] + [s.without() for s in scenes[:blank]])
    table = attribute_table(scenes)
    covers = covers_of(scenes, table.shape[1])
    # Patches of objects come first, then random ones.
    order = (covers.sum(-1) > 0).float()
    order = order + torch.rand(order.shape, generator=torch.Generator().manual_seed(hash(key)))
    kept = order.topk(seen, dim=1).indices
    states, projected = see(model, (images - MEAN[0]) / STD[0], torch.cat((kept, kept[:blank])))
    image = F.normalize(projected.float(), dim=-1)
    texts = ([caption.text for caption in captions], asked)
    said, classes = (
        F.normalize(model.get_text_features(**processor.tokenize(t)).pooler_output.float(), dim=-1)
        for t in texts
    )
    scale = model.logit_scale.exp()
    scores = scale * image @ classes.T
    even = torch.full((blank, len(asked)), 1 / len(asked))
    covers = covers.gather(1, kept[..., None].expand(-1, -1, covers.shape[-1]))
    return {
        "pairs": contrastive(scale * image[:count] @ said.T, true_of(captions, table)),
        "class": F.cross_entropy(scores[:count], class_targets(table)),
        "blank": 0.1 * F.cross_entropy(scores[count:], even),
        **helpers.losses(states[:count].float(), covers, projected[:count].float(), table),
    }


def new_model(seed: int, start: dict[str, Tensor] | None) -> tuple[CLIPModel, PairProcessor]:
    """Return a model before training and its processor; start: a ViT's weights for its images."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    model = CLIPModel(CLIPConfig(**kwargs_of(tokenizer)))
    if start is not None:
        start_from(model, start)
    return model, PairProcessor(Processor((ATTRIBUTE_SIZE,) * 2, MEAN, STD), tokenizer)


def train_stage(
    model: CLIPModel,
    processor: PairProcessor,
    number: int,
    seed: int,
    scale: float,
    precision: torch.dtype,
    every: int = 50,
) -> list[dict[str, float]]:
    """Train for one stage, with new helpers; return the log."""
    if number:
        # The first stage's helpers follow the model in the random numbers of the seed.
        torch.manual_seed(seed + 1000 * number)
    stage = STAGES[number].scaled(scale)
    helpers = Helpers(VISION["hidden_size"], model.config.projection_dim)
    held = AttributeScenes(HELD, (seed, 99, number), 1, zoom=CAPTION_ZOOM)[:]

    def losses(step: int) -> dict[str, Tensor]:
        key = (seed, number, step)
        place = (seed, 1, number, step)
        scenes = AttributeScenes(BATCH, place, MIXES[number], zoom=CAPTION_ZOOM)[:]
        return batch_losses(model, helpers, processor, scenes, SEEN[number], key)

    def check() -> dict[str, float]:
        matcher = Matcher(model, processor)
        return {"held_out": zero_shot(matcher, [s.image for s in held], labels_of(held))}

    log = fit([model, helpers], stage, losses, check, every, precision)
    model.eval()
    return log


def describe(tokenizer: PreTrainedTokenizerFast, log: list, trained_by: str, seed: int) -> dict:
    """Return the card before the model is measured."""
    text = tokenizer_text()
    return {
        "library": "transformers",
        "class": "transformers.CLIPModel",
        "kwargs": json.loads(json.dumps(kwargs_of(tokenizer))),
        "class_names": list(ATTRIBUTE_CLASSES),
        "input": {
            "kind": "image and text",
            "size": [ATTRIBUTE_SIZE] * 2,
            "mean": list(MEAN),
            "std": list(STD),
            "max_length": LENGTH,
        },
        "tokenizer": TOKENIZER,
        "tokenizer_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "special_tokens": {"unk": UNKNOWN, "bos": BEGIN, "eos": END, "pad": END},
        "trained_by": trained_by,
        "seed": seed,
        "image_tower_from": START,
        "training_minutes": minutes(log),
    }


def tokenizer_text() -> str:
    """Return the text of the tokenizer's file; one that was used would also state its padding."""
    return make_tokenizer().backend_tokenizer.to_str(pretty=True) + "\n"


def main(
    out: storing.Out = WEIGHTS,
    logs: storing.Logs = LOGS,
    seed: int = 0,
    scale: storing.Scale = 1.0,
    precision: storing.Precision = "float32",
    threads: int = 2,
    n: Annotated[int, typer.Option(help="scenes of each kind to measure on")] = 2000,
    resume: Annotated[int, typer.Option(help="stages already in the stored weights")] = 0,
):
    """Train `clip-scenes` and store its weights (float16), card, tokenizer and log."""
    if resume not in range(len(STAGES)):
        raise typer.BadParameter(f"--resume {resume}: give 0 to {len(STAGES) - 1} trained stages.")
    dtype, log = storing.on_threads(threads, precision), []
    command = f"data_scripts/train_clip.py --seed {seed} --threads {threads}"
    model, processor = new_model(seed, None if resume else read_weights(START))
    if resume:
        command += f" --resume {resume}"
        model.load_state_dict(read_weights(NAME, out))
        log = storing.first_stages(NAME, resume, logs)
    write_text(out / TOKENIZER, tokenizer_text())

    def train(number: int) -> list[dict[str, float]]:
        return train_stage(model, processor, number, seed, scale, dtype)

    def card(log: list[dict[str, float]]) -> dict:
        return describe(processor.tokenizer, log, command, seed)

    storing.train_stages(NAME, model, log, range(resume, len(STAGES)), train, card, out, logs)
    measures = measure_clip(model, processor, n, storing.MEASURED)
    storing.measure_stored(
        NAME, out, measures, prove_clip_evidence(model, processor, n // 2, storing.PROVEN)
    )


if __name__ == "__main__":
    typer.run(main)
