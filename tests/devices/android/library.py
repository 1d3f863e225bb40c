"""Builds the Kotlin library, its tests, and what they run on; each once, for all workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.devices.android.toolchain import (
    DEMO,
    compile_kotlin,
    digest_of,
    kotlin_sources,
    locked,
    runtime_jars,
    test_jars,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TESTS = Path(__file__).with_name("kotlin")


@dataclass(frozen=True)
class Library:
    """Jars: the library, and its tests."""

    library: Path
    tests: Path

    @property
    def jars(self) -> list[Path]:
        """All that the tests are run with."""
        return [self.tests, self.library, *runtime_jars(), *test_jars()]


def build_library(android: Path) -> Library:
    """Compiles `:molkv` and its tests; `android` is a jar with Android's classes."""
    sources = kotlin_sources(DEMO / "molkv" / "src" / "main" / "kotlin")
    library = built(
        "molkv",
        [*sources, android],
        lambda jar: compile_kotlin(
            sources, jar, [*runtime_jars(), android], "-Xexplicit-api=strict"
        ),
    )
    tests = kotlin_sources(TESTS / "ai" / "molkv")
    tests = [test for test in tests if test.parent.name == "molkv"]
    test_jar = built(
        "molkv-tests",
        [*tests, library],
        lambda jar: compile_kotlin(
            tests,
            jar,
            [library, *runtime_jars(), *test_jars(), android],
            f"-Xfriend-paths={library}",
        ),
    )
    return Library(library, test_jar)


def number_of_tests(name: str) -> int:
    """How many a class of the library's has."""
    return (TESTS / "ai" / "molkv" / f"{name}.kt").read_text().count("    @Test\n")


def built(name: str, sources: list[Path], build: Callable[[Path], None]) -> Path:
    """A jar, built anew if what it is made from changed."""
    with locked(name) as folder:
        jar = folder / f"{digest_of(sources)}.jar"
        if not jar.exists():
            folder.mkdir(exist_ok=True)
            for old in folder.glob("*.jar"):
                old.unlink()
            build(jar)
        return jar
