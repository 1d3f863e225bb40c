"""The folder of a training run: the checkpoint when it is done, and until then the run's state.

training-state/          what an interrupted run continues from: weights, moments, tokenizer
metrics.jsonl            a line of progress for every tenth step and every evaluation

The files of the checkpoint itself appear together when the run is complete.
"""

from __future__ import annotations

import json
import math
import shutil
from typing import TYPE_CHECKING

from molkv_model.errors import CheckpointError, TrainingError
from molkv_model.weight_files import read_json, write_whole

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RunFolder"]

_STATE = "training-state"
_CONFIG = "config.json"


class RunFolder:
    """Where a run keeps its files.

    Args:
        path: the folder, which need not exist.

    Attributes:
        path: the folder.
        state_file: weights and optimizer moments.
        tokenizer_file: the run's tokenizer, until the checkpoint has it too.
        metrics_file: one JSON object a line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state_file = path / _STATE / "state.safetensors"
        self.tokenizer_file = path / _STATE / "tokenizer.json"
        self.metrics_file = path / "metrics.jsonl"

    def require_free(self, *, resume: bool, force: bool) -> None:
        """Refuse a folder that a run must not write to; changes nothing.

        Raises:
            TrainingError: it holds something and neither `resume` nor `force` is on, there is
                nothing to resume, or `force` would replace something else than a run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise TrainingError(f"{self.path}: is not a folder", fix="choose another folder")
        if resume:
            if not self.state_file.is_file():
                raise TrainingError(
                    f"{self.state_file}: nothing to resume", fix="start without --resume"
                )
            return
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        if not force:
            raise TrainingError(
                f"{self.path}: exists already and is not empty",
                fix="continue its run with --resume, replace it with --force, "
                "or choose another folder",
            )
        if not self._is_run():
            raise TrainingError(
                f"{self.path}: holds neither a training run nor a checkpoint, so it will not be "
                "replaced",
                fix="choose another folder",
            )

    def begin(self) -> None:
        """Make the folder, and remove the state and metrics of an earlier run.

        An earlier checkpoint stays until this run has one to replace it.
        """
        shutil.rmtree(self.path / _STATE, ignore_errors=True)
        self.metrics_file.unlink(missing_ok=True)
        (self.path / _STATE).mkdir(parents=True)

    def drop_metrics_after(self, step: int) -> None:
        """Drop the lines that an interrupted run wrote after the state it continues from."""
        if not self.metrics_file.is_file():
            return
        lines = self.metrics_file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = "".join(line for line in lines if _step_of(line) <= step)
        write_whole(self.metrics_file, lambda file: file.write_text(kept, encoding="utf-8"))

    def validation_losses(self) -> dict[int, float]:
        """Validation loss by step, of every evaluation in the metrics; empty without metrics."""
        if not self.metrics_file.is_file():
            return {}
        losses = {}
        for line in self.metrics_file.read_text(encoding="utf-8").splitlines():
            if math.isfinite(_step_of(line)):
                fields = json.loads(line)
                if fields.get("validation_loss") is not None:
                    losses[int(fields["step"])] = float(fields["validation_loss"])
        return losses

    def _is_run(self) -> bool:
        if (self.path / _STATE).is_dir():
            return True
        try:
            return read_json(self.path / _CONFIG).get("model_type") == "molkv"
        except CheckpointError:
            return False


def _step_of(line: str) -> float:
    """The step of a line of metrics; infinity for a line that was cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
