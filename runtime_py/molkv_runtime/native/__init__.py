"""The native core (native/include/molkv/molkv.h) bound with ctypes.

The very code that phones run. Every class here has a readable counterpart in NumPy, which is the
oracle of the tests: `NativeBlob` is `molkv_runtime.blob.Blob`, `NativeWindow` is
`molkv_runtime.window.ExpertWindow`, and so on.
"""

from molkv_runtime.native.attention import NativeAttention
from molkv_runtime.native.blob import BlobOptions, NativeBlob
from molkv_runtime.native.library import NativeLibrary, load_library, operator_library
from molkv_runtime.native.sampler import NativeSampler
from molkv_runtime.native.tokenizer import NativeTextStream, NativeTokenizer
from molkv_runtime.native.window import NativeWindow

__all__ = [
    "BlobOptions",
    "NativeAttention",
    "NativeBlob",
    "NativeLibrary",
    "NativeSampler",
    "NativeTextStream",
    "NativeTokenizer",
    "NativeWindow",
    "load_library",
    "operator_library",
]
