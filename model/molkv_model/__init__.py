"""MoLKV language models in PyTorch: configuration, modeling, checkpoints, training.

>>> import molkv_model
>>> model = molkv_model.load("checkpoint/")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from molkv_model.config import PRESETS, ModelConfig, preset
from molkv_model.errors import CheckpointError, ConfigError, ModelError, TrainingError

if TYPE_CHECKING:
    from molkv_model.checkpoint import load, save
    from molkv_model.modeling import LanguageModel

__all__ = [
    "PRESETS",
    "CheckpointError",
    "ConfigError",
    "LanguageModel",
    "ModelConfig",
    "ModelError",
    "TrainingError",
    "load",
    "preset",
    "save",
]

_NEED_TORCH = {
    "load": "molkv_model.checkpoint",
    "save": "molkv_model.checkpoint",
    "LanguageModel": "molkv_model.modeling",
}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; errors and configs must not wait for it.
    if name in _NEED_TORCH:
        from importlib import import_module

        return getattr(import_module(_NEED_TORCH[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
