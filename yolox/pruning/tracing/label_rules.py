"""What PyTorch's operations do to the channels of the tensors that they work on, by name.

An operation that is in none of these tables, and that PyTorch does not tag as working value by
value, is taken to mix all that it reads.
"""

from __future__ import annotations

# Value by value, beside those that PyTorch itself tags so.
ELEMENTWISE = frozenset(
    {
        "_prelu_kernel",
        "copy_",
        "dropout",
        "hardswish",
        "hardswish_",
        "log_sigmoid_forward",
        "native_dropout",
    }
)

# A result of the input's shape that has channels where the input has them.
COPIES = frozenset(
    {
        "_to_copy",
        "alias",
        "bernoulli",
        "clone",
        "contiguous",
        "detach",
        "empty_like",
        "full_like",
        "lift_fresh",
        "ones_like",
        "rand_like",
        "randn_like",
        "to",
        "zeros_like",
    }
)

# A constant tensor of a shape of its own: only the precision and the device are the input's.
UNREAD = frozenset({"new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros"})

# Only another shape for the same values in the same order.
VIEWS = frozenset(
    {
        "_reshape_alias",
        "_unsafe_view",
        "reshape",
        "view",
    }
)

# Values are moved, left out or repeated, as the arguments say.
MOVES = VIEWS | frozenset(
    {
        "cat",
        "expand",
        "flip",
        "index",
        "index_select",
        "permute",
        "pixel_unshuffle",
        "repeat",
        "roll",
        "select",
        "slice",
        "split",
        "split_with_sizes",
        "squeeze",
        "stack",
        "t",
        "transpose",
        "unbind",
        "unfold",
        "unsafe_split",
        "unsafe_split_with_sizes",
        "unsqueeze",
    }
)

# Pooling, interpolation and padding by what is there: how many last dimensions they work on.
WINDOWS = {
    "max_pool1d": 1,
    "avg_pool1d": 1,
    "adaptive_avg_pool1d": 1,
    "upsample_nearest1d": 1,
    "upsample_linear1d": 1,
    "reflection_pad1d": 1,
    "replication_pad1d": 1,
    "max_pool2d_with_indices": 2,
    "max_pool2d": 2,
    "avg_pool2d": 2,
    "_adaptive_avg_pool2d": 2,
    "adaptive_avg_pool2d": 2,
    "adaptive_max_pool2d": 2,
    "upsample_nearest2d": 2,
    "_upsample_nearest_exact2d": 2,
    "upsample_bilinear2d": 2,
    "upsample_bicubic2d": 2,
    "_upsample_bilinear2d_aa": 2,
    "reflection_pad2d": 2,
    "replication_pad2d": 2,
    "max_pool3d_with_indices": 3,
    "avg_pool3d": 3,
    "_adaptive_avg_pool3d": 3,
}

# Something is taken over dimensions, which are that argument.
REDUCTIONS = {
    "mean": 1,
    "sum": 1,
    "amax": 1,
    "amin": 1,
    "logsumexp": 1,
    "all": 1,
    "any": 1,
    "prod": 1,
    "max": 1,
    "min": 1,
    "median": 1,
    "var": 1,
    "std": 1,
    "var_mean": 1,
    "std_mean": 1,
    "argmax": 1,
    "argmin": 1,
    "norm": 2,
    "linalg_vector_norm": 2,
}

# Likewise along a dimension, which stays as long.
ALONG = {
    "topk": 2,
    "_softmax": 1,
    "_log_softmax": 1,
    "cumsum": 1,
    "cumprod": 1,
    "sort": 1,
}
