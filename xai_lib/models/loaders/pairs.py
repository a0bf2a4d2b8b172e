"""transformers models that compare images with texts, from a local folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from xai_lib.errors import CheckpointError
from xai_lib.files.weights import check_weights
from xai_lib.models.loaders.images import image_processor, pretrained
from xai_lib.models.loaders.texts import max_tokens, read_tokenizer
from xai_lib.models.processors.pair import PairProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Architectures with an image tower and a text tower whose features are compared.
PAIRS = ("CLIPModel", "SiglipModel", "AltCLIPModel", "ChineseCLIPModel", "MetaClip2Model")


def load_pair_folder(folder: Path) -> tuple[nn.Module, PairProcessor]:
    """Return the CLIP-type model and the processor of a folder that `save_pretrained` wrote.

    Both the model's and the processor's `save_pretrained` must have written there. Raises
    CheckpointError where a file is missing or damaged, where a parameter does not come from the
    file, and where tokenizer and model do not belong together.
    """
    check_weights(folder)
    tokenizer = read_tokenizer(folder)
    from transformers import AutoModel

    model = pretrained(AutoModel, folder, "model of images and texts")
    _agree(tokenizer, model, folder)
    images = replace(image_processor(folder, model), class_names=())
    limit = max_tokens(model.text_model, tokenizer)
    # SigLIP reads its features at the last place, and was trained with texts padded up to there.
    pads = type(model).__name__ == "SiglipModel"
    return model, PairProcessor(images, tokenizer, (), limit, limit if pads else None)


def _agree(tokenizer: PreTrainedTokenizerBase, model: nn.Module, folder: Path) -> None:
    """Raise CheckpointError unless the tokenizer's ids and its end of a text are the model's."""
    rows = model.text_model.get_input_embeddings().num_embeddings
    known = max(tokenizer.get_vocab().values(), default=-1) + 1
    if known > rows or 2 * known < rows:
        raise CheckpointError(
            f"The tokenizer of {folder} has {known} ids, the model {rows} text embeddings: they do "
            "not belong together. Take the tokenizer that the model was trained with."
        )
    end = getattr(model.config.text_config, "eos_token_id", None)
    # CLIP reads a text at its end token. Older configurations say 2 and mean the largest id.
    if type(model).__name__ == "CLIPModel" and end != 2 and end != tokenizer.eos_token_id:
        raise CheckpointError(
            f"The tokenizer of {folder} ends texts with id {tokenizer.eos_token_id}, the model "
            f"reads them at id {end}: set eos_token_id of text_config in config.json to the id "
            "that the model was trained with."
        )
