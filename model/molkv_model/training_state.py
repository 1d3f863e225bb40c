"""The state an interrupted run continues from: weights and optimizer moments, as safetensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from molkv_model.errors import TrainingError
from molkv_model.weight_files import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

__all__ = ["load_state", "save_state"]

_MOMENTS = ("exp_avg", "exp_avg_sq")


def save_state(
    file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, run: str
) -> None:
    """Write the state after `step` steps of the run that `run` describes."""
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"weight.{name}"] = parameter.detach().cpu()
        for moment in _MOMENTS:
            tensors[f"{moment}.{name}"] = optimizer.state[parameter][moment].cpu()
    file.parent.mkdir(exist_ok=True)
    metadata = {"step": str(step), "run": run}
    write_whole(file, lambda temporary: save_file(tensors, temporary, metadata))


def load_state(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, run: str) -> int:
    """Put the state back, and return the steps done.

    Raises:
        TrainingError: it is missing or damaged, or another run wrote it.
    """
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            if metadata.get("run") != run:
                raise TrainingError(
                    f"{file}: was written by a run with other settings, text or tokenizer",
                    fix="resume with the same settings, or start without --resume",
                )
            step = int(metadata["step"])
            for name, parameter in model.named_parameters():
                parameter.data.copy_(stored.get_tensor(f"weight.{name}"))
                moments = {
                    moment: stored.get_tensor(f"{moment}.{name}").to(parameter.device)
                    for moment in _MOMENTS
                }
                # The fused optimizer wants its step count where the parameter is.
                count = torch.tensor(float(step), device=parameter.device)
                optimizer.state[parameter] = {"step": count, **moments}
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{file}: damaged: {error}", fix="start without --resume") from None
    return step
