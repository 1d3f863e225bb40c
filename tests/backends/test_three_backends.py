"""One export for all backends: one blob, one set of golden cases, three graphs, one verdict.

The input embedding is a part of the blob's rows, which all three graphs take it from.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from molkv_export.backends.catalogue import BACKENDS, choose_precisions
from molkv_export.errors import ExportError
from molkv_export.verify import verify
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import UsageError
from molkv_runtime.session import Session
from tests.bundle_changes import accept_changes
from tests.cli.command import molkv
from tests.small_models import write_checkpoint, write_tokenizer

PRECISIONS = {"onnx": "fp32", "executorch": "int8", "coreml": "palettized4"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The bundle, and what the command printed."""
    folder = tmp_path_factory.mktemp("three")
    checkpoint = write_checkpoint(
        folder / "checkpoint",
        "molkv-key-gelu-untied",
        num_hidden_layers=1,
        tokenizer=write_tokenizer(folder / "tokenizer.json"),
    )
    options = [option for name in PRECISIONS for option in ("--backend", name)]
    options += ["--dense", "executorch=int8", "--dense", "coreml=palettized4"]
    options += ["--embedding", "storage", "--json"]
    result = molkv("export", checkpoint, "--out", folder / "bundle", *options)
    return folder / "bundle", json.loads(result.stdout)


def test_all_graphs_are_there_beside_one_blob(exported: tuple[Path, dict[str, Any]]) -> None:
    manifest = Bundle.open(exported[0]).manifest
    assert {name: entry.dense for name, entry in manifest.backends.items()} == PRECISIONS
    assert manifest.experts == ["experts.molkv"]
    assert manifest.quantization.embedding == "f16"
    packages = {package for backend in BACKENDS.values() for package in backend.packages}
    assert set(manifest.producer) == {"molkv", "torch", *packages}


def test_every_graph_climbs_the_ladder_and_rows_and_tokenizer_climb_it_once(
    exported: tuple[Path, dict[str, Any]],
) -> None:
    printed = exported[1]
    assert printed["passed"]
    names = [rung["name"] for rung in printed["rungs"]]
    assert len(set(names)) == len(names)
    assert [name for name in names if name[0] in "12"] == names[:4]
    for backend in PRECISIONS:
        own = [name for name in names if name.endswith(f"({backend})")]
        assert {name[0] for name in own} == set("3456")
    assert names[-2:] == ["6 tokenizer", "6 tokenizer, reference engine"]
    assert all(name.endswith(")") for name in names[4:-2])


@pytest.mark.parametrize("backend", PRECISIONS)
def test_a_changed_tokenizer_fails_whatever_graph_is_verified(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path, backend: str
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(exported[0], folder)
    golden = json.loads((folder / "golden.json").read_bytes())
    golden["cases"][0]["greedy_text"] = "another"
    (folder / "golden.json").write_text(json.dumps(golden))
    accept_changes(folder, "golden.json")
    rungs = verify(Bundle.open(folder), backends=[backend, backend]).rungs
    failed = [rung.name for rung in rungs if not rung.passed]
    assert failed == ["6 tokenizer", "6 tokenizer, reference engine"]
    assert len({rung.name for rung in rungs}) == len(rungs)


def test_time_and_peak_memory_of_every_pass_are_printed(
    exported: tuple[Path, dict[str, Any]],
) -> None:
    passes = {entry["name"]: entry for entry in exported[1]["passes"]}
    assert list(passes) == [
        "identity",
        "expert rows",
        "onnx graph",
        "executorch graph",
        "coreml graph",
        "golden cases",
        "verify",
    ]
    assert all(entry["seconds"] > 0 for entry in passes.values())
    assert all(entry["peak_memory_bytes"] > 100 << 20 for entry in passes.values())


def test_a_session_runs_the_graph_that_is_asked_for(exported: tuple[Path, dict[str, Any]]) -> None:
    bundle = Bundle.open(exported[0])
    prompt = bundle.load_golden().cases[0].prompt_ids
    logits = {}
    for backend in (None, "onnx", "executorch"):
        with Session(bundle, backend=backend, threads=1) as session:
            logits[backend] = session.prefill(prompt).copy()
    assert (logits[None] == logits["onnx"]).all()
    assert (logits["executorch"] != logits["onnx"]).any()
    with pytest.raises(UsageError, match="backend coreml has no session in Python"):
        Session(bundle, backend="coreml")


def test_every_backend_has_its_own_precision_or_its_default() -> None:
    assert choose_precisions(["onnx", "coreml"], None) == {"onnx": "fp32", "coreml": "fp16"}
    assert choose_precisions(["executorch", "coreml"], "int4") == {
        "executorch": "int4",
        "coreml": "int4",
    }
    assert choose_precisions(list(BACKENDS), {"executorch": "int8"}) == {
        "onnx": "fp32",
        "executorch": "int8",
        "coreml": "fp16",
    }
    with pytest.raises(ExportError, match=r"fp16.*--dense onnx=fp32"):
        choose_precisions(["onnx", "executorch"], "fp16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dense", "int8", "--dense", "int4"], "--dense is int8 and int4"),
        (["--dense", "executorch=int8", "--dense", "int4"], "once for each backend"),
        (["--dense", "executorch=int8", "--dense", "executorch=int4"], "once for each backend"),
        (["--dense", "executorch=int8"], "dense is given for executorch, which is not exported"),
        (["--dense", "onnx=fp16"], "dense is 'fp16', which backend onnx does not have"),
        (["--cache", "fp16"], "cache is 'fp16', which no exported backend has"),
        (["--dense", "=fp32"], "dense is given for "),
        (["--backend", "tflite"], "backend is 'tflite'"),
    ],
)
def test_option_pairs_that_do_not_fit_are_refused(
    tmp_path: Path, options: list[str], message: str
) -> None:
    missing = tmp_path / "no-checkpoint"
    result = molkv("export", missing, "--out", tmp_path / "out", *options, code=2)
    assert message in " ".join(result.stderr.split())
    assert not list(tmp_path.iterdir())
