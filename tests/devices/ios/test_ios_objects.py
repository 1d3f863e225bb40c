"""The C++ core compiles for arm64 iOS, as SwiftPM compiles it: no options for single files."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ziglang

from tests.devices.ios.swift_toolchain import ROOT

NATIVE = ROOT / "native"
ZIG = Path(ziglang.__file__).parent
# The Mach-O format: docs of <mach-o/loader.h> and <mach-o/nlist.h>.
MAGIC, ARM64, IOS = 0xFEEDFACF, 0x0100000C, 2
SYMBOL_TABLE, BUILD_VERSION = 0x2, 0x32
SECTION, EXTERNAL = 0x0E, 0x01


def compile_for_ios(source: Path, target: Path, *options: str) -> None:
    command = [sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-ios"]
    command += ["-isystem", str(ZIG / "lib" / "libc" / "include" / "any-darwin-any")]
    command += ["-std=c++17", "-g0", "-fno-sanitize=undefined", "-Wall", "-Wextra", "-Werror"]
    command += [f"-I{NATIVE / 'include'}", f"-I{NATIVE / 'src'}", *options]
    # What was compiled before is found again.
    cache = str(ROOT / "build" / "zig")
    finished = subprocess.run(
        [*command, "-c", str(source), "-o", str(target)],
        env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-5000:]


def load_commands(content: bytes) -> Iterator[tuple[int, int]]:
    """Of each load command its kind, and where it lies."""
    magic, processor, _, kind, count, _, _, _ = struct.unpack_from("<8I", content)
    assert (magic, processor, kind) == (MAGIC, ARM64, 1), "no object for 64-bit ARM"
    place = 32
    for _ in range(count):
        command, size = struct.unpack_from("<2I", content, place)
        yield command, place
        place += size


def platform(content: bytes) -> int:
    (place,) = (place for command, place in load_commands(content) if command == BUILD_VERSION)
    number: int = struct.unpack_from("<I", content, place + 8)[0]
    return number


def defined_names(content: bytes) -> set[str]:
    """Functions that an object defines for others."""
    names = set()
    for command, place in load_commands(content):
        if command == SYMBOL_TABLE:
            table, count, text, _ = struct.unpack_from("<4I", content, place + 8)
            for index in range(count):
                name, kind = struct.unpack_from("<IB", content, table + 16 * index)
                if kind & SECTION == SECTION and kind & EXTERNAL:
                    end = content.index(b"\0", text + name)
                    names.add(content[text + name : end].decode())
    return names


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The core's objects, by the names of their sources."""
    folder = tmp_path_factory.mktemp("ios-objects")
    sources = sorted((NATIVE / "src").glob("*.cc"))
    targets = [folder / f"{source.stem}.o" for source in sources]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_for_ios, sources, targets))
    return {target.stem: target.read_bytes() for target in targets}


def test_every_source_becomes_an_object_for_iphones(objects: dict[str, bytes]) -> None:
    assert len(objects) > 35
    assert {platform(content) for content in objects.values()} == {IOS}


def test_the_objects_define_every_function_of_the_header(objects: dict[str, bytes]) -> None:
    header = (NATIVE / "include" / "molkv" / "molkv.h").read_text(encoding="utf-8")
    declared = set(re.findall(r"^MOLKV_EXPORT [^(]*?\b(molkv_\w+)\(", header, re.MULTILINE))
    assert len(declared) > 30
    defined = set().union(*(defined_names(content) for content in objects.values()))
    assert {f"_{name}" for name in declared} <= defined


def test_no_instruction_that_an_old_iphone_lacks_is_compiled_in(
    objects: dict[str, bytes], tmp_path: Path
) -> None:
    # With its own options, the file holds the kernel; without, only the word that it has none.
    source = NATIVE / "src" / "attention_neon_dotprod.cc"
    compile_for_ios(source, tmp_path / "own.o", "-mcpu=generic+dotprod")
    with_options = (tmp_path / "own.o").read_bytes()
    without = objects["attention_neon_dotprod"]
    assert len(without) < len(with_options) / 4
    kernel = {"__ZN5molkv21kAttentionNeonDotprodE"}
    assert kernel <= defined_names(with_options)
    assert kernel <= defined_names(without)
