"""The Makefile says what is missing, and never builds on what was left half-made."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "make", "id", "mkdir", "touch", "env", "cat")


def make(
    *arguments: str, path: Path, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a target with the commands of one folder only."""
    return subprocess.run(
        [str(path / "make"), "--no-print-directory", f"--file={ROOT / 'Makefile'}", *arguments],
        cwd=folder or ROOT,
        env={"PATH": str(path), "HOME": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder of commands with neither npm nor apt-get."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None
        (commands / name).symlink_to(found)
    return commands


def add_command(path: Path, name: str, script: str) -> None:
    (path / name).unlink(missing_ok=True)
    (path / name).write_text(f"#!/bin/sh\n{script}\n")
    (path / name).chmod(0o755)


def test_missing_npm_is_named(path: Path, tmp_path: Path) -> None:
    result = make("corpus", path=path, folder=tmp_path)
    assert result.returncode != 0
    assert "npm, which is missing" in result.stdout
    assert not (tmp_path / "corpus").exists()


def test_a_system_without_apt_get_is_told_what_is_missing(path: Path) -> None:
    result = make("system-packages", path=path)
    assert result.returncode != 0
    assert "there is no apt-get" in result.stdout
    assert "strace" in result.stdout


def test_a_user_who_may_not_install_packages_is_told_the_command(path: Path) -> None:
    add_command(path, "apt-get", "exit 99")
    add_command(path, "id", "echo 1000")
    result = make("system-packages", path=path)
    assert result.returncode != 0
    assert "sudo apt-get install" in result.stdout
    assert "99" not in result.stderr


def test_an_environment_interrupted_while_it_was_made_is_made_again(
    path: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "environment"
    target = (f"VENV={environment}", f"{environment}/.created")
    # As a venv is before pip is in it, which is where an interruption mostly falls.
    half = f'"{sys.executable}" -m venv --without-pip "$3"'
    add_command(path, "interrupted", f"{half}; kill -KILL $$")
    add_command(path, "whole", f'exec "{sys.executable}" "$@"')
    assert make("PYTHON=interrupted", *target, path=path).returncode != 0
    assert (environment / "bin" / "python").exists()
    assert not (environment / ".created").exists()
    assert make("PYTHON=whole", *target, path=path).returncode == 0
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--version"]
    assert subprocess.run(pip, capture_output=True, check=False).returncode == 0
    assert "up to date" in make("PYTHON=interrupted", *target, path=path).stdout
