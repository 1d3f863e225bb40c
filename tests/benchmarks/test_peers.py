"""The peers run the same model, and the fastest of them is what molkv is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peer_candidates
import peer_models
import peers
import pytest
import torch

from molkv_model.modeling import rotate


def rotate_neighbours(
    heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor
) -> torch.Tensor:
    """Rotary embedding as llama.cpp has it for this architecture: elements 2i and 2i + 1 pair."""
    even, odd = heads[..., 0::2], heads[..., 1::2]
    turned = torch.stack([even * cosine - odd * sine, odd * cosine + even * sine], dim=-1)
    return turned.flatten(-2)


def test_reordered_projections_give_the_same_attention_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    heads, size, width, tokens = 3, 8, 16, 5
    query, key = (torch.randn(heads * size, width, generator=generator) for _ in range(2))
    x = torch.randn(tokens, width, generator=generator)
    angle = torch.outer(torch.arange(tokens).float(), torch.tensor([1.0, 0.3, 0.1, 0.01]))

    def scores(rotation: Any, *weights: torch.Tensor) -> torch.Tensor:
        q, k = (
            rotation(
                (x @ w.T).unflatten(-1, (heads, size)).transpose(0, 1), angle.cos(), angle.sin()
            )
            for w in weights
        )
        return q @ k.transpose(-1, -2)

    reordered = [
        torch.from_numpy(peer_models.interleaved(weight.numpy(), heads)) for weight in (query, key)
    ]
    expected = scores(rotate, query, key)
    assert torch.allclose(scores(rotate_neighbours, *reordered), expected, atol=1e-4)
    assert not torch.allclose(scores(rotate_neighbours, query, key), expected, atol=0.1)


def test_every_variant_has_files_of_its_own() -> None:
    variants = [
        *peer_candidates.exact_candidates(),
        *peer_candidates.candidates_of(4, 64),
        *peer_candidates.candidates_of(8, 128),
    ]
    assert len(set(map(str, variants))) == len(variants)
    folders = [
        each.path(Path("models")) for each in variants if each.engine != peer_candidates.LLAMA
    ]
    assert len(set(folders)) == len(folders)


def test_an_error_is_relative_to_the_size_of_the_logits() -> None:
    expected = np.full((2, 3), 4.0, np.float32)
    assert peers.relative_error(expected, expected) == 0
    assert peers.relative_error(expected * np.float32(1.25), expected) == pytest.approx(0.25)
    assert peers.relative_error(-expected, expected) == pytest.approx(2)


def result(engine: str, bits: int, rate: float, *, experts: bool = False) -> dict[str, Any]:
    return {
        "engine": engine,
        "bits": bits,
        "cache": "int8",
        "experts": experts,
        "variant": f"{rate:g}",
        "decode_64_tokens_per_s": rate,
    }


def test_the_best_peer_is_the_fastest_of_the_same_bits() -> None:
    ratios = peers.compare_with_peers(
        [
            result("molkv", 4, 300.0),
            result("molkv", 4, 270.0, experts=True),
            result("llama.cpp", 4, 100.0),
            result("llama.cpp", 4, 200.0),
            result("onnxruntime-genai", 4, 150.0),
            result("onnxruntime-genai", 8, 1000.0),
            result("molkv", 8, 500.0),
        ]
    )
    found = [(each["bits"], each["experts"], each["best_peer_variant"]) for each in ratios]
    assert found == [(4, False, "200"), (4, True, "200"), (8, False, "1000")]
    assert [each["ratio"] for each in ratios] == [1.5, 1.35, 0.5]
    assert {each["figure"] for each in ratios} == {"decode_64"}
