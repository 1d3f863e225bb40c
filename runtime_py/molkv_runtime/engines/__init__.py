"""What a session runs beside the dense graph: rows, window, sampler, tokenizer.

`native` is the C++ core that phones run, and the default. `reference` is the readable NumPy code
of this package; the two give the same tokens. A session falls back from one to the other only when
it is told to.
"""

from __future__ import annotations

from molkv_runtime.engines.engine import Engine, ExpertFeed, ExpertPlanes, TextCodec
from molkv_runtime.engines.native import NativeEngine
from molkv_runtime.engines.reference import ReferenceEngine
from molkv_runtime.errors import UsageError

__all__ = ["ENGINES", "Engine", "ExpertFeed", "ExpertPlanes", "TextCodec", "engine_named"]

ENGINES: dict[str, type[Engine]] = {"native": NativeEngine, "reference": ReferenceEngine}


def engine_named(name: str) -> Engine:
    """The engine of that name.

    Raises:
        UsageError: there is no such engine.
        NativeLibraryError: the native library is missing or of another version.
    """
    if name not in ENGINES:
        raise UsageError(f"engine is {name!r}", fix=f"it must be one of {', '.join(ENGINES)}")
    return ENGINES[name]()
