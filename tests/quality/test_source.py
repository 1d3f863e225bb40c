"""The house rules that tools can check; for each tool, a control that breaks one of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = [ROOT / "model", ROOT / "export", ROOT / "runtime_py"]
CPP_SUFFIXES = {".h", ".hpp", ".cc", ".cpp"}
MODULE_LINES = 400


def run_tool(
    *command: str, stdin: str | None = None, import_path: str = ""
) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).parent / command[0]
    return subprocess.run(
        [str(tool), *command[1:]],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": import_path},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def source_files(suffixes: set[str]) -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.suffix in suffixes and path.is_file()]


def test_ruff_finds_nothing() -> None:
    result = run_tool("ruff", "check")
    assert result.returncode == 0, result.stdout


def test_ruff_objects_to_an_undocumented_function_that_prints() -> None:
    name = "--stdin-filename=model/molkv_model/example.py"
    result = run_tool("ruff", "check", name, "-", stdin="def greet():\n    print('hello')\n")
    assert result.returncode != 0
    assert {"D103", "T201"} <= set(re.findall(r"[A-Z]+\d+", result.stdout))


def test_ruff_format_would_change_nothing() -> None:
    result = run_tool("ruff", "format", "--check")
    assert result.returncode == 0, result.stdout


def test_ruff_format_objects_to_bad_layout() -> None:
    result = run_tool("ruff", "format", "--check", "--stdin-filename=a.py", "-", stdin="a=1\n")
    assert result.returncode != 0


def test_mypy_strict_passes() -> None:
    result = run_tool("mypy")
    assert result.returncode == 0, result.stdout


def test_mypy_objects_to_a_function_without_types(tmp_path: Path) -> None:
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    alone, count = re.subn(r'^packages = \["molkv_.*\n', "", settings, flags=re.MULTILINE)
    assert count == 1
    (tmp_path / "pyproject.toml").write_text(alone)
    (tmp_path / "example.py").write_text("def double(x):\n    return 2 * x\n")
    configuration = f"--config-file={tmp_path / 'pyproject.toml'}"
    result = run_tool("mypy", configuration, str(tmp_path / "example.py"))
    assert result.returncode != 0
    assert "no-untyped-def" in result.stdout


def test_imports_run_one_way() -> None:
    result = run_tool("lint-imports", "--no-cache")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("model", "example_runtime"),
        ("model", "example_export"),
        ("runtime", "torch"),
        ("runtime", "example_export"),
    ],
)
def test_the_import_contracts_object_to_a_wrong_import(
    tmp_path: Path, importer: str, imported: str
) -> None:
    """The same contracts, over three packages of which one imports what it must not."""
    contracts = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(contracts.replace("molkv_", "example_"))
    for name in ("model", "export", "runtime"):
        package = tmp_path / f"example_{name}"
        package.mkdir()
        (package / "__init__.py").write_text(f"import {imported}\n" if name == importer else "")
    configuration = f"--config={tmp_path / 'pyproject.toml'}"
    result = run_tool("lint-imports", "--no-cache", configuration, import_path=str(tmp_path))
    assert result.returncode != 0
    assert f"example_{importer} is not allowed to import {imported}" in result.stdout


def test_clang_format_would_change_nothing() -> None:
    files = [str(path) for path in source_files(CPP_SUFFIXES)]
    assert files
    result = run_tool("clang-format", "--dry-run", "--Werror", *files)
    assert result.returncode == 0, result.stderr


def test_clang_format_objects_to_bad_layout() -> None:
    result = run_tool(
        "clang-format", "--dry-run", "--Werror", "--assume-filename=a.cc", stdin="int  a ( ) ;\n"
    )
    assert result.returncode != 0


def long_modules(package: Path) -> dict[str, int]:
    """Modules with too many lines, and how many they have."""
    return {
        str(path.relative_to(package)): lines
        for path in package.rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MODULE_LINES
    }


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_modules_stay_short(package: Path) -> None:
    assert any(package.rglob("*.py"))
    assert not long_modules(package)


def test_a_long_module_is_found(tmp_path: Path) -> None:
    (tmp_path / "short.py").write_text("\n" * MODULE_LINES)
    (tmp_path / "long.py").write_text("\n" * (MODULE_LINES + 1))
    assert long_modules(tmp_path) == {"long.py": MODULE_LINES + 1}


def printing_modules(package: Path) -> list[str]:
    """Modules outside of a cli folder that write to standard output or error."""
    return [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if "cli" not in path.relative_to(package).parts
        and re.search(r"sys\.std(out|err)", path.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_library_code_never_prints(package: Path) -> None:
    assert not printing_modules(package)


def test_a_module_that_prints_is_found_outside_of_cli(tmp_path: Path) -> None:
    (tmp_path / "cli").mkdir()
    for name in ("library.py", "cli/command.py"):
        (tmp_path / name).write_text("import sys\nsys.stdout.write('hello')\n")
    assert printing_modules(tmp_path) == ["library.py"]


def test_embedded_checkpoint_is_at_most_6_mb() -> None:
    folder = ROOT / "model" / "molkv_model" / "checkpoints" / "tiny"
    assert 0 < sum(path.stat().st_size for path in folder.iterdir()) <= 6_000_000
