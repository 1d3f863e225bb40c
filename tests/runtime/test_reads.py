"""One read of one row for each new token, by our own count and by the system's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from molkv_runtime.bundle import Bundle
from molkv_runtime.session import Session

if TYPE_CHECKING:
    from tests.conftest import BundleOf

PROMPT = [5, 9, 5, 5, 9, 250, 319, 0]
STEPS = [5, 5, 17, 319]

Read = tuple[int, int]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Read]:
    """Every positional read of a row: bytes asked for and where."""
    found: list[Read] = []
    genuine = os.preadv

    def recording(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        found.append((sum(len(buffer) for buffer in buffers), offset))
        return genuine(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", recording)
    return found


@pytest.mark.parametrize("kind", ["molkv", "mole"])
def test_decode_reads_one_row_a_token_and_prefill_each_distinct_row_of_a_chunk(
    bundle_of: BundleOf, kind: str, reads: list[Read]
) -> None:
    bundle = Bundle.open(bundle_of(kind, "int8"))
    blob = bundle.open_experts()
    assert blob is not None
    with blob:
        stride, data_offset = blob.header.row_stride, blob.header.data_offset
    with Session(bundle, engine="reference", threads=1) as session:
        reads.clear()
        session.prefill(PROMPT)
        assert reads == [
            (stride, data_offset + token_id * stride) for token_id in sorted(set(PROMPT))
        ]
        for count, token_id in enumerate(STEPS, start=1):
            reads.clear()
            session.step(token_id)
            assert reads == [(stride, data_offset + token_id * stride)]
            assert session.stats.rows_read == len(set(PROMPT)) + count
            assert session.stats.bytes_read == session.stats.rows_read * stride
        assert session.stats.decode_tokens == len(STEPS)
        assert session.stats.prefill_tokens == len(PROMPT)


def test_a_dense_model_reads_nothing(bundle_of: BundleOf, reads: list[Read]) -> None:
    bundle = Bundle.open(bundle_of("dense", "int8"))
    with Session(bundle, engine="reference", threads=1) as session:
        reads.clear()
        list(session.generate(PROMPT, max_new_tokens=4))
        assert (session.stats.rows_read, session.stats.bytes_read, session.window_bytes) == (
            0,
            0,
            0,
        )
    assert reads == []


def test_statistics_start_anew_with_reset(bundle_of: BundleOf) -> None:
    with Session(Bundle.open(bundle_of("molkv", "int8")), threads=1) as session:
        list(session.generate(PROMPT, max_new_tokens=4))
        stats = session.stats
        assert stats.decode_tokens == 3
        assert stats.time_to_first_token_ms > 0
        assert 0 < stats.lookup_seconds < stats.prefill_seconds + stats.decode_seconds
        assert stats.decode_tokens_per_s == pytest.approx(3 / stats.decode_seconds)
        session.reset()
        assert session.stats == type(stats)()
        assert session.stats.decode_tokens_per_s == session.stats.lookup_us_per_token == 0


SCRIPT = """
import json, sys
from molkv_runtime import Bundle, Session
bundle = Bundle.open(sys.argv[1])
with Session(bundle, engine=sys.argv[3], threads=1, chunk=5) as session:
    list(session.generate(json.loads(sys.argv[2]), max_new_tokens=30, stop_ids=()))
    stats = session.stats
print(json.dumps([stats.rows_read, stats.bytes_read]))
"""


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_the_system_sees_as_many_reads_as_the_statistics_say(
    bundle_of: BundleOf, tmp_path: Path, engine: str
) -> None:
    folder, traces = bundle_of("molkv", "int8"), tmp_path / "traces"
    traces.mkdir()
    program = [sys.executable, "-c", SCRIPT, str(folder), str(PROMPT), engine]
    strace = ["strace", "-ff", "-y", "-e", "trace=pread64,preadv,preadv2"]
    result = subprocess.run(
        [*strace, "-o", str(traces / "of"), *program], capture_output=True, text=True, check=True
    )
    rows_read, bytes_read = json.loads(result.stdout)
    # A file for each thread, so that no call is cut in two by another thread's:
    # preadv2(FD<PATH>, [{iov_base=..., iov_len=LENGTH}], 1, OFFSET, 0) = BYTES
    line = re.compile(
        r"pread\w*\(\d+<(?P<path>[^>]*)>.*[]\".], \d+, (?P<offset>\d+)(, 0)?\) += (?P<bytes>\d+)$"
    )
    lines = [text for trace in traces.iterdir() for text in trace.read_text().splitlines()]
    calls = [found for text in lines if (found := line.search(text))]
    of_blob = [call for call in calls if call["path"].endswith("/experts.molkv")]
    of_rows = [int(call["bytes"]) for call in of_blob if int(call["offset"]) >= 16384]
    # Opening reads the header page, once.
    assert len(of_blob) - len(of_rows) == 1
    assert len(of_rows) == rows_read == 2 + 3 + 29
    assert sum(of_rows) == bytes_read
    assert len(set(of_rows)) == 1
