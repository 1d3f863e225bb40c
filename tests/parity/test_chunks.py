"""Rung 4: how a sequence is cut into calls makes no difference to its logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import ContextLengthError
from molkv_runtime.session import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.conftest import BundleOf

TOLERANCE = 2e-5  # logits of these models have a deviation of about 1
LENGTH = 40  # five windows


def open_session(folder: object, **options: int) -> Session:
    return Session(Bundle.open(str(folder), verify_checksums=False), threads=1, **options)


def token_ids(length: int, seed: int = 0) -> NDArray[np.int64]:
    # Few distinct ids, so that a chunk repeats some.
    return np.random.default_rng(seed).integers(0, 320, 12)[
        np.random.default_rng(seed + 1).integers(0, 12, length)
    ]


@pytest.mark.parametrize(
    ("kind", "experts"),
    [("molkv", "int8"), ("molkv", "int4"), ("molkv", "f16"), ("mole", "int8"), ("dense", "int8")],
)
def test_chunks_of_every_size_give_the_same_logits_at_every_position(
    bundle_of: BundleOf, kind: str, experts: str
) -> None:
    folder, ids = bundle_of(kind, experts), token_ids(LENGTH)
    with open_session(folder, chunk=LENGTH) as session:
        whole = session.logits(ids)
    assert whole.std() > 0.1
    for chunk in range(1, LENGTH):
        with open_session(folder, chunk=chunk) as session:
            assert np.abs(session.logits(ids) - whole).max() < TOLERANCE, chunk


@pytest.mark.parametrize("rows", [1, 7, 16, 100])
def test_blocks_of_few_positions_are_the_logits(bundle_of: BundleOf, rows: int) -> None:
    ids = token_ids(LENGTH)
    with open_session(bundle_of("molkv", "int8"), chunk=16) as session:
        whole = session.logits(ids)
        blocks = [block.copy() for block in session.logits_blocks(ids, rows=rows)]
    assert {len(block) for block in blocks[:-1]} == {min(rows, 16)}
    assert np.abs(np.concatenate(blocks) - whole).max() < TOLERANCE


@pytest.mark.parametrize("kind", ["molkv", "mole", "dense"])
def test_prefills_and_steps_continue_one_sequence(bundle_of: BundleOf, kind: str) -> None:
    ids = token_ids(LENGTH, seed=5)
    with open_session(bundle_of(kind, "int8")) as session:
        whole = session.logits(ids)
        session.reset()
        first = session.prefill(ids[:3])
        second = session.prefill(ids[3:20])
        steps = [session.step(int(token)).copy() for token in ids[20:35]]
        last = session.prefill(ids[35:])
        assert session.position == LENGTH
    ours = np.stack([first, second, *steps, last])
    places = [2, 19, *range(20, 35), LENGTH - 1]
    assert np.abs(ours - whole[places]).max() < TOLERANCE


@pytest.mark.parametrize("chunk", [96, 7, 1])
def test_the_whole_context_can_be_filled_and_no_more(bundle_of: BundleOf, chunk: int) -> None:
    ids = token_ids(96, seed=9)
    with open_session(bundle_of("molkv", "int8"), chunk=chunk) as session:
        whole = session.logits(ids)
        assert np.isfinite(whole).all()
        with pytest.raises(ContextLengthError, match="96 of the context's 96"):
            session.step(0)
        session.reset()
        session.prefill(ids[:90])
        steps = [session.step(int(token)).copy() for token in ids[90:]]
        assert np.abs(np.stack(steps) - whole[90:]).max() < TOLERANCE
        with pytest.raises(ContextLengthError, match="reset"):
            session.prefill([0])


def test_a_reset_session_remembers_nothing(bundle_of: BundleOf) -> None:
    ids = token_ids(30)
    with open_session(bundle_of("molkv", "int8")) as session:
        fresh = session.prefill(ids)
        session.prefill(token_ids(40, seed=3))
        session.reset()
        assert session.position == 0
        np.testing.assert_array_equal(session.prefill(ids), fresh)
        # logits and generate start a new sequence by themselves.
        np.testing.assert_allclose(session.logits(ids)[-1], fresh, atol=TOLERANCE)
        assert session.position == len(ids)


def test_generate_can_go_on_where_it_stopped(bundle_of: BundleOf) -> None:
    ids = token_ids(10).tolist()
    with open_session(bundle_of("molkv", "int8")) as session:
        whole = [token.id for token in session.generate(ids, max_new_tokens=12)]
        first = [token.id for token in session.generate(ids, max_new_tokens=5)]
        # The last token of the first part was yielded, not yet run.
        rest = session.generate(first[-1:], max_new_tokens=7, reset=False)
        assert first + [token.id for token in rest] == whole


def test_generation_ends_with_the_context(bundle_of: BundleOf) -> None:
    with open_session(bundle_of("molkv", "int8")) as session:
        tokens = list(session.generate(token_ids(90).tolist(), max_new_tokens=50))
        # Six more fit; what follows the last position is still known.
        assert len(tokens) == 7
        assert session.position == 96


def test_another_token_in_the_window_changes_the_logits(bundle_of: BundleOf) -> None:
    """A control: logits depend on what came before, so the tests above compare something."""
    ids = token_ids(LENGTH)
    changed = ids.copy()
    changed[-2] = (changed[-2] + 1) % 320
    with open_session(bundle_of("molkv", "int8")) as session:
        assert np.abs(session.logits(ids)[-1] - session.logits(changed)[-1]).max() > 0.01
