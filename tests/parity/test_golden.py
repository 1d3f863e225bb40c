"""Rung 6: sessions reproduce the golden tokens, and the verdict is in the manifest."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from molkv_export.verify import record_verdict, verify
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import BundleError
from molkv_runtime.golden import GOLDEN_FILE, Golden, GoldenCase
from molkv_runtime.manifest import MANIFEST_FILE, write_json
from molkv_runtime.sampler import SamplingConfig
from molkv_runtime.session import Session
from tests.bundle_changes import accept_changes
from tests.small_models import write_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import BundleOf, CheckpointOf

BUNDLES = [
    ("molkv+tokenizer", "int8"),
    ("molkv", "int4"),
    ("molkv", "f16"),
    ("molkv-key-gelu-untied", "int8"),
    ("mole", "int8"),
    ("mole", "int4"),
    ("mole-published+tokenizer", "int8"),
    ("dense", "int8"),
]


def sampling_of(case: GoldenCase) -> SamplingConfig:
    fields = msgspec.structs.asdict(case.sampled)
    del fields["token_ids"]
    return SamplingConfig(**fields)


@pytest.mark.parametrize(("name", "experts"), BUNDLES)
@pytest.mark.parametrize("chunk", [128, 5])
def test_greedy_and_sampled_tokens_are_the_golden_ones(
    bundle_of: BundleOf, name: str, experts: str, chunk: int
) -> None:
    bundle = Bundle.open(bundle_of(name, experts))
    golden = bundle.load_golden()
    assert len(golden.cases) >= 3
    assert any(len(case.prompt_ids) > 8 for case in golden.cases)
    with Session(bundle, threads=1, chunk=chunk) as session:
        for case in golden.cases:
            prompt = case.prompt_ids if case.text is None else case.text
            count = len(case.greedy)
            greedy = list(session.generate(prompt, max_new_tokens=count, stop_ids=()))
            assert [token.id for token in greedy] == case.greedy
            if case.greedy_text is not None:
                assert "".join(token.text for token in greedy) == case.greedy_text
            sampled = session.generate(
                prompt,
                max_new_tokens=len(case.sampled.token_ids),
                stop_ids=(),
                sampling=sampling_of(case),
            )
            assert [token.id for token in sampled] == case.sampled.token_ids
    # Near ties cut some short (test_near_ties.py).
    assert max(len(case.greedy) for case in golden.cases) == 64
    assert max(len(case.sampled.token_ids) for case in golden.cases) == 64


def test_prompts_of_text_are_tokenized_as_recorded(bundle_of: BundleOf) -> None:
    bundle = Bundle.open(bundle_of("molkv+tokenizer", "int8"))
    with Session(bundle, threads=1) as session:
        for case in bundle.load_golden().cases:
            assert case.text is not None
            assert session.encode(case.text) == case.prompt_ids


def test_recorded_logits_are_the_largest_in_order(bundle_of: BundleOf) -> None:
    bundle = Bundle.open(bundle_of("molkv", "f16"))
    with Session(bundle, threads=1) as session:
        for case in bundle.load_golden().cases:
            logits = session.logits(case.prompt_ids)[-1]
            recorded = case.logits
            np.testing.assert_allclose(logits[recorded.token_ids], recorded.values, atol=1e-4)
            assert recorded.values == sorted(recorded.values, reverse=True)
            assert recorded.values[0] == pytest.approx(float(logits.max()), abs=1e-4)
            assert recorded.mean == pytest.approx(float(logits.mean()), abs=1e-4)
            assert recorded.root_mean_square == pytest.approx(
                float(np.sqrt((logits.astype("f8") ** 2).mean())), abs=1e-4
            )
            assert 0 < case.greedy_margin < 100


@pytest.mark.parametrize(("name", "experts"), BUNDLES)
def test_the_verdict_is_in_the_manifest(bundle_of: BundleOf, name: str, experts: str) -> None:
    parity = Bundle.open(bundle_of(name, experts)).manifest.parity
    assert parity is not None
    assert parity.passed
    rungs = {rung.name[0] for rung in parity.rungs}
    assert rungs == ({"4", "5", "6"} if name == "dense" else set("123456"))
    names = {rung.name for rung in parity.rungs}
    assert ("6 tokenizer" in names) == ("tokenizer" in name)


def test_verify_without_the_checkpoint_compares_with_what_was_recorded(bundle_of: BundleOf) -> None:
    seen = []
    parity = verify(Bundle.open(bundle_of("molkv", "int8")), on_rung=seen.append)
    assert parity.passed
    assert parity.rungs == seen
    assert not any("to torch" in rung.name or "writer" in rung.name for rung in seen)


def test_verify_refuses_another_checkpoint(bundle_of: BundleOf, tmp_path: Path) -> None:
    other = Checkpoint(write_checkpoint(tmp_path / "other", "molkv", seed=2))
    with pytest.raises(BundleError, match="is not the checkpoint of"):
        verify(Bundle.open(bundle_of("molkv", "int8")), checkpoint=other)


FAULTS = {
    "greedy": "6 greedy tokens",
    "sampled": "6 sampled tokens",
    "logits": "5 logits: recorded",
    "row": "1 row bytes: golden = reader",
    "dequantized": "2 dequantized rows: golden = reader",
    "text": "6 tokenizer",
    "greedy_text": "6 tokenizer",
}


def with_fault(golden: Golden, fault: str) -> Golden:
    case, row = golden.cases[0], golden.rows[0]
    replace = msgspec.structs.replace
    if fault == "greedy":
        ids = [*case.greedy[:-1], (case.greedy[-1] + 1) % 320]
        case = replace(case, greedy=ids, greedy_text=None)
    elif fault == "sampled":
        case = replace(case, sampled=replace(case.sampled, seed=case.sampled.seed + 1))
    elif fault == "logits":
        values = [value + 1e-3 for value in case.logits.values]
        case = replace(case, logits=replace(case.logits, values=values))
    elif fault == "row":
        row = replace(row, bytes_sha256="0" * 64)
    elif fault == "dequantized":
        row = replace(row, dequantized_sha256="0" * 64)
    else:
        case = replace(case, **{fault: f"{getattr(case, fault)}!"})
    return replace(golden, cases=[case, *golden.cases[1:]], rows=[row, *golden.rows[1:]])


def record_golden(folder: Path, golden: Golden) -> None:
    """Replace a bundle's golden cases, as if the exporter had recorded them: checksums fit."""
    write_json(folder / GOLDEN_FILE, golden)
    accept_changes(folder, GOLDEN_FILE)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_golden_answer_fails_its_rung_and_no_other(
    bundle_of: BundleOf, tmp_path: Path, fault: str
) -> None:
    source = bundle_of("molkv+tokenizer" if "text" in fault else "molkv", "int8")
    folder = tmp_path / "bundle"
    shutil.copytree(source, folder)
    record_golden(folder, with_fault(Bundle.open(folder).load_golden(), fault))
    parity = verify(Bundle.open(folder), record=True)
    assert not parity.passed
    failed = [rung.name for rung in parity.rungs if not rung.passed]
    again = [f"{FAULTS[fault]}, reference engine"] if FAULTS[fault].startswith("6") else []
    assert failed == [FAULTS[fault], *again]
    assert Bundle.open(folder).manifest.parity == parity


@pytest.mark.parametrize("tolerance", [0.0, -1e-4])
def test_a_tolerance_that_nothing_can_meet_is_refused(
    bundle_of: BundleOf, tmp_path: Path, tolerance: float
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle_of("molkv", "int8"), folder)
    golden = Bundle.open(folder).load_golden()
    case = msgspec.structs.replace(golden.cases[0], logits_tolerance=tolerance)
    record_golden(folder, msgspec.structs.replace(golden, cases=[case]))
    with pytest.raises(BundleError, match=rf"golden.json: logits_tolerance of .* is {tolerance}"):
        Bundle.open(folder).load_golden()


def test_a_verdict_that_cannot_be_recorded_is_given_all_the_same(
    bundle_of: BundleOf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle_of("molkv", "int8"), folder)
    before = (folder / MANIFEST_FILE).read_bytes()
    # Root may write into any folder, but nobody can write a file where a folder is.
    (folder / f".{MANIFEST_FILE}.partial").mkdir()
    bundle = Bundle.open(folder)
    parity = verify(bundle, record=True)
    assert parity.passed
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{folder}: the verdict cannot be recorded: Is a directory" in caplog.text
    assert (folder / MANIFEST_FILE).read_bytes() == before
    with pytest.raises(IsADirectoryError):
        record_verdict(bundle, parity)


def test_a_verdict_with_infinite_figures_can_be_read_again(
    checkpoint_of: CheckpointOf,
    bundle_of: BundleOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle_of("molkv", "int8"), folder)

    def broken(
        self: Session, token_ids: Sequence[int], *, rows: int
    ) -> Iterator[NDArray[np.float32]]:
        for first in range(0, len(token_ids), rows):
            count = min(rows, len(token_ids) - first)
            yield np.full((count, self.model.vocab_size), np.nan, np.float32)

    monkeypatch.setattr(Session, "logits_blocks", broken)
    checkpoint = Checkpoint(checkpoint_of("molkv"))
    parity = verify(Bundle.open(folder), checkpoint=checkpoint, record=True)
    assert not parity.passed
    assert Bundle.open(folder).manifest.parity == parity
