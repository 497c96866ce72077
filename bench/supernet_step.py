"""What a step of the SSR supernet costs, against two plain forms of it and against the discrete network.

One weight step (weights need gradients, logits do not) and one architecture step (the reverse), each with forward pass,
cross-entropy at 1/8, backward pass and Adam's update, on random pictures. All take turns in one process. Memory is what
lives in tensors: weights and Adam's state, and the most that a step adds to them, gradients included.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from searchkit.choices import one_hot
from searchkit.footprint import PeakMemory
from searchkit.genotype import Provenance
from searchkit.sizes import Size
from searchkit.spaces import SPACES
from searchkit.spaces.ssr.search_space import SSRSearchSpace
from searchkit.spaces.ssr.supernet import SSRSupernet
from searchkit.supernet import Supernet

from .protocol import Scalar
from .supernet_references import LiteralSupernet, MaskVectorSupernet
from .turns import ratios, samples, take_turns

SCHEMA = 1
CLASSES = 19
BASELINE = "mask vector"


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        size, batch: of the pictures.
        alive: candidates a choice, one case each; more than a choice has means all.
        turns, runs: how often the cases take turns, and pairs of steps in a turn of each.
    """

    size: Size
    batch: int
    alive: tuple[int, ...] = (10, 5, 2, 1)
    turns: int = 3
    runs: int = 1


class Stepper:
    """A network with its optimisers and one batch."""

    def __init__(self, network: nn.Module, setting: Setting, *, autocast: bool = False) -> None:
        self.network, self.autocast = network, autocast
        found = dict(network.named_parameters())
        logits = network.architecture_parameters() if isinstance(network, Supernet) else {}
        self.weights = [p for name, p in found.items() if name not in logits]
        self.logits = list(logits.values())
        self.optimisers = {False: torch.optim.Adam(self.weights, 3e-4, weight_decay=1e-4, fused=True)}
        if self.logits:
            self.optimisers[True] = torch.optim.Adam(self.logits, 2e-3, weight_decay=1e-3, fused=True)
        generator = torch.Generator().manual_seed(0)
        height, width = setting.size
        self.images = torch.randn(setting.batch, 3, height, width, generator=generator)
        self.images = self.images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(CLASSES, (setting.batch, height // 8, width // 8), generator=generator)

    def step(self, architecture: bool) -> None:
        """One step of the weights or of the architecture."""
        for parameters, wanted in ((self.weights, not architecture), (self.logits, architecture)):
            for parameter in parameters:
                parameter.requires_grad_(wanted)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
            if isinstance(self.network, Supernet):
                outputs = self.network(self.images, relaxed(self.network))
            else:
                outputs = self.network(self.images)
        F.cross_entropy(outputs.float(), self.labels).backward()
        self.optimisers[architecture].step()
        self.optimisers[architecture].zero_grad(set_to_none=True)

    def pair(self) -> None:
        """An architecture step and a weight step."""
        self.step(True)
        self.step(False)

    def memory(self) -> dict[str, int]:
        """Bytes of weights, of their gradients, of Adam's state, and the most that either step adds."""
        weights = sum(p.nbytes for p in self.weights)
        state = sum(
            value.nbytes
            for optimiser in self.optimisers.values()
            for values in optimiser.state.values()
            for value in values.values()
        )
        peaks = {}
        for architecture in self.optimisers:
            with PeakMemory() as tracked:
                self.step(architecture)
            peaks["architecture_step" if architecture else "weight_step"] = tracked.peak_bytes
        most = weights + state + max(peaks.values())
        return {"weights": weights, "gradients": weights, "adam_state": state, **peaks, "peak": most}


def relaxed(network: Supernet) -> dict[str, Tensor]:
    """Sigmoids of the logits, divided by their sum."""
    found = {}
    for name, table in network.tables.items():
        values = torch.where(table.alive_mask, torch.sigmoid(table.dense()), 0.0)
        found[name] = values / values.sum(dim=1, keepdim=True).clamp_min(1e-9)
    return found


def supernet(form: type[SSRSupernet], alive: int) -> SSRSupernet:
    """One form of the full space with that many random candidates alive in each choice; the same for every form."""
    torch.manual_seed(0)
    network = form(SSRSearchSpace(head="classifier"), CLASSES)
    generator = np.random.default_rng(0)
    ranks = {n: generator.random(t.alive.shape).argsort(axis=1).argsort(axis=1) for n, t in network.tables.items()}
    network.shrink(network.closed({name: rank < max(alive, 1) for name, rank in ranks.items()}))
    return network


def cases(setting: Setting) -> dict[str, Stepper]:
    """What takes turns, by name."""
    found = {
        "literal": Stepper(supernet(LiteralSupernet, setting.alive[0]), setting),
        BASELINE: Stepper(supernet(MaskVectorSupernet, setting.alive[0]), setting),
    }
    for alive in setting.alive:
        for dtype in (torch.float32, torch.bfloat16):
            network = supernet(SSRSupernet, alive)
            network.compute_dtype = dtype
            found[f"{alive} alive, {_short(dtype)}"] = Stepper(network, setting)
    network = supernet(SSRSupernet, setting.alive[0])
    network.compute_dtype, network.checkpointing = torch.bfloat16, True
    found[f"{setting.alive[0]} alive, bf16, checkpointing"] = Stepper(network, setting)
    return found


def discrete_cases(setting: Setting) -> dict[str, Stepper]:
    """The supernet with one candidate alive, and the network that it derives: weight steps alone."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        network = supernet(SSRSupernet, 1)
        network.compute_dtype = dtype
        alive = network.closed(one_hot({n: m.astype(float) for n, m in network.alive().items()}, network.alive()))
        discrete = SPACES.load("ssr").build(network.derive(alive, Provenance()))
        discrete.load_state_dict(network.discrete_state())
        discrete.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        found[f"discrete, {_short(dtype)}"] = Stepper(discrete, setting, autocast=dtype == torch.bfloat16)
        found[f"supernet, {_short(dtype)}"] = Stepper(network, setting)
    return found


def _short(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]


def supernet_step(
    setting: Setting, machine: Mapping[str, Scalar], progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure everything; plain JSON values."""
    steppers, single = cases(setting), discrete_cases(setting)
    progress(f"{len(steppers)} pairs of steps, {setting.turns} turns")
    pairs_ms = take_turns({name: s.pair for name, s in steppers.items()}, setting.turns, setting.runs)
    progress("weight steps of the discrete network")
    weight_ms = take_turns(
        {name: lambda s=s: s.step(False) for name, s in single.items()},  # type: ignore[misc]
        3 * setting.turns,
        3 * setting.runs,
    )
    progress("memory")
    memory = {name: stepper.memory() for name, stepper in steppers.items()}
    overhead = {
        kind: [a / b for a, b in zip(weight_ms[f"supernet, {kind}"], weight_ms[f"discrete, {kind}"], strict=True)]
        for kind in ("fp32", "bf16")
    }
    return {
        "schema": SCHEMA,
        "kind": "supernet step, measured",
        "machine": dict(machine),
        "setting": {
            "space": "ssr",
            "resolution": str(setting.size),
            "batch": setting.batch,
            "torch_threads": torch.get_num_threads(),
            "turns": setting.turns,
            "runs_a_turn": setting.runs,
        },
        "pair_ms": samples(pairs_ms),
        "times_as_fast_as_literal": ratios(pairs_ms, "literal"),
        "times_as_fast_as_mask_vector": ratios(pairs_ms, BASELINE),
        "weight_step_ms": samples(weight_ms),
        "supernet_over_discrete": {kind: statistics.median(found) for kind, found in overhead.items()},
        "memory_bytes": memory,
        "peak_of_literal_over_ours": {name: memory["literal"]["peak"] / m["peak"] for name, m in memory.items()},
        "peak_over_mask_vector": {name: m["peak"] / memory[BASELINE]["peak"] for name, m in memory.items()},
    }
