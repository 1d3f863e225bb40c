"""molkv's expert attention through the C ABI, as the tests call it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from molkv_export.op_parity import OpCase

KERNELS = {"scalar": 1, "avx2": 2, "avx512": 3, "neon": 4, "neon-dotprod": 5}
_DATA_TYPES = {np.dtype(np.float16): 2, np.dtype(np.int8): 3, np.dtype(np.uint8): 4}
_ARRAYS = ("query", "keys", "key_scales", "values", "value_scales", "age_bias")


class _Inputs(ctypes.Structure):
    _fields_ = (
        *[
            (name, ctypes.c_uint32)
            for name in (
                "struct_size",
                "kernel",
                "tokens",
                "rows",
                "experts",
                "heads",
                "key_size",
                "value_size",
                "window",
                "key_dtype",
                "value_dtype",
            )
        ],
        ("start", ctypes.c_int64),
        *[(name, ctypes.c_void_p) for name in _ARRAYS],
    )


class _Error(ctypes.Structure):
    _fields_ = (("status", ctypes.c_int), ("message", ctypes.c_char * 1020))


class AttentionLibrary:
    """Calls `molkv_attention` of a built library."""

    def __init__(self, file: Path) -> None:
        self._library = ctypes.CDLL(str(file))
        self._library.molkv_kernel_name.restype = ctypes.c_char_p

    def available(self) -> list[str]:
        return [
            name for name, kernel in KERNELS.items() if self._library.molkv_kernel_available(kernel)
        ]

    def name(self, kernel: int) -> str:
        name: bytes = self._library.molkv_kernel_name(kernel)
        return name.decode()

    def attend(self, case: OpCase, kernel: str) -> NDArray[np.float32]:
        """Raises ValueError with the library's message where it refuses."""
        tokens, heads, key_size = case.query.shape
        arrays = case.feeds
        values, keys = arrays["values"], arrays["keys"]
        assert values is not None
        assert keys is not None
        rows, experts, value_size = values.shape
        value_size *= 2 if values.dtype == np.uint8 else 1
        inputs = _Inputs(
            ctypes.sizeof(_Inputs),
            KERNELS[kernel],
            tokens,
            rows,
            experts,
            heads,
            key_size,
            value_size,
            case.age_bias.shape[2],
            _DATA_TYPES[keys.dtype],
            _DATA_TYPES[values.dtype],
            case.start,
        )
        for name in _ARRAYS:
            array = arrays[name]
            if array is not None:
                assert array.flags.c_contiguous
                setattr(inputs, name, array.ctypes.data)
        output = np.full((tokens, value_size), np.nan, np.float32)
        error = _Error()
        status = self._library.molkv_attention(
            ctypes.byref(inputs),
            output.ctypes.data_as(ctypes.c_void_p),
            None,
            None,
            None,
            ctypes.byref(error),
        )
        if status != 0:
            raise ValueError(error.message.decode())
        return output
