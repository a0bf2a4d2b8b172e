"""What each torch operation is to an explainer: the vocabulary of the intercepted forward pass.

An operation is known by its bare name: `torch.add`, `Tensor.add`, `+` and `+=` are all "add".
`KINDS` maps it to the method that handles it; `ROUTING` are operations whose own gradient already
carries relevance to where it belongs. Anything else that carries a gradient is refused in a
relevance pass rather than answered wrongly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch

ATTENTION = {
    "scaled_dot_product_attention": "fused_attention",
    "multi_head_attention_forward": "module_attention",
}

WEIGHTED = {"linear": "linear", "conv1d": "conv", "conv2d": "conv"}

PRODUCTS = dict.fromkeys(("matmul", "bmm"), "matmul") | {
    "rmatmul": "reflected_matmul",
    "baddbmm": "biased_product",
    "einsum": "einsum",
    "mul": "multiply",
    "rmul": "multiply",
    "multiply": "multiply",
}

SUMS = dict.fromkeys(("add", "radd", "sub", "rsub", "subtract"), "add")

POOLS = dict.fromkeys(
    ("mean", "sum", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_avg_pool1d", "avg_pool1d"),
    "pool",
)

LENGTHS = dict.fromkeys(
    ("norm", "vector_norm", "linalg_vector_norm", "linalg_norm"),
    "length",
)

# Dividing by a constant is scaling; dividing by an activation is a normalisation.
SCALES = dict.fromkeys(("div", "truediv", "true_divide", "divide"), "divide")

POINTWISE = dict.fromkeys(
    (
        *("softmax", "log_softmax", "gelu", "relu", "relu6", "silu", "elu", "leaky_relu", "mish"),
        *("hardswish", "hardtanh", "tanh", "sigmoid", "softplus", "quick_gelu", "erf", "exp"),
        *("pow", "square", "sqrt", "rsqrt"),
        *("layer_norm", "batch_norm", "group_norm", "rms_norm", "normalize"),
        *("dropout", "dropout1d", "dropout2d", "feature_dropout", "alpha_dropout", "clamp", "neg"),
    ),
    "pointwise",
)

KINDS: dict[str, str] = (
    ATTENTION | WEIGHTED | PRODUCTS | SUMS | POOLS | LENGTHS | SCALES | POINTWISE
)

ROUTING = frozenset(
    (
        *("view", "reshape", "view_as", "reshape_as", "flatten", "unflatten", "squeeze"),
        *("unsqueeze", "permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis"),
        *("t", "T", "mT", "expand", "expand_as", "broadcast_to", "repeat", "repeat_interleave"),
        *("tile", "chunk", "split", "split_with_sizes", "tensor_split", "unbind", "getitem"),
        *("select", "narrow", "index_select", "gather", "take_along_dim", "cat", "concat"),
        *("concatenate", "stack", "hstack", "vstack", "roll", "flip", "contiguous", "clone"),
        *("to", "type", "type_as", "float", "double", "half", "bfloat16", "pad", "where"),
        *("masked_fill", "masked_scatter", "unfold", "fold", "pixel_unshuffle", "pixel_shuffle"),
        "detach",
        # The largest takes all, and of several the chosen ones.
        *("max_pool2d", "max_pool1d", "max_pool2d_with_indices", "max", "amax", "topk"),
        *("requires_grad", "as_tensor", "identity", "tril", "triu", "cpu", "cuda", "alias"),
    )
)


# Routing after which the dimensions of attention probabilities mean something else.
REORDERING = frozenset(
    ("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "T", "mT")
)


# In place, but not of numbers.
SETTINGS = ("requires_grad", "detach", "retain_grad", "rename", "share_memory", "resize")


@cache
def bare_name(func: Callable) -> str:
    """Return the operation's name without underscores: `Tensor.__iadd__` is "add"."""
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        # Properties such as Tensor.T and Tensor.shape arrive as descriptor getters.
        return getattr(getattr(func, "__self__", None), "__name__", name)
    bare = name.strip("_")
    return bare


@cache
def out_of_place(func: Callable) -> Callable | None:
    """Return the function that computes what an in-place `func` writes; None for others.

    `x += y` and `x.add_(y)` both arrive as "add_".
    """
    name = getattr(func, "__name__", "")
    bare = name.rstrip("_")
    known = bare in KINDS or (bare in ROUTING and bare not in SETTINGS)
    if name != bare + "_" or name.startswith("_") or not known:
        return None
    return getattr(torch.Tensor, bare, None)


@cache
def writes(func: Callable) -> bool:
    """Whether `func` changes the numbers of its first operand: `x[i] = y`, `x.fill_(0)`."""
    name = getattr(func, "__name__", "")
    if name == "__setitem__":
        return True
    return name.endswith("_") and not name.startswith("_") and bare_name(func) not in SETTINGS
