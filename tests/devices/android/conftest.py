"""What the Android tests share: machines, compiled code and bundles; each made on first use."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from tests.devices.android.app import App, build_app
from tests.devices.android.machines import Machine, emulated_arm64, host
from tests.devices.android.payloads import write_payloads


@pytest.fixture(scope="session")
def app() -> App:
    """The app and the library, compiled."""
    return build_app()


@pytest.fixture(scope="session")
def payloads(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Bundles, broken bundles, and what Python generates; the same folder for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "android-payloads"
    with FileLock(f"{folder}.lock"):
        if not (folder / "expected.json").exists():
            write_payloads(folder)
    return folder


@pytest.fixture(params=["x86_64", "arm64-v8a"])
def machine(request: pytest.FixtureRequest) -> Machine:
    """This machine's JVM, and an emulated one."""
    return host() if request.param == "x86_64" else emulated_arm64()
