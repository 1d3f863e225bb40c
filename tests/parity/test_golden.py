"""Rung 6: sessions reproduce the golden tokens, and the verdict is in the manifest."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from molkv_export.verify import verify
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import BundleError
from molkv_runtime.golden import GOLDEN_FILE, GoldenCase
from molkv_runtime.manifest import write_json
from molkv_runtime.sampler import SamplingConfig
from molkv_runtime.session import Session
from tests.small_models import write_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import BundleOf, CheckpointOf

BUNDLES = [
    ("molkv+tokenizer", "int8"),
    ("molkv", "f16"),
    ("molkv-key-gelu-untied", "int8"),
    ("mole", "int8"),
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
            greedy = list(session.generate(prompt, max_new_tokens=64, stop_ids=()))
            assert [token.id for token in greedy] == case.greedy
            assert len(case.greedy) == 64
            if case.greedy_text is not None:
                assert "".join(token.text for token in greedy) == case.greedy_text
            sampled = session.generate(
                prompt, max_new_tokens=64, stop_ids=(), sampling=sampling_of(case)
            )
            assert [token.id for token in sampled] == case.sampled.token_ids


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


@pytest.mark.parametrize("fault", ["greedy", "sampled", "logits", "row", "dequantized"])
def test_a_wrong_golden_answer_fails_the_verdict(
    bundle_of: BundleOf, tmp_path: Path, fault: str
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle_of("molkv", "int8"), folder)
    golden = Bundle.open(folder).load_golden()
    case, row = golden.cases[0], golden.rows[0]
    replace = msgspec.structs.replace
    if fault == "greedy":
        case = replace(case, greedy=[*case.greedy[:-1], (case.greedy[-1] + 1) % 320])
    elif fault == "sampled":
        case = replace(case, sampled=replace(case.sampled, seed=case.sampled.seed + 1))
    elif fault == "logits":
        values = [value + 1e-3 for value in case.logits.values]
        case = replace(case, logits=replace(case.logits, values=values))
    elif fault == "row":
        row = replace(row, bytes_sha256="0" * 64)
    else:
        row = replace(row, dequantized_sha256="0" * 64)
    changed = replace(golden, cases=[case, *golden.cases[1:]], rows=[row, *golden.rows[1:]])
    write_json(folder / GOLDEN_FILE, changed)
    # As if the exporter itself had recorded it: checksums fit.
    manifest = Bundle.open(bundle_of("molkv", "int8")).manifest
    content = (folder / GOLDEN_FILE).read_bytes()
    files = [
        replace(entry, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        if entry.name == GOLDEN_FILE
        else entry
        for entry in manifest.files
    ]
    write_json(folder / "manifest.json", replace(manifest, files=files))
    parity = verify(Bundle.open(folder), record=True)
    assert not parity.passed
    assert len([rung for rung in parity.rungs if not rung.passed]) == 1
    assert Bundle.open(folder).manifest.parity == parity


def test_a_verdict_with_infinite_figures_can_be_read_again(
    checkpoint_of: CheckpointOf,
    bundle_of: BundleOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle_of("molkv", "int8"), folder)

    def broken(self: Session, token_ids: object) -> object:
        return np.full((len(np.asarray(token_ids)), self.model.vocab_size), np.nan, np.float32)

    monkeypatch.setattr(Session, "logits", broken)
    checkpoint = Checkpoint(checkpoint_of("molkv"))
    parity = verify(Bundle.open(folder), checkpoint=checkpoint, record=True)
    assert not parity.passed
    assert Bundle.open(folder).manifest.parity == parity
