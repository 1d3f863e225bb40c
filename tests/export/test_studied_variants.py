"""Variants that were only studied are refused by name, before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from molkv_export import choose_experts
from molkv_export.bundle import export
from molkv_export.errors import ExportError
from molkv_export.plan import make_plan
from molkv_model.checkpoint import Checkpoint, load, save
from tests.model.small_models import random_model, small
from tests.small_models import write_checkpoint


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"expert_scoring": "sigmoid"}, "expert_scoring sigmoid"),
        ({"expert_scoring": "router_and_past"}, "expert_scoring router_and_past"),
        ({"expert_shifted_heads": 2}, "expert_shifted_heads 2"),
        ({"expert_key_norm": False, "expert_null": True}, "expert_key_norm False, expert_null Tr"),
    ],
)
def test_a_studied_variant_is_saved_and_loaded_but_not_exported(
    change: dict[str, Any], named: str, tmp_path: Path
) -> None:
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "bundle"
    save(random_model(small(**change)), checkpoint)
    assert load(checkpoint).config == small(**change)
    with pytest.raises(ExportError, match=f"the model has {named}") as raised:
        export(checkpoint, out)
    assert "key_age or key" in raised.value.fix
    assert not out.exists()
    with pytest.raises(ExportError, match=named):
        make_plan(Checkpoint(checkpoint), "int8")
    with pytest.raises(ExportError, match=named):
        choose_experts(checkpoint, "some text", max_kl=0.1)


@pytest.mark.parametrize("start", ["current", "level"])
def test_a_model_is_exported_wherever_its_age_bias_started(start: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", expert_age_start=start)
    assert Checkpoint(checkpoint).config.expert_age_start == start
    exported = export(checkpoint, tmp_path / "bundle")
    assert exported.manifest.parity is not None
    assert exported.manifest.parity.passed
    assert "age_start" not in (exported.path / "manifest.json").read_text(encoding="utf-8")
