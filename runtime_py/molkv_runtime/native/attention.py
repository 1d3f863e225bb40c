"""The op's kernels in the native core, each by its name."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molkv_runtime.errors import MolkvError
from molkv_runtime.native.library import NativeLibrary, load_library
from molkv_runtime.native.structures import AttentionInputs, Kernel
from molkv_runtime.row_geometry import INT4_GROUP, DataType
from molkv_runtime.row_layout import LayerRows

__all__ = ["NativeAttention"]

_DATA_TYPES = {
    np.dtype(np.float16): DataType.FLOAT16,
    np.dtype(np.int8): DataType.INT8,
    np.dtype(np.uint8): DataType.INT4,
}


class NativeAttention:
    """Expert attention on quantized rows, as `molkv_runtime.expert_attention` computes it.

    Args:
        library: by default the installed one.
    """

    def __init__(self, library: NativeLibrary | None = None) -> None:
        self.library = library or load_library()

    def kernels(self) -> list[Kernel]:
        """The kernels that this build and processor have."""
        return [
            kernel
            for kernel in Kernel
            if kernel is not Kernel.BEST and self.library.plain("kernel_available", kernel)
        ]

    def name(self, kernel: Kernel) -> str:
        """A kernel's name, such as ``avx512``."""
        name: bytes = self.library.plain("kernel_name", kernel)
        return name.decode()

    def attend(
        self,
        query: NDArray[np.float32],
        rows: LayerRows,
        age_bias: NDArray[np.float32],
        start: int = 0,
        *,
        kernel: Kernel = Kernel.BEST,
    ) -> NDArray[np.float32]:
        """Attend over the window, on one thread.

        Args:
            query: float32 [T, G, dk].
            rows: the window's S rows of one layer; keys are needed.
            age_bias: float32 [G, N, W].
            start: rows before it are padding.
            kernel: which implementation.

        Returns:
            float32 [T, d].

        Raises:
            MolkvError: shapes or types that cannot work, or a kernel that is not there.
        """
        if rows.keys is None:
            raise MolkvError("keys are missing", fix="pass one-hot keys for a MoLE model")
        packed = rows.values.dtype == np.uint8
        arrays = {
            "query": np.ascontiguousarray(query, np.float32),
            "keys": np.ascontiguousarray(rows.keys),
            "key_scales": _contiguous(rows.key_scales, np.float32),
            "values": np.ascontiguousarray(rows.values),
            "value_scales": _contiguous(rows.value_scales, np.float16 if packed else np.float32),
            "age_bias": np.ascontiguousarray(age_bias, np.float32),
        }
        tokens, heads, key_size = query.shape
        count, experts, value_size = rows.values.shape
        value_size *= 2 if packed else 1
        groups = value_size // INT4_GROUP if packed else None
        _check_shapes(arrays, (tokens, heads, key_size), (count, experts), groups)
        inputs = AttentionInputs(
            struct_size=ctypes.sizeof(AttentionInputs),
            kernel=kernel,
            tokens=tokens,
            rows=count,
            experts=experts,
            heads=heads,
            key_size=key_size,
            value_size=value_size,
            window=age_bias.shape[2],
            key_dtype=_DATA_TYPES.get(rows.keys.dtype, DataType.NONE),
            value_dtype=_DATA_TYPES.get(rows.values.dtype, DataType.NONE),
            start=start,
        )
        for name, array in arrays.items():
            setattr(inputs, name, None if array is None else array.ctypes.data)
        output = np.empty((tokens, value_size), np.float32)
        address = ctypes.c_void_p(output.ctypes.data)
        self.library.call("attention", ctypes.byref(inputs), address, None, None, None)
        return output


def _contiguous(scales: NDArray[Any] | None, dtype: type[np.floating]) -> NDArray[Any] | None:
    return None if scales is None else np.ascontiguousarray(scales, dtype)


def _check_shapes(
    arrays: dict[str, NDArray[np.generic] | None],
    query: tuple[int, int, int],
    values: tuple[int, int],
    groups: int | None,
) -> None:
    """The library takes sizes and addresses on trust, so arrays must have the sizes it is told."""
    _, heads, key_size = query
    rows, experts = values
    shapes: dict[str, tuple[int | None, ...]] = {
        "keys": (rows, experts, heads * key_size),
        "key_scales": (rows, experts),
        "value_scales": (rows, experts) if groups is None else (rows, experts, groups),
        "age_bias": (heads, experts, None),
    }
    for name, expected in shapes.items():
        array = arrays[name]
        if array is None:
            continue
        if array.ndim != len(expected) or any(
            want not in (None, have) for want, have in zip(expected, array.shape, strict=True)
        ):
            raise MolkvError(
                f"{name} has the shape {list(array.shape)}, expected "
                f"{['W' if size is None else size for size in expected]}",
                fix="pass the planes of one layer",
            )
