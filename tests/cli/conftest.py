"""One exported bundle for all tests of the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from molkv_model.embedded import tiny_checkpoint
from tests.cli.command import molkv


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "bundle"
    result = molkv("export", tiny_checkpoint(), "--out", out, "--json")
    report = json.loads(result.stdout)
    assert report["passed"] is True
    assert report["files"]["experts.molkv"] == (out / "experts.molkv").stat().st_size
    return out
