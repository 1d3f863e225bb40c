"""What one expert row holds: dimensions and element types (docs/format.md "Data types")."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

from molkv_runtime.errors import BlobFormatError

__all__ = [
    "EXPERT_TYPES",
    "LIMITS",
    "DataType",
    "ExpertPrecision",
    "RowGeometry",
    "format_error",
]

ExpertPrecision = Literal["int8", "f16"]
"""How the numbers of an expert row are stored."""

# Inclusive (least, most) of the header's dimensions. Checked one by one before they are ever
# multiplied: together they keep every product of the layout below 2**46, so that no reader, in
# whatever language, can overflow 64 bits on a hostile header.
LIMITS: Final[dict[str, tuple[int, int]]] = {
    "layers": (1, 1024),
    "experts": (1, 4096),
    "key_heads": (0, 1024),
    "key_size": (0, 4096),
    "value_size": (1, 131072),
}

_DAMAGED: Final = "the file is damaged or was not written by molkv: copy it again or export again"


class DataType(IntEnum):
    """Code points of element types, docs/format.md "Data types"."""

    NONE = 0
    FLOAT32 = 1
    FLOAT16 = 2
    INT8 = 3
    INT4 = 4
    """Reserved: no version 1.0 file uses it."""


EXPERT_TYPES: Final[dict[ExpertPrecision, DataType]] = {
    "int8": DataType.INT8,
    "f16": DataType.FLOAT16,
}


def format_error(
    source: str, field: str, value: object, rule: str, *, fix: str = _DAMAGED
) -> BlobFormatError:
    """The one shape of every format message: file, field, value, rule, fix."""
    return BlobFormatError(f"{source}: {field} is {value}, but {rule}", fix=fix)


@dataclass(frozen=True)
class RowGeometry:
    """What one row holds, as the header states it (docs/format.md "Header").

    Attributes:
        layers: layers of the model that have experts.
        experts: experts of a layer, N.
        key_heads: key heads of an expert, G; 0 when the model has no keys.
        key_size: elements of a key of one head, dk; 0 when the model has no keys.
        value_size: elements of a value, d.
        key_dtype: type of the keys' elements; NONE when the model has no keys.
        value_dtype: type of the values' elements, FLOAT16 or INT8.
        scale_dtype: type of the scales; FLOAT32 with INT8, NONE with FLOAT16.
        key_group_size: key elements that share a scale; G*dk with INT8, otherwise 0.
        value_group_size: value elements that share a scale; d with INT8, otherwise 0.
    """

    layers: int
    experts: int
    key_heads: int
    key_size: int
    value_size: int
    key_dtype: DataType
    value_dtype: DataType
    scale_dtype: DataType
    key_group_size: int
    value_group_size: int

    @classmethod
    def of(
        cls,
        dtype: DataType,
        *,
        layers: int,
        experts: int,
        key_heads: int,
        key_size: int,
        value_size: int,
    ) -> RowGeometry:
        """The geometry that version 1.0 allows for these dimensions and element type.

        Args:
            dtype: FLOAT16 or INT8, of values and keys alike.
            layers: see the class.
            experts: see the class.
            key_heads: see the class; 0 for a model without keys.
            key_size: see the class; 0 for a model without keys.
            value_size: see the class.

        Returns:
            A validated geometry.

        Raises:
            BlobFormatError: a dimension is out of range or the type is not allowed.
        """
        quantized = dtype is DataType.INT8
        geometry = cls(
            layers=layers,
            experts=experts,
            key_heads=key_heads,
            key_size=key_size,
            value_size=value_size,
            key_dtype=dtype if key_heads else DataType.NONE,
            value_dtype=dtype,
            scale_dtype=DataType.FLOAT32 if quantized else DataType.NONE,
            key_group_size=key_heads * key_size if quantized else 0,
            value_group_size=value_size if quantized else 0,
        )
        geometry.validate("row geometry")
        return geometry

    @property
    def key_width(self) -> int:
        """Key elements of one expert, G*dk."""
        return self.key_heads * self.key_size

    def validate(self, source: str) -> None:
        """Checks every rule of docs/format.md "Data types" and "Limits" that concerns a row.

        Args:
            source: the file's name, for messages.

        Raises:
            BlobFormatError: names the source, the field, its value and the rule it breaks.
        """
        for field, (least, most) in LIMITS.items():
            value = getattr(self, field)
            if not least <= value <= most:
                raise format_error(source, field, value, f"must be {least} to {most}")
        if (self.key_heads == 0) != (self.key_size == 0):
            raise format_error(
                source, "key_size", self.key_size, f"key_heads is {self.key_heads}: both or none"
            )
        for field, dtype in (("key_dtype", self.key_dtype), ("value_dtype", self.value_dtype)):
            if dtype is DataType.INT4:
                raise format_error(
                    source,
                    field,
                    "4 (int4)",
                    "this reader does not support it yet",
                    fix="update molkv, or export with int8 or float16",
                )
        if self.value_dtype not in (DataType.FLOAT16, DataType.INT8):
            raise format_error(
                source, "value_dtype", int(self.value_dtype), "must be 2 (float16) or 3 (int8)"
            )
        quantized = self.value_dtype is DataType.INT8
        implied = {
            "key_dtype": int(self.value_dtype) if self.key_heads else 0,
            "scale_dtype": int(DataType.FLOAT32) if quantized else 0,
            "key_group_size": self.key_width if quantized else 0,
            "value_group_size": self.value_size if quantized else 0,
        }
        for field, expected in implied.items():
            value = int(getattr(self, field))
            if value != expected:
                rule = f"must be {expected} for the other fields' values"
                raise format_error(source, field, value, rule)
