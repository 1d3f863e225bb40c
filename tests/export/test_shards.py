"""`--shard-size` cuts the expert blob on row boundaries, and every reader takes the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molkv_export import ExportError, export
from molkv_export.cli.export import parse_size
from molkv_export.expert_blob import blob_headers
from molkv_export.plan import make_plan
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.blob import Blob
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import UsageError
from molkv_runtime.session import Session
from tests.conftest import BundleOf, CheckpointOf
from tests.small_models import small_config


@given(
    shard_size=st.integers(17_408, 400_000),
    vocabulary=st.integers(1, 400),
    experts=st.sampled_from(["int8", "f16"]),
)
def test_no_file_is_larger_and_none_could_be_spared(
    shard_size: int, vocabulary: int, experts: str
) -> None:
    config = small_config("molkv", vocab_size=vocabulary)
    headers = blob_headers(config, experts, bytes(32), shard_size)  # type: ignore[arg-type]
    sizes = [header.file_size for header in headers]
    assert max(sizes) <= shard_size
    stride, page = headers[0].row_stride, headers[0].data_offset
    assert len(headers) == -(-vocabulary // ((shard_size - page) // stride))
    assert sum(header.row_count for header in headers) == vocabulary
    assert max(sizes) - min(sizes) <= stride


def test_a_shard_that_no_row_fits_into_is_refused_with_the_least_size() -> None:
    config = small_config("molkv")
    (whole,) = blob_headers(config, "int8", bytes(32))
    least = 16384 + whole.row_stride
    assert len(blob_headers(config, "int8", bytes(32), least)) == config.vocab_size
    for size in (least - 1, 16384, 1, 0):
        with pytest.raises(ExportError, match=rf"shard_size is {size:,} bytes") as caught:
            blob_headers(config, "int8", bytes(32), size)
        assert f"at least {least:,}" in caught.value.fix


def test_more_files_than_the_format_has_are_refused_with_the_least_size() -> None:
    config = small_config("molkv", vocab_size=250_000)
    stride = blob_headers(config, "int8", bytes(32))[0].row_stride
    with pytest.raises(ExportError, match="at most 99,999 files") as caught:
        blob_headers(config, "int8", bytes(32), 16384 + stride)
    assert f"at least {16384 + 3 * stride:,}" in caught.value.fix


def test_a_bundle_in_shards_holds_the_same_rows_and_runs_the_same(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, tmp_path: Path
) -> None:
    whole = Bundle.open(bundle_of("molkv", "int8"))
    bundle = export(checkpoint_of("molkv"), tmp_path / "bundle", shard_size=60_000)
    names = bundle.manifest.experts
    assert names == [f"experts-{n:05d}-of-{len(names):05d}.molkv" for n in range(1, len(names) + 1)]
    assert len(names) > 2
    assert {entry.name for entry in bundle.manifest.files} >= set(names)
    assert bundle.manifest.parity is not None
    assert bundle.manifest.parity.passed
    bundle.verify_files()
    ids = np.arange(320)
    with Blob.open(whole.expert_files) as one, Blob.open(bundle.expert_files) as many:
        np.testing.assert_array_equal(one.read(ids).rows, many.read(ids).rows)
    for engine in ("native", "reference"):
        texts = []
        for each in (whole, bundle):
            with Session(each, engine=engine, threads=1) as session:
                texts.append([t.id for t in session.generate([5, 9, 250], max_new_tokens=12)])
        assert texts[0] == texts[1]


def test_the_plan_lists_every_shard_with_its_size(
    checkpoint_of: CheckpointOf, tmp_path: Path
) -> None:
    checkpoint = checkpoint_of("molkv")
    plan = make_plan(Checkpoint(checkpoint), "int8", shard_size=60_000)
    bundle = export(checkpoint, tmp_path / "bundle", shard_size=60_000)
    for file in bundle.expert_files:
        assert plan.files[file.name] == file.stat().st_size
        assert file.name not in plan.estimated


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2 * 10**9),
        ("1.5 GiB", 3 << 29),
        ("512mib", 512 << 20),
        ("100kB", 100_000),
        ("16384", 16384),
        (None, None),
    ],
)
def test_sizes_are_written_as_people_write_them(text: str | None, size: int | None) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-2GB", "2TB", "2GB2", "1e9", "2 G B"])
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match=f"--shard-size is '{text}'"):
        parse_size(text)
