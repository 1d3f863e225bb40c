"""The native sampler chooses the tokens that Python's chooses, to the bit."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from molkv_runtime.errors import MolkvError, UsageError
from molkv_runtime.sampler import Sampler, SamplingConfig
from tests.golden.make_sampling import formula_logits
from tests.native.native_text import INVALID_ARGUMENT, NativeError, NativeSampler, TextLibrary
from tests.native.tokenizer_examples import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

GOLDEN = json.loads((ROOT / "tests" / "golden" / "sampling.json").read_text(encoding="utf-8"))
VOCABULARY_SIZE = 50_304

CONFIGS = st.fixed_dictionaries(
    {
        "temperature": st.one_of(
            st.just(0.0),
            st.floats(0.05, 3),
            st.sampled_from([5e-324, 1e-300, 1e-6, 1e6, 1.7e308]),
        ),
        "top_k": st.one_of(st.integers(0, 5), st.integers(0, 400), st.just(2**32 - 1)),
        "top_p": st.one_of(st.just(1.0), st.floats(0, 1, exclude_min=True)),
        "min_p": st.one_of(st.just(0.0), st.floats(0, 1)),
        "seed": st.integers(0, 2**64 - 1),
    }
)
SIZES = st.one_of(st.integers(1, 20), st.sampled_from([63, 64, 65, 128, 129, 1000, 3000]))
FEW_VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.0, -math.inf, 1e-45, -1e-45, 3.4e38, -3.4e38])
LOGITS = st.one_of(
    arrays.arrays(np.float32, SIZES, elements=st.floats(-30, 30, width=32)),
    arrays.arrays(np.float32, SIZES, elements=FEW_VALUES),
    arrays.arrays(np.float32, SIZES, elements=st.floats(width=32, allow_nan=True)),
    st.tuples(SIZES, st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 100])).map(
        lambda drawn: np.random.default_rng(drawn[1]).normal(0, drawn[2], drawn[0])
    ).map(lambda values: values.astype(np.float32)),
)  # fmt: skip


@pytest.fixture(scope="module")
def library(native_library: Path) -> TextLibrary:
    return TextLibrary(native_library)


def outcome(sampler: Sampler | NativeSampler, logits: NDArray[np.float32], count: int) -> object:
    try:
        return [sampler.sample(logits) for _ in range(count)]
    except (MolkvError, NativeError) as error:
        return str(error)


@settings(max_examples=800, deadline=None)
@given(CONFIGS, LOGITS)
def test_any_logits(library: TextLibrary, config: dict[str, Any], logits: Any) -> None:
    native = NativeSampler(library, **config)
    expected = outcome(Sampler(SamplingConfig(**config)), logits, 5)
    assert outcome(native, logits, 5) == expected
    native.reset()
    assert outcome(native, logits, 5) == expected


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"temperature": 0.8, "top_k": 40},
        {"temperature": 1.0, "top_k": 40, "top_p": 0.95, "min_p": 0.01},
        {"temperature": 1.3, "top_k": 1000, "top_p": 0.9},
        {"temperature": 0.7},
        {"temperature": 1.0, "top_p": 0.9, "min_p": 0.001},
    ],
    ids=str,
)
def test_logits_of_a_whole_vocabulary(
    library: TextLibrary, config: dict[str, Any], scale: float
) -> None:
    generator = np.random.default_rng(11)
    native = NativeSampler(library, seed=5, **config)
    sampler = Sampler(SamplingConfig(seed=5, **config))
    for step in range(20):
        logits = generator.normal(0, scale, VOCABULARY_SIZE).astype(np.float32)
        if step % 2:
            logits = np.round(logits, 1)  # many ties
        assert native.sample(logits) == sampler.sample(logits)


def golden_logits(name: str) -> NDArray[np.float32]:
    recipe = GOLDEN["logits"][name]
    if "bits" not in recipe:
        return formula_logits(recipe)
    return np.array([int(bits, 16) for bits in recipe["bits"]], np.uint32).view(np.float32)


@pytest.mark.parametrize("case", GOLDEN["sampling"], ids=lambda case: case["logits"])
def test_draws_of_the_golden_vectors(library: TextLibrary, case: dict[str, Any]) -> None:
    # The C++ tests read the weights too; here the tokens come through the C ABI.
    config = {name: case[name] for name in ("temperature", "top_k", "top_p", "min_p")}
    native = NativeSampler(library, **config, seed=int(case["seed"], 16))
    logits = golden_logits(case["logits"])
    assert [native.sample(logits) for _ in case["tokens"]] == case["tokens"]


@pytest.mark.parametrize(
    "settings_",
    [
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_p": math.nan},
        {"min_p": -0.5},
        {"min_p": 1.25},
        {"min_p": math.nan},
    ],
    ids=str,
)
def test_the_same_settings_are_refused_in_the_same_words(
    library: TextLibrary, settings_: dict[str, float]
) -> None:
    with pytest.raises(UsageError) as expected:
        SamplingConfig(**settings_)  # type: ignore[arg-type]
    with pytest.raises(NativeError) as caught:
        NativeSampler(library, **settings_)  # type: ignore[arg-type]
    assert caught.value.status == INVALID_ARGUMENT
    # Python writes 1 as 1.0.
    assert str(caught.value) == str(expected.value).replace(".0, and", ", and")


@pytest.mark.parametrize("struct_size", [0, 4, 39])
def test_a_struct_without_its_size_is_refused(library: TextLibrary, struct_size: int) -> None:
    with pytest.raises(NativeError, match=f"struct_size is {struct_size}, and must be at least 40"):
        NativeSampler(library, struct_size=struct_size)


def test_no_logits_are_refused(library: TextLibrary) -> None:
    with pytest.raises(NativeError, match="vocabulary_size is 0"):
        NativeSampler(library).sample(np.zeros(0, np.float32))
