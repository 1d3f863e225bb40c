"""Trains one run of the study, or continues it, and writes its result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from benchmarks.paper.corpus import CorpusFacts
from benchmarks.paper.costs import (
    activated_parameters,
    bytes_per_token,
    multiply_adds,
    stored_values,
    trained_parameters,
)
from benchmarks.paper.errors import StudyError
from benchmarks.paper.results import Result, machine
from benchmarks.paper.study import Run
from molkv_model.checkpoint import load
from molkv_model.run_folder import RunFolder
from molkv_model.training import train
from molkv_model.training_config import DECISIVE, TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from molkv_model.training import TrainingProgress, TrainingResult

__all__ = ["execute", "training_config"]

logger = logging.getLogger(__name__)


def training_config(run: Run, corpus: Path, work: Path) -> TrainingConfig:
    """The settings of a run; it resumes where `work` holds its state already.

    A state of other settings, text or tokenizer is replaced, and so is one that cannot be read.

    Args:
        run: which.
        corpus: a folder that `build_corpus` made.
        work: holds a folder for every run.
    """
    scale, out = run.row.scale, work / run.name
    steps = scale.tokens // scale.batch_tokens
    config = TrainingConfig(
        model=run.row.model,
        text=(),
        corpus=corpus / "tokens.safetensors",
        tokenizer=corpus / "tokenizer.json",
        out=out,
        tokens=scale.tokens,
        batch_tokens=scale.batch_tokens,
        sequence_length=scale.sequence_length,
        learning_rate=scale.learning_rate,
        warmup_steps=scale.warmup_steps,
        seed=run.seed,
        precision=scale.precision,
        batches="once" if scale.once else "random",
        save_dtype="float32",
        evaluate_every=-(-steps // scale.evaluations),
        validation_sequences=scale.validation_sequences,
    )
    resume = _left_by(RunFolder(out).state_file) == _run_of(config)
    return dataclasses.replace(config, resume=resume, force=not resume)


def _left_by(state: Path) -> dict[str, Any] | None:
    """The run that an interrupted run's state says it is of."""
    try:
        with safe_open(state, framework="pt") as stored:
            run: dict[str, Any] = json.loads((stored.metadata() or {})["run"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    return run


def _run_of(config: TrainingConfig) -> dict[str, Any]:
    """What the state of this run would say; a test compares it with what training writes."""
    corpus, tokenizer = (
        hashlib.sha256(file.read_bytes()).hexdigest() if file is not None and file.is_file() else ""
        for file in (config.corpus, config.tokenizer)
    )
    settings = _settings(config)
    return {"model": config.model.to_json(), "text": [corpus], "tokenizer": tokenizer, **settings}


def execute(
    run: Run,
    corpus: Path,
    work: Path,
    results: Path,
    on_progress: Callable[[TrainingProgress], None] | None = None,
) -> Result | None:
    """Train the run unless `results` has it, and keep its result there.

    Under torchrun every rank calls this; the first writes and returns it, the others None.

    Raises:
        StudyError: corpus or result cannot be read, or the run's last evaluation was lost.
        TrainingError: the run cannot start or continue.
    """
    file = results / f"{run.name}.json"
    facts = CorpusFacts.read(corpus)
    config = training_config(run, corpus, work)
    if file.is_file():
        result = Result.read(file)
        same = (result.model, result.training, result.corpus)
        if same == (run.row.model.to_json(), _settings(config), facts.digest):
            return result
        logger.warning("%s is of other settings, and is made anew", file)
    trained = train(config, on_progress)
    if os.environ.get("RANK", "0") != "0":
        return None
    result = _result(run, config, facts, trained)
    result.write(file)
    shutil.rmtree(config.out / "training-state", ignore_errors=True)
    return result


def _settings(config: TrainingConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in DECISIVE}


def _result(
    run: Run, config: TrainingConfig, facts: CorpusFacts, trained: TrainingResult
) -> Result:
    lines = config.out.joinpath("metrics.jsonl").read_text(encoding="utf-8").splitlines()
    metrics = [json.loads(line) for line in lines]
    model = run.row.model
    curve = [
        [line["step"] * config.batch_tokens, line["validation_loss"]]
        for line in metrics
        if line["validation_loss"] is not None
    ]
    if not curve or curve[-1][0] != trained.tokens:
        # Killed between the last save of its state and the line behind it.
        raise StudyError(
            f"{config.out / 'metrics.jsonl'}: has no evaluation after {trained.tokens} tokens",
            fix="remove the folder and train the row again",
        )
    seconds, done = 0.0, 0
    for line in metrics:
        seconds += (line["step"] - done) * config.batch_tokens / line["tokens_per_s"]
        done = line["step"]
    return Result(
        row=run.row.name,
        title=run.row.title,
        scale=run.row.scale.name,
        seed=run.seed,
        model=model.to_json(),
        training=_settings(config),
        corpus=facts.digest,
        tokens=trained.tokens,
        validation_loss=round(trained.validation_loss, 6),
        curve=[[tokens, round(loss, 6)] for tokens, loss in curve],
        training_curve=[
            [line["step"] * config.batch_tokens, round(line["loss"], 4)] for line in metrics
        ],
        stored_values=stored_values(model),
        bytes_per_token=bytes_per_token(model),
        multiply_adds=multiply_adds(model),
        activated_parameters=activated_parameters(model),
        trained_parameters=trained_parameters(model),
        age_bias=_age_bias(config.out) if model.has_keys else None,
        machine=machine(),
        seconds=round(seconds, 1),
    )


def _age_bias(checkpoint: Path) -> list[list[float]] | None:
    """[L, W]: means over heads and experts."""
    model = load(checkpoint)
    if model.config.expert_scoring == "key":
        return None
    return [
        [round(value, 4) for value in layer.experts.bias().mean(dim=(0, 1)).tolist()]
        for layer in model.model.layers
    ]
