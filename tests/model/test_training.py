"""Training lowers the loss, repeats itself to the bit, and continues as if never interrupted."""

from __future__ import annotations

import dataclasses
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from molkv_model.corpus import TextFile, train_tokenizer
from molkv_model.errors import TrainingError
from molkv_model.modeling import LanguageModel
from molkv_model.training import TrainingProgress, learning_rate, train
from tests.model.small_models import ARCHITECTURES, small
from tests.model.training_runs import (
    STATE,
    VOCABULARY,
    assert_same_weights,
    metrics,
    settings,
    train_until,
    weights,
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_thirty_steps_lower_the_loss(architecture: str, text: Path, tmp_path: Path) -> None:
    config = settings(text, tmp_path, architecture=architecture, tokens=30 * 64, evaluate_every=10)
    seen: list[TrainingProgress] = []
    result = train(config, seen.append)
    assert [progress.step for progress in seen] == [10, 20, 30]
    assert abs(seen[0].loss - math.log(VOCABULARY)) < 0.7
    assert seen[-1].loss < seen[0].loss - 0.7
    assert result.validation_loss < math.log(VOCABULARY) - 1
    assert result.validation_loss == seen[-1].validation_loss
    assert (result.out, result.tokens) == (tmp_path, 30 * 64)
    assert result.parameters == sum(value.numel() for value in weights(tmp_path).values())


def test_metrics_are_one_json_object_a_line(text: Path, tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    train(settings(text, tmp_path), seen.append)
    assert metrics(tmp_path) == [dataclasses.asdict(progress) for progress in seen]
    assert [line["step"] for line in metrics(tmp_path)] == [4, 8, 10, 12]
    assert [line["validation_loss"] is None for line in metrics(tmp_path)] == [
        False,
        False,
        True,
        False,
    ]
    assert metrics(tmp_path)[-1]["seconds_left"] == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_seed_trains_the_same_weights_twice(
    architecture: str, text: Path, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        train(settings(text, tmp_path / name, architecture=architecture))
    assert_same_weights(tmp_path / "first", tmp_path / "second")


def test_another_seed_trains_other_weights(text: Path, tokenizer: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        train(settings(text, tmp_path / str(seed), seed=seed, tokenizer=tokenizer))
    first, second = weights(tmp_path / "0"), weights(tmp_path / "1")
    assert not torch.equal(first["model.norm.weight"], second["model.norm.weight"])


def test_every_step_sees_other_tokens_and_never_a_held_out_one(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = tmp_path / "counting.txt"
    counting.write_text(" ".join(f"{n:05d}" for n in range(2000)))
    seen: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    genuine = LanguageModel.forward

    def recording(self: LanguageModel, input_ids: torch.Tensor) -> torch.Tensor:
        seen[self.training].extend(input_ids)
        return genuine(self, input_ids)

    monkeypatch.setattr(LanguageModel, "forward", recording)
    train(settings(counting, tmp_path / "out", tokenizer=tokenizer, evaluate_every=12))
    training, held_out = ({tuple(row.tolist()) for row in seen[kind]} for kind in (True, False))
    assert len(seen[True]) == 12 * 4
    assert len(training) > 40  # four random places a step; a few may coincide
    assert not training & held_out


@pytest.mark.parametrize("interrupted_at", [4, 10])
def test_an_interrupted_run_continues_to_the_same_weights(
    interrupted_at: int, text: Path, tmp_path: Path
) -> None:
    train(settings(text, tmp_path / "whole"))
    config = settings(text, tmp_path / "resumed")
    train_until(interrupted_at, config)
    assert not (tmp_path / "resumed" / "model.safetensors").exists()
    result = train(dataclasses.replace(config, resume=True))
    assert result.tokens == config.tokens
    assert_same_weights(tmp_path / "whole", tmp_path / "resumed")
    steps = [line["step"] for line in metrics(tmp_path / "resumed")]
    assert steps == [4, 8, 10, 12]


def test_a_complete_run_resumed_does_no_step_and_reports_the_same(
    text: Path, tmp_path: Path
) -> None:
    config = settings(text, tmp_path)
    first = train(config)
    before = weights(tmp_path)
    second = train(dataclasses.replace(config, resume=True))
    assert first == second
    for name, value in weights(tmp_path).items():
        assert torch.equal(value, before[name]), name


def test_a_line_of_metrics_that_was_cut_off_is_dropped_on_resume(
    text: Path, tmp_path: Path
) -> None:
    config = settings(text, tmp_path)
    train_until(8, config)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1')
    train(dataclasses.replace(config, resume=True))
    assert [line["step"] for line in metrics(tmp_path)] == [4, 8, 10, 12]


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 1e-3},
        {"tokens": 20 * 64},
        {"seed": 5},
        {"warmup_steps": 5},
        {"sequence_length": 32},
        {"precision": "float32"},
        {"model": small(vocab_size=VOCABULARY, expert_window=6)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_resuming_with_other_settings_is_refused(
    changes: dict[str, Any], text: Path, tokenizer: Path, tmp_path: Path
) -> None:
    config = settings(text, tmp_path, tokenizer=tokenizer)
    train_until(4, config)
    with pytest.raises(TrainingError, match="other settings") as raised:
        train(dataclasses.replace(config, resume=True, **changes))
    assert str(tmp_path / STATE) in str(raised.value)


def test_resuming_with_another_text_or_tokenizer_is_refused(
    text: Path, tokenizer: Path, tmp_path: Path
) -> None:
    config = settings(text, tmp_path / "out", tokenizer=tokenizer)
    train_until(4, config)
    other = tmp_path / "other.txt"
    other.write_text(text.read_text() + " abc")
    with pytest.raises(TrainingError, match="other settings, text or tokenizer"):
        train(dataclasses.replace(config, resume=True, text=(other,)))
    smaller = tmp_path / "smaller.json"
    train_tokenizer([TextFile.read(text)], VOCABULARY - 1).save(str(smaller))
    with pytest.raises(TrainingError, match="other settings, text or tokenizer"):
        train(dataclasses.replace(config, resume=True, tokenizer=smaller))


def test_resuming_where_nothing_was_begun_is_refused(text: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"nothing to resume \(start without --resume"):
        train(settings(text, tmp_path, resume=True))


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, pickle.dumps({"step": 3})])
def test_resuming_from_a_damaged_state_is_refused(
    content: bytes, text: Path, tmp_path: Path
) -> None:
    config = settings(text, tmp_path)
    train_until(4, config)
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(TrainingError, match=r"state\.safetensors: damaged"):
        train(dataclasses.replace(config, resume=True))


def test_a_state_that_lacks_a_tensor_is_damaged(text: Path, tmp_path: Path) -> None:
    config = settings(text, tmp_path)
    train_until(4, config)
    from safetensors import safe_open

    with safe_open(tmp_path / STATE, framework="pt") as stored:
        metadata = stored.metadata()
    tensors = load_file(tmp_path / STATE)
    del tensors["exp_avg.model.norm.weight"]
    save_file(tensors, tmp_path / STATE, metadata)
    with pytest.raises(TrainingError, match=r"damaged: .*exp_avg\.model\.norm\.weight"):
        train(dataclasses.replace(config, resume=True))


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(text: Path, tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    train_tokenizer([TextFile.read(text)], VOCABULARY + 1).save(str(given))
    with pytest.raises(TrainingError, match=r"given\.json: has 281 tokens, vocab_size is 280"):
        train(settings(text, tmp_path / "out", tokenizer=given))


@pytest.mark.parametrize("content", [None, b"{}", b"\xff"])
def test_a_file_that_is_no_tokenizer_is_named(
    content: bytes | None, text: Path, tmp_path: Path
) -> None:
    given = tmp_path / "given.json"
    if content is not None:
        given.write_bytes(content)
    with pytest.raises(TrainingError, match=r"given\.json: not a tokenizer"):
        train(settings(text, tmp_path / "out", tokenizer=given))


def test_a_text_shorter_than_a_sequence_is_refused_before_the_first_step(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("abc defg " * 15)
    monkeypatch.setattr(LanguageModel, "forward", None)
    with pytest.raises(TrainingError, match=r"the held-out text has \d+ tokens, .* needs 17"):
        train(settings(short, tmp_path / "out", tokenizer=tokenizer))


def test_a_loss_that_is_not_finite_ends_the_run_and_is_not_saved(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = LanguageModel.forward
    calls = 0

    def diverging(self: LanguageModel, input_ids: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return genuine(self, input_ids) * (math.nan if calls == 7 else 1)

    monkeypatch.setattr(LanguageModel, "forward", diverging)
    config = settings(text, tmp_path, evaluate_every=6)
    with pytest.raises(TrainingError, match=r"loss is nan at step \d+ \(lower the learning rate"):
        train(config)
    assert not (tmp_path / "model.safetensors").exists()
    assert not (tmp_path / STATE).exists() or _finite(load_file(tmp_path / STATE))


def test_weights_that_diverge_in_the_last_step_are_not_saved(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = torch.optim.AdamW.step

    def diverging(self: torch.optim.AdamW) -> None:
        genuine(self)
        self.param_groups[0]["params"][0].data.fill_(math.nan)

    monkeypatch.setattr(torch.optim.AdamW, "step", diverging)
    with pytest.raises(TrainingError, match="validation loss is nan at step 1"):
        train(settings(text, tmp_path, tokens=64))
    assert not (tmp_path / "model.safetensors").exists()
    assert not (tmp_path / STATE).exists()


def test_an_absurd_learning_rate_never_leaves_weights_that_are_not_finite(
    text: Path, tmp_path: Path
) -> None:
    try:
        train(settings(text, tmp_path, learning_rate=1e30))
    except TrainingError:
        assert not (tmp_path / "model.safetensors").exists()
    else:
        assert _finite(weights(tmp_path))


def _finite(tensors: dict[str, torch.Tensor]) -> bool:
    return all(bool(value.isfinite().all()) for value in tensors.values())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tokens": 0}, "tokens is 0"),
        ({"batch_tokens": -64}, "batch_tokens is -64"),
        ({"batch_tokens": 60}, "batch_tokens 60 is not a multiple of sequence_length 16"),
        ({"sequence_length": 0}, "sequence_length is 0"),
        (
            {"sequence_length": 128, "batch_tokens": 128},
            "sequence_length 128 exceeds the context 64",
        ),
        ({"evaluate_every": 0}, "evaluate_every is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"warmup_steps": -1}, "warmup_steps is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**31}, "seed is 2147483648"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"save_dtype": "int8"}, "save_dtype is 'int8'"),
        ({"text": ()}, "no text was given"),
    ],
)
def test_a_setting_out_of_range_is_named(
    changes: dict[str, Any], named: str, text: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError) as raised:
        settings(text, tmp_path, **changes)
    assert named in str(raised.value)
    assert raised.value.fix


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_bfloat16_products_train_float32_weights(text: Path, tmp_path: Path) -> None:
    config = settings(text, tmp_path, precision="bfloat16")
    result = train(config)
    assert result.validation_loss < math.log(VOCABULARY)
    assert weights(tmp_path)["model.norm.weight"].dtype == torch.float32


def test_the_schedule_warms_up_and_falls_to_a_tenth(text: Path, tmp_path: Path) -> None:
    config = settings(text, tmp_path, tokens=1000 * 64, warmup_steps=100, learning_rate=1.0)
    rates = [learning_rate(step, config) for step in range(config.steps)]
    assert rates[0] == pytest.approx(0.01, rel=1e-3)
    assert rates[:90] == sorted(rates[:90])
    assert 0.95 < max(rates) <= 1
    assert rates[150:] == sorted(rates[150:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_two_ranks_train_the_weights_of_one(text: Path, tokenizer: Path, tmp_path: Path) -> None:
    changes = {"tokens": 4 * 64, "tokenizer": tokenizer}
    train(settings(text, tmp_path / "one", **changes))
    two = settings(text, tmp_path / "two", **changes)
    (tmp_path / "config.pickle").write_bytes(pickle.dumps(two))
    script = tmp_path / "ranks.py"
    script.write_text(
        "import pickle, sys, torch\n"
        "from pathlib import Path\n"
        "from molkv_model.training import train\n"
        "torch.set_num_threads(1)\n"
        "train(pickle.loads(Path(sys.argv[1]).read_bytes()))\n"
    )
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    finished = subprocess.run(
        [*launch, str(script), str(tmp_path / "config.pickle")],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    expected = weights(tmp_path / "one")
    for name, value in weights(tmp_path / "two").items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=0, msg=name)
    (one,), (both,) = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert both["loss"] == pytest.approx(one["loss"], abs=1e-5)
    assert both["validation_loss"] == pytest.approx(one["validation_loss"], abs=1e-5)


def test_sequences_that_do_not_divide_among_the_ranks_are_refused(
    text: Path, tmp_path: Path
) -> None:
    from molkv_model.ranks import Ranks
    from molkv_model.training import _Run

    ranks = Ranks()
    ranks.count = 3
    with pytest.raises(TrainingError, match="4 sequences a step do not divide among 3 ranks"):
        _Run(settings(text, tmp_path), ranks, None)
