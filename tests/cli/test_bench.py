"""`molkv bench`: what it measures, in every form that it prints."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from molkv_runtime.benchmark import BenchConfig, benchmark
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import MolkvError, UsageError
from molkv_runtime.experts_mode import RESIDENT_BYTES
from molkv_runtime.session import Session
from tests.cli.command import molkv

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import BundleOf

SMALL = ("--prompt", "16", "--generate", "8", "--depth", "0,32", "--repetitions", "3")
TESTS = ["pp16", "tg8", "pp16 @ d32", "tg8 @ d32"]


@pytest.fixture(scope="module")
def report(bundle_of: BundleOf) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        molkv("bench", bundle_of("molkv", "int8"), *SMALL, "--json").stdout
    )
    return document


def test_every_test_has_its_samples_mean_and_deviation(report: dict[str, Any]) -> None:
    assert [result["test"] for result in report["results"]] == TESTS
    for result in report["results"]:
        samples = result["samples"]
        assert len(samples) == 3
        assert min(samples) <= result["tokens_per_s_mean"] <= max(samples)
        assert 0 <= result["tokens_per_s_stdev"] <= max(samples) - min(samples)
        assert result["lookup_us_per_token"] > 0


def test_rows_and_bytes_are_those_of_the_tokens_that_are_measured(
    report: dict[str, Any], bundle_of: BundleOf
) -> None:
    blob = Bundle.open(bundle_of("molkv", "int8")).open_experts()
    assert blob is not None
    stride = blob.layout.row_stride
    steps = [result for result in report["results"] if result["test"].startswith("tg")]
    assert [result["rows_per_token"] for result in steps] == [1, 1]
    assert report["bytes_read_per_token"] == stride
    for result in report["results"]:
        assert result["bytes_read_per_token"] == stride * result["rows_per_token"]


def test_machine_build_sizes_and_memory_are_there(
    report: dict[str, Any], bundle_of: BundleOf
) -> None:
    bundle = Bundle.open(bundle_of("molkv", "int8"))
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["processor"]
    assert set(report["build"]) == {"python", "molkv", "onnxruntime"}
    assert report["experts_bytes"] == (bundle.path / "experts.molkv").stat().st_size
    assert report["dense_bytes"] == sum(
        (bundle.path / name).stat().st_size for name in ("dense.onnx", "dense.onnx.data")
    )
    with Session(bundle) as session:
        assert report["window_bytes"] == session.window_bytes
    assert 20 << 20 < report["peak_rss_bytes"] < report["machine"]["memory_bytes"]


def test_markdown_and_csv_have_the_same_tests(bundle_of: BundleOf) -> None:
    bundle = bundle_of("molkv", "int8")
    printed = molkv("bench", bundle, *SMALL, "--output", "md").stdout.splitlines()
    lines = [line.strip("|").split("|") for line in printed if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert cells[0][:3] == ["test", "tokens/s", "±"]
    assert [row[0] for row in cells[2:]] == TESTS
    table = list(csv.DictReader(io.StringIO(molkv("bench", bundle, *SMALL, "-o", "csv").stdout)))
    assert [row["test"] for row in table] == TESTS
    assert all(float(row["tokens_per_s_mean"]) > 0 for row in table)


def test_a_test_that_the_context_has_no_room_for_is_skipped_and_named(bundle_of: BundleOf) -> None:
    result = molkv(
        "bench", bundle_of("molkv"), "-p", "90", "-n", "8", "-d", "0,16", "--json", "-r", "1"
    )
    document = json.loads(result.stdout)
    assert [entry["test"] for entry in document["results"]] == ["pp90", "tg8", "tg8 @ d16"]
    assert document["skipped"] == ["pp90 @ d16"]


@pytest.mark.parametrize(("page_cache", "drops"), [("cold", 6), ("warm", 0)])
def test_a_cold_page_cache_is_dropped_before_every_sample(
    bundle_of: BundleOf, page_cache: Any, drops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    advice: list[int] = []
    advise = os.posix_fadvise

    def count(descriptor: int, offset: int, length: int, advised: int) -> None:
        advice.append(advised)
        advise(descriptor, offset, length, advised)

    config = BenchConfig((16,), (8,), (0,), repetitions=3, page_cache=page_cache)
    with Session(Bundle.open(bundle_of("molkv", "int8"))) as session:
        monkeypatch.setattr(os, "posix_fadvise", count)
        report = benchmark(session, config).to_json()
    assert advice == [os.POSIX_FADV_DONTNEED] * drops
    assert report["page_cache"] == page_cache
    assert all(result["bytes_read_per_token"] > 0 for result in report["results"])


def test_a_dense_model_is_measured_without_lookup(bundle_of: BundleOf) -> None:
    document = json.loads(molkv("bench", bundle_of("dense"), *SMALL, "--json").stdout)
    assert document["experts"] is None
    assert document["lookup_us_per_token"] == document["bytes_read_per_token"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prompt", "many"), "--prompt is 'many'"),
        (("--prompt", "0"), "prompts has 0"),
        (("--prompt", "900", "--generate", "900"), "no test fits the context of 96 tokens"),
        (("--engine", "reference", "--experts-mode", "resident"), "reads expert rows from storage"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    bundle_of: BundleOf, arguments: tuple[str, ...], message: str
) -> None:
    assert message in molkv("bench", bundle_of("molkv"), *arguments, code=2).stderr


def test_the_mode_that_is_taken_is_printed(bundle_of: BundleOf) -> None:
    folder = bundle_of("molkv", "int8")
    modes = {}
    for mode in ("storage", "resident", "auto"):
        result = molkv("run", folder, "--ids", "1 2 3", "--max-tokens", "4", "--experts-mode", mode)
        (line,) = (line for line in result.stderr.splitlines() if line.startswith("experts: "))
        modes[mode] = line.split()[1].rstrip(",")
    assert (folder / "experts.molkv").stat().st_size <= RESIDENT_BYTES
    assert modes == {"storage": "storage", "resident": "resident", "auto": "resident"}


def test_a_mode_that_does_not_exist_is_refused(bundle_of: BundleOf) -> None:
    mode: Any = "cached"
    with pytest.raises(UsageError, match="experts_mode is 'cached'"):
        Session(Bundle.open(bundle_of("molkv")), experts_mode=mode)


def test_resident_experts_read_nothing_while_they_run(bundle_of: BundleOf, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle_of("molkv"), folder)
    with (
        Session(Bundle.open(folder), experts_mode="storage") as stored,
        Session(Bundle.open(folder), experts_mode="resident") as resident,
    ):
        expected = [token.id for token in stored.generate([5, 6, 7], max_new_tokens=24)]
        stored.reset()
        os.truncate(folder / "experts.molkv", 0)
        assert [token.id for token in resident.generate([5, 6, 7], max_new_tokens=24)] == expected
        with pytest.raises(MolkvError, match=r"experts\.molkv"):
            list(stored.generate([5, 6, 7], max_new_tokens=24))
