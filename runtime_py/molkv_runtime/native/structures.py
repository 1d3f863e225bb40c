"""The types of molkv.h as ctypes sees them; a test compares every field with a C compiler."""

from __future__ import annotations

import ctypes
import enum
from typing import Any, ClassVar

__all__ = [
    "AttentionInputs",
    "BlobInfo",
    "BlobMode",
    "BlobOptions",
    "BlobStats",
    "Error",
    "Geometry",
    "Kernel",
    "Plane",
    "PlaneKind",
    "Sampling",
    "Status",
]

_Fields = list[tuple[str, Any]]


class Status(enum.IntEnum):
    """molkv_status."""

    OK = 0
    INVALID_ARGUMENT = 1
    IO = 2
    FORMAT = 3
    CORRUPT_ROW = 4
    OUT_OF_RANGE = 5
    OUT_OF_MEMORY = 6
    UNSUPPORTED = 7


class BlobMode(enum.IntEnum):
    """molkv_blob_mode."""

    STORAGE = 0
    RESIDENT = 1


class PlaneKind(enum.IntEnum):
    """molkv_plane_kind."""

    KEYS = 0
    VALUES = 1
    KEY_SCALES = 2
    VALUE_SCALES = 3


class Kernel(enum.IntEnum):
    """molkv_kernel."""

    BEST = 0
    SCALAR = 1
    AVX2 = 2
    AVX512 = 3
    NEON = 4
    NEON_DOTPROD = 5


class Error(ctypes.Structure):
    """molkv_error."""

    _fields_: ClassVar[_Fields] = [("status", ctypes.c_int), ("message", ctypes.c_char * 1020)]


class Geometry(ctypes.Structure):
    """molkv_geometry."""

    _fields_: ClassVar[_Fields] = [
        ("layers", ctypes.c_uint32),
        ("experts", ctypes.c_uint32),
        ("key_heads", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("key_dtype", ctypes.c_uint32),
        ("value_dtype", ctypes.c_uint32),
        ("scale_dtype", ctypes.c_uint32),
        ("key_group_size", ctypes.c_uint32),
        ("value_group_size", ctypes.c_uint32),
    ]


class BlobOptions(ctypes.Structure):
    """molkv_blob_options."""

    _fields_: ClassVar[_Fields] = [
        ("struct_size", ctypes.c_uint32),
        ("readers", ctypes.c_uint32),
        ("skip_verify", ctypes.c_uint32),
        ("mode", ctypes.c_uint32),
        ("direct_io", ctypes.c_uint32),
        ("cache_bytes", ctypes.c_uint64),
    ]


class BlobInfo(ctypes.Structure):
    """molkv_blob_info."""

    _fields_: ClassVar[_Fields] = [
        ("geometry", Geometry),
        ("vocabulary_size", ctypes.c_uint64),
        ("row_size", ctypes.c_uint64),
        ("row_stride", ctypes.c_uint64),
        ("identity", ctypes.c_uint8 * 32),
    ]


class BlobStats(ctypes.Structure):
    """molkv_blob_stats."""

    _fields_: ClassVar[_Fields] = [
        ("reads", ctypes.c_uint64),
        ("rows", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("cache_hits", ctypes.c_uint64),
        ("nanoseconds", ctypes.c_uint64),
    ]


class Plane(ctypes.Structure):
    """molkv_plane."""

    _fields_: ClassVar[_Fields] = [
        ("data", ctypes.c_void_p),
        ("rows", ctypes.c_uint64),
        ("row_bytes", ctypes.c_uint64),
        ("dtype", ctypes.c_uint32),
    ]


class AttentionInputs(ctypes.Structure):
    """molkv_attention_inputs."""

    _fields_: ClassVar[_Fields] = [
        ("struct_size", ctypes.c_uint32),
        ("kernel", ctypes.c_uint32),
        ("tokens", ctypes.c_uint32),
        ("rows", ctypes.c_uint32),
        ("experts", ctypes.c_uint32),
        ("heads", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("window", ctypes.c_uint32),
        ("key_dtype", ctypes.c_uint32),
        ("value_dtype", ctypes.c_uint32),
        ("start", ctypes.c_int64),
        ("query", ctypes.c_void_p),
        ("keys", ctypes.c_void_p),
        ("key_scales", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("value_scales", ctypes.c_void_p),
        ("age_bias", ctypes.c_void_p),
    ]


class Sampling(ctypes.Structure):
    """molkv_sampling."""

    _fields_: ClassVar[_Fields] = [
        ("struct_size", ctypes.c_uint32),
        ("top_k", ctypes.c_uint32),
        ("temperature", ctypes.c_double),
        ("top_p", ctypes.c_double),
        ("min_p", ctypes.c_double),
        ("seed", ctypes.c_uint64),
    ]
