"""The processes that torchrun started; one without it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Self

    from torch import Tensor, nn

__all__ = ["Ranks"]


class Ranks:
    """This process's place among all, and what they do together.

    Args:
        timeout: how long a process waits for the others; by default as long as torch does.

    Attributes:
        count: processes.
        rank: this one's number.
        device: the GPU of this process, or the CPU.
    """

    def __init__(self, timeout: timedelta | None = None) -> None:
        self.timeout = timeout
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(self.device)  # NCCL's barrier takes the current device

    def __enter__(self) -> Self:
        if self.count > 1:
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            torch.distributed.init_process_group(backend, timeout=self.timeout)
        return self

    def __exit__(self, *_: object) -> None:
        if self.count > 1:
            torch.distributed.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.count > 1:
            torch.distributed.barrier()

    def mean(self, value: Tensor) -> float:
        """The mean of a scalar over all processes."""
        if self.count > 1:
            torch.distributed.all_reduce(value)
        return float(value) / self.count

    def share(self, value: float) -> float:
        """The first process's value, in all of them."""
        if self.count == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(shared, src=0)
        return float(shared)

    def share_object(self, value: Any) -> Any:
        """The first process's object, in all of them; it is pickled."""
        if self.count == 1:
            return value
        shared = [value]
        torch.distributed.broadcast_object_list(shared, src=0)
        return shared[0]

    def gather_objects(self, value: Any) -> list[Any]:
        """Every process's object, in order of rank, in all of them; they are pickled."""
        if self.count == 1:
            return [value]
        gathered: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(gathered, value)
        return gathered

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with its gradients averaged over all processes."""
        return DistributedDataParallel(model) if self.count > 1 else model
