"""A session's arguments, texts and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from molkv_runtime.bundle import Bundle
from molkv_runtime.errors import (
    BundleError,
    ContextLengthError,
    TokenIdError,
    TokenizerError,
    UsageError,
)
from molkv_runtime.sampler import SamplingConfig
from molkv_runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import BundleOf


@pytest.fixture(scope="module", params=["native", "reference"])
def session(bundle_of: BundleOf, request: pytest.FixtureRequest) -> Iterator[Session]:
    bundle = Bundle.open(bundle_of("molkv+tokenizer", "int8"))
    with Session(bundle, engine=request.param, threads=1) as opened:
        yield opened


CALLS = ("logits", "prefill", "generate")


def call(session: Session, name: str, ids: Any) -> None:
    session.reset()
    result = getattr(session, name)(ids)
    if name == "generate":
        next(result)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("token_id", [-1, 320, 2**31, 2**63, 2**80])
def test_a_token_id_outside_the_vocabulary_is_refused(
    session: Session, name: str, token_id: int
) -> None:
    with pytest.raises(TokenIdError) as caught:
        call(session, name, [0, token_id])
    if token_id < 2**63:
        assert f"token id {token_id} is outside the vocabulary, 0 to 319" in str(caught.value)
    assert caught.value.fix
    assert session.position == 0


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("ids", [[1.5], ["a"], [[1, 2]], [[1], [2, 3]], [None], [True], 7])
def test_what_is_no_list_of_integers_is_refused(session: Session, name: str, ids: Any) -> None:
    with pytest.raises(TokenIdError) as caught:
        call(session, name, ids)
    assert caught.value.fix


@pytest.mark.parametrize("name", CALLS)
def test_an_empty_prompt_is_refused(session: Session, name: str) -> None:
    with pytest.raises(ContextLengthError, match=r"prompt is empty .*at least one token"):
        call(session, name, [])


def test_an_empty_text_is_refused(session: Session) -> None:
    with pytest.raises(ContextLengthError, match="prompt is empty"):
        next(session.generate(""))


@pytest.mark.parametrize("name", CALLS)
def test_a_prompt_longer_than_the_context_is_refused_with_the_room_left(
    session: Session, name: str
) -> None:
    with pytest.raises(ContextLengthError, match=r"97 tokens .* 0 of the context's 96 .*96 tokens"):
        call(session, name, [1] * 97)
    session.reset()
    session.prefill([1] * 90)
    with pytest.raises(ContextLengthError, match=r"90 of .*shorten the prompt to 6 tokens"):
        session.prefill([1] * 7)
    assert session.position == 90


def test_a_refused_step_leaves_the_sequence_as_it_was(session: Session) -> None:
    session.reset()
    session.prefill([1, 2, 3])
    expected = session.step(4).copy()
    session.reset()
    session.prefill([1, 2, 3])
    with pytest.raises(TokenIdError):
        session.step(320)
    np.testing.assert_array_equal(session.step(4), expected)


def test_text_without_a_tokenizer_is_refused(bundle_of: BundleOf) -> None:
    with Session(Bundle.open(bundle_of("molkv", "int8")), threads=1) as plain:
        with pytest.raises(TokenizerError, match="has no tokenizer, so it takes ids"):
            next(plain.generate("The"))
        tokens = list(plain.generate([1, 2], max_new_tokens=3))
        assert [token.text for token in tokens] == ["", "", ""]


def test_an_unknown_backend_and_a_chunk_of_nothing_are_refused(bundle_of: BundleOf) -> None:
    bundle = Bundle.open(bundle_of("molkv", "int8"))
    with pytest.raises(BundleError, match=r"no coreml graph, only onnx .*--backend coreml"):
        Session(bundle, backend="coreml")
    with pytest.raises(ContextLengthError, match="chunk is 0"):
        Session(bundle, chunk=0)


def test_an_unknown_engine_is_refused_by_name(bundle_of: BundleOf) -> None:
    with pytest.raises(UsageError, match=r"engine is 'numpy' .*native, reference"):
        Session(Bundle.open(bundle_of("molkv", "int8")), engine="numpy")


def test_text_that_utf_8_cannot_hold_is_refused(session: Session) -> None:
    with pytest.raises(TokenizerError, match=r"lone surrogate, '\\udcff', at character 3"):
        session.encode("abc\udcff")


def test_pieces_of_text_join_to_the_text_of_the_ids(session: Session) -> None:
    for seed in range(5):
        sampling = SamplingConfig(temperature=1.5, seed=seed)
        tokens = list(
            session.generate("The whale", max_new_tokens=40, sampling=sampling, stop_ids=())
        )
        assert session.tokenizer is not None
        ids = [token.id for token in tokens]
        assert len(ids) == 40
        assert "".join(token.text for token in tokens) == session.tokenizer.decode(ids)


def test_a_stop_id_ends_the_text_before_itself(session: Session) -> None:
    whole = [token.id for token in session.generate("The", max_new_tokens=10, stop_ids=())]
    stop = whole[6]
    first = whole.index(stop)
    shorter = [token.id for token in session.generate("The", max_new_tokens=10, stop_ids=[stop])]
    assert shorter == whole[:first]


@pytest.mark.parametrize("count", [0, 1])
def test_as_many_tokens_come_as_were_asked_for(session: Session, count: int) -> None:
    assert len(list(session.generate("The", max_new_tokens=count, stop_ids=()))) == count


def test_window_bytes_are_the_formula(session: Session) -> None:
    # (W - 1 + chunk) rows; a row's two layers hold int8 keys and values and float32 scales.
    assert session.window_bytes == (8 - 1 + 96) * 2 * 3 * (16 + 64 + 4 + 4)


def test_step_logits_are_one_buffer_and_prefill_logits_are_the_callers(session: Session) -> None:
    session.reset()
    first = session.prefill([1, 2])
    kept = first.copy()
    one = session.step(3)
    # A buffer of vocabulary size for every place of the window would cost megabytes.
    assert all(np.shares_memory(one, session.step(token_id)) for token_id in range(30))
    np.testing.assert_array_equal(first, kept)


def test_sessions_of_one_bundle_are_independent(bundle_of: BundleOf) -> None:
    bundle = Bundle.open(bundle_of("molkv", "int8"))
    with Session(bundle, threads=1) as one, Session(bundle, threads=2) as two:
        one.prefill([1, 2, 3])
        two.prefill([7, 8])
        ours = one.step(4).copy()
        two.step(9)
        one.reset()
        np.testing.assert_allclose(one.prefill([1, 2, 3, 4]), ours, atol=2e-5)
