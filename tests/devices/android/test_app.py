"""The app's screens and its importer, on fakes of Android's classes and its real resources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.devices.android.app import RESOURCES
from tests.devices.android.library import TESTS
from tests.devices.android.machines import host

if TYPE_CHECKING:
    from tests.devices.android.app import App

FOLDER = TESTS / "ai" / "molkv" / "demo"
CLASSES = sorted(file.stem for file in FOLDER.glob("*Test.kt"))


@pytest.mark.parametrize("name", CLASSES)
def test_every_test_of_the_app_passes(app: App, payloads: Path, tmp_path: Path, name: str) -> None:
    properties = (f"-Dmolkv.app.resources={RESOURCES}", f"-Dmolkv.app.data={tmp_path}")
    passed = host().junit(app.jars, payloads, f"ai.molkv.demo.{name}", *properties)
    assert passed == (FOLDER / f"{name}.kt").read_text().count("    @Test\n") > 0
