"""transformers models that answer questions on image regions, from a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from xai_lib.errors import CheckpointError, InputError
from xai_lib.files.weights import CONFIG_NAME, TOKENIZER_NAMES, check_weights, read_json
from xai_lib.models.loaders.images import pretrained
from xai_lib.models.loaders.texts import check_vocabulary, read_tokenizer
from xai_lib.models.processors.question import QuestionProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

ARCHITECTURES = ("LxmertForQuestionAnswering", "VisualBertForQuestionAnswering")


def load_question_folder(
    folder: Path, tokenizer: PreTrainedTokenizerBase | None = None
) -> tuple[nn.Module, QuestionProcessor]:
    """Return the LXMERT or VisualBERT and the processor of a folder of `save_pretrained`.

    tokenizer: the caller's, for a folder without one: the published VisualBERT checkpoints share
    the tokenizer of another repository, bert-base-uncased. Raises CheckpointError where a file is
    missing or damaged, where a parameter does not come from the file, and where tokenizer and model
    do not belong together.
    """
    check_weights(folder)
    if tokenizer is None:
        if not any((folder / name).is_file() for name in TOKENIZER_NAMES):
            raise CheckpointError(
                f"{folder} has no tokenizer. VisualBERT's published checkpoints were trained with "
                "that of bert-base-uncased: give tokenizer=transformers.AutoTokenizer."
                "from_pretrained('google-bert/bert-base-uncased'), or save it into the folder."
            )
        tokenizer = read_tokenizer(folder)
    import transformers

    name = next(n for n in read_json(folder / CONFIG_NAME)["architectures"] if n in ARCHITECTURES)
    model = pretrained(getattr(transformers, name), folder, "model that answers questions")
    return model, question_processor(tokenizer, model, folder)


def question_processor(
    tokenizer: PreTrainedTokenizerBase, model: nn.Module, place: object
) -> QuestionProcessor:
    """Return the processor of a LXMERT or VisualBERT.

    Raises CheckpointError unless the tokenizer has as many ids as the model has embeddings, and a
    padding token. Both models go by the mask alone, so its number does not matter.
    """
    check_vocabulary(tokenizer, model, place)
    if tokenizer.pad_token is None:
        raise CheckpointError(
            f"The tokenizer of {place} has no padding token: set tokenizer.pad_token and save it."
        )
    config = model.config
    kind = config.model_type
    dim = config.visual_feat_dim if kind == "lxmert" else config.visual_embedding_dim
    try:
        # LXMERT's table of positions has a padding index, but starts at 0 all the same.
        limit = min(config.max_position_embeddings, tokenizer.model_max_length)
        return QuestionProcessor(tokenizer, kind, dim, answers_of(config), limit)
    except InputError as error:
        raise CheckpointError(f"The tokenizer of {place} cannot be used: {error}") from error


def answers_of(config: PreTrainedConfig) -> tuple[str, ...]:
    """Return the answers in order, or () where the configuration does not name every one.

    LXMERT's configuration counts its answers apart from its labels, and published ones leave the
    two labels that transformers sets by itself.
    """
    labels = config.id2label or {}
    count = config.num_qa_labels if config.model_type == "lxmert" else len(labels)
    if set(labels) != set(range(count)):
        return ()
    return tuple(str(labels[index]) for index in sorted(labels))
