"""A session on ExecuTorch computes what one on ONNX Runtime does, however its calls are cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from molkv_export.reference import ReferenceSession
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import ContextLengthError
from molkv_runtime.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.backends.executorch.conftest import ProgramBundleOf

TOLERANCE = 2e-5  # logits of these models have a deviation of about 1
LENGTH = 40  # five windows
FLOAT_PROGRAMS = ("molkv", "mole", "untied", "dense")


def open_session(folder: Path, **options: int) -> Session:
    bundle = Bundle.open(folder, verify_checksums=False)
    return Session(bundle, backend="executorch", threads=1, **options)


def token_ids(length: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 320, length)


@pytest.mark.parametrize("name", FLOAT_PROGRAMS)
def test_logits_are_the_torch_references_beyond_the_window_and_the_chunk(
    program_bundle_of: ProgramBundleOf, program_checkpoint_of: ProgramBundleOf, name: str
) -> None:
    folder = program_bundle_of(name)
    with open_session(folder) as session:
        ids = token_ids(session.context)
        ours = session.logits(ids)
    blob = Bundle.open(folder).open_experts()
    expected = ReferenceSession(Checkpoint(program_checkpoint_of(name)), blob).run(ids.tolist())
    assert expected.std() > 0.1
    assert np.abs(ours - expected).max() < TOLERANCE


@pytest.mark.parametrize("name", FLOAT_PROGRAMS)
def test_export_proves_its_program_on_every_rung(
    program_bundle_of: ProgramBundleOf, name: str
) -> None:
    parity = Bundle.open(program_bundle_of(name)).manifest.parity
    assert parity is not None
    assert parity.passed
    climbed = {rung.name[0] for rung in parity.rungs}
    assert climbed >= ({"4", "5", "6"} if name == "dense" else set("123456"))


def test_both_backends_of_a_bundle_give_the_same_logits(
    program_bundle_of: ProgramBundleOf,
) -> None:
    bundle, ids = Bundle.open(program_bundle_of("molkv")), token_ids(LENGTH)
    with Session(bundle, backend="onnx", threads=1) as other:
        expected = other.logits(ids)
    with Session(bundle, backend="executorch", threads=1) as session:
        assert np.abs(session.logits(ids) - expected).max() < TOLERANCE


@pytest.mark.parametrize("name", FLOAT_PROGRAMS)
def test_a_prefill_can_be_cut_anywhere(program_bundle_of: ProgramBundleOf, name: str) -> None:
    ids = token_ids(LENGTH, seed=1)
    with open_session(program_bundle_of(name)) as session:
        whole = session.logits(ids)
        for cut in range(1, LENGTH):
            session.reset()
            first, last = session.prefill(ids[:cut]), session.prefill(ids[cut:])
            assert np.abs(first - whole[cut - 1]).max() < TOLERANCE, cut
            assert np.abs(last - whole[-1]).max() < TOLERANCE, cut


@pytest.mark.parametrize("name", ["int8-weights", "int4-weights"])
def test_a_quantized_prefill_can_be_cut_anywhere(
    program_bundle_of: ProgramBundleOf, name: str
) -> None:
    """A last bit of float32's sums may move an activation to the next step of int8."""
    ids = token_ids(LENGTH, seed=1)
    with open_session(program_bundle_of(name)) as session:
        whole = session.logits(ids)
        for cut in range(1, LENGTH):
            session.reset()
            session.prefill(ids[:cut])
            last = session.prefill(ids[cut:])
            assert np.abs(last - whole[-1]).max() < 0.045 * np.abs(whole).max(), cut


@pytest.mark.parametrize("chunk", [1, 2, 7, 8, 9, 39])
def test_chunks_of_any_size_give_the_same_logits(
    program_bundle_of: ProgramBundleOf, chunk: int
) -> None:
    ids, folder = token_ids(LENGTH, seed=2), program_bundle_of("molkv")
    with open_session(folder, chunk=LENGTH) as session:
        whole = session.logits(ids)
    with open_session(folder, chunk=chunk) as session:
        assert np.abs(session.logits(ids) - whole).max() < TOLERANCE


def test_a_chunk_is_at_most_what_the_program_takes(program_bundle_of: ProgramBundleOf) -> None:
    with open_session(program_bundle_of("mole"), chunk=160) as session:
        assert session.context == 160
        assert session.chunk == 128
        assert np.isfinite(session.logits(token_ids(160))).all()


def test_prefills_steps_and_generations_continue_one_sequence(
    program_bundle_of: ProgramBundleOf,
) -> None:
    ids = token_ids(LENGTH, seed=5)
    with open_session(program_bundle_of("molkv")) as session:
        whole = session.logits(ids)
        session.reset()
        first, second = session.prefill(ids[:3]), session.prefill(ids[3:20])
        steps = [session.step(int(token)).copy() for token in ids[20:35]]
        last = session.prefill(ids[35:])
        ours = np.stack([first, second, *steps, last])
        places = [2, 19, *range(20, 35), LENGTH - 1]
        assert np.abs(ours - whole[places]).max() < TOLERANCE

        prompt = ids[:10].tolist()
        whole_text = [token.id for token in session.generate(prompt, max_new_tokens=12)]
        parts: list[int] = []
        for count in (5, 4, 3):
            following = parts[-1:] if parts else prompt
            tokens = session.generate(following, max_new_tokens=count, reset=not parts)
            parts += [token.id for token in tokens]
        assert parts == whole_text


def test_the_whole_context_can_be_filled_and_no_more(program_bundle_of: ProgramBundleOf) -> None:
    ids = token_ids(96, seed=9)
    with open_session(program_bundle_of("molkv")) as session:
        whole = session.logits(ids)
        with pytest.raises(ContextLengthError, match="96 of the context's 96"):
            session.step(0)
        session.reset()
        session.prefill(ids[:90])
        steps = [session.step(int(token)).copy() for token in ids[90:]]
        assert np.abs(np.stack(steps) - whole[90:]).max() < TOLERANCE
        session.reset()
        session.prefill(ids[:95])
        assert np.abs(session.prefill(ids[95:]) - whole[95]).max() < TOLERANCE


def test_sessions_of_one_bundle_do_not_share_a_cache(program_bundle_of: ProgramBundleOf) -> None:
    folder, ids, others = program_bundle_of("molkv"), token_ids(20), token_ids(20, seed=8)
    with open_session(folder) as alone:
        expected = alone.logits(ids)[-1]
    with open_session(folder) as one, open_session(folder) as two:
        one.prefill(ids[:10])
        two.prefill(others[:15])
        assert np.abs(one.prefill(ids[10:]) - expected).max() < TOLERANCE
        two.reset()
        assert np.abs(two.prefill(ids) - expected).max() < TOLERANCE


def test_what_left_the_expert_window_still_counts_through_the_cache(
    program_bundle_of: ProgramBundleOf,
) -> None:
    """A control: with a cache that is not written, the two prefixes could not be told apart."""
    ids = token_ids(20)
    changed = np.concatenate([(ids[:5] + 1) % 320, ids[5:]])  # the window has 8 rows
    with open_session(program_bundle_of("molkv")) as session:
        logits = []
        for sequence in (ids, changed):
            session.reset()
            session.prefill(sequence[:-1])
            logits.append(session.step(int(sequence[-1])).copy())
        assert np.abs(logits[0] - logits[1]).max() > 0.01


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_both_engines_feed_the_program(program_bundle_of: ProgramBundleOf, engine: str) -> None:
    bundle, ids = Bundle.open(program_bundle_of("molkv")), token_ids(30, seed=3)
    with Session(bundle, backend="onnx", threads=1) as other:
        expected = other.logits(ids)
    with Session(bundle, backend="executorch", engine=engine, threads=1) as session:
        assert np.abs(session.logits(ids) - expected).max() < TOLERANCE


def test_a_bundle_without_another_backend_runs_without_being_told(
    program_bundle_of: ProgramBundleOf,
) -> None:
    with Session(Bundle.open(program_bundle_of("dense")), threads=1) as session:
        assert np.isfinite(session.prefill([1, 2, 3])).all()
