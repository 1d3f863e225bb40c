"""What one expert row holds: dimensions and element types (docs/format.md "Data types")."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

from molkv_runtime.errors import BlobFormatError

__all__ = [
    "EXPERT_TYPES",
    "INT4_GROUP",
    "LIMITS",
    "DataType",
    "ExpertPrecision",
    "RowGeometry",
    "format_error",
]

ExpertPrecision = Literal["int8", "int4", "f16"]
"""How the numbers of an expert row are stored; keys of ``int4`` rows are int8."""

INT4_GROUP: Final = 32
"""Elements of an int4 value that share a scale."""

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


EXPERT_TYPES: Final[dict[ExpertPrecision, DataType]] = {
    "int8": DataType.INT8,
    "int4": DataType.INT4,
    "f16": DataType.FLOAT16,
}

# What the values' type decides, docs/format.md "Data types": the types of keys and of the values'
# scales.
_KEY_TYPES: Final = {
    DataType.FLOAT16: DataType.FLOAT16,
    DataType.INT8: DataType.INT8,
    DataType.INT4: DataType.INT8,
}
_SCALE_TYPES: Final = {
    DataType.FLOAT16: DataType.NONE,
    DataType.INT8: DataType.FLOAT32,
    DataType.INT4: DataType.FLOAT16,
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
        value_dtype: type of the values' elements, FLOAT16, INT8 or INT4.
        scale_dtype: type of the values' scales; FLOAT32 with INT8, FLOAT16 with INT4, NONE with
            FLOAT16. Those of INT8 keys are always FLOAT32.
        key_group_size: key elements that share a scale; G*dk with INT8 keys, 0 with others.
        value_group_size: value elements that share a scale; d with INT8, 32 with INT4, otherwise 0.
        embedding_dtype: type of the token's input embedding, d elements, which ends the row:
            FLOAT16, or NONE where the dense graph has the embedding.
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
    embedding_dtype: DataType = DataType.NONE

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
        embedding_dtype: DataType = DataType.NONE,
    ) -> RowGeometry:
        """The geometry that the format has for these dimensions and element type.

        Args:
            dtype: of the values, FLOAT16, INT8 or INT4; it decides that of the keys.
            layers: see the class.
            experts: see the class.
            key_heads: see the class; 0 for a model without keys.
            key_size: see the class; 0 for a model without keys.
            value_size: see the class.
            embedding_dtype: see the class.

        Returns:
            A validated geometry.

        Raises:
            BlobFormatError: a dimension is out of range or the type is not allowed.
        """
        key_dtype = _KEY_TYPES.get(dtype, dtype) if key_heads else DataType.NONE
        geometry = cls(
            layers=layers,
            experts=experts,
            key_heads=key_heads,
            key_size=key_size,
            value_size=value_size,
            key_dtype=key_dtype,
            value_dtype=dtype,
            scale_dtype=_SCALE_TYPES.get(dtype, DataType.NONE),
            key_group_size=key_heads * key_size if key_dtype is DataType.INT8 else 0,
            value_group_size=_value_group(dtype, value_size),
            embedding_dtype=embedding_dtype,
        )
        geometry.validate("row geometry")
        return geometry

    @property
    def key_width(self) -> int:
        """Key elements of one expert, G*dk."""
        return self.key_heads * self.key_size

    @property
    def key_scale_dtype(self) -> DataType:
        """Type of the keys' scales."""
        return DataType.FLOAT32 if self.key_dtype is DataType.INT8 else DataType.NONE

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
        if self.value_dtype not in _KEY_TYPES:
            rule = "must be 2 (float16), 3 (int8) or 4 (int4)"
            raise format_error(source, "value_dtype", int(self.value_dtype), rule)
        multiple = INT4_GROUP * max(self.key_heads, 1)
        if self.value_dtype is DataType.INT4 and self.value_size % multiple:
            raise format_error(
                source,
                "value_size",
                self.value_size,
                f"int4 values must be a multiple of {multiple} ({INT4_GROUP} for each key head)",
                fix="export with int8 or f16 experts",
            )
        key_dtype = _KEY_TYPES[self.value_dtype] if self.key_heads else DataType.NONE
        implied = {
            "key_dtype": int(key_dtype),
            "scale_dtype": int(_SCALE_TYPES[self.value_dtype]),
            "key_group_size": self.key_width if key_dtype is DataType.INT8 else 0,
            "value_group_size": _value_group(self.value_dtype, self.value_size),
        }
        for field, expected in implied.items():
            value = int(getattr(self, field))
            if value != expected:
                rule = f"must be {expected} for the other fields' values"
                raise format_error(source, field, value, rule)
        if self.embedding_dtype not in (DataType.NONE, DataType.FLOAT16):
            rule = "must be 0 (none) or 2 (float16)"
            raise format_error(source, "embedding_dtype", int(self.embedding_dtype), rule)


def _value_group(dtype: DataType, value_size: int) -> int:
    return {DataType.INT8: value_size, DataType.INT4: INT4_GROUP}.get(dtype, 0)
