"""Rungs 4 and 5: the lowered program computes the model, however a sequence is cut into calls.

Everything here evaluates the saved ``.mlpackage`` (`mil_evaluator`), states and all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from molkv_export.backends.coreml.mil_evaluator import MilProgram
from molkv_export.backends.coreml.package import DECODE, PREFILL
from molkv_export.reference import ReferenceSession
from molkv_model.checkpoint import Checkpoint
from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import ContextLengthError
from tests.backends.coreml.conftest import CHUNK

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.backends.coreml.conftest import OpenSession, PackageOf
    from tests.conftest import BundleOf, CheckpointOf

# Logits of these models have a deviation of about 1 and reach 5. float16 has 11 bits: measured,
# torch in float32 is up to 1.4e-2 away, and two ways to cut a sequence up to 6e-3.
TO_TORCH = 4e-2
BETWEEN_CUTS = 2e-2
CONTEXT = 96  # twelve windows, and three times around the ring of the window's state


def token_ids(length: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 320, length)


@pytest.fixture(scope="module")
def molkv_logits(open_session: OpenSession) -> NDArray[np.float32]:
    """Of every position of a full context, token by token."""
    return open_session("molkv").logits(token_ids(CONTEXT))


@pytest.mark.parametrize("kind", ["molkv", "molkv-key-gelu-untied", "mole", "dense"])
def test_a_full_context_has_torchs_logits_at_every_position(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, open_session: OpenSession, kind: str
) -> None:
    ids = token_ids(CONTEXT)
    blob = Bundle.open(bundle_of(kind, "int8"), verify_checksums=False).open_experts()
    expected = ReferenceSession(Checkpoint(checkpoint_of(kind)), blob).run(ids.tolist())
    assert expected.std() > 0.5
    ours = open_session(kind).logits(ids)
    assert np.abs(ours - expected).max() < TO_TORCH
    assert (ours.argmax(-1) == expected.argmax(-1)).mean() > 0.97


@pytest.mark.parametrize("length", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 33, 79, 80, 81, CONTEXT])
def test_prefill_gives_the_logits_of_the_last_token(
    open_session: OpenSession, molkv_logits: NDArray[np.float32], length: int
) -> None:
    """Up to the context's end, where a padded chunk would not fit into the cache."""
    ours = open_session("molkv").prefill(token_ids(CONTEXT)[:length])
    assert np.abs(ours - molkv_logits[length - 1]).max() < BETWEEN_CUTS


@pytest.mark.parametrize("kind", ["molkv", "mole", "dense"])
def test_a_prompt_may_be_cut_at_every_place(open_session: OpenSession, kind: str) -> None:
    session, ids = open_session(kind), token_ids(CONTEXT)[: 2 * CHUNK + 9]
    expected = session.logits(ids)[-1]
    for cut in range(1, len(ids)):
        session.reset()
        session.prefill(ids[:cut])
        assert np.abs(session.prefill(ids[cut:]) - expected).max() < BETWEEN_CUTS, cut


def test_steps_may_follow_a_prefill_of_every_length(
    open_session: OpenSession, molkv_logits: NDArray[np.float32]
) -> None:
    session, ids = open_session("molkv"), token_ids(CONTEXT)
    for length in range(1, 2 * CHUNK + 9):
        session.reset()
        session.prefill(ids[:length])
        for place in (length, length + 1):
            ours = session.step(int(ids[place]))
            assert np.abs(ours - molkv_logits[place]).max() < BETWEEN_CUTS, (length, place)


def test_generation_goes_on_after_a_second_prefill(
    open_session: OpenSession, molkv_logits: NDArray[np.float32]
) -> None:
    session, ids = open_session("molkv"), token_ids(CONTEXT)
    parts = [session.prefill(ids[:21])]
    parts += [session.step(int(token)).copy() for token in ids[21:40]]
    parts.append(session.prefill(ids[40:63]))
    parts += [session.step(int(token)).copy() for token in ids[63:70]]
    places = [20, *range(21, 40), 62, *range(63, 70)]
    assert np.abs(np.stack(parts) - molkv_logits[places]).max() < BETWEEN_CUTS


def test_the_context_can_be_filled_and_no_more(
    open_session: OpenSession, molkv_logits: NDArray[np.float32]
) -> None:
    session, ids = open_session("molkv"), token_ids(CONTEXT)
    session.prefill(ids[: CONTEXT - 3])
    for place in range(CONTEXT - 3, CONTEXT):
        ours = session.step(int(ids[place]))
        assert np.abs(ours - molkv_logits[place]).max() < BETWEEN_CUTS
    with pytest.raises(ContextLengthError, match="96 of the context's 96"):
        session.step(0)


def test_a_new_sequence_remembers_nothing_of_the_one_before(open_session: OpenSession) -> None:
    """States are not cleared, so what is left in them must be masked."""
    session, ids = open_session("molkv"), token_ids(40, seed=3)
    first = [session.prefill(ids[:20]), session.step(int(ids[20])).copy()]
    session.prefill(token_ids(60, seed=4))
    session.reset()
    again = [session.prefill(ids[:20]), session.step(int(ids[20])).copy()]
    np.testing.assert_array_equal(first, again)


def test_what_pads_a_chunk_changes_nothing(package_of: PackageOf) -> None:
    """Neither the chunk's logits nor those of the steps that follow."""
    program, random = MilProgram(package_of("molkv", "fp16")), np.random.default_rng(7)
    prefill, decode = program.function(PREFILL), program.function(DECODE)
    real, results = 5, []

    def inputs(function: str, position: int, seed: int) -> dict[str, NDArray[np.generic]]:
        source, feeds = np.random.default_rng(seed), {}
        for name, shape in program.function(function).inputs.items():
            feeds[name] = source.standard_normal(shape).astype(np.float16)
        ids = program.function(function).inputs["input_ids"]
        feeds["input_ids"] = source.integers(0, 320, ids).astype(np.int32)
        feeds["position"] = np.array([position], np.int32)
        return feeds

    chunk = inputs(PREFILL, 0, seed=1) | {"logits_index": np.array([real - 1], np.int32)}
    for padding in (0, 1):
        feeds = {name: value.copy() for name, value in chunk.items()}
        if padding:
            feeds["input_ids"][:, real:] = random.integers(0, 320, (1, CHUNK - real))
            for name in feeds:
                if name.startswith("expert_"):
                    feeds[name][real:] = 100 * random.standard_normal(feeds[name][real:].shape)
        state = decode.make_state()
        logits = [prefill.run(feeds, state)["logits"]]
        for step in range(CHUNK):  # beyond the places that the padding was written to
            given = inputs(DECODE, real + step, seed=10 + step)
            logits.append(decode.run(given, state)["logits"])
        results.append(logits)
    assert np.std(results[0]) > 0.1
    np.testing.assert_array_equal(results[0], results[1])


def test_another_token_in_the_window_changes_the_logits(open_session: OpenSession) -> None:
    """A control: logits depend on what came before, so the tests above compare something."""
    session, ids = open_session("molkv"), token_ids(30)
    changed = ids.copy()
    changed[-4] = (changed[-4] + 1) % 320
    assert np.abs(session.prefill(ids) - _fresh(session, changed)).max() > 2 * BETWEEN_CUTS


def _fresh(session: object, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    session.reset()  # type: ignore[attr-defined]
    logits: NDArray[np.float32] = session.prefill(ids)  # type: ignore[attr-defined]
    return logits
