"""The profilers of the runtimes, one file each: what a runtime itself says that each of its steps took.

A step is matched to nodes of the exported ONNX model only by what the runtime states: a name that it kept, a tensor
that it still makes, a list of what it merged. What it states nothing of stays unmatched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from deploy.deployable import Deployable

#: Runs before those that count.
WARM_UP_RUNS = 3


@dataclass(frozen=True, slots=True)
class Step:
    """What a runtime times as one.

    Attributes:
        name, operator: as the runtime has them.
        ms: median over the runs.
        nodes: of the ONNX model that it computes; empty where the runtime does not say.
        remark: what else is known of it, such as that the runtime inserted it; empty if nothing.
    """

    name: str
    operator: str
    ms: float
    nodes: tuple[str, ...]
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Profiled:
    """One network under one runtime's profiler.

    Attributes:
        mode: of the backend.
        whole_ms: median over the runs of the time from start to result, profiler on.
        summed_ms: median over the runs of all steps of a run together. On a busy machine the medians of the steps add
            up to less, because each run is slow somewhere else.
        runs: that count.
        steps: in the order in which they run.
    """

    backend: str
    version: str
    mode: str
    device: str
    whole_ms: float
    summed_ms: float
    runs: int
    steps: tuple[Step, ...]

    @property
    def steps_ms(self) -> float:
        """The medians of all steps together."""
        return sum(step.ms for step in self.steps)


class Profiler(Protocol):
    """A function `profile` of a module here."""

    def __call__(self, model: Deployable, *, mode: str, threads: int | None, runs: int) -> Profiled:
        """Run the network `WARM_UP_RUNS` and then `runs` times under the profiler.

        Raises:
            BackendUnavailableError: the runtime cannot run here.
            UsageError: the mode cannot be profiled.
        """


def summed(samples: Iterable[Sequence[float]]) -> float:
    """Median over the runs of what all steps took in a run; each list has one value a run."""
    return median(math.fsum(run) for run in zip(*samples, strict=True))
