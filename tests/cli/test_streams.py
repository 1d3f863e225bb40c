"""Standard output and error: what goes where, and what happens when it cannot go there."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from molkv_model.embedded import tiny_checkpoint
from tests.cli.command import MOLKV, molkv
from tests.small_models import write_checkpoint

# Python writes at once or when a buffer is full; neither may change what a user sees.
BUFFERING = ("", "1")


def shell(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in which "$molkv" is the command and "$1" the first argument."""
    return subprocess.run(
        ["bash", "-c", script, "bash", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"molkv": MOLKV} | environment,
    )


def test_results_are_on_standard_output_and_nothing_else_is(bundle: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("We the people of the United States. " * 20)
    small, out = write_checkpoint(tmp_path / "small", num_hidden_layers=1), tmp_path / "out"
    expected = {
        ("inspect", bundle): "identity",
        ("verify", bundle, "--no-record"): "parity: passed",
        ("eval", bundle, "--text", text): "perplexity",
        ("export", tiny_checkpoint(), "--out", out, "--dry-run"): "dense parameters",
        ("export", small, "--out", out): "parity: passed",
    }
    for arguments, shown in expected.items():
        result = molkv(*arguments)
        assert shown in result.stdout, arguments
        assert result.stderr == "", arguments


def test_json_is_one_document(bundle: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("We the people of the United States. " * 20)
    for arguments in (
        ("inspect", bundle),
        ("verify", bundle, "--no-record"),
        ("eval", bundle, "--text", text),
        ("run", bundle, "--prompt", "We", "--max-tokens", 2),
        ("export", tiny_checkpoint(), "--out", tmp_path / "out", "--dry-run"),
    ):
        assert isinstance(json.loads(molkv(*arguments, "--json").stdout), dict)


def test_lines_are_not_wrapped_in_a_pipe(bundle: Path) -> None:
    identity = json.loads((bundle / "manifest.json").read_bytes())["identity"]
    assert identity in molkv("inspect", bundle).stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_characters_that_standard_output_cannot_show_are_replaced(
    bundle: Path, tmp_path: Path, encoding: str
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("We the people of the United States. " * 20)
    environment = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}
    assert "parity" in molkv("inspect", bundle, environment=environment).stdout
    assert "perplexity" in molkv("eval", bundle, "--text", text, environment=environment).stdout
    prompt = ("--prompt", "日本", "--max-tokens", 1)
    assert molkv("run", bundle, *prompt, environment=environment).stdout.startswith("??")


@pytest.mark.parametrize("unbuffered", BUFFERING)
@pytest.mark.parametrize("command", ['inspect "$1"', 'inspect "$1" --json', "--help", "--version"])
def test_a_reader_that_goes_away_ends_the_command_quietly(
    bundle: Path, command: str, unbuffered: str
) -> None:
    script = f'"$molkv" {command} | true; echo "${{PIPESTATUS[0]}}"'
    result = shell(script, bundle, PYTHONUNBUFFERED=unbuffered)
    assert (result.stdout, result.stderr) == ("141\n", "")


@pytest.mark.parametrize("unbuffered", BUFFERING)
@pytest.mark.parametrize("command", ['inspect "$1"', 'inspect "$1" --json', "--help", "--version"])
def test_a_full_disk_behind_standard_output_is_an_error(
    bundle: Path, command: str, unbuffered: str
) -> None:
    result = shell(f'"$molkv" {command} >/dev/full', bundle, PYTHONUNBUFFERED=unbuffered)
    assert result.returncode == 2
    assert "standard output: cannot be written: No space left on device" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_closed_standard_output_is_an_error_before_any_work(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = shell('"$molkv" export "$1" --out "$2" >&-', tiny_checkpoint(), out)
    assert result.returncode == 2
    assert "standard output is closed" in result.stderr
    assert not out.exists()


def test_a_closed_standard_error_changes_nothing(bundle: Path, tmp_path: Path) -> None:
    result = shell('"$molkv" inspect "$1" 2>&-', bundle)
    assert result.returncode == 0
    assert "identity" in result.stdout
    assert shell('"$molkv" inspect "$1" 2>&-', tmp_path).returncode == 2


def test_brackets_in_names_are_shown_as_they_are(tmp_path: Path) -> None:
    name = r"[bold]a[/bold] \[c]"  # a folder "[bold]a[" with another in it
    checkpoint = write_checkpoint(tmp_path / "checkpoint", num_hidden_layers=1)
    export = ("export", checkpoint, "--out", name)
    assert f"Exported {name}\n" in molkv(*export, cwd=tmp_path).stdout
    assert molkv("inspect", name, cwd=tmp_path).stdout.startswith(f"{name}\n")
    assert f"{name}: exists already" in molkv(*export, cwd=tmp_path, code=2).stderr


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "text.txt").write_text("We the people. " * 2000)
    inside = tmp_path / "file" / "checkpoint"
    result = molkv("train", "--text", tmp_path / "text.txt", "--out", inside, code=2)
    assert str(tmp_path / "file") in result.stderr
