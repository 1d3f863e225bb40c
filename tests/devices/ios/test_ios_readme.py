"""ios_demo/README.md is true, as far as Linux can tell."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from molkv_model.embedded import tiny_checkpoint
from tests.cli.command import molkv
from tests.devices.ios.conftest import DEMO, PACKAGE
from tests.devices.ios.swift_toolchain import BUILD, ROOT
from tests.docs.test_documents import broken_links

if TYPE_CHECKING:
    from tests.devices.ios.swift_toolchain import SwiftToolchain

FILE = DEMO / "README.md"
README = FILE.read_text(encoding="utf-8")


def test_every_link_leads_somewhere() -> None:
    assert broken_links(FILE) == []


def test_every_path_of_the_table_is_there() -> None:
    paths = re.findall(r"^\| `([\w./]+)` \|", README, re.MULTILINE)
    assert len(paths) == 7
    assert all((DEMO / path).exists() for path in paths)


def test_the_export_of_the_first_step_is_one_that_molkv_takes() -> None:
    (command,) = re.findall(r"^molkv (export .*)$", README, re.MULTILINE)
    arguments = shlex.split(command)
    assert ROOT / arguments[1] == tiny_checkpoint()
    assert arguments[-2:] == ["--out", "ios_demo/App/DefaultBundle"]
    plan = molkv(*arguments[:1], tiny_checkpoint(), *arguments[2:], "--dry-run")
    assert plan.returncode == 0, plan.stderr


def test_the_example_compiles(swift_package: SwiftToolchain, ios_folder: Path) -> None:
    (example,) = re.findall(r"^```swift\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    imported, _, body = example.partition("\n\n")
    source = ios_folder / "Example.swift"
    head = f"import Foundation\n{imported}\nfunc example(folder: URL) async throws {{\n"
    source.write_text(f"{head}{body}}}\n", encoding="utf-8")
    modules = BUILD / "debug"
    maps = [modules / "CMolkv.build" / "module.modulemap"]
    maps.append(PACKAGE / "Linux" / "COpenSSL" / "module.modulemap")
    options = [("-Xcc", f"-fmodule-map-file={path}") for path in maps]
    options.append(("-Xcc", f"-I{PACKAGE / 'native' / 'include'}"))
    flat = [word for pair in options for word in pair]
    command = ["swiftc", "-typecheck", "-swift-version", "6", "-I", modules / "Modules"]
    swift_package.done(*command, "-module-cache-path", BUILD / "cache", *flat, source)
