"""The sampler of the native core: the same tokens as `molkv_runtime.sampler`, to the bit."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from molkv_runtime.native import structures
from molkv_runtime.native.library import Handle, NativeLibrary, load_library
from molkv_runtime.sampler import SamplingConfig

__all__ = ["NativeSampler"]


class NativeSampler(Handle):
    """Chooses tokens (docs/sampling.md).

    Args:
        config: how.
        library: by default the installed one.

    Raises:
        MolkvError: a field lies outside its range.
    """

    def __init__(self, config: SamplingConfig, *, library: NativeLibrary | None = None) -> None:
        super().__init__(library or load_library(), "sampler_free")
        sampling = structures.Sampling(
            struct_size=ctypes.sizeof(structures.Sampling),
            top_k=min(config.top_k, 2**32 - 1),  # no vocabulary is larger
            temperature=config.temperature,
            top_p=config.top_p,
            min_p=config.min_p,
            seed=config.seed,
        )
        self.library.call("sampler_create", ctypes.byref(sampling), ctypes.byref(self.pointer))
        self._token_id = ctypes.c_int64()

    def sample(self, logits: NDArray[np.float32]) -> int:
        """The id of the token chosen from logits float32 [V].

        Raises:
            MolkvError: a logit is NaN, or none is finite.
        """
        logits = np.ascontiguousarray(logits, np.float32)
        self.library.call(
            "sampler_sample",
            self.pointer,
            ctypes.c_void_p(logits.ctypes.data),
            ctypes.c_size_t(len(logits)),
            ctypes.byref(self._token_id),
        )
        return self._token_id.value

    def reset(self) -> None:
        """Start the random generator anew from the seed."""
        self.library.plain("sampler_reset", self.pointer)
