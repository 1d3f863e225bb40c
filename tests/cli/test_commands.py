"""The `molkv` command as a user meets it: output, JSON, messages and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from molkv_model.embedded import tiny_checkpoint
from tests.bundle_changes import accept_changes
from tests.cli.command import molkv
from tests.small_models import write_checkpoint

COMMANDS = ("demo", "train", "export", "inspect", "verify", "run", "eval", "bench")
TEXT = "We the people of the United States ask the Congress for peace and commerce. " * 40


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(command: str) -> None:
    assert "Example: molkv " + command in molkv(command, "--help").stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_prints_json_on_request(command: str) -> None:
    assert "--json" in molkv(command, "--help").stdout


def test_version_is_printed() -> None:
    assert molkv("--version").stdout.startswith("molkv ")


def test_demo_prints_text_speed_and_verdict(tmp_path: Path) -> None:
    result = molkv("demo", "--out", tmp_path / "demo", "--max-tokens", 40)
    assert "\nThe President of the United States " in result.stdout
    assert "tokens/s" in result.stdout
    assert result.stdout.rstrip().endswith("parity: passed")
    assert result.stderr == ""


def test_demo_makes_its_own_folder_anew_but_no_other_without_force(tmp_path: Path) -> None:
    for arguments in ((), ("--out", "demo-bundle", "--force")):
        report = json.loads(
            molkv("demo", *arguments, "--max-tokens", 3, "--json", cwd=tmp_path).stdout
        )
        assert report["passed"] is True
        assert len(report["ids"]) == 3
        assert report["out"] == "demo-bundle"
        (tmp_path / "demo-bundle" / "note.txt").write_text("of the last demo")
    result = molkv("demo", "--out", "demo-bundle", cwd=tmp_path, code=2)
    assert "demo-bundle: exists already" in result.stderr
    assert (tmp_path / "demo-bundle" / "note.txt").is_file()


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    plan = json.loads(
        molkv("export", tiny_checkpoint(), "--out", out, "--dry-run", "--json").stdout
    )
    assert plan["bytes_per_token"] > 0
    assert plan["files"]["experts.molkv"] > 0
    assert not list(tmp_path.iterdir())


def test_run_prints_text_and_statistics_as_json(bundle: Path) -> None:
    arguments = ("run", bundle, "--prompt", "The Congress", "--max-tokens", 12, "--seed", 7)
    report = json.loads(molkv(*arguments, "--json").stdout)
    assert len(report["ids"]) == 12
    assert report["text"].strip()
    names = {
        "prefill_tokens_per_s",
        "decode_tokens_per_s",
        "time_to_first_token_ms",
        "rows_read",
        "bytes_read",
        "lookup_us_per_token",
    }
    assert names <= set(report["stats"])
    assert all(report["stats"][name] > 0 for name in names)
    again = molkv(*arguments).stdout
    assert again == f"The Congress{report['text']}\n"


def test_run_takes_ids(bundle: Path) -> None:
    by_ids = molkv("run", bundle, "--ids", "12 7 99", "--temperature", 0, "--json").stdout
    assert json.loads(by_ids)["ids"]


def test_inspect_prints_the_manifest_and_the_header_as_written(bundle: Path) -> None:
    manifest = json.loads(molkv("inspect", bundle, "--json").stdout)
    assert manifest == json.loads((bundle / "manifest.json").read_bytes())
    header = json.loads(molkv("inspect", bundle / "experts.molkv", "--json").stdout)
    assert header["identity"] == manifest["identity"]
    assert "parity" in molkv("inspect", bundle).stdout
    assert "row_stride" in molkv("inspect", bundle / "experts.molkv").stdout


def test_verify_prints_every_rung_as_json(bundle: Path) -> None:
    report = json.loads(molkv("verify", bundle, "--json", "--no-record").stdout)
    assert report["passed"] is True
    assert {rung["name"][0] for rung in report["rungs"]} == set("123456")
    assert all({"name", "passed", "figure", "limit"} <= set(rung) for rung in report["rungs"])


def test_verify_of_a_bundle_that_computes_something_else_exits_with_1(
    bundle: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    subprocess.run(["cp", "-r", str(bundle), str(changed)], check=True)
    golden = json.loads((changed / "golden.json").read_text())
    golden["cases"][0]["greedy"][5] ^= 1
    (changed / "golden.json").write_text(json.dumps(golden))
    accept_changes(changed, "golden.json")
    report = json.loads(molkv("verify", changed, "--json", code=1).stdout)
    failed = [rung["name"] for rung in report["rungs"] if not rung["passed"]]
    rungs = ["6 greedy tokens", "6 tokenizer"]
    assert failed == [name for rung in rungs for name in (rung, f"{rung}, reference engine")]


def test_eval_reports_int8_experts_within_their_limits_of_f16(bundle: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    molkv("export", tiny_checkpoint(), "--out", tmp_path / "f16", "--experts", "f16", "--json")
    report = json.loads(
        molkv("eval", bundle, "--text", text, "--against", tmp_path / "f16", "--json").stdout
    )
    (result,) = report["results"]
    assert result["kl_divergence"] <= 0.001
    assert result["same_top1"] >= 0.99
    assert result["tokens"] > 500
    assert result["perplexity"] > 1
    against_checkpoint = molkv("eval", bundle, "--text", text, "--against", tiny_checkpoint())
    assert "±" in against_checkpoint.stdout


@pytest.mark.parametrize(
    ("field", "value"),
    [("vocab_size", 320), ("max_position_embeddings", 256), ("max_position_embeddings", 1024)],
)
def test_eval_against_a_model_that_does_not_line_up_names_the_difference(
    bundle: Path, tmp_path: Path, field: str, value: int
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    sizes = {"vocab_size": 4096, "max_position_embeddings": 512, field: value}
    other = write_checkpoint(tmp_path / "other", **sizes)
    result = molkv("eval", bundle, "--text", text, "--against", other, code=2)
    own = {"vocab_size": 4096, "max_position_embeddings": 512}[field]
    assert f"{other}: {field} is {value}, that of {bundle} is {own}" in result.stderr


def test_verify_gives_its_verdict_on_a_bundle_that_cannot_be_written(bundle: Path) -> None:
    manifest = bundle / "manifest.json"
    before = manifest.read_bytes()
    with read_only(bundle):
        result = molkv("verify", bundle)
    assert result.stdout.rstrip().endswith("parity: passed")
    assert "warning" in result.stderr
    assert f"{bundle}: the verdict could not be recorded" in result.stderr
    assert manifest.read_bytes() == before


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Not even root may write to it: a bind mount where that is allowed, rights elsewhere."""
    mount = ["mount", "--bind", str(folder), str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, check=False).returncode == 0:
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
            yield
        finally:
            subprocess.run(["umount", str(folder)], check=True)
        return
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o755)


def test_bad_input_exits_with_2_and_names_the_fix(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    cases: list[tuple[str, ...]] = [
        ("export", str(tmp_path), "--out", str(tmp_path / "out")),
        ("export", str(tiny_checkpoint()), "--out", str(bundle)),
        ("export", str(tiny_checkpoint()), "--out", str(tmp_path / "o"), "--backend", "tflite"),
        ("export", str(tiny_checkpoint()), "--out", str(tmp_path / "o"), "--experts", "int3"),
        ("run", str(tmp_path), "--prompt", "a"),
        ("run", str(bundle), "--prompt", ""),
        ("run", str(bundle)),
        ("run", str(bundle), "--ids", "1 two"),
        ("run", str(bundle), "--ids", "4096"),
        ("run", str(bundle), "--prompt", "a", "--top-p", "0"),
        ("run", str(bundle), "--prompt", "a", "--threads", "0"),
        ("run", str(bundle), "--prompt", "a", "--threads", "100000"),
        ("eval", str(bundle), "--text", str(bundle / "README.md"), "--threads", "100000"),
        ("run", str(bundle), "--prompt", os.fsdecode(b"\xff\xfe")),
        ("demo", "--prompt", os.fsdecode(b"caf\xe9"), "--out", str(tmp_path / "o")),
        ("run", str(bundle), "--prompt", "word " * 2000),
        ("inspect", str(tmp_path / "text.txt")),
        ("inspect", str(tmp_path / "missing")),
        ("verify", str(bundle), "--checkpoint", str(tmp_path)),
        ("eval", str(bundle), "--text", str(tmp_path / "missing.txt")),
        ("eval", str(bundle), "--text", str(tmp_path / "latin.txt")),
        ("eval", str(bundle), "--text", str(tmp_path / "text.txt")),
        ("train", "--text", str(tmp_path / "text.txt"), "--out", str(tmp_path / "c")),
        ("train", "--preset", "huge", "--text", str(bundle / "README.md"), "--out", str(tmp_path)),
        ("train", "--set", "depth=3", "--text", str(bundle / "README.md"), "--out", str(tmp_path)),
    ]
    for arguments in cases:
        result = molkv(*arguments, code=2)
        assert "error" in result.stderr.lower(), arguments
        assert not (tmp_path / "out").exists()


def test_commands_of_the_thin_runtime_do_not_import_torch() -> None:
    script = (
        "import sys; import molkv_export.cli.app; "
        "assert not {'torch', 'onnx', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
