"""The library builds with both compilers, and its GoogleTest suite passes in every build."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.native.builds import KINDS, NATIVE, Builds, Processor, exported_names

HEADER = NATIVE / "include" / "molkv" / "molkv.h"
SANITIZED = {"address": "clang++", "thread": "g++"}


def run_suite(processor: Processor, build: Path, folder: Path) -> dict[str, Any]:
    """The suite's own report; each test by name, with what went wrong."""
    report = folder / "report.json"
    finished = processor.run(
        build / "tests" / "molkv_tests", "--gtest_brief=1", f"--gtest_output=json:{report}"
    )
    assert finished.returncode == 0, finished.stdout[-5000:] + finished.stderr[-5000:]
    suites = json.loads(report.read_text())["testsuites"]
    return {
        f"{suite['name']}.{test['name']}": test for suite in suites for test in suite["testsuite"]
    }


def kernels_in(report: dict[str, Any]) -> set[str]:
    """Kernels that the suite's parameterized tests ran."""
    return {name.rsplit("/", 1)[-1] for name in report if name.startswith("Attention/Kernels.")}


def test_the_suite_passes_on_every_processor_with_its_own_kernels(
    builds: Builds, processor: Processor, tmp_path: Path
) -> None:
    report = run_suite(processor, builds.build(processor.kind, "molkv_tests"), tmp_path)
    assert len(report) > 100
    assert not [name for name, test in report.items() if "failures" in test]
    kernels = kernels_in(report)
    if processor.kind == "arm64":
        dotprod = {"neondotprod"} if processor.name == "arm64 max" else set()
        assert kernels == {"scalar", "neon"} | dotprod
    else:
        assert {"scalar", "avx2"} <= kernels <= {"scalar", "avx2", "avx512"}


@pytest.mark.parametrize("kind", SANITIZED)
def test_the_suite_passes_with_sanitizers(builds: Builds, kind: str, tmp_path: Path) -> None:
    report = run_suite(Processor(kind, kind), builds.build(kind, "molkv_tests"), tmp_path)
    assert len(report) > 100


@pytest.mark.parametrize(
    ("kind", "program"),
    [
        ("address", "int main(int n, char**) { int* p = new int[n]; delete[] p; return p[0]; }"),
        ("address", "int main(int n, char**) { return 2147483647 + n == 0; }"),
        (
            "thread",
            "#include <thread>\nint shared = 0;\nint main() {"
            " std::thread other([] { ++shared; }); ++shared; other.join(); }",
        ),
    ],
)
def test_the_sanitizers_object_to_a_mistake(kind: str, program: str, tmp_path: Path) -> None:
    source, binary = tmp_path / "mistake.cc", tmp_path / "mistake"
    source.write_text(program)
    (sanitizers,) = (
        option.partition("=")[2] for option in KINDS[kind] if "MOLKV_SANITIZE" in option
    )
    flags = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-pthread", "-O1"]
    subprocess.run([SANITIZED[kind], *flags, source, "-o", binary], check=True)
    finished = Processor(kind, kind).run(binary)
    assert finished.returncode != 0
    assert "runtime error" in finished.stderr or "Sanitizer" in finished.stderr


@pytest.mark.parametrize("compiler", [["gcc", "-std=c11"], ["clang", "-std=c99"], ["c++"]])
def test_the_header_is_c_and_cpp_without_a_warning(compiler: list[str]) -> None:
    flags = ["-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{HEADER.parents[1]}"]
    language = "c++" if compiler[0] == "c++" else "c"
    subprocess.run(
        [*compiler, *flags, "-x", language, "-"],
        input='#include "molkv/molkv.h"\n#include "molkv/molkv.h"\n',
        text=True,
        check=True,
    )


def declared_functions() -> dict[str, str]:
    """Every function of the header with the comment above it."""
    text = HEADER.read_text(encoding="utf-8")
    found = re.findall(r"((?:^//.*\n)*)MOLKV_EXPORT [^;]*?\b(molkv_\w+)\(", text, re.MULTILINE)
    return {name: comment for comment, name in found}


def test_the_library_exports_what_the_header_declares_and_nothing_else(native_build: Path) -> None:
    assert exported_names(native_build / "libmolkv.so") == set(declared_functions())
    operator = native_build / "onnxruntime" / "libmolkv_ort.so"
    assert exported_names(operator) == {"RegisterCustomOps"}


def test_every_function_says_which_threads_may_call_it() -> None:
    silent = [
        name
        for name, comment in declared_functions().items()
        if not re.search(r"(Any|One) thread\b", " ".join(comment.replace("//", " ").split()))
    ]
    assert not silent
