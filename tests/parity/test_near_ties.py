"""Right models of any scale, and with ties, pass; what is recorded does not depend on rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from molkv_export import export
from molkv_export.divergence import compare_logits
from molkv_export.reference import ReferenceSession
from molkv_model.checkpoint import Checkpoint, load, save
from molkv_runtime.bundle import Bundle
from molkv_runtime.golden import LOGITS_TOLERANCE, logits_tolerance
from molkv_runtime.random_generator import SplitMix64
from molkv_runtime.sampler import SamplingConfig, select_candidates
from tests.small_models import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from molkv_model.modeling import LanguageModel
    from molkv_runtime.golden import GoldenCase
    from molkv_runtime.manifest import RungEntry
    from tests.conftest import BundleOf, CheckpointOf


def export_edited(
    source: Path, folder: Path, edit: Callable[[LanguageModel], object], experts: str = "int8"
) -> Bundle:
    """Export a checkpoint whose weights were edited."""
    model = load(source)
    with torch.no_grad():
        edit(model)
    save(model, folder / "checkpoint")
    return export(folder / "checkpoint", folder / "bundle", experts=experts)  # type: ignore[arg-type]


def rungs(bundle: Bundle) -> dict[str, RungEntry]:
    parity = bundle.manifest.parity
    assert parity is not None
    return {rung.name: rung for rung in parity.rungs}


def test_ordinary_logits_have_the_floor_and_large_ones_a_share() -> None:
    assert logits_tolerance(0.5) == logits_tolerance(3.3) == LOGITS_TOLERANCE
    assert logits_tolerance(100.0) == pytest.approx(3e-3)


@pytest.mark.parametrize("kind", ["molkv", "dense"])
def test_a_model_with_logits_a_hundred_times_as_large_passes(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, tmp_path: Path, kind: str
) -> None:
    bundle = export_edited(
        checkpoint_of(kind), tmp_path, lambda model: model.model.norm.weight.mul_(100)
    )
    ordinary = Bundle.open(bundle_of(kind, "int8")).load_golden().cases[0]
    scaled = bundle.load_golden().cases[0]
    largest = scaled.logits.values[0]
    assert largest == pytest.approx(100 * ordinary.logits.values[0], rel=1e-3)
    assert scaled.logits_tolerance > 20 * ordinary.logits_tolerance
    assert bundle.manifest.parity is not None
    assert bundle.manifest.parity.passed
    # A limit that does not scale would have refused it.
    assert rungs(bundle)["5 logits: max-abs to torch"].figure > LOGITS_TOLERANCE


def test_an_error_of_the_scaled_tolerance_still_fails(
    checkpoint_of: CheckpointOf, tmp_path: Path
) -> None:
    """A control: the tolerance is a share of the logits that real mistakes exceed."""
    bundle = export_edited(
        checkpoint_of("molkv"), tmp_path, lambda model: model.model.norm.weight.mul_(100)
    )
    tolerance = bundle.load_golden().cases[0].logits_tolerance
    blob = bundle.open_experts()
    assert blob is not None
    with blob:
        ids = bundle.load_golden().cases[-1].prompt_ids
        right = ReferenceSession(Checkpoint(tmp_path / "checkpoint"), blob).run(ids)
        model = load(tmp_path / "checkpoint")
        with torch.no_grad():
            model.model.layers[1].self_attn.o_proj.weight.mul_(1.01)
        save(model, tmp_path / "perturbed")
        wrong = ReferenceSession(Checkpoint(tmp_path / "perturbed"), blob).run(ids)
    assert np.abs(right - wrong).max() > 10 * tolerance


def test_a_continuation_ends_before_an_exact_tie(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, tmp_path: Path
) -> None:
    before = Bundle.open(bundle_of("molkv", "int8")).load_golden().cases[0]
    tied = before.greedy[0]
    spare = next(i for i in range(320) if i not in {*before.prompt_ids, *before.greedy})

    def copy_row(model: LanguageModel) -> None:
        rows = model.model.embed_tokens.weight
        rows[spare] = rows[tied]

    bundle = export_edited(checkpoint_of("molkv"), tmp_path, copy_row)
    case = bundle.load_golden().cases[0]
    assert case.prompt_ids == before.prompt_ids
    assert set(case.logits.token_ids[:2]) == {tied, spare}
    assert (case.greedy, case.greedy_margin) == ([], 0.0)
    assert bundle.manifest.parity is not None
    assert bundle.manifest.parity.passed


@pytest.mark.parametrize("kind", ["molkv", "molkv-key-gelu-untied"])
def test_a_model_that_ties_everywhere_passes(
    checkpoint_of: CheckpointOf, tmp_path: Path, kind: str
) -> None:
    def pair_rows(model: LanguageModel) -> None:
        model.head_weight[1::2] = model.head_weight[0::2]

    bundle = export_edited(checkpoint_of(kind), tmp_path, pair_rows)
    assert bundle.manifest.parity is not None
    assert bundle.manifest.parity.passed
    for case in bundle.load_golden().cases:
        assert case.greedy == case.sampled.token_ids == []
    assert rungs(bundle)["5 logits: same top-1"].figure == 1


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_leads_are_above_twice_the_tolerance(bundle_of: BundleOf, kind: str) -> None:
    for case in Bundle.open(bundle_of(kind, "int8")).load_golden().cases:
        assert case.greedy_margin >= 2 * case.logits_tolerance


def chosen(case: GoldenCase, logits: np.ndarray, draws: list[float], step: int) -> tuple[int, int]:
    """The greedy token and the sampled one."""
    sampled = case.sampled
    config = SamplingConfig(sampled.temperature, sampled.top_k, sampled.top_p, sampled.min_p)
    drawn = select_candidates(logits, config).choose(draws[step])
    return int(logits.argmax()), drawn


@pytest.mark.parametrize("kind", ["molkv", "mole"])
def test_no_error_of_the_tolerance_changes_a_recorded_token(
    checkpoint_of: CheckpointOf, bundle_of: BundleOf, kind: str
) -> None:
    bundle, random = Bundle.open(bundle_of(kind, "int8")), np.random.default_rng(7)
    blob = bundle.open_experts()
    assert blob is not None
    with blob:
        reference = ReferenceSession(Checkpoint(checkpoint_of(kind)), blob)
        for case in bundle.load_golden().cases:
            generator = SplitMix64(case.sampled.seed)
            draws = [generator.next_uniform() for _ in case.sampled.token_ids]
            for which, ids in enumerate((case.greedy, case.sampled.token_ids)):
                reference.reset()
                last = reference.run(case.prompt_ids)[-1]
                for step, token_id in enumerate(ids):
                    for _ in range(4):
                        errors = random.choice([-1.0, 0.0, 1.0], len(last)).astype(np.float32)
                        wrong = last + np.float32(case.logits_tolerance) * errors
                        step_draws = draws if which else [0.0] * len(ids)
                        assert chosen(case, wrong, step_draws, step)[which] == token_id
                    last = reference.run([token_id])[-1]


def test_a_near_tie_is_no_disagreement_and_a_lead_is_one() -> None:
    reference = np.array([[1.0, 1.00005, 0.0], [1.0, 1.01, 0.0], [2.0, 2.0, 0.0]], np.float32)
    ours = np.array([[1.0, 0.99999, 0.0], [1.01, 1.0, 0.0], [2.0, 2.00001, 0.0]], np.float32)
    assert compare_logits(ours, reference, near_tie=1e-4).same_top1.tolist() == [1, 0, 1]
    assert compare_logits(ours, reference).same_top1.tolist() == [0, 0, 1]
