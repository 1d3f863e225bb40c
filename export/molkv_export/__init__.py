"""From a trained checkpoint to a bundle: reparameterise, quantize, split, lower, verify.

>>> import molkv_export
>>> bundle = molkv_export.export("checkpoint/", "bundle/", experts="int8")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from molkv_export.errors import ExportError

if TYPE_CHECKING:
    from molkv_export.bundle import ExportConfig, ExportProgress, export

__all__ = ["ExportConfig", "ExportError", "ExportProgress", "export"]

_NEED_TORCH = ("ExportConfig", "ExportProgress", "export")


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; the commands of the thin runtime must not wait for it.
    if name in _NEED_TORCH:
        from molkv_export import bundle

        return getattr(bundle, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
