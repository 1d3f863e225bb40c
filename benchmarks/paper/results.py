"""One run's result as a small JSON file: everything that tables and plots need."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.paper.errors import StudyError
from molkv_model.weight_files import write_whole

__all__ = ["RESULTS", "Result", "machine", "read_results"]

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Result:
    """What one run gave.

    Attributes:
        row: the row's name.
        title: the row's title.
        scale: the scale's name.
        seed: of weights and batches.
        model: the content of ``config.json``.
        training: the settings of the run by name.
        corpus: sha256 of the token ids.
        tokens: trained on.
        validation_loss: after the last step, nats a token.
        curve: [tokens, validation loss] of every evaluation.
        training_curve: [tokens, training loss], means over the steps between.
        stored_values: in the table's row of a token.
        bytes_per_token: of the int8 row.
        multiply_adds: of a decode step.
        activated_parameters: of a decode step.
        trained_parameters: in training.
        age_bias: by layer, the mean over heads and experts for each age; None without one.
        machine: where it ran.
        seconds: of training steps, by the clock.
    """

    row: str
    title: str
    scale: str
    seed: int
    model: dict[str, Any]
    training: dict[str, Any]
    corpus: str
    tokens: int
    validation_loss: float
    curve: list[list[float]]
    training_curve: list[list[float]]
    stored_values: int
    bytes_per_token: int
    multiply_adds: int
    activated_parameters: int
    trained_parameters: int
    age_bias: list[list[float]] | None
    machine: str
    seconds: float

    def write(self, file: Path) -> None:
        """As JSON, a field a line."""
        fields = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in asdict(self).items()
        )
        content = f"{{\n{fields}\n}}\n"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, lambda temporary: temporary.write_text(content, encoding="utf-8"))

    @classmethod
    def read(cls, file: Path) -> Result:
        """What `write` wrote.

        Raises:
            StudyError: the file cannot be read, or its fields are others.
        """
        fix = "remove it and train the row again"
        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StudyError(f"{file}: cannot be read: {error}", fix=fix) from None
        expected = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(fields, dict) or fields.keys() != expected:
            found = fields.keys() if isinstance(fields, dict) else set()
            differing = ", ".join(sorted(expected ^ found))
            raise StudyError(f"{file}: missing or unknown fields: {differing}", fix=fix)
        return cls(**fields)


def read_results(folder: Path = RESULTS) -> list[Result]:
    """All results of a folder, by name."""
    return [Result.read(file) for file in sorted(folder.glob("*.json"))]


def machine() -> str:
    """The processor or GPU, and torch's version."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        name = platform.processor() or platform.machine()
        if Path("/proc/cpuinfo").is_file():
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
            name = models[0] if models else name
        name = f"{name}, {torch.get_num_threads()} of {os.cpu_count()} threads"
    return f"{name}, torch {torch.__version__}"
