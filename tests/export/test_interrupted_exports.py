"""An export that was stopped goes on where it was, and the bundle is the one it would have been."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from molkv_export import ExportError, export
from molkv_export.journal import Journal
from molkv_export.reparameterize import ExpertTable
from tests.export.processes import (
    SLICE_ROWS,
    export_in_small_slices,
    pipe,
    start,
    use_small_slices,
)
from tests.small_models import write_checkpoint

if TYPE_CHECKING:
    from molkv_export.bundle import ExportProgress

TINY = {"num_hidden_layers": 1, "max_position_embeddings": 12}
ROWS = 320
KILLS = 50


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), "molkv", **TINY)


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molkv_export.expert_blob.SLICE_ROWS", SLICE_ROWS)


@pytest.fixture(scope="module")
def uninterrupted(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("uninterrupted") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("molkv_export.expert_blob.SLICE_ROWS", SLICE_ROWS)
        return contents(export(checkpoint, out).path)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def unfinished(out: Path) -> list[Path]:
    return sorted(out.parent.glob(f".{out.name}.partial-*"))


def export_until(rows: int, checkpoint: Path, out: Path, options: dict[str, Any]) -> None:
    """In a process of its own: export, and die by SIGKILL once so many rows are done."""
    use_small_slices()

    def die(progress: ExportProgress) -> None:
        if progress.name == "expert rows" and progress.done >= rows:
            os.kill(os.getpid(), signal.SIGKILL)

    export(checkpoint, out, on_progress=die, **options)


def leave_unfinished(checkpoint: Path, out: Path, rows: int = 96, **options: Any) -> Path:
    """The folder of an export that was killed after some rows."""
    process = start(export_until, rows, checkpoint, out, options)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (folder,) = unfinished(out)
    return folder


def test_fifty_kills_at_random_moments_change_no_byte(
    checkpoint: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    out, moments = tmp_path / "bundle", random.Random(0)  # noqa: S311 - no secret
    for name in ("warm-up", "bundle"):
        began = time.perf_counter()
        finish(checkpoint, tmp_path / name)
        longest = time.perf_counter() - began
        assert contents(tmp_path / name) == uninterrupted
        shutil.rmtree(tmp_path / name)
    kills, most_done, continued = 0, 0, 0
    while kills < KILLS:
        receive, send = pipe()
        process = start(export_in_small_slices, checkpoint, out, send, {})
        send.close()
        # Most of them while rows are written, the others at any moment.
        if kills % 5:
            receive.poll(60)
            time.sleep(moments.uniform(0, 0.1))
        else:
            time.sleep(moments.uniform(0, longest))
        process.kill()
        process.join(60)
        kills += process.exitcode == -signal.SIGKILL
        # The second number is told once the rows that were there are known.
        continued += any(rows > SLICE_ROWS for rows in drain(receive)[1:2])
        if out.exists():
            assert contents(out) == uninterrupted
            shutil.rmtree(out)
        for folder in unfinished(out):
            done = Journal(folder).done()
            most_done = max(most_done, len(done))
            if len(done) * SLICE_ROWS == ROWS:  # else no further kill would meet rows
                shutil.rmtree(folder)
    assert most_done > 10
    assert continued > 5
    finish(checkpoint, out)
    assert contents(out) == uninterrupted
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def finish(checkpoint: Path, out: Path) -> None:
    receive, send = pipe()
    process = start(export_in_small_slices, checkpoint, out, send, {})
    send.close()
    process.join(60)
    assert drain(receive)[-1] == "done"


def drain(receive: Any) -> list[Any]:
    """All that a process told, which may have died in the middle of a message."""
    told = []
    try:
        while receive.poll(0):
            told.append(receive.recv())
    except (EOFError, OSError):
        pass
    return told


@pytest.mark.parametrize("rows", [SLICE_ROWS, 160, ROWS])
def test_finished_slices_are_not_computed_again(
    checkpoint: Path,
    uninterrupted: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
) -> None:
    out, computed = tmp_path / "bundle", set[int]()
    folder = leave_unfinished(checkpoint, out, rows)
    done = {first for first, _ in Journal(folder).done()}
    assert len(done) >= rows // SLICE_ROWS
    genuine = ExpertTable.embeddings

    def recording(self: ExpertTable, start: int, stop: int) -> Any:
        computed.add(start)
        return genuine(self, start, stop)

    monkeypatch.setattr(ExpertTable, "embeddings", recording)
    seen: list[tuple[str, int]] = []
    export(checkpoint, out, on_progress=lambda at: seen.append((at.name, at.done)))
    # The verdict computes the first and the last slice anew.
    assert computed - {0, ROWS - SLICE_ROWS} == set(range(0, ROWS, SLICE_ROWS)) - done - {
        0,
        ROWS - SLICE_ROWS,
    }
    assert [place for name, place in seen if name == "expert rows"][1] == SLICE_ROWS * len(done)
    assert contents(out) == uninterrupted
    assert unfinished(out) == []


def test_a_line_of_the_journal_that_a_crash_cut_off_does_not_count(
    checkpoint: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    folder = leave_unfinished(checkpoint, out)
    before = Journal(folder).done()
    with (folder / ".journal" / "rows-00000").open("ab") as file:
        file.write(b"200")
    with (folder / ".journal" / "rows-00001").open("ab") as file:
        file.write(b"\x00\x00\nx 8\n304 31")
    assert Journal(folder).done() == before
    export(checkpoint, out)
    assert contents(out) == uninterrupted


def test_rows_without_a_line_in_the_journal_are_written_again(
    checkpoint: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    folder = leave_unfinished(checkpoint, out)
    (line, *others) = (folder / ".journal" / "rows-00000").read_bytes().splitlines(keepends=True)
    assert line == b"0 8\n"
    (folder / ".journal" / "rows-00000").write_bytes(b"".join(others))
    with (folder / "experts.molkv").open("r+b") as file:
        file.seek(16384)
        file.write(b"\xff" * 100)
    export(checkpoint, out)
    assert contents(out) == uninterrupted


@pytest.mark.parametrize("damage", ["cut", "header", "missing"])
def test_an_unfinished_blob_that_was_changed_is_not_continued(
    checkpoint: Path, uninterrupted: dict[str, bytes], tmp_path: Path, damage: str
) -> None:
    out = tmp_path / "bundle"
    blob = leave_unfinished(checkpoint, out) / "experts.molkv"
    if damage == "cut":
        os.truncate(blob, blob.stat().st_size - 1)
    elif damage == "header":
        with blob.open("r+b") as file:
            file.seek(40)
            file.write(b"\x01")
    else:
        blob.unlink()
    export(checkpoint, out)
    assert contents(out) == uninterrupted
    assert unfinished(out) == []


@pytest.mark.parametrize(
    ("options", "name"),
    [({"experts": "f16"}, "experts is int8, .* is float16"), ({"shard_size": 100_000}, "shards")],
)
def test_rows_of_other_options_are_refused_by_name_unless_forced(
    checkpoint: Path, tmp_path: Path, options: dict[str, Any], name: str
) -> None:
    out = tmp_path / "bundle"
    folder = leave_unfinished(checkpoint, out)
    before = contents(folder / ".journal")
    with pytest.raises(ExportError, match=rf"^{folder}: holds the rows .* whose {name}") as caught:
        export(checkpoint, out, **options)
    assert "--force" in caught.value.fix
    assert contents(folder / ".journal") == before
    export(checkpoint, out, force=True, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_rows_of_another_checkpoint_or_version_are_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_checkpoint(tmp_path / "other", "molkv", seed=2, **TINY)
    out = tmp_path / "bundle"
    folder = leave_unfinished(checkpoint, out)
    with pytest.raises(ExportError, match=rf"^{folder}: .* checkpoint is [0-9a-f]{{64}}, and "):
        export(other, out)
    monkeypatch.setattr("molkv_export.journal.version", lambda _: "0.0.1")
    with pytest.raises(ExportError, match=r"molkv is \d.*, and this one's is 0\.0\.1"):
        export(checkpoint, out)
    assert unfinished(out) == [folder]


def test_what_an_export_was_making_beside_the_rows_is_made_anew(
    checkpoint: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    folder = leave_unfinished(checkpoint, out, ROWS)
    (folder / "dense.onnx").write_bytes(b"half a graph")
    (folder / "dense.mlpackage").mkdir()
    (folder / "dense.mlpackage" / "half").write_text("")
    export(checkpoint, out)
    assert contents(out) == uninterrupted


def test_an_interrupted_export_needs_no_room_for_what_it_has(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    leave_unfinished(checkpoint, out)
    usage, genuine = shutil.disk_usage(tmp_path), shutil.disk_usage
    from molkv_export.plan import make_plan
    from molkv_model.checkpoint import Checkpoint

    rest = make_plan(Checkpoint(checkpoint), "int8")
    others = rest.total_bytes - rest.files["experts.molkv"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=others))
    export(checkpoint, out)
    monkeypatch.setattr(shutil, "disk_usage", genuine)
    assert out.exists()


def test_rows_are_on_the_storage_before_the_journal_says_so(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    flush, write = os.fsync, os.pwrite

    def flushing(descriptor: int) -> None:
        events.append(f"flush {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        flush(descriptor)

    def writing(descriptor: int, data: Any, position: int) -> int:
        events.append(f"write {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        return write(descriptor, data, position)

    monkeypatch.setattr(os, "fsync", flushing)
    monkeypatch.setattr(os, "pwrite", writing)
    export(checkpoint, tmp_path / "bundle")
    slices = ["write experts.molkv", "flush experts.molkv", "flush rows-00000"]
    header = events.index("write experts.molkv")
    first = events.index("write experts.molkv", header + 1)
    assert events[header + 1] == "flush experts.molkv"
    assert "flush export.json" in events[header:first]
    assert events[first : first + 3 * ROWS // SLICE_ROWS] == slices * (ROWS // SLICE_ROWS)


def test_two_processes_that_export_to_one_folder(
    checkpoint: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    receive, send = pipe()
    first = start(export_in_small_slices, checkpoint, out, send, {})
    send.close()
    assert receive.poll(60)
    (folder,) = unfinished(out)
    with pytest.raises(
        ExportError, match=f"{out}: another process is exporting to it, in {folder}"
    ):
        export(checkpoint, out)
    first.join(60)
    assert contents(out) == uninterrupted
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_bundle_that_came_into_being_meanwhile_is_not_replaced(
    checkpoint: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    other = export(checkpoint, tmp_path / "other").path

    def overtake(progress: ExportProgress) -> None:
        if progress.name == "verify" and progress.cost is not None:
            shutil.copytree(other, out)
            (out / "a-note.txt").write_text("of the other process")

    with pytest.raises(ExportError, match="exists already"):
        export(checkpoint, out, on_progress=overtake)
    assert contents(out) == uninterrupted | {"a-note.txt": b"of the other process"}
    assert unfinished(out) == []
