"""Every hostile bundle and checkpoint is refused with a typed error that names place and fix."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from molkv_model.errors import CheckpointError, ModelError
from molkv_runtime import errors
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import MolkvError, RowCorruptError
from molkv_runtime.session import Session
from tests.attacks.bundle_folders import TOKEN_OF_BAD_ROW, Attack, attacks
from tests.small_models import edit_weights, write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from molkv_runtime.row_geometry import ExpertPrecision
    from tests.conftest import BundleOf

SMALL = {"num_hidden_layers": 1, "max_position_embeddings": 12, "vocab_size": 40}
DOWN_PROJ = "model.layers.0.experts.down_proj"


def use(folder: Path, reached: list[str]) -> None:
    reached.append("open")
    bundle = Bundle.open(folder)
    reached.append("session")
    with Session(bundle, threads=1) as session:
        reached.append("read")
        session.logits(range(8))


@pytest.mark.parametrize("name", ["molkv", "mole", "molkv+tokenizer"])
def test_the_bundle_that_attacks_start_from_is_valid(bundle_of: BundleOf, name: str) -> None:
    use(bundle_of(name, "int8"), [])


@pytest.mark.parametrize("attack", attacks(), ids=lambda attack: attack.name)
def test_every_hostile_bundle_is_refused_in_time_with_place_and_fix(
    attack: Attack, bundle_of: BundleOf, tmp_path: Path
) -> None:
    folder = tmp_path / attack.name
    shutil.copytree(bundle_of("molkv", "int8"), folder)
    attack.edit(folder)
    reached: list[str] = []
    with pytest.raises(MolkvError) as caught:
        use(folder, reached)
    assert type(caught.value) is getattr(errors, attack.error)
    assert reached[-1] == attack.when
    message = str(caught.value)
    assert str(folder) in message
    for part in attack.message:
        assert part in message
    assert len(caught.value.fix) > 10


def test_a_damaged_row_is_refused_when_it_is_read_and_other_rows_work(
    bundle_of: BundleOf, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle_of("molkv", "int8"), folder)
    next(attack for attack in attacks() if attack.name == "row-byte-flipped").edit(folder)
    bundle = Bundle.open(folder)
    with Session(bundle, threads=1) as session:
        session.prefill([1, 2, 4])
        expected = session.step(5).copy()
        session.reset()
        session.prefill([1, 2, 4])
        with pytest.raises(RowCorruptError, match=f"token id {TOKEN_OF_BAD_ROW}:"):
            session.step(TOKEN_OF_BAD_ROW)
        assert session.position == 3
        assert (session.step(5) == expected).all()
    # Opening does not hash the blob; proving the bundle does.
    with pytest.raises(errors.BundleError, match=r"experts\.molkv: sha256"):
        bundle.verify_files()


def golden_with(**changes: object) -> Callable[[dict[str, Any]], None]:
    return lambda golden: golden.update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (golden_with(schema_version=2), "schema_version is 2"),
        (golden_with(cases=[]), "cases is empty"),
        (golden_with(surprise=1), "unknown field `surprise`"),
        (lambda golden: golden["cases"][0]["greedy"].append(320), "token id 320 is outside"),
        (lambda golden: golden["cases"][0]["prompt_ids"].append(-1), "token id -1 is outside"),
        (lambda golden: golden["rows"][0].update(token_id=2**40), f"token id {2**40} is outside"),
        (lambda golden: golden["cases"][0]["logits"].update(mean=None), "mean"),
    ],
)
def test_hostile_golden_cases_are_refused(
    bundle_of: BundleOf,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle_of("molkv", "int8"), folder)
    bundle = Bundle.open(folder)
    golden = json.loads((folder / "golden.json").read_text())
    change(golden)
    (folder / "golden.json").write_text(json.dumps(golden))
    with pytest.raises(errors.BundleError) as caught:
        bundle.load_golden()
    assert f"{folder / 'golden.json'}: " in str(caught.value)
    assert message in str(caught.value)
    assert caught.value.fix
    (folder / "golden.json").unlink()
    with pytest.raises(errors.BundleError, match="cannot be read: No such file"):
        bundle.load_golden()


def test_no_descriptor_leaks_when_a_bundle_is_refused(bundle_of: BundleOf, tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    hostile = [attack for attack in attacks() if attack.when == "session"]
    folders = []
    for attack in hostile:
        folders.append(tmp_path / attack.name)
        shutil.copytree(bundle_of("molkv", "int8"), folders[-1])
        attack.edit(folders[-1])
    before = descriptors()
    for folder in folders:
        with pytest.raises(MolkvError):
            use(folder, [])
    assert descriptors() == before


def test_the_script_writes_every_folder_and_what_to_expect(
    bundle_of: BundleOf, tmp_path: Path
) -> None:
    script = Path(__file__).with_name("bundle_folders.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, script, bundle_of("molkv", "int8"), tmp_path / "out"]
    subprocess.run(command, check=True, timeout=60, env=environment)
    expected = json.loads((tmp_path / "out" / "expected.json").read_text())
    assert list(expected) == [attack.name for attack in attacks()]
    assert len(expected) > 45


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "tensor", ["model.embed_tokens.weight", DOWN_PROJ, "model.layers.0.mlp.up_proj.weight"]
)
def test_weights_that_are_not_finite_are_refused_with_the_tensors_name(
    tmp_path: Path, tensor: str, value: float
) -> None:
    from molkv_export import export

    checkpoint = write_checkpoint(tmp_path / "checkpoint", "molkv", **SMALL)
    edit_weights(checkpoint, tensor, value, place=77)
    with pytest.raises(CheckpointError) as caught:
        export(checkpoint, tmp_path / "bundle")
    assert isinstance(caught.value, ModelError)
    assert str(checkpoint) in str(caught.value)
    assert f"tensor {tensor} holds NaN or infinity" in str(caught.value)
    assert caught.value.fix
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


@pytest.mark.parametrize(
    ("experts", "limit"), [("f16", "float16 ends at 65504"), ("int4", "int4 end at 393024")]
)
def test_an_expert_too_large_for_float16_is_refused_and_fits_int8(
    tmp_path: Path, experts: ExpertPrecision, limit: str
) -> None:
    from molkv_export import ExportError, export

    checkpoint = write_checkpoint(tmp_path / "checkpoint", "molkv", **SMALL)
    edit_weights(checkpoint, DOWN_PROJ, 1e8)
    with pytest.raises(ExportError) as caught:
        export(checkpoint, tmp_path / "bundle", experts=experts)
    message = str(caught.value)
    assert message.startswith(f"{checkpoint}: token ids 0 to 39: an expert value is ")
    assert f"{limit} (export with int8 experts)" in message
    assert not (tmp_path / "bundle").exists()
    assert export(checkpoint, tmp_path / "bundle", experts="int8").manifest.parity is not None


def test_experts_that_overflow_float32_are_refused(tmp_path: Path) -> None:
    from molkv_export import ExportError, export

    checkpoint = write_checkpoint(tmp_path / "checkpoint", "molkv", **SMALL)
    for place in range(64):
        edit_weights(checkpoint, DOWN_PROJ, 3e38, place=place)
    with pytest.raises(ExportError, match=r"an expert value is NaN or infinite .*diverged"):
        export(checkpoint, tmp_path / "bundle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


def test_logits_that_overflow_are_refused(tmp_path: Path) -> None:
    from molkv_export import ExportError, export

    checkpoint = write_checkpoint(tmp_path / "checkpoint", "dense", **SMALL)
    edit_weights(checkpoint, "model.norm.weight", 3e38)
    edit_weights(checkpoint, "model.embed_tokens.weight", 1e6, place=64)
    with pytest.raises(ExportError, match=r"logits after the prompt .* are NaN or infinite"):
        export(checkpoint, tmp_path / "bundle")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]
