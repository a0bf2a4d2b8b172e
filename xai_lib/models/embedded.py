"""The small trained models that travel with the package.

A model is two files in `xai_lib/weights`: NAME.safetensors and its card NAME.json, both written by
the training script. The card says which class of which library the weights belong to, and for a
model that reads texts which file is its tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from xai_lib.errors import CheckpointError
from xai_lib.files.weights import read_safetensors
from xai_lib.models.loaders.questions import question_processor
from xai_lib.models.loaders.texts import agree
from xai_lib.models.processors.image import Processor
from xai_lib.models.processors.pair import PairProcessor
from xai_lib.models.processors.question import QuestionProcessor
from xai_lib.models.processors.text import TextProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WEIGHTS = Path(__file__).parent.parent / "weights"


@cache
def cards() -> dict[str, dict]:
    """Return the card of each embedded model by name, in alphabetical order."""
    found = {}
    for path in sorted(WEIGHTS.glob("*.json")):
        if "tokenizer" in path.name:
            continue
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
            found[card["name"]] = card
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is no model card ({error!r}): {REINSTALL}") from error
    return found


REINSTALL = "the installation is damaged, install xai-lib again."


def load_embedded(
    name: str,
) -> tuple[nn.Module, Processor | TextProcessor | PairProcessor | QuestionProcessor]:
    """Return the embedded model `name` in float32 and its processor.

    The weight file must have the sha256 of the card and fill every parameter of the model; anything
    else is a CheckpointError, because a silently wrong model would be explained all the same.
    """
    card = cards()[name]
    path = WEIGHTS / f"{name}.safetensors"
    state = read_safetensors(path)
    _check_digest(path, card["sha256"])
    model = _build(card).float()
    try:
        model.load_state_dict({key: value.float() for key, value in state.items()}, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} does not fit its card: {reason}") from error
    if card["library"] == "timm":
        return model.eval(), _processor(card)
    return model.eval(), _HF[_kind(card)][1](card, model)


def _check_digest(path: Path, expected: str) -> None:
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise CheckpointError(f"{path} is not the file that its card describes: {REINSTALL}")


def _kind(card: dict) -> str:
    return card["class"].rpartition(".")[2]


def _build(card: dict) -> nn.Module:
    kind = _kind(card)
    if card["library"] == "transformers" and kind in _HF:
        with torch.random.fork_rng(devices=[]):
            return _HF[kind][0](card)
    from timm.models import deit, vision_transformer

    classes = {
        "VisionTransformer": vision_transformer.VisionTransformer,
        "VisionTransformerDistilled": deit.VisionTransformerDistilled,
    }
    if card["library"] != "timm" or kind not in classes:
        raise CheckpointError(
            f"The card of {card['name']!r} names {card['library']} {card['class']}; known are "
            f"timm's {', '.join(classes)} and transformers' {', '.join(_HF)}."
        )
    # Weights are about to be loaded: building must not disturb the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        model = classes[kind](**card["kwargs"])
    # Where timm's own factory keeps the names, so that `target="star"` works here as well.
    model.pretrained_cfg = {"label_names": tuple(card["class_names"])}
    return model


def _build_bert(card: dict) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    names = card["class_names"]
    config = BertConfig(
        **card["kwargs"],
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    return BertForSequenceClassification(config)


def _build_clip(card: dict) -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    return CLIPModel(CLIPConfig(**card["kwargs"]))


def _build_questions(card: dict) -> nn.Module:
    import transformers

    kind = _kind(card)
    config = getattr(transformers, kind.replace("ForQuestionAnswering", "Config"))
    names = dict(enumerate(card["class_names"]))
    return getattr(transformers, kind)(config(**card["kwargs"], id2label=names))


def _tokenizer(card: dict, names: list[str], special: dict[str, str]) -> PreTrainedTokenizerFast:
    """Return the card's tokenizer, which makes the inputs `names`; special: token by its role."""
    from transformers import PreTrainedTokenizerFast

    path = WEIGHTS / card["tokenizer"]
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: {REINSTALL}")
    _check_digest(path, card["tokenizer_sha256"])
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        model_max_length=card["input"]["max_length"],
        model_input_names=names,
        **{f"{role}_token": token for role, token in special.items()},
    )


def _bert_tokenizer(card: dict) -> PreTrainedTokenizerFast:
    roles = ("pad", "unk", "cls", "sep", "mask")
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return _tokenizer(card, names, {role: f"[{role.upper()}]" for role in roles})


def _text_processor(card: dict, model: nn.Module) -> TextProcessor:
    tokenizer = _bert_tokenizer(card)
    agree(tokenizer, model, card["name"])
    return TextProcessor(tokenizer, tuple(card["class_names"]), card["input"]["max_length"])


def _question_processor(card: dict, model: nn.Module) -> QuestionProcessor:
    return question_processor(_bert_tokenizer(card), model, card["name"])


def _pair_processor(card: dict, model: nn.Module) -> PairProcessor:
    tokenizer = _tokenizer(card, ["input_ids", "attention_mask"], card["special_tokens"])
    return PairProcessor(_processor(card), tokenizer, tuple(card["class_names"]))


def _processor(card: dict) -> Processor:
    size = card["input"]["size"]
    height, width = (size, size) if isinstance(size, int) else size[-2:]
    return Processor(
        (height, width),
        tuple(card["input"]["mean"]),
        tuple(card["input"]["std"]),
        tuple(card["class_names"]),
    )


# How to build a model of transformers from its card, and its processor from card and model.
_HF: dict[str, tuple[Callable, Callable]] = {
    "BertForSequenceClassification": (_build_bert, _text_processor),
    "CLIPModel": (_build_clip, _pair_processor),
    "LxmertForQuestionAnswering": (_build_questions, _question_processor),
    "VisualBertForQuestionAnswering": (_build_questions, _question_processor),
}
