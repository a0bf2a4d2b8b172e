"""`load`: a name or a folder to a model and its processor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from xai_lib.errors import CheckpointError, OptionError, unknown_name
from xai_lib.files.hub import fetch_folder
from xai_lib.files.weights import (
    CONFIG_NAME,
    NO_PICKLE,
    PICKLED,
    PREPROCESSOR_NAME,
    read_json,
)
from xai_lib.models.catalog import CHECKPOINTS, pinned_revision
from xai_lib.models.embedded import cards, load_embedded
from xai_lib.models.loaders.images import load_hf_folder
from xai_lib.models.loaders.pairs import PAIRS, load_pair_folder
from xai_lib.models.loaders.questions import ARCHITECTURES, load_question_folder
from xai_lib.models.loaders.texts import load_text_folder, require_classifier
from xai_lib.models.loaders.timm import load_timm, load_timm_folder
from xai_lib.models.processors.image import Processor
from xai_lib.models.processors.pair import PairProcessor
from xai_lib.models.processors.question import QuestionProcessor
from xai_lib.models.processors.text import TextProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Loaded = tuple[nn.Module, Processor | TextProcessor | PairProcessor | QuestionProcessor]


def load(
    name: str | os.PathLike,
    *,
    revision: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Loaded:
    """Return the model `name` in eval mode and float32, unmodified, and its processor.

    A `Processor` for image classifiers, a `TextProcessor` for text classifiers, a `PairProcessor`
    for models of images and texts such as CLIP, a `QuestionProcessor` for LXMERT and VisualBERT
    that answer questions. `name` is an embedded model ("vit-scenes"; `xai models` lists them),
    "timm:NAME" or "hf:NAME" for a checkpoint of the Hugging Face hub (at the commit, branch or tag
    `revision`), or the path of a folder that holds `config.json` and `model.safetensors` as
    transformers' `save_pretrained` or timm's `save_for_hf` write them. Pickled weights (.bin, .pth)
    are refused. tokenizer: that of LXMERT or VisualBERT where the folder has none, as VisualBERT's
    on the hub, which share that of bert-base-uncased. Raises OptionError for an unknown name and a
    tokenizer that is not asked for, CheckpointError for files that are missing, damaged, or
    neither in the local cache nor reachable.
    """
    if not isinstance(name, str | os.PathLike):
        raise OptionError(f"name is {name!r}; expected a model's name or the path of a folder.")
    text = os.fspath(name)
    prefix, _, rest = text.partition(":")
    if text in cards():
        _refuse(tokenizer, text)
        return load_embedded(text)
    if prefix in ("timm", "hf") and rest:
        revision = revision or pinned_revision(text)
        if prefix == "timm":
            _refuse(tokenizer, text)
            return load_timm(rest, revision)
        return _load(fetch_folder(rest, revision), tokenizer)
    return _load(local_folder(text, is_path=not isinstance(name, str)), tokenizer)


def _refuse(tokenizer: object, name: object) -> None:
    """Raise OptionError for a tokenizer that the caller brings to a model that has its own."""
    if tokenizer is not None:
        raise OptionError(
            f"{name} takes no tokenizer=; only folders of {' and '.join(ARCHITECTURES)} do, which "
            "may come without one."
        )


def _load(folder: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> Loaded:
    config = read_json(folder / CONFIG_NAME)
    names = [str(name) for name in config.get("architectures") or []]
    if any(name in ARCHITECTURES for name in names):
        return load_question_folder(folder, tokenizer)
    _refuse(tokenizer, folder)
    # timm's hub format names an architecture, transformers' a list of them.
    if "architecture" in config:
        return load_timm_folder(folder)
    if any(name.endswith("ForSequenceClassification") for name in names):
        return load_text_folder(folder)
    if any(name in PAIRS for name in names):
        return load_pair_folder(folder)
    if not (folder / PREPROCESSOR_NAME).is_file():
        require_classifier(names, folder)
    return load_hf_folder(folder)


def local_folder(text: str, is_path: bool = False) -> Path:
    """Return the folder at a path, or raise an error that says what was meant."""
    path = Path(text).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        reason = NO_PICKLE if path.suffix in PICKLED else "a file alone does not say which model."
        raise CheckpointError(f"{path}: {reason} Give the folder that holds it and {CONFIG_NAME}.")
    if is_path or "/" in text or os.sep in text or text.startswith(("~", ".")):
        raise CheckpointError(
            f"There is no folder {text!r}; models of the Hugging Face hub are 'hf:OWNER/NAME'."
        )
    known = [*cards(), *(row.name for row in CHECKPOINTS)]
    error = unknown_name("model", text, known)
    raise OptionError(f"{error} Also 'timm:NAME', 'hf:NAME' and paths of local folders.")
