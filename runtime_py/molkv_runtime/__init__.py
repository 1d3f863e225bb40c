"""The thin runtime of molkv: NumPy and a graph engine, no torch.

>>> from molkv_runtime import Bundle, Session
>>> session = Session(Bundle.open("bundle/"))  # doctest: +SKIP
>>> for token in session.generate("The President"):  # doctest: +SKIP
...     print(token.text, end="")
"""

from molkv_runtime.blob import Blob
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import MolkvError
from molkv_runtime.expert_attention import expert_attention
from molkv_runtime.sampler import SamplingConfig
from molkv_runtime.session import Session, Token
from molkv_runtime.statistics import SessionStats

__all__ = [
    "Blob",
    "Bundle",
    "MolkvError",
    "SamplingConfig",
    "Session",
    "SessionStats",
    "Token",
    "expert_attention",
]
