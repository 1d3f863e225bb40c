"""The few slots of ONNX Runtime's C ABI that we declare ourselves, against its own header."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path

import pytest

OURS = Path(__file__).parents[2] / "native" / "onnxruntime" / "ort_c_api.h"
# ONNX Runtime 1.29 for Unity: a package that brings the official headers.
PACKAGE = "com.github.asus4.onnxruntime@0.4.9"
HEADERS = "ios-arm64/onnxruntime.framework/Headers"


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official header beside those it includes; the package, 150 MB, is deleted."""
    folder = tmp_path_factory.mktemp("onnxruntime")
    packed = subprocess.run(
        ["npm", "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True, check=True
    )
    archive = folder / packed.stdout.split()[-1]
    with tarfile.open(archive) as package:
        for member in package:
            content = package.extractfile(member) if HEADERS in member.name else None
            if content is not None:
                (folder / Path(member.name).name).write_bytes(content.read())
    archive.unlink()
    return folder / "onnxruntime_c_api.h"


def compile_checks(official: Path, ours: Path, checks: list[str]) -> str:
    """The compiler's complaints about static assertions that see both headers."""
    lines = ["#include <cstddef>", f'#include "{official}"', f'#include "{ours}"', *checks]
    compiled = subprocess.run(
        ["c++", "-std=c++17", "-fsyntax-only", "-Wno-invalid-offsetof", "-x", "c++", "-"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    return compiled.stderr if compiled.returncode else ""


def checks_of(text: str) -> list[str]:
    """Every function's offset, every enumerator's value, every callback struct's size."""
    checks = ["static_assert(sizeof(molkv::ort::OrtCustomOp) == sizeof(::OrtCustomOp));"]
    checks += ["static_assert(molkv::ort::kApiVersion <= ORT_API_VERSION);"]
    for struct in ("OrtApi", "OrtApiBase", "OrtCustomOp"):
        body = re.search(rf"struct {struct} {{(.*?)\n}};", text, re.DOTALL)
        assert body is not None
        fields = re.findall(r"\(\*(\w+)\)\(", re.sub(r"void \(\*work\)\(", "", body[1]))
        fields += re.findall(r"^  (?:uint32_t|Unused) (\w+);", body[1], re.MULTILINE)
        checks += [
            f"static_assert(offsetof(molkv::ort::{struct}, {field}) == "
            f'offsetof(::{struct}, {field}), "{struct}.{field}");'
            for field in fields
        ]
    checks += [
        f'static_assert(int(molkv::ort::{name}) == {value} && int(::{name}) == {value}, "{name}");'
        for name, value in re.findall(
            r"^  ((?:ORT|ONNX|INPUT|Ort)\w+) = (\d+),", text, re.MULTILINE
        )
    ]
    return checks


def test_our_declarations_match_the_official_header(official: Path) -> None:
    checks = checks_of(OURS.read_text(encoding="utf-8"))
    assert len(checks) > 50
    assert compile_checks(official, OURS, checks) == ""


@pytest.mark.parametrize(
    ("declared", "instead"),
    [
        ("Unused unused_52[8];", "Unused unused_52[9];"),
        ("ORT_NOT_IMPLEMENTED = 9", "ORT_NOT_IMPLEMENTED = 8"),
        ("  Unused GetAliasMap;\n", ""),
    ],
)
def test_a_wrong_declaration_is_noticed(
    official: Path, tmp_path: Path, declared: str, instead: str
) -> None:
    text = OURS.read_text(encoding="utf-8")
    assert declared in text
    wrong = tmp_path / "wrong.h"
    wrong.write_text(text.replace(declared, instead), encoding="utf-8")
    assert "static assertion failed" in compile_checks(
        official, wrong, checks_of(wrong.read_text(encoding="utf-8"))
    )
