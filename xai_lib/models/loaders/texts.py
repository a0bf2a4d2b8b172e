"""transformers text classifiers from a local folder, with the tokenizer they were trained with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from xai_lib.errors import CheckpointError, UnsupportedModelError
from xai_lib.files.weights import TOKENIZER_NAMES, check_weights
from xai_lib.models.loaders.images import pretrained, quiet, sentence
from xai_lib.models.processors.text import TextProcessor
from xai_lib.models.processors.tokenizers import NO_LIMIT
from xai_lib.streams.labels import class_names

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


def load_text_folder(folder: Path) -> tuple[nn.Module, TextProcessor]:
    """Return the text classifier and the processor of a folder that `save_pretrained` wrote.

    Raises CheckpointError where a file is missing or damaged, where a parameter does not come from
    the file, and where tokenizer and model do not belong together.
    """
    check_weights(folder)
    tokenizer = read_tokenizer(folder)
    from transformers import AutoModelForSequenceClassification

    model = pretrained(AutoModelForSequenceClassification, folder, "text classifier")
    agree(tokenizer, model, folder)
    names = class_names(model, model.config.num_labels) or ()
    return model, TextProcessor(tokenizer, names, max_tokens(model, tokenizer))


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the fast tokenizer of a folder, or raise a CheckpointError that says what it lacks.

    transformers makes a tokenizer of special tokens alone where there is no vocabulary, so its
    files are looked for first.
    """
    if not any((folder / name).is_file() for name in TOKENIZER_NAMES):
        raise CheckpointError(
            f"{folder} has no tokenizer: copy tokenizer.json and tokenizer_config.json into it, or "
            "write them with tokenizer.save_pretrained(folder)."
        )
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            if not tokenizer.is_fast and (folder / "tokenizer.json").is_file():
                # transformers has no fast class of SigLIP's, whose folders hold one all the same.
                tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises plain Exception for damaged files
        raise CheckpointError(
            f"The tokenizer in {folder} cannot be used ({sentence(error)}): copy its files again, "
            "or, if it has no tokenizer.json, convert it with "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)."
        ) from error
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"{folder} has the slow tokenizer {type(tokenizer).__name__} only, which does not say "
            "which characters a token stands for: bring a tokenizer.json."
        )
    return tokenizer


def agree(tokenizer: PreTrainedTokenizerBase, model: nn.Module, place: object) -> None:
    """Raise CheckpointError unless the tokenizer's ids and padding are those of the model.

    Where the tokenizer has no padding token, its end-of-text token becomes it, provided that the
    model's configuration names the same one. Where it pads at the left and that changes the model's
    output, it pads at the right from here on.
    """
    check_vocabulary(tokenizer, model, place)
    expected = getattr(model.config, "pad_token_id", None)
    if tokenizer.pad_token is None:
        if expected is None or expected != tokenizer.eos_token_id:
            raise CheckpointError(_no_padding(tokenizer, model, place))
        tokenizer.pad_token = tokenizer.eos_token
    elif tokenizer.pad_token_id != expected and not _ignores_padding(model, tokenizer):
        raise CheckpointError(
            f"The tokenizer of {place} pads with id {tokenizer.pad_token_id}, the model expects "
            f"{expected}, and padding changes its output: set pad_token_id to "
            f"{tokenizer.pad_token_id} in config.json if the model was trained so."
        )
    if tokenizer.padding_side == "left" and not _ignores_padding(model, tokenizer):
        # Positions that count from the padding would make a text depend on its batch.
        tokenizer.padding_side = "right"


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: nn.Module, place: object) -> None:
    """Raise CheckpointError unless the model has an embedding for each of the tokenizer's ids.

    Models round their number up, but not to more than twice the ids.
    """
    rows = model.get_input_embeddings().num_embeddings
    known = max(tokenizer.get_vocab().values(), default=-1) + 1
    if known > rows or 2 * known < rows:
        added = len(set(tokenizer.get_added_vocab()) - set(tokenizer.all_special_tokens))
        advice = (
            f" If its {added} added tokens are yours, call "
            "model.resize_token_embeddings(len(tokenizer)) and train them."
        )
        raise CheckpointError(
            f"The tokenizer of {place} has {known} ids, the model {rows} embeddings: they do not "
            "belong together. Take the tokenizer that the model was trained with."
            f"{advice if added else ''}"
        )


def _no_padding(tokenizer: PreTrainedTokenizerBase, model: nn.Module, place: object) -> str:
    expected = getattr(model.config, "pad_token_id", None)
    start = f"The tokenizer of {place} has no padding token"
    if expected is not None:
        token = tokenizer.convert_ids_to_tokens(expected)
        return (
            f"{start}, the model pads with id {expected}: set tokenizer.pad_token = {token!r} and "
            "save the tokenizer again."
        )
    if tokenizer.eos_token is None:
        return f"{start} and no end-of-text token: set tokenizer.pad_token and save it again."
    return (
        f"{start} and the model's configuration none either: if padding was the end-of-text token "
        f"in training, set pad_token_id to {tokenizer.eos_token_id} in config.json "
        f"(model.config.pad_token_id = {tokenizer.eos_token_id})."
    )


def _ignores_padding(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Say whether a padded text has the logits it has alone.

    Causal classifiers look for the last token that is no padding, and RoBERTa counts positions
    from the tokens that are none, both by the configuration's id; BERT goes by the mask alone.
    """
    texts = ["a", "a a a a"]
    try:
        with torch.no_grad():
            padded = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits[:1]
            alone = model(**tokenizer(texts[:1], return_tensors="pt")).logits
    except (ValueError, IndexError, RuntimeError):
        return False
    return torch.allclose(padded, alone, rtol=1e-3, atol=1e-4)


def max_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return how many tokens the model takes, special ones included; None for no limit.

    The smaller of what the tokenizer states and what the model has positions for. RoBERTa's table
    of positions starts after its padding index, so that it holds padding_idx + 1 fewer.
    """
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < NO_LIMIT else []
    places = getattr(model.config, "max_position_embeddings", None)
    if isinstance(places, int) and places > 0 and not _relative(model.config):
        limits.append(places - _offset(model))
    return int(min(limits)) if limits else None


def _relative(config: PreTrainedConfig) -> bool:
    """Say whether the model knows positions only by their distance, as DeBERTa does."""
    return not getattr(config, "position_biased_input", True)


def _offset(model: nn.Module) -> int:
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


def require_classifier(names: list[str], folder: Path) -> None:
    """Raise UnsupportedModelError for a folder whose architecture is a text encoder by itself."""
    encoders = ("Model", "ForMaskedLM", "ForPreTraining", "ForCausalLM", "LMHeadModel")
    if names and names[0].endswith(encoders):
        raise UnsupportedModelError(
            f"{folder} holds {names[0]}, which has no classifier: train one on top with "
            f"`xai finetune --base {folder} --dataset NAME --out FOLDER`."
        )
