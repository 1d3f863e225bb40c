"""A bundle is under its name when it is whole, and nothing of it is anywhere before."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import torch

import molkv_export.bundle as export_module
from molkv_export import ExportError, export, output_folder
from molkv_export.exchange import exchange
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import TokenizerError
from tests.small_models import write_checkpoint, write_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

TINY = {"num_hidden_layers": 1, "max_position_embeddings": 12}
PASSES = (
    "ExpertPass.write",
    "write_dense_graph",
    "shutil.copyfile",
    "make_golden",
    "model_card",
    "write_json",
    "verify",
    "put_in_place",
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = write_tokenizer(folder / "trained.json")
    return write_checkpoint(folder / "molkv", "molkv", tokenizer=tokenizer, **TINY)


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), "molkv", seed=2, **TINY)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_same_checkpoint_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    first = export(checkpoint, tmp_path / "first")
    second = export(checkpoint, tmp_path / "elsewhere" / "second")
    assert contents(first.path) == contents(second.path)
    assert set(contents(first.path)) == {
        "README.md",
        "dense.onnx",
        "dense.onnx.data",
        "experts.molkv",
        "golden.json",
        "manifest.json",
        "tokenizer.json",
    }
    assert names(tmp_path) == ["elsewhere", "first"]
    assert first.path.stat().st_mode & 0o777 == 0o755
    text = (first.path / "manifest.json").read_text() + (first.path / "README.md").read_text()
    assert str(tmp_path) not in text
    assert str(checkpoint) not in text


def test_an_existing_bundle_stays_without_force_and_is_replaced_with_it(
    checkpoint: Path, other_checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    export(other_checkpoint, out)
    before = contents(out)
    with pytest.raises(ExportError, match=rf"^{out}: exists already \(pass --force"):
        export(checkpoint, out)
    assert contents(out) == before
    (out / "a-note.txt").write_text("of the old bundle")
    bundle = export(checkpoint, out, force=True)
    assert bundle.manifest.identity.encode() not in before["manifest.json"]
    Bundle.open(out).verify_files()
    assert "a-note.txt" not in names(out)
    assert names(tmp_path) == ["bundle"]


@pytest.mark.parametrize("what", ["folder", "file", "checkpoint", "foreign manifest", "damaged"])
def test_what_is_no_bundle_is_never_replaced(checkpoint: Path, tmp_path: Path, what: str) -> None:
    out = tmp_path / "out"
    if what == "file":
        out.write_text("mine")
    elif what == "checkpoint":
        shutil.copytree(checkpoint, out)
    else:
        out.mkdir()
        (out / "precious.txt").write_text("mine")
        if what == "foreign manifest":
            (out / "manifest.json").write_text('{"name": "a browser extension"}')
        elif what == "damaged":
            (out / "manifest.json").write_text("{")
    before = out.read_text() if what == "file" else str(contents(out))
    for force in (False, True):
        with pytest.raises(ExportError) as caught:
            export(checkpoint, out, force=force)
        assert str(caught.value).startswith(f"{out}: ")
        assert caught.value.fix
    assert before == (out.read_text() if what == "file" else str(contents(out)))
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        *((broken, RuntimeError) for broken in PASSES),
        ("ExpertPass.write", KeyboardInterrupt),
        ("ExpertPass.write", SystemExit),
    ],
)
def test_an_export_that_fails_in_any_pass_leaves_nothing(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
    error: type[BaseException],
) -> None:
    holder, _, attribute = f"molkv_export.bundle.{broken}".rpartition(".")

    def failing(*_: object, **__: object) -> None:
        assert any(name.startswith(".bundle.partial-") for name in names(tmp_path))
        raise error

    monkeypatch.setattr(f"{holder}.{attribute}", failing)
    with pytest.raises(error):
        export(checkpoint, tmp_path / "bundle")
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "by the test")])
@pytest.mark.parametrize("exchanging", [True, False])
def test_the_old_bundle_survives_whatever_stops_its_replacement(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    exchanging: bool,
) -> None:
    out = tmp_path / "bundle"
    export(checkpoint, out)
    before = contents(out)
    genuine = Path.rename

    def failing(*_: object) -> bool:
        raise error

    def failing_rename(self: Path, target: Path) -> Path:
        if self.name.startswith(".bundle.partial-"):
            raise error
        return genuine(self, target)

    monkeypatch.setattr(output_folder, "exchange", failing if exchanging else lambda *_: False)
    monkeypatch.setattr(Path, "rename", failing_rename)
    expected = ExportError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        export(checkpoint, out, force=True)
    monkeypatch.undo()
    assert contents(out) == before
    assert names(tmp_path) == ["bundle"]


def write_bundle(folder: Path, note: str) -> Path:
    """What counts as a bundle, and a file to tell it from others."""
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"schema_version": 1, "identity": "", "model": {}}')
    (folder / "note.txt").write_text(note)
    return folder


def note_of(folder: Path) -> str:
    return (folder / "note.txt").read_text()


@pytest.mark.parametrize("exchanging", [True, False])
def test_a_finished_folder_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanging: bool
) -> None:
    out = write_bundle(tmp_path / "bundle", "old")
    if not exchanging:
        monkeypatch.setattr(output_folder, "exchange", lambda *_: False)
    with output_folder.partial_folder(out) as folder:
        (folder / "note.txt").write_text("new")
        output_folder.put_in_place(folder, out)
        assert note_of(out) == "new"
    assert note_of(out) == "new"
    assert names(tmp_path) == ["bundle"]


def test_folders_trade_names_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    first, second = write_bundle(tmp_path / "1", "first"), write_bundle(tmp_path / "2", "second")
    assert exchange(first, second)
    assert (note_of(first), note_of(second)) == ("second", "first")
    with pytest.raises(FileNotFoundError, match="missing"):
        exchange(first, tmp_path / "missing")


KILLED_BETWEEN_TWO_RENAMES = """
import os, sys
from pathlib import Path
from molkv_export import output_folder
out, genuine = Path(sys.argv[1]), Path.rename
def rename(self, target):
    if self.name.startswith(".bundle.partial-"):
        os._exit(9)
    return genuine(self, target)
output_folder.exchange = lambda *_: False
Path.rename = rename
with output_folder.partial_folder(out) as folder:
    (folder / "note.txt").write_text("new")
    output_folder.put_in_place(folder, out)
"""


def test_a_bundle_lost_between_two_renames_is_recovered(tmp_path: Path) -> None:
    out = write_bundle(tmp_path / "bundle", "old")
    command = [sys.executable, "-c", KILLED_BETWEEN_TWO_RENAMES, str(out)]
    assert subprocess.run(command, check=False).returncode == 9
    assert not out.exists()
    with pytest.raises(ExportError, match="exists already"):
        output_folder.require_replaceable(out, force=False)
    assert note_of(out) == "old"
    with output_folder.partial_folder(out):
        pass
    assert names(tmp_path) == ["bundle"]


def test_what_a_living_process_set_aside_is_left_to_it(tmp_path: Path) -> None:
    aside = write_bundle(tmp_path / ".bundle.replaced-1" / "bundle", "old").parent
    descriptor = os.open(aside, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    output_folder.require_replaceable(tmp_path / "bundle", force=False)
    assert names(tmp_path) == [".bundle.replaced-1"]
    os.close(descriptor)
    with pytest.raises(ExportError, match="exists already"):
        output_folder.require_replaceable(tmp_path / "bundle", force=False)
    assert names(tmp_path) == ["bundle"]


def test_a_partial_folder_that_another_process_removed_before_its_lock_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine, made = fcntl.flock, []

    def cleaned_up(descriptor: int, how: int) -> None:
        made.append(names(tmp_path))
        if len(made) == 1:  # as another process would in this moment
            shutil.rmtree(tmp_path / made[0][0])
        genuine(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", cleaned_up)
    with output_folder.partial_folder(tmp_path / "bundle") as folder:
        assert folder.is_dir()
        assert len(made) == 2
    assert names(tmp_path) == []


def test_everything_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, flushed = tmp_path / "bundle", list[tuple[Path, bool]]()
    genuine = os.fsync

    def recording(descriptor: int) -> None:
        flushed.append((Path(f"/proc/self/fd/{descriptor}").readlink(), out.exists()))
        genuine(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    with output_folder.partial_folder(out) as folder:
        for name in ("a", "b"):
            (folder / name).write_text(name)
        output_folder.put_in_place(folder, out)
        expected = {(folder / "a", False), (folder / "b", False), (folder, False)}
    assert set(flushed[:-1]) == expected
    assert flushed[-1] == (tmp_path, True)


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_is_refused_with_the_reason(tmp_path: Path, dangling: bool) -> None:
    if not dangling:
        write_bundle(tmp_path / "target", "old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for force in (False, True):
        with pytest.raises(ExportError, match="link: is a symbolic link"):
            output_folder.require_replaceable(tmp_path / "link", force=force)


def test_a_folder_inside_a_bundle_is_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", "old")
    for inside in (bundle / "new", bundle / "deep" / "new"):
        with pytest.raises(ExportError, match=f"new: lies inside the bundle {bundle}"):
            output_folder.require_replaceable(inside, force=True)
    (tmp_path / "other").mkdir()
    output_folder.require_replaceable(bundle / ".." / "other" / "new", force=False)


def test_a_bundle_that_holds_what_the_export_reads_is_not_replaced(
    checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    export(checkpoint, out)
    shutil.copytree(checkpoint, out / "checkpoint")
    with pytest.raises(ExportError, match=f"^{out}: holds {out / 'checkpoint'}, which the export"):
        export(out / "checkpoint", out, force=True)
    tokenizer = out / "tokenizer.json"
    with pytest.raises(ExportError, match=f"^{out}: holds {tokenizer}, which the export reads"):
        export(checkpoint, out, force=True, tokenizer=tokenizer)
    assert (out / "checkpoint").is_dir()


SLOW_EXPORT = """
import signal, sys, time
from molkv_export import export
# As in a terminal; a shell starts its background jobs with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
def on_progress(progress):
    if progress.name == sys.argv[3] and progress.done == 0:
        print("there", flush=True)
        time.sleep(60)
export(sys.argv[1], sys.argv[2], on_progress=on_progress)
"""


@pytest.fixture
def exporting(checkpoint: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that stands still in the middle of an export into tmp_path / "bundle"."""
    command = [sys.executable, "-c", SLOW_EXPORT, str(checkpoint), str(tmp_path / "bundle")]
    with subprocess.Popen(
        [*command, "onnx graph"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_finished_rows_hidden_and_the_same_export_goes_on_from_there(
    exporting: subprocess.Popen[str], checkpoint: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (running,) = names(tmp_path)
    inode = (tmp_path / running / "experts.molkv").stat().st_ino
    exporting.send_signal(number)
    exporting.wait(timeout=30)
    assert exporting.returncode != 0
    assert names(tmp_path) == [running]
    export(checkpoint, tmp_path / "bundle")
    assert names(tmp_path) == ["bundle"]
    assert (tmp_path / "bundle" / "experts.molkv").stat().st_ino == inode
    assert ".journal" not in names(tmp_path / "bundle")


def test_a_killed_export_leaves_no_bundle_and_the_next_one_cleans_up(
    exporting: subprocess.Popen[str], checkpoint: Path, tmp_path: Path
) -> None:
    exporting.kill()
    exporting.wait(timeout=30)
    (left,) = names(tmp_path)
    assert left.startswith(".bundle.partial-")
    export(checkpoint, tmp_path / "bundle")
    assert names(tmp_path) == ["bundle"]


def test_a_running_export_is_not_cleaned_up_by_another(
    exporting: subprocess.Popen[str], tmp_path: Path
) -> None:
    (running,) = names(tmp_path)
    with output_folder.partial_folder(tmp_path / "bundle") as mine:
        assert names(tmp_path) == sorted([running, mine.name])
    assert names(tmp_path) == [running]
    assert exporting.poll() is None


def test_the_programs_own_handler_of_sigterm_stays(tmp_path: Path) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with output_folder.partial_folder(tmp_path / "bundle"):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]
    with output_folder.partial_folder(tmp_path / "bundle"):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_too_little_free_space_is_refused_before_any_work(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ExportError, match=rf"^{tmp_path}: 1,000 bytes are free, .* needs \d\d\d,"):
        export(checkpoint, tmp_path / "bundle")
    assert names(tmp_path) == []


@pytest.mark.parametrize("kilobytes", [64, 200, 316, 328])
def test_a_full_disk_is_an_export_error_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kilobytes: int
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    # The check before any work would refuse so small a disk; a disk may also fill up meanwhile.
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
    mounted = os.geteuid() == 0 and subprocess.run(["mount", *options], check=False).returncode == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (min(kilobytes, 100) << 10, limits[1]))
        with pytest.raises(ExportError) as caught:
            export(checkpoint, disk / "bundle")
        assert str(disk) in str(caught.value)
        assert os.strerror(errno.ENOSPC if mounted else errno.EFBIG) in str(caught.value)
        assert "free" in caught.value.fix
        assert names(disk) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


def test_a_file_size_limit_is_an_export_error_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (1000, 60_000, 150_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            with pytest.raises(ExportError, match=os.strerror(errno.EFBIG)):
                export(checkpoint, tmp_path / "bundle")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert names(tmp_path) == []


def test_a_parent_that_cannot_be_made_is_named(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=f"{tmp_path / 'file'}"):
        export(checkpoint, tmp_path / "file" / "bundle")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts": "int2"}, "experts is 'int2' .*int8, int4, f16"),
        ({"backends": ["tensorrt"]}, "backend is 'tensorrt' .*onnx"),
        ({"backends": []}, "backends is .*name each once"),
        ({"backends": ["onnx", "onnx"]}, "backends is .*name each once"),
    ],
)
def test_unknown_options_are_refused_before_any_work(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        export(tmp_path / "missing", tmp_path / "bundle", **options)  # type: ignore[arg-type]


def test_a_tokenizer_can_be_given_and_must_fit(other_checkpoint: Path, tmp_path: Path) -> None:
    given = write_tokenizer(tmp_path / "given.json", 290)
    bundle = export(other_checkpoint, tmp_path / "bundle", tokenizer=given)
    assert (bundle.path / "tokenizer.json").read_bytes() == given.read_bytes()
    assert bundle.manifest.tokenizer is not None
    assert bundle.manifest.tokenizer.vocabulary_size == 290
    large = json.loads(given.read_text())
    large["model"]["vocab"]["too much"] = 320
    (tmp_path / "large.json").write_text(json.dumps(large))
    with pytest.raises(TokenizerError, match="vocabulary of 321 ids, and the model one of 320"):
        export(other_checkpoint, tmp_path / "other", tokenizer=tmp_path / "large.json")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("context", [1, 3, 64, 65])
def test_models_of_any_context_have_golden_cases(tmp_path: Path, context: int) -> None:
    config = {"num_hidden_layers": 1, "max_position_embeddings": context, "vocab_size": 40}
    checkpoint = write_checkpoint(tmp_path / "checkpoint", "molkv", **config)
    bundle = export(checkpoint, tmp_path / "bundle")
    assert bundle.manifest.parity is not None
    assert bundle.manifest.parity.passed
    for case in bundle.load_golden().cases:
        assert len(case.prompt_ids) + len(case.greedy) <= context + 1
        assert len(case.greedy) >= min(context, 64)


def test_progress_names_every_pass_once_started(checkpoint: Path, tmp_path: Path) -> None:
    seen: list[export_module.ExportProgress] = []
    export(checkpoint, tmp_path / "bundle", on_progress=seen.append)
    order = list(dict.fromkeys(progress.name for progress in seen))
    assert order == ["identity", "expert rows", "onnx graph", "golden cases", "verify"]
    rows = [progress for progress in seen if progress.name == "expert rows"]
    assert [progress.done for progress in rows] == [0, 320, 320]
    assert all(progress.done <= progress.total for progress in seen)


def test_progress_says_what_every_pass_cost(checkpoint: Path, tmp_path: Path) -> None:
    seen: list[export_module.ExportProgress] = []
    began = time.perf_counter()
    export(checkpoint, tmp_path / "bundle", on_progress=seen.append)
    elapsed = time.perf_counter() - began
    costs = {progress.name: progress.cost for progress in seen if progress.cost is not None}
    assert list(costs) == ["identity", "expert rows", "onnx graph", "golden cases", "verify"]
    assert 0 < sum(cost.seconds for cost in costs.values()) < elapsed
    resident = psutil.Process().memory_info().rss
    assert all(resident / 2 < cost.peak_memory_bytes for cost in costs.values())


def test_an_export_leaves_torchs_threads_as_they_were(checkpoint: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        export(checkpoint, tmp_path / "bundle")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
