"""Packages of the small models; each worker lowers its own on first use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

if TYPE_CHECKING:
    from molkv_runtime.manifest import BackendEntry, Manifest
    from molkv_runtime.session import Session
    from tests.conftest import BundleOf, CheckpointOf

CHUNK = 16

PackageOf = Callable[[str, str], Path]
ManifestOf = Callable[[str, str], "Manifest"]
OpenSession = Callable[..., "Session"]


@pytest.fixture(scope="session")
def package_entries() -> dict[Path, BackendEntry]:
    """What the manifest is to say about each package."""
    return {}


@pytest.fixture(scope="session")
def package_of(
    small_models_folder: Path,
    checkpoint_of: CheckpointOf,
    package_entries: dict[Path, BackendEntry],
) -> PackageOf:
    """From a kind of small_models.KINDS and a precision to a package; not to be changed."""

    def make(kind: str, dense: str = "fp16") -> Path:
        from molkv_export.backends.coreml.package import PACKAGE, write_dense_graph
        from molkv_model.checkpoint import Checkpoint

        folder = small_models_folder / f"coreml-{kind}-{dense}"
        if not folder.exists():
            folder.mkdir()
            checkpoint = Checkpoint(checkpoint_of(kind))
            identity = checkpoint.identity().hex()
            graph = write_dense_graph(
                checkpoint, folder, "int8", identity, dense=dense, chunk=CHUNK
            )
            package_entries[folder / PACKAGE] = graph.entry
        return folder / PACKAGE

    return make


@pytest.fixture(scope="session")
def manifest_of(
    package_of: PackageOf, bundle_of: BundleOf, package_entries: dict[Path, BackendEntry]
) -> ManifestOf:
    """The manifest of a kind's bundle, had it been exported with the package."""

    def make(kind: str, dense: str = "fp16") -> Manifest:
        from molkv_runtime.bundle import Bundle

        bundle = Bundle.open(bundle_of(kind, "int8"), verify_checksums=False)
        entry = package_entries[package_of(kind, dense)]
        return msgspec.structs.replace(bundle.manifest, backends={"coreml": entry})

    return make


@pytest.fixture(scope="session")
def open_session(
    package_of: PackageOf, bundle_of: BundleOf, manifest_of: ManifestOf
) -> OpenSession:
    """A session on a kind's rows that runs its package, evaluated, or another one."""

    def make(kind: str, dense: str = "fp16", *, package: Path | None = None) -> Session:
        from molkv_export.backends.coreml.graph import CoreMLGraph
        from molkv_runtime.bundle import Bundle
        from molkv_runtime.session import Session

        bundle = Bundle.open(bundle_of(kind, "int8"), verify_checksums=False)
        graph = CoreMLGraph(package or package_of(kind, dense), manifest_of(kind, dense))
        return Session(bundle, engine="reference", graph=graph)

    return make
