"""Several processes, one training: `torchrun --nproc-per-node 4 -m searchkit train ... --device cuda`.

Every process takes its share of each batch; BatchNorm, the number of pixels that a loss is divided by, and gradients
are shared, so that a training on n devices is that of one device with the whole batch. What is not shared is OHEM's
choice: each process ranks its own pixels, as FasterSeg's release does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import UsageError


@dataclass(frozen=True)
class World:
    """This process among all of them."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def check_batch(self, batch: int, where: str = "batch") -> None:
        """Raise `UsageError`, naming `where` it comes from, unless a batch can be shared out evenly."""
        if batch % self.size:
            raise UsageError(
                "the batch cannot be shared out evenly",
                where=where,
                got=batch,
                allowed=f"a multiple of {self.size}, the number of processes",
            )

    def mean(self, value: float) -> float:
        """The mean of a number over all processes, the same in each."""
        return self._reduced(value) / self.size

    def any(self, flag: bool) -> bool:
        """Whether any process says so, the same answer in each."""
        return self._reduced(float(flag)) > 0

    def barrier(self) -> None:
        """Wait for all."""
        self._reduced(0.0)

    def _reduced(self, value: float) -> float:
        if self.size == 1:
            return value
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        total = torch.tensor(value, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return float(total)


ALONE = World()


def wanted() -> bool:
    """Whether `torchrun` started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def start(device: torch.device) -> tuple[World, torch.device]:
    """Join the other processes; on GPUs each takes the one of its local rank."""
    if not wanted():
        return ALONE, device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(dist.get_rank(), dist.get_world_size()), device


def stop() -> None:
    """Leave the other processes."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def shared_count(count: Tensor) -> Tensor:
    """A count, as its mean over all processes: what every process divides by, as gradients are averaged afterwards."""
    if not (dist.is_available() and dist.is_initialized()):
        return count
    total = count.to(torch.float32)
    dist.all_reduce(total)
    return total / dist.get_world_size()


def wrapped(model: nn.Module, world: World, device: torch.device) -> nn.Module:
    """`model`, already synchronised, with gradients averaged over the processes; parameters are shared with it."""
    if world.size == 1:
        return model
    devices = [device.index] if device.type == "cuda" else None
    # FasterSeg's training form has convolutions that are counted and never run.
    return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False, find_unused_parameters=True)


def average_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Gradients become their means over all processes; one that some processes lack is 0 there, and one that all lack
    stays none. All name the same parameters in the same order.

    For networks whose parameters come and go, to which `wrapped` cannot hold on.
    """
    given = list(parameters)
    if world.size == 1 or not given:
        return
    there = torch.tensor([float(p.grad is not None) for p in given], device=given[0].device)
    dist.all_reduce(there)
    wanted = [p for p, processes in zip(given, there.tolist(), strict=True) if processes]
    for parameter in wanted:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    _average([p.grad for p in wanted if p.grad is not None], world)


def average_buffers(model: nn.Module, world: World) -> None:
    """Running statistics become their means over all processes; what is no floating-point number stays."""
    if world.size > 1:
        _average([buffer for buffer in model.buffers() if buffer.is_floating_point()], world)


@torch.no_grad()
def _average(tensors: list[Tensor], world: World) -> None:
    if not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world.size
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view(tensor.shape))


def synchronised(model: nn.Module, world: World) -> nn.Module:
    """Every BatchNorm takes its statistics from all processes; names of parameters and buffers stay."""
    if world.size == 1:
        return model
    for name, child in model.named_children():
        if isinstance(child, nn.BatchNorm2d):
            norm = SyncedNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            norm.load_state_dict(child.state_dict())
            setattr(model, name, norm.to(child.weight.device))
        else:
            synchronised(child, world)
    return model


class SyncedNorm(nn.BatchNorm2d):
    """BatchNorm over the batches of all processes, on any device: PyTorch's `SyncBatchNorm` refuses CPUs."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.float()
        here = torch.tensor([x.numel() / x.shape[1]], device=x.device)
        totals = _sum_over_all(torch.cat([x.sum((0, 2, 3)), here]))
        count = totals[-1].detach()
        mean = totals[:-1] / count
        centred = x - mean.view(1, -1, 1, 1)
        variance = _sum_over_all(centred.square().sum((0, 2, 3))) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        share = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)
        self.num_batches_tracked.add_(1)


class _SumOverAll(torch.autograd.Function):
    @staticmethod
    def forward(_context: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _sum_over_all(x: Tensor) -> Tensor:
    total: Tensor = _SumOverAll.apply(x)
    return total
