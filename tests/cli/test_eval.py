"""`molkv eval` over several bundles or every combination, its plot; `export --experts auto`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import molkv

if TYPE_CHECKING:
    from tests.conftest import BundleOf, CheckpointOf

TEXT = "The whale spoke to the Congress of the ship, and the President swam past. " * 30


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    return file


def test_combinations_are_in_one_table_and_one_plot(
    checkpoint_of: CheckpointOf, text: Path, tmp_path: Path
) -> None:
    checkpoint, plot = checkpoint_of("molkv+tokenizer"), tmp_path / "plot.svg"
    arguments = ("eval", "--checkpoint", checkpoint, "--text", text, "--experts", "int8,f16")
    arguments += ("--dense", "fp32,int8", "--cache", "fp32")
    report = json.loads(molkv(*arguments, "--plot", plot, "--json").stdout)
    names = ["int8/fp32/fp32", "int8/int8/fp32", "f16/fp32/fp32", "f16/int8/fp32"]
    assert [result["name"] for result in report["results"]] == names
    assert report["reference"]["perplexity"] > 1
    assert report["against"] == str(checkpoint)
    for result in report["results"]:
        assert result["tokens"] == report["reference"]["tokens"] > 300
        assert {"dense_bytes", "blob_bytes", "bytes_per_token"} <= set(result)
        for name in ("loss", "perplexity", "kl_divergence", "same_top1"):
            assert isinstance(result[name], float)
            assert result[f"{name}_error"] >= 0
    drawn = plot.read_text(encoding="utf-8")
    assert all(f">{name}<" in drawn for name in names)

    shown = molkv(*arguments).stdout
    header, *_ = [line for line in shown.splitlines() if "perplexity" in line and "dense" in line]
    for column in (
        "experts",
        "cache",
        "expert blob",
        "read a token",
        "KL divergence",
        "same top-1",
    ):
        assert column in header
    lines = [line for line in shown.splitlines() if re.match(r" *(int8|f16) ", line)]
    assert [line.split()[:3] for line in lines] == [name.split("/") for name in names]
    narrow = molkv(*arguments, environment={"COLUMNS": "80"}).stdout
    assert max(map(len, narrow.splitlines())) <= 80
    figures = {f"{result['perplexity']:.3f}" for result in report["results"]}
    figures |= {f"{result['bytes_per_token']:,}" for result in report["results"]}
    assert all(figure in narrow for figure in figures)
    fronts = [result["pareto_front"] for result in report["results"]]
    assert [line.rstrip().endswith("*") for line in lines] == fronts
    assert True in fronts


def test_several_bundles_are_compared_with_one_model(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, text: Path
) -> None:
    bundles = [bundle_of("molkv+tokenizer", experts) for experts in ("int8", "f16")]
    arguments = ("eval", *bundles, "--text", text, "--against", checkpoint_of("molkv+tokenizer"))
    report = json.loads(molkv(*arguments, "--json").stdout)
    assert [result["name"] for result in report["results"]] == [str(path) for path in bundles]
    rough, fine = (result["kl_divergence"] for result in report["results"])
    assert 0 <= fine < rough
    (alone,) = json.loads(
        molkv("eval", bundles[0], *arguments[3:], "--json").stdout
    )["results"]  # fmt: skip
    assert alone["kl_divergence"] == pytest.approx(rough, rel=1e-6)
    assert "no other is both" in molkv(*arguments).stdout


def test_an_error_that_one_batch_cannot_tell_is_null(bundle_of: BundleOf, text: Path) -> None:
    arguments = ("eval", bundle_of("molkv+tokenizer"), "--text", text, "--tokens", 40)
    (result,) = json.loads(molkv(*arguments, "--json").stdout)["results"]
    assert result["perplexity"] > 1
    assert result["perplexity_error"] is None
    assert result["kl_divergence"] is None
    assert "± ?" in molkv(*arguments).stdout


def test_wrong_use_is_refused_with_the_fix(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, text: Path, tmp_path: Path
) -> None:
    checkpoint, bundle = checkpoint_of("molkv+tokenizer"), bundle_of("molkv+tokenizer")
    swept = ("--checkpoint", checkpoint)
    out = tmp_path / "out"
    cases = {
        ("eval",): "name bundles, or one checkpoint",
        ("eval", bundle, *swept): "name bundles, or one checkpoint",
        ("eval", bundle, "--dense", "int8"): "--dense is given for bundles",
        ("eval", *swept, "--against", bundle): "--against is given with --checkpoint",
        ("eval", *swept, "--dense", "int3"): "choose among fp32, int8, int4",
        ("eval", "--checkpoint", checkpoint_of("molkv")): "has no tokenizer",
        ("eval", bundle, "--plot", tmp_path / "a.svg"): "name a checkpoint with --against",
        ("eval", *swept, "--plot", tmp_path / "a.pdf"): "as .svg or .png",
        ("eval", *swept, "--plot", tmp_path / "none" / "a.svg"): "its folder does not exist",
    }
    for arguments, message in cases.items():
        assert message in molkv(*arguments, "--text", text, code=2).stderr, arguments
    exports = {
        ("--experts", "auto"): "name one with --calibration",
        ("--calibration", text): "let molkv choose with --experts auto",
        ("--max-kl", "1"): "let molkv choose with --experts auto",
        ("--experts", "auto", "--calibration", tmp_path / "no.txt"): "cannot be read",
        ("--experts", "auto", "--calibration", text, "--max-kl", "1e-13"): "int8 ",
    }
    for arguments, message in exports.items():
        shown = molkv("export", checkpoint, "--out", out, *arguments, code=2).stderr
        assert message in shown, arguments
        assert not out.exists()


def test_auto_says_what_it_measured_and_exports_what_it_chose(
    checkpoint_of: CheckpointOf, text: Path, tmp_path: Path
) -> None:
    checkpoint, out = checkpoint_of("molkv+tokenizer"), tmp_path / "bundle"
    arguments = ("export", checkpoint, "--out", out, "--experts", "auto", "--calibration", text)
    report = json.loads(molkv(*arguments, "--json").stdout)
    choice = report["experts"]
    assert choice["max_kl"] == 0.01
    assert choice["trials"][-1]["experts"] == choice["chosen"]
    assert 0 < choice["trials"][-1]["kl_divergence"] <= 0.01
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["quantization"]["experts"] == choice["chosen"]
    measured = choice["trials"][-1]
    assert manifest["quantization"]["calibration"] == {
        "max_kl": 0.01,
        "kl_divergence": measured["kl_divergence"],
        "same_top1": measured["same_top1"],
        "tokens": choice["tokens"],
    }

    assert "exists already" in molkv(*arguments, code=2).stderr
    strict = (*arguments, "--dry-run", "--max-kl", choice["trials"][-1]["kl_divergence"] / 2)
    stricter = json.loads(molkv(*strict, "--json").stdout)["experts"]
    assert len(stricter["trials"]) > len(choice["trials"])
    shown = molkv(*strict).stdout
    assert f"Experts: {stricter['chosen']}, the smallest under" in shown
    assert f"{stricter['trials'][0]['row_bytes']:,}" in shown
