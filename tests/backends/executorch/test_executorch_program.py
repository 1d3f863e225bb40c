"""What a program says about itself, and what is said where it cannot run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import BundleError, NativeLibraryError, UsageError
from molkv_runtime.executorch_runtime import ExecutorchRuntime, load_executorch
from molkv_runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.backends.executorch.conftest import ProgramBundleOf


@pytest.fixture
def copied(program_bundle_of: ProgramBundleOf, tmp_path: Path) -> Path:
    """A bundle to damage."""
    return shutil.copytree(program_bundle_of("dense"), tmp_path / "bundle")


def open_session(folder: Path) -> Session:
    return Session(Bundle.open(folder, verify_checksums=False), backend="executorch", threads=1)


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    edit(manifest)
    file.write_text(json.dumps(manifest))


def test_limits_and_identity_can_be_read_from_the_program(
    program_bundle_of: ProgramBundleOf,
) -> None:
    folder = program_bundle_of("mole")
    manifest, program = (
        Bundle.open(folder).manifest,
        load_executorch().load_program(folder / "dense.pte"),
    )
    metadata = json.loads(program.load_method("molkv_metadata").call([])[0])
    entry = manifest.backends["executorch"]
    limits = msgspec.to_builtins(entry.limits)
    assert limits == {"chunk": 128, "context": 160, "cache_tokens": 160, "window": 1}
    assert json.loads(metadata["molkv.limits"]) == limits
    assert metadata["molkv.identity"] == manifest.identity
    assert metadata["molkv.experts"] == "f16"
    assert metadata["molkv.dense"] == "fp32"


def test_the_manifest_lists_operators_delegates_and_producers(
    program_bundle_of: ProgramBundleOf,
) -> None:
    manifest = Bundle.open(program_bundle_of("molkv")).manifest
    entry = manifest.backends["executorch"]
    assert {
        "llama::custom_sdpa.out",
        "llama::update_cache.out",
        "molkv::expert_attention.out",
    } <= set(entry.operators)
    assert entry.delegates == ["XnnpackBackend"]
    assert {"executorch", "torchao", "onnxruntime"} <= set(manifest.producer)
    assert "molkv::expert_attention.out" not in (
        Bundle.open(program_bundle_of("dense")).manifest.backends["executorch"].operators
    )


@pytest.mark.parametrize(
    ("operator", "library"),
    [
        ("aten::no_such_operator.out", "kernel libraries"),
        ("molkv::no_such_operator.out", "molkv's kernel library"),
        ("llama::no_such_operator.out", "libcustom_ops_aot_lib"),
    ],
)
def test_a_missing_operator_is_named_with_the_library_that_brings_it(
    copied: Path, operator: str, library: str
) -> None:
    def require(manifest: dict[str, Any]) -> None:
        manifest["backends"]["executorch"]["operators"][operator] = 1

    edit_manifest(copied, require)
    with pytest.raises(NativeLibraryError, match=library) as caught:
        open_session(copied)
    assert operator in str(caught.value)
    assert "executorch" in caught.value.fix


def test_a_missing_delegate_is_named(copied: Path) -> None:
    def require(manifest: dict[str, Any]) -> None:
        manifest["backends"]["executorch"]["delegates"] = ["NoSuchBackend"]

    edit_manifest(copied, require)
    with pytest.raises(NativeLibraryError, match="NoSuchBackend"):
        open_session(copied)


@pytest.mark.parametrize("damage", ["cut", "another version", "empty"])
def test_a_program_that_cannot_be_loaded_is_refused(copied: Path, damage: str) -> None:
    file = copied / "dense.pte"
    content = bytearray(file.read_bytes())
    if damage == "another version":
        content[4:8] = b"ET99"
    else:
        del content[len(content) // 2 if damage == "cut" else 0 :]
    file.write_bytes(content)
    edit_manifest(copied, lambda manifest: set_size(manifest, len(content)))
    with pytest.raises(BundleError, match=r"dense\.pte: ExecuTorch \S+ cannot load it"):
        open_session(copied)


def set_size(manifest: dict[str, Any], size: int) -> None:
    for entry in manifest["files"]:
        if entry["name"] == "dense.pte":
            entry["bytes"] = size


def test_another_checkpoints_program_is_refused(copied: Path) -> None:
    edit_manifest(copied, lambda manifest: manifest.update(identity="0" * 64))
    with pytest.raises(BundleError, match=r"dense\.pte: identity is"):
        open_session(copied)


def test_a_program_of_another_precision_is_refused(copied: Path) -> None:
    edit_manifest(copied, lambda manifest: manifest["backends"]["executorch"].update(dense="int4"))
    with pytest.raises(BundleError, match=r"dense\.pte: dense is fp32, the manifest says int4"):
        open_session(copied)


@pytest.mark.parametrize(
    "limits", [None, {"chunk": 4096, "context": 96, "cache_tokens": 96, "window": 0}]
)
def test_a_manifest_with_other_limits_is_refused(
    copied: Path, limits: dict[str, int] | None
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["backends"]["executorch"]["limits"] = limits

    edit_manifest(copied, change)
    with pytest.raises(BundleError, match="limits"):
        open_session(copied)


def test_a_bundle_without_a_program_says_how_to_get_one(copied: Path) -> None:
    with pytest.raises(BundleError, match="has no onnx graph, only executorch"):
        Session(Bundle.open(copied), backend="onnx")


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "executorch.extension.pybindings._C", None)
    with pytest.raises(UsageError, match=r"pip install 'molkv\[executorch\]'"):
        ExecutorchRuntime()


def test_importing_the_session_loads_neither_torch_nor_executorch() -> None:
    code = (
        "import sys, molkv_runtime.sessions.executorch\n"
        "print([n for n in ('torch', 'executorch', 'torchao') if n in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
