"""docs/export.md states the numbers and names that the code has."""

from __future__ import annotations

from pathlib import Path

from molkv_export import expert_blob, expert_pipeline, journal, output_folder
from molkv_export.blob_writer import blob_file_name
from molkv_model.config import preset
from molkv_runtime.row_layout import RowLayout

TEXT = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
WORDS = " ".join(TEXT.split()).replace("\N{MULTIPLICATION SIGN}", "x")


def test_memory_formula_has_the_codes_constants() -> None:
    slices, vectors = expert_blob.SLICE_BYTES >> 20, expert_blob.VECTOR_BYTES >> 20
    in_memory = expert_blob._SLICES_IN_MEMORY
    assert f"{in_memory} x {slices} MiB + (threads + 1) x {vectors} MiB" in WORDS
    assert f"the largest power of two up to {expert_blob.SLICE_ROWS:,}" in WORDS
    assert f"at most {slices} MiB and one expert's vectors at most {vectors} MiB" in WORDS
    assert expert_pipeline._SLICES_AHEAD == 2
    assert "and two are in the first two stages at once" in WORDS


def test_the_example_of_a_table_is_the_presets() -> None:
    config = preset("160m")
    stride = RowLayout.of(expert_blob.row_geometry(config, "int8")).row_stride
    assert f"{config.vocab_size:,} rows of {stride / 1024:.0f} KiB" in WORDS


def test_names_of_files_are_the_codes() -> None:
    assert f"`{journal._FOLDER}` in that folder" in WORDS
    assert output_folder._partial_prefix(Path("OUT")) in WORDS
    assert blob_file_name(0, 2).replace("00002", "0000N") in WORDS
