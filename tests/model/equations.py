"""What both published MoLE and MoLKV take over from Llama, restated in plain torch, float64."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gelu", "rms_norm", "self_attention"]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last dimension."""
    return weight * x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()


def gelu(x: Tensor) -> Tensor:
    """The exact GELU, by the error function."""
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def _rotated(vector: Tensor, position: int, theta: float) -> Tensor:
    """Rotate-half rotary embedding of one head at one position."""
    half = len(vector) // 2
    out = torch.empty_like(vector)
    for i in range(half):
        angle = torch.tensor(position * theta ** (-2 * i / len(vector)), dtype=vector.dtype)
        a, b = vector[i], vector[i + half]
        out[i] = a * angle.cos() - b * angle.sin()
        out[i + half] = b * angle.cos() + a * angle.sin()
    return out


def self_attention(
    x: Tensor, weights: dict[str, Tensor], *, heads: int, key_value_heads: int, theta: float
) -> Tensor:
    """Causal grouped-query attention of x [T, d], head by head and position by position.

    Args:
        x: the normalised hidden states.
        weights: q, k, v and o, each as stored ([out, in]).
        heads: query heads.
        key_value_heads: each serves heads / key_value_heads query heads that follow one another.
        theta: base of the rotary embedding.
    """
    length, hidden = x.shape
    size = hidden // heads
    q = (x @ weights["q"].T).view(length, heads, size)
    k = (x @ weights["k"].T).view(length, key_value_heads, size)
    v = (x @ weights["v"].T).view(length, key_value_heads, size)
    out = torch.zeros(length, heads, size, dtype=x.dtype)
    for head in range(heads):
        shared = head // (heads // key_value_heads)
        rotated_k = [_rotated(k[s, shared], s, theta) for s in range(length)]
        for t in range(length):
            rotated_q = _rotated(q[t, head], t, theta)
            scores = torch.stack([rotated_q @ rotated_k[s] for s in range(t + 1)]) / size**0.5
            out[t, head] = scores.softmax(0) @ v[: t + 1, shared]
    return out.reshape(length, hidden) @ weights["o"].T
