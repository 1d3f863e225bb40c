"""Fuzzing, for a bounded time, from a committed corpus, under Address- and UBSanitizer."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.native.builds import NATIVE, Builds
from tests.native.fuzz_corpus import CORPUS, FOUND, inputs

SECONDS = 5
# Edges that the committed corpus alone must reach, so that it cannot rot unnoticed.
TARGETS = {"blob_header": 200, "blob_rows": 800, "tokenizer_file": 1000}
PROGRAMS = [f"{target}_fuzz" for target in TARGETS]


def fuzz(builds: Builds, target: str, *arguments: str | Path) -> str:
    """The log of libFuzzer; an input that breaks a promise fails the test and is named in it."""
    program = builds.build("address", *PROGRAMS) / "fuzz" / f"{target}_fuzz"
    finished = subprocess.run(
        ["nice", "-n", "5", program, "-rss_limit_mb=1024", "-timeout=25", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-5000:]
    return finished.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_reaches_deep_and_breaks_no_promise(builds: Builds, target: str) -> None:
    log = fuzz(builds, target, "-runs=0", CORPUS / target)
    covered = re.search(r"INITED cov: (\d+)", log)
    assert covered
    assert int(covered[1]) >= TARGETS[target]


@pytest.mark.parametrize("target", TARGETS)
def test_fuzzing_finds_nothing(builds: Builds, target: str, tmp_path: Path) -> None:
    grown = tmp_path / "grown"
    grown.mkdir()
    arguments = [f"-max_total_time={SECONDS}", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    dictionary = NATIVE / "fuzz" / f"{target}.dict"
    if dictionary.exists():
        arguments.append(f"-dict={dictionary}")
    log = fuzz(builds, target, *arguments, grown, CORPUS / target)
    runs = re.search(r"Done (\d+) runs", log)
    assert runs
    assert int(runs[1]) > 100


def test_the_corpus_is_what_the_script_writes() -> None:
    committed = {
        path.relative_to(CORPUS).as_posix(): path.read_bytes()
        for path in CORPUS.glob("*/*")
        if not path.name.startswith(FOUND)
    }
    assert committed == inputs(), "run python -m tests.native.fuzz_corpus"
    assert sum(path.stat().st_size for path in CORPUS.glob("*/*")) < 200_000


def test_a_broken_promise_is_found(tmp_path: Path) -> None:
    target = tmp_path / "broken.cc"
    target.write_text(
        '#include "fuzz_input.h"\n'
        'extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {\n'
        '  molkv::fuzz::Promise(size < 2 || data[0] != 7, "no input begins with 7");\n'
        "  return 0;\n}\n"
    )
    (tmp_path / "seed").write_bytes(b"\x07\x07")
    flags = ["-std=c++17", f"-I{NATIVE / 'fuzz'}", f"-I{NATIVE / 'src'}", f"-I{NATIVE / 'include'}"]
    # The checksum is not called, so nothing of the library is linked.
    flags += ["-O1", "-fsanitize=fuzzer", "-ffunction-sections", "-Wl,--gc-sections"]
    flags += ["-Wl,--unresolved-symbols=ignore-all"]
    subprocess.run(["clang++", *flags, target, "-o", tmp_path / "broken"], check=True)
    finished = subprocess.run(
        [tmp_path / "broken", tmp_path / "seed"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode != 0
    assert "broken promise: no input begins with 7" in finished.stderr
