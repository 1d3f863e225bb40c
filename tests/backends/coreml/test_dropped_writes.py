"""Negative control: a program that forgets one cache write must be found out.

Converters are known to drop indexed writes silently; the program still loads and runs.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from coremltools.models.utils import load_spec, save_spec

from molkv_export.backends.coreml.package import DECODE, PREFILL

if TYPE_CHECKING:
    from tests.backends.coreml.conftest import OpenSession, PackageOf

LIMIT = 4e-2  # what a sound package stays below (test_decoder.py)


def without_write(package: Path, folder: Path, function: str, state: str) -> Path:
    """A copy of a package in which one function does not write one state."""
    copy = shutil.copytree(package, folder / package.name)
    (file,) = copy.rglob("*.mlmodel")
    specification = load_spec(str(file))
    (block,) = specification.mlProgram.functions[function].block_specializations.values()
    (place,) = [
        number
        for number, op in enumerate(block.operations)
        if op.type == "write_state" and op.inputs["input"].arguments[0].name == state
    ]
    del block.operations[place]
    save_spec(specification, str(file))
    return copy


@pytest.mark.parametrize("function", [PREFILL, DECODE])
@pytest.mark.parametrize(
    "state", ["key_cache_1", "value_cache_0", "key_window_0", "value_window_1"]
)
def test_a_dropped_cache_write_changes_what_follows(
    package_of: PackageOf, open_session: OpenSession, tmp_path: Path, function: str, state: str
) -> None:
    damaged = without_write(package_of("molkv", "fp16"), tmp_path, function, state)
    ids = np.random.default_rng(5).integers(0, 320, 40)
    results = []
    for package in (None, damaged):
        session = open_session("molkv", package=package)
        logits = [session.prefill(ids[:24])]
        logits += [session.step(int(token)).copy() for token in ids[24:]]
        results.append(np.stack(logits))
    assert np.abs(results[0] - results[1]).max() > 2 * LIMIT
