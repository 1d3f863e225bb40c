"""docs/native.md is true: its program compiles and runs, its tables are those of the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from molkv_runtime.blob import Blob
from tests.native.builds import CMAKE, NATIVE
from tests.native.native_text import NativeTokenizer, TextLibrary
from tests.native.tokenizer_examples import TINY_TOKENIZER

DOCUMENT = (NATIVE.parent / "docs" / "native.md").read_text(encoding="utf-8")
HEADER = (NATIVE / "include" / "molkv" / "molkv.h").read_text(encoding="utf-8")
CMAKE_LISTS = (NATIVE / "CMakeLists.txt").read_text(encoding="utf-8")
TEXT = "the people of the United States"


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)


def table_after(heading: str) -> list[list[str]]:
    """Rows of the first table below a heading, without the head."""
    _, found, text = DOCUMENT.partition(f"## {heading}\n")
    assert found
    table = re.search(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert table
    lines = table[0].splitlines()[2:]
    return [[cell.strip(" `") for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.fixture(scope="module")
def installed(native_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library as `cmake --install` leaves it."""
    prefix = tmp_path_factory.mktemp("installed")
    command = [CMAKE, "--install", native_build, "--prefix", prefix]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return prefix


@pytest.mark.parametrize("target", ["molkv::molkv", "molkv::molkv_core"])
def test_the_program_builds_against_the_installed_library_and_runs(
    installed: Path, bundle: Path, native_library: Path, target: str, tmp_path: Path
) -> None:
    (source,) = code_blocks("c")
    (tmp_path / "rows.c").write_text(source, encoding="utf-8")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(example C CXX)\n"
        "find_package(molkv REQUIRED)\nadd_executable(rows rows.c)\n"
        "target_compile_options(rows PRIVATE -std=c11 -Wall -Wextra -Wpedantic -Werror)\n"
        f"target_link_libraries(rows PRIVATE {target})\n"
        "set_target_properties(rows PROPERTIES LINKER_LANGUAGE CXX)\n"
    )
    build = tmp_path / "build"
    configure = [CMAKE, "-S", tmp_path, "-B", build, f"-DCMAKE_PREFIX_PATH={installed}"]
    for command in (configure, [CMAKE, "--build", build]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    blob, tokenizer = bundle / "experts.molkv", bundle / "tokenizer.json"
    finished = subprocess.run(
        [build / "rows", blob, tokenizer, TEXT], capture_output=True, text=True, check=True
    )
    ids = NativeTokenizer.open(TextLibrary(native_library), tokenizer).encode(TEXT)
    with Blob.open(blob) as reader:
        stride = reader.header.row_stride
        width = reader.header.geometry.experts * reader.header.geometry.value_size
    assert finished.stdout == (
        f"{len(ids)} tokens, {len(set(ids))} rows of {stride} bytes read\n"
        f"expert_values.0: {len(ids)} rows of {width} bytes\n"
    )
    refused = subprocess.run(
        [build / "rows", tokenizer, tokenizer, TEXT], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"{tokenizer}: ")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A blob and a tokenizer, as a bundle has them."""
    from molkv_export.blob_writer import BlobWriter
    from molkv_runtime.blob_header import BlobHeader
    from molkv_runtime.row_layout import DataType, RowGeometry
    from tests.format.strategies import random_rows

    folder = tmp_path_factory.mktemp("bundle")
    geometry = RowGeometry.of(
        DataType.INT8, layers=2, experts=2, key_heads=2, key_size=4, value_size=24
    )
    header = BlobHeader.of(geometry, vocabulary_size=4096, identity=bytes(32))
    with BlobWriter(folder / "experts.molkv", header) as writer:
        writer.write_rows(random_rows(geometry, 4096))
    (folder / "tokenizer.json").write_bytes(TINY_TOKENIZER.read_bytes())
    return folder


def test_the_option_table_is_what_cmake_knows() -> None:
    declared = dict(re.findall(r'^option\((MOLKV_\w+) "[^"]*" (\w+)\)', CMAKE_LISTS, re.MULTILINE))
    declared |= dict.fromkeys(
        re.findall(r'^set\((MOLKV_\w+) "" CACHE', CMAKE_LISTS, re.MULTILINE), "empty"
    )
    assert {name: default for name, default, _ in table_after("Building")} == declared
    used = {name for block in code_blocks("sh") for name in re.findall(r"-D(MOLKV_\w+)=", block)}
    assert used <= set(declared)


def test_the_kernel_table_is_the_headers_enumeration_in_the_order_of_choice() -> None:
    rows = table_after("Kernels")
    enumerated = re.findall(r"^  (MOLKV_KERNEL_\w+) = \d", HEADER, re.MULTILINE)
    assert {"MOLKV_KERNEL_BEST", *(row[1] for row in rows)} == set(enumerated)
    chosen = (NATIVE / "src" / "attention_kernels.cc").read_text(encoding="utf-8")
    order = re.search(r"for \(uint32_t better :\s*\{([^}]*)\}", chosen)
    assert order
    assert [row[1] for row in rows] == [*re.findall(r"\w+", order[1]), "MOLKV_KERNEL_SCALAR"]
    sources = "".join(path.read_text() for path in sorted((NATIVE / "src").glob("attention_*.cc")))
    for _, kernel, name, _ in rows:
        assert f'"{name}"' in sources, kernel


def test_every_function_of_the_page_is_in_the_header() -> None:
    functions = set(re.findall(r"`(molkv_\w+)\*?", DOCUMENT))
    declared = re.findall(r"\b(molkv_\w+)", HEADER)
    assert not {
        name for name in functions if not any(word.startswith(name) for word in declared)
    } - {
        "molkv_tests",
        "molkv_ort",
    }
