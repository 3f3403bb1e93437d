"""One process or several: who takes which problems, and averages over all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Workers:
    """The processes of a training, as torchrun starts them, or one alone.

    Attributes
    ----------
    rank, count
        Which process this is, of how many.
    device
        Where this process computes.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a constant

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and shows the progress."""
        return self.rank == 0

    def share(self, name: str, problems: int) -> slice:
        """Return this process's part of a batch of problems; all parts have the same size.

        Raises
        ------
        ValueError
            If the problems cannot be shared equally.
        """
        if problems % self.count:
            raise ValueError(f"{name} must be a multiple of the number of processes, {self.count}, got {problems}")
        size = problems // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over the processes, in one message."""
        if self.count == 1:
            return
        joint = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(joint)
        for tensor, mean in zip(tensors, (joint / self.count).split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def workers_of(device: str) -> Iterator[Workers]:
    """Join the processes that torchrun has started, if it has; leave them at the end.

    Raises
    ------
    ValueError
        If this machine has no such device.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device must be one that PyTorch finds here, got {device!r}: {error}") from None
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Workers(device=torch.device(device))
        return
    own = torch.device(device)
    if own.type == "cuda":
        own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if own.type == "cuda" else "gloo")
    try:
        yield Workers(distributed.get_rank(), count, own)
    finally:
        distributed.destroy_process_group()
