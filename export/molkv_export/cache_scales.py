"""The self-attention cache in int8: one scale a layer for its keys, one for its values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["LARGEST", "CacheScales"]

LARGEST = 127


@dataclass(frozen=True)
class CacheScales:
    """What a stored int8 stands for, for each layer; what is larger is cut off.

    Attributes:
        keys: float32 [L]; of keys after rotation.
        values: float32 [L].
    """

    keys: NDArray[np.float32]
    values: NDArray[np.float32]

    def round_trip(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values as the cache gives them back."""
        return _rounded(keys, self.keys[layer]), _rounded(values, self.values[layer])


def _rounded(plane: Tensor, scale: np.float32) -> Tensor:
    factor = float(scale)
    return torch.clamp(torch.round(plane / factor), -LARGEST - 1, LARGEST) * factor
