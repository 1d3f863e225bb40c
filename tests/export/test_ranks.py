"""Under torchrun the vocabulary is divided, and the bundle is the one that one process makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from molkv_export import ExportError, export
from molkv_export.journal import Journal
from tests.export.processes import SLICE_ROWS, run_ranks
from tests.small_models import write_checkpoint

if TYPE_CHECKING:
    from molkv_export.bundle import ExportProgress

TINY = {"num_hidden_layers": 1, "max_position_embeddings": 12}
ROWS = 320


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), "molkv", **TINY)


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molkv_export.expert_blob.SLICE_ROWS", SLICE_ROWS)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def plain_export(rank: int, checkpoint: Path, out: Path) -> None:
    seen: list[ExportProgress] = []
    export(checkpoint, out, on_progress=seen.append, shard_size=60_000)
    if rank == 0:
        rows = [progress.done for progress in seen if progress.name == "expert rows"]
        assert rows == sorted(rows)
        assert rows[-1] == ROWS
    else:
        assert not seen


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_write_the_bytes_of_one_process(checkpoint: Path, tmp_path: Path, count: int) -> None:
    alone = export(checkpoint, tmp_path / "alone", shard_size=60_000)
    assert len(alone.expert_files) > 2
    assert run_ranks(count, plain_export, checkpoint, tmp_path / "together") == [None] * count
    assert contents(tmp_path / "together") == contents(alone.path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "together"]


def export_where_the_second_rank_fails(rank: int, checkpoint: Path, out: Path) -> None:
    from molkv_export.reparameterize import ExpertTable

    genuine = ExpertTable.embeddings

    def failing(self: ExpertTable, start: int, stop: int) -> object:
        if start >= 240:
            raise ExportError("token ids from 240 on cannot be computed", fix="use other ids")
        return genuine(self, start, stop)

    if rank == 1:
        ExpertTable.embeddings = failing  # type: ignore[method-assign,assignment]
    export(checkpoint, out)


def test_a_rank_that_fails_ends_all_and_what_is_done_is_continued_by_one_process(
    checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    first, second = run_ranks(2, export_where_the_second_rank_fails, checkpoint, out)
    assert second is not None
    assert second == "rank 1 of 2: token ids from 240 on cannot be computed (use other ids)"
    assert first is not None
    assert first.startswith("rank 0 of 2: another rank of this export is gone (")
    assert not out.exists()
    (folder,) = tmp_path.glob(".bundle.partial-*")
    done = {start for start, _ in Journal(folder).done()}
    assert set(range(0, 160, SLICE_ROWS)) <= done
    assert 160 in done
    assert 240 not in done
    export(checkpoint, out)
    assert contents(out) == contents(export(checkpoint, tmp_path / "alone").path)


def export_of_two_checkpoints(rank: int, checkpoint: Path, out: Path) -> None:
    export(checkpoint.with_name("other") if rank else checkpoint, out)


def test_ranks_with_different_checkpoints_are_refused(tmp_path: Path) -> None:
    for seed, name in enumerate(("checkpoint", "other")):
        write_checkpoint(tmp_path / name, "molkv", seed=seed, **TINY)
    errors = run_ranks(2, export_of_two_checkpoints, tmp_path / "checkpoint", tmp_path / "bundle")
    for rank, error in enumerate(errors):
        assert error is not None
        assert error.startswith(f"rank {rank} of 2: rank 1 has checkpoint ")
        assert error.endswith("(give every rank the same checkpoint, processor kind and torch)")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "other"]


def test_the_command_runs_under_torchrun_and_prints_once(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "molkv_export.cli", "export", str(checkpoint), "--out", str(out)]
    result = subprocess.run(
        [sys.executable, *launch, *command, "--shard-size", "100kB"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("Exported") == 1
    assert "experts-00001-of-" in result.stdout
    assert (out / "manifest.json").is_file()
