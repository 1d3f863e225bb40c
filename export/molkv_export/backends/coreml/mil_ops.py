"""The meaning of the MIL ops that these programs have, in NumPy.

float16 values come as float32 arrays, so a result may be more exact than its type; the evaluator
rounds it. Every function is named after its op and takes the op's arguments by their names in MIL.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molkv_runtime.errors import BundleError

__all__ = ["EVALUATED_OPS", "MOVES"]

Array = NDArray[Any]


def _axes(axes: Array | None) -> tuple[int, ...] | None:
    return None if axes is None else tuple(int(axis) for axis in np.atleast_1d(axes))


def _linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    product: Array = x @ weight.T
    return product if bias is None else product + bias


def _matmul(x: Array, y: Array, transpose_x: Any = False, transpose_y: Any = False) -> Array:
    first = x.swapaxes(-1, -2) if transpose_x else x
    second = y.swapaxes(-1, -2) if transpose_y else y
    product: Array = first @ second
    return product


def _softmax(x: Array, axis: Any) -> Array:
    exponential = np.exp(x - x.max(axis=int(axis), keepdims=True))
    share: Array = exponential / exponential.sum(axis=int(axis), keepdims=True)
    return share


def _gelu(x: Array, mode: str = "EXACT") -> Array:
    if mode != "EXACT":
        raise BundleError(f"gelu has mode {mode}", fix="export with this version")
    result: Array = 0.5 * x * (1 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2)))
    return result


def _gather(
    x: Array,
    indices: Array,
    axis: Any = 0,
    batch_dims: Any = 0,  # noqa: ARG001 - the op's name for it; 0 in these programs
    validate_indices: Any = False,  # noqa: ARG001 - the op's name for it
) -> Array:
    return np.take(x, indices.astype(np.int64), axis=int(axis))


def _slice_update(x: Array, update: Array, begin: Array, end: Array, **masks: Any) -> Array:
    updated: Array = x.copy()
    updated[_slices(x, begin, end, **masks)] = update
    return updated


def _slice_by_index(x: Array, begin: Array, end: Array, **masks: Any) -> Array:
    part: Array = x[_slices(x, begin, end, **masks)]
    return part


def _slices(
    x: Array,
    begin: Array,
    end: Array,
    stride: Any = None,
    begin_mask: Any = None,
    end_mask: Any = None,
    squeeze_mask: Any = None,
) -> tuple[slice, ...]:
    """Ranges must lie inside: what a device does with others is not specified.

    As in MIL, an end of 0 is taken for the whole dimension where the begin is 0 as well.
    """
    if stride is not None and (stride != 1).any():
        raise ValueError("strides other than 1 are not evaluated")
    if squeeze_mask is not None and squeeze_mask.any():
        raise ValueError("squeezing slices are not evaluated")
    ranges = []
    for axis, size in enumerate(x.shape):
        first = 0 if begin_mask is not None and begin_mask[axis] else int(begin[axis])
        last = size if end_mask is not None and end_mask[axis] else int(end[axis])
        if not 0 <= first < last <= size:
            raise ValueError(f"slice {first}:{last} of an axis of {size}")
        ranges.append(slice(first, last))
    return tuple(ranges)


def _slice_by_size(x: Array, begin: Array, size: Array) -> Array:
    return _slice_by_index(x, begin, np.asarray(begin) + np.asarray(size))


def _concat(values: Iterable[Array], axis: Any, interleave: Any = False) -> Array:  # noqa: ARG001
    return np.concatenate([np.atleast_1d(value) for value in values], axis=int(axis))


def _split(x: Array, axis: Any, split_sizes: Any = None, num_splits: Any = None) -> list[Array]:
    if split_sizes is None:
        return np.split(x, int(num_splits), axis=int(axis))
    return np.split(x, np.cumsum(split_sizes)[:-1].tolist(), axis=int(axis))


def _pad(x: Array, pad: Array, mode: str = "constant", constant_val: Any = 0.0) -> Array:
    widths = [(0, 0)] * (x.ndim - len(pad) // 2) + np.reshape(pad, (-1, 2)).tolist()
    if mode != "constant":
        raise ValueError(f"padding of mode {mode} is not evaluated")
    return np.pad(x, widths, constant_values=float(constant_val))


def _reduced(operation: Callable[..., Array]) -> Callable[..., Array]:
    def reduce(x: Array, axes: Any = None, keep_dims: Any = False) -> Array:
        return operation(x, axis=_axes(axes), keepdims=bool(keep_dims))

    return reduce


def _binary(operation: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    return lambda x, y: operation(x, y)


EVALUATED_OPS: dict[str, Callable[..., Any]] = {
    "abs": lambda x: np.abs(x),
    "add": _binary(np.add),
    "cast": lambda x, dtype: x,  # noqa: ARG005 - the result is rounded to its type
    "concat": _concat,
    "coreml_update_state": lambda value, state: value,  # noqa: ARG005
    "expand_dims": lambda x, axes: np.expand_dims(x, _axes(axes) or ()),
    "gather": _gather,
    "gelu": _gelu,
    "greater_equal": _binary(np.greater_equal),
    "less": _binary(np.less),
    "less_equal": _binary(np.less_equal),
    "linear": _linear,
    "logical_and": _binary(np.logical_and),
    "logical_not": lambda x: np.logical_not(x),
    "matmul": _matmul,
    "maximum": _binary(np.maximum),
    "mod": _binary(np.mod),
    "mul": _binary(np.multiply),
    "pad": _pad,
    "read_state": lambda state: state,
    "real_div": _binary(np.divide),
    "reduce_max": _reduced(np.max),
    "reduce_mean": _reduced(np.mean),
    "reshape": lambda x, shape: np.reshape(x, [int(size) for size in shape]),
    "rsqrt": lambda x, epsilon=0.0: 1 / np.sqrt(x + epsilon),
    "select": lambda cond, a, b: np.where(cond, a, b),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "slice_update": _slice_update,
    "softmax": _softmax,
    "split": _split,
    "squeeze": lambda x, axes: np.squeeze(x, _axes(axes)),
    "sub": _binary(np.subtract),
    "tile": lambda x, reps: np.tile(x, [int(count) for count in reps]),
    "transpose": lambda x, perm: np.transpose(x, [int(axis) for axis in perm]),
    "write_state": lambda data, state: data,  # noqa: ARG005
}
"""The meaning of every op that these programs have, by its name in MIL."""

MOVES = frozenset(
    [
        *("concat", "expand_dims", "gather", "read_state", "reshape", "slice_by_index"),
        *("slice_by_size", "slice_update", "split", "squeeze", "tile", "transpose"),
    ]
)
"""Ops whose results are numbers of their arguments, which are rounded already."""
