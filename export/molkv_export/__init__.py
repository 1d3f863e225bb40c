"""From a trained checkpoint to a bundle: reparameterise, quantize, split, lower, verify.

>>> import molkv_export
>>> bundle = molkv_export.export("checkpoint/", "bundle/", experts="int8")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from molkv_export.errors import ExportError

if TYPE_CHECKING:
    from molkv_export.bundle import ExportConfig, ExportProgress, export
    from molkv_export.expert_choice import ExpertChoice, choose_experts

__all__ = [
    "ExpertChoice",
    "ExportConfig",
    "ExportError",
    "ExportProgress",
    "choose_experts",
    "export",
]

_NEED_TORCH = {
    "ExpertChoice": "expert_choice",
    "ExportConfig": "bundle",
    "ExportProgress": "bundle",
    "choose_experts": "expert_choice",
    "export": "bundle",
}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; the commands of the thin runtime must not wait for it.
    if name in _NEED_TORCH:
        return getattr(import_module(f"molkv_export.{_NEED_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
