"""molkv-run on emulated 64-bit ARM: what Python computes on this machine, token for token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from molkv_runtime.bundle import Bundle
from molkv_runtime.sampler import SamplingConfig
from molkv_runtime.session import Session
from tests.native.builds import emulated
from tests.native.runner import Runner, build_arm64_runner

if TYPE_CHECKING:
    from tests.conftest import BundleOf
    from tests.native.builds import Builds

TINY = Path(__file__).parents[2] / "model" / "molkv_model" / "checkpoints" / "tiny"
# One processor with everything, and one without dot products and half-precision arithmetic.
PROCESSORS = ["max", "cortex-a53"]


@pytest.fixture(params=PROCESSORS)
def runner(
    request: pytest.FixtureRequest, builds: Builds, arm64_prefix: Path, arm64_onnxruntime: Path
) -> Runner:
    emulator = emulated(request.param, arm64_prefix).emulator
    return build_arm64_runner(builds, arm64_onnxruntime, emulator)


@pytest.mark.parametrize("engine", ["native", "stock"])
@pytest.mark.parametrize(
    ("name", "experts"),
    [("molkv+tokenizer", "int8"), ("molkv", "int4"), ("molkv", "f16"), ("mole", "int8")],
)
def test_small_models_climb_the_parity_ladder(
    runner: Runner, bundle_of: BundleOf, name: str, experts: str, engine: str
) -> None:
    verdict = runner.json(bundle_of(name, experts), "--golden", "--engine", engine)
    assert verdict["passed"], verdict
    assert any(rung["name"] == "6 sampled tokens" for rung in verdict["rungs"])


@pytest.mark.parametrize(("dense", "cache"), [("int4", "int8"), ("int8", "fp32")])
def test_quantized_graphs_climb_what_can_be_compared(
    runner: Runner, bundle_of: BundleOf, dense: str, cache: str
) -> None:
    verdict = runner.json(bundle_of("molkv+tokenizer", dense=dense, cache=cache), "--golden")
    assert verdict["passed"], verdict
    assert [rung["name"] for rung in verdict["rungs"]] == [
        "1 row bytes: golden = reader",
        "2 dequantized rows: golden = reader",
        "4 prefill in chunks",
        "6 tokenizer",
    ]


def test_it_generates_what_python_generates_here(runner: Runner, bundle_of: BundleOf) -> None:
    folder, prompt = bundle_of("molkv+tokenizer", "int8"), "The whale swam past the ship"
    sampling = SamplingConfig(temperature=0.9, top_k=30, seed=11)
    with Session(Bundle.open(folder), engine="reference", threads=1) as session:
        tokens = list(session.generate(prompt, max_new_tokens=40, sampling=sampling))
    options = ("--temperature", "0.9", "--top-k", "30", "--top-p", "1", "--seed", "11")
    generated = runner.json(folder, "--prompt", prompt, "--max-new-tokens", "40", *options)
    assert generated["ids"] == [token.id for token in tokens]
    assert generated["text"] == "".join(token.text for token in tokens)


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from molkv_export import export

    folder = tmp_path_factory.mktemp("tiny") / "bundle"
    export(TINY, folder, experts="int8")
    return folder


@pytest.mark.parametrize("runner", ["max"], indirect=True)
def test_the_embedded_model_climbs_the_parity_ladder(runner: Runner, tiny_bundle: Path) -> None:
    verdict = runner.json(tiny_bundle, "--golden")
    assert verdict["passed"], verdict
