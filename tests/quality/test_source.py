"""The house rules that tools can check, each with a control that shows the tool would object."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = [ROOT / "model", ROOT / "export", ROOT / "runtime_py"]
CPP_SUFFIXES = {".h", ".hpp", ".cc", ".cpp"}
MODULE_LINES = 400


def run_tool(*command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).parent / command[0]
    environment = {**os.environ, "PYTHONPATH": ""}
    return subprocess.run(
        [str(tool), *command[1:]],
        cwd=ROOT,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def source_files(suffixes: set[str]) -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.suffix in suffixes and path.is_file()]


def test_ruff_finds_nothing() -> None:
    result = run_tool("ruff", "check")
    assert result.returncode == 0, result.stdout


def test_ruff_format_would_change_nothing() -> None:
    result = run_tool("ruff", "format", "--check")
    assert result.returncode == 0, result.stdout


def test_mypy_strict_passes() -> None:
    result = run_tool("mypy")
    assert result.returncode == 0, result.stdout


def test_imports_run_one_way() -> None:
    result = run_tool("lint-imports", "--no-cache")
    assert result.returncode == 0, result.stdout


def test_clang_format_would_change_nothing() -> None:
    files = [str(path) for path in source_files(CPP_SUFFIXES)]
    if files:
        result = run_tool("clang-format", "--dry-run", "--Werror", *files)
        assert result.returncode == 0, result.stderr


def test_clang_format_objects_to_bad_layout() -> None:
    result = run_tool(
        "clang-format", "--dry-run", "--Werror", "--assume-filename=a.cc", stdin="int  a ( ) ;\n"
    )
    assert result.returncode != 0


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_modules_stay_short(package: Path) -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in package.rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MODULE_LINES
    }
    assert not long


def test_library_code_never_prints() -> None:
    printing = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in package.rglob("*.py")
        if "cli" not in path.parts
        and re.search(r"sys\.std(out|err)", path.read_text(encoding="utf-8"))
    ]
    assert not printing


def test_embedded_checkpoint_is_at_most_6_mb() -> None:
    folder = ROOT / "model" / "molkv_model" / "checkpoints" / "tiny"
    assert 0 < sum(path.stat().st_size for path in folder.iterdir()) <= 6_000_000
