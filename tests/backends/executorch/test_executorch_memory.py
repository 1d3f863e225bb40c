"""Prefill and decode have the same weights: the second to be loaded packs none of its own."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np
import pytest

from molkv_runtime.bundle import Bundle
from molkv_runtime.executorch_runtime import load_executorch
from molkv_runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from molkv_runtime.executorch_runtime import ExecutorchRuntime
    from tests.backends.executorch.conftest import ProgramBundleOf


class MallocInfo(ctypes.Structure):
    """What glibc's ``mallinfo2`` returns."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks")),
        ("keepcost", ctypes.c_size_t),
    ]


def allocated() -> int:
    """Bytes that the process holds from the C allocator."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = MallocInfo
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


@pytest.fixture
def runtime(program_bundle_of: ProgramBundleOf) -> Iterator[ExecutorchRuntime]:
    """ExecuTorch with molkv's kernels, its cache as sessions have it afterwards."""
    entry = Bundle.open(program_bundle_of("molkv")).manifest.backends["executorch"]
    runtime = load_executorch()
    runtime.require(list(entry.operators), entry.delegates)
    yield runtime
    runtime.cache_weights(enabled=True)


def bytes_of_second_method(runtime: ExecutorchRuntime, file: Path) -> int:
    program = runtime.load_program(file)
    first = program.load_method("prefill")
    before = allocated()
    second = program.load_method("decode")
    grown = allocated() - before
    del first, second
    return grown


def weight_bytes(folder: Path) -> int:
    """Of the products of a float32 program: all but the embedding table."""
    model = Bundle.open(folder).manifest.model
    d, products = model.hidden_size, model.num_hidden_layers
    each = 4 * d * d + 3 * d * model.intermediate_size
    return 4 * (products * each + model.vocab_size * d)


def test_the_second_method_packs_no_weights_where_they_are_cached(
    program_bundle_of: ProgramBundleOf, runtime: ExecutorchRuntime
) -> None:
    folder = program_bundle_of("molkv")
    grown = {}
    for enabled in (False, True):
        runtime.cache_weights(enabled=enabled)
        grown[enabled] = bytes_of_second_method(runtime, folder / "dense.pte")
    assert grown[False] - grown[True] > 0.8 * weight_bytes(folder)


def logits(folder: Path) -> NDArray[np.float32]:
    ids = np.random.default_rng(0).integers(0, 320, 40)
    with Session(Bundle.open(folder), backend="executorch", threads=1) as session:
        rows = [session.logits(ids[:30]), *(session.step(int(token))[None] for token in ids[30:])]
        return np.concatenate([np.array(block) for block in rows])


@pytest.mark.parametrize("name", ["molkv", "int4-weights"])
def test_cached_weights_give_the_same_logits_to_the_bit(
    program_bundle_of: ProgramBundleOf, runtime: ExecutorchRuntime, name: str
) -> None:
    folder = program_bundle_of(name)
    cached = logits(folder)
    runtime.cache_weights(enabled=False)
    np.testing.assert_array_equal(logits(folder), cached)
