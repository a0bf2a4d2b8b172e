"""The text families of transformers: each one's own configuration, with every width turned down."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto import modeling_auto

CLASSES = 5
MOST_PARAMETERS = 60_000_000
WORDS, VOCABULARY = 9, 99
# In this order: what a family is explained as, and whether its scores have a row for each token.
TASKS = {
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING": False,
    "MODEL_FOR_CAUSAL_LM_MAPPING": True,
    "MODEL_FOR_MASKED_LM_MAPPING": True,
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING": True,
}
# What is turned down, whatever a family calls it.
SMALL = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "model_dim"), 32
    ),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "n_inner", "hidden_dim"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size", "dff"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "v_head_dim", "qk_rope_head_dim"), 8),
    **dict.fromkeys(("qk_nope_head_dim", "d_head", "kv_channels"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "index_head_dim"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_top_k"), 2),
    **dict.fromkeys(("first_k_dense_replace", "n_shared_experts", "n_group", "topk_group"), 1),
    **dict.fromkeys(("attn_layer_period", "expert_layer_period", "attn_layer_offset"), 1),
    **dict.fromkeys(("expert_layer_offset",), 0),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 64),
    **dict.fromkeys(("pad_token_id",), 0),
    **dict.fromkeys(("bos_token_id", "cls_token_id", "decoder_start_token_id"), 1),
    **dict.fromkeys(("eos_token_id", "sep_token_id"), 2),
    "rotary_dim": 4,
    "vocab_size": VOCABULARY,
    "num_labels": CLASSES,
    "use_cache": False,
    "full_attn_idxs": None,
    "attention_window": 8,
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "state_size": 8,
}

# Some families tie one of these to another, and are asked without them.
HEAD_SIZES = frozenset(name for name, value in SMALL.items() if value == 8)
GROUPS = frozenset(("num_key_value_heads", "num_kv_heads"))
WITHOUT = (frozenset(), frozenset(("head_dim",)), GROUPS, HEAD_SIZES, HEAD_SIZES | GROUPS)


def families() -> Iterator[str]:
    """Yield the model types of transformers that read a text."""
    known = [getattr(modeling_auto, f"{task}_NAMES") for task in TASKS]
    yield from sorted(set().union(*known))


def build(kind: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a small model of a family with weights of chance, and a text of nine tokens.

    Raises RuntimeError where the family cannot be made so small, or is no model of text alone.
    """
    last: Exception | None = None
    for without in WITHOUT:
        try:
            return _built(small(type(CONFIG_MAPPING[kind]()), without))
        except Exception as error:
            last = last or error
    raise RuntimeError(f"{type(last).__name__}: {last}")


def _built(config: PreTrainedConfig) -> tuple[nn.Module, dict[str, Tensor]]:
    model_class = next(
        (
            mapping[type(config)]
            for mapping in (getattr(modeling_auto, task) for task in TASKS)
            if type(config) in mapping
        ),
        None,
    )
    if model_class is None:
        raise RuntimeError("no head for texts")
    model_class = model_class[0] if isinstance(model_class, tuple) else model_class
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        count = sum(p.numel() for p in model_class(config).parameters())
    if count > MOST_PARAMETERS:
        raise RuntimeError("its other inputs have models that are too large for this sweep")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = model_class(config).float().eval()
    words = torch.randint(5, VOCABULARY, (1, WORDS), generator=torch.Generator().manual_seed(1))
    # Some heads read the token that ends a text.
    words[:, -1] = SMALL["eos_token_id"]
    inputs = {"input_ids": words, "attention_mask": torch.ones_like(words)}
    with torch.no_grad():
        model(**inputs)
    return model, inputs


def small(config_class: type[PreTrainedConfig], without: frozenset[str]) -> PreTrainedConfig:
    """Return a configuration of the class, and of all within it, with every width turned down.

    without: what is left as the class has it.
    """
    default = config_class()
    options = {name: value for name, value in SMALL.items() if _has(default, name)}
    for name in without:
        options.pop(name, None)
    if getattr(default, "is_encoder_decoder", False):
        options["decoder_start_token_id"] = 1
    for name, part in vars(default).items():
        if isinstance(part, PreTrainedConfig):
            options[name] = small(type(part), without).to_dict()
    return config_class(**options)


def _has(config: PreTrainedConfig, name: str) -> bool:
    try:
        return hasattr(config, name)
    except ValueError:
        # One of each layer.
        return False
