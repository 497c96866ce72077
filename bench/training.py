"""What `searchkit train` costs beside the arithmetic: its step and its loader, against a bare PyTorch loop.

The three take turns in one process, so that a machine that slows down slows all of them alike:

- the trainer: the loop of `searchkit train`, loading by its own threads, clipping, running mean, history and all;
- the bare loop: the same network, batch, optimiser and precision on one batch that lies in memory: forward pass,
  cross-entropy, backward pass, step, and nothing else;
- loading: batches read from the cache and augmented by one thread, with no training beside it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from searchkit.errors import UsageError

from .measurement import Scalar

if TYPE_CHECKING:
    from searchkit.training.loader import Batches
    from searchkit.training.train import Job

SCHEMA = 1

# Steps at the start of a turn that do not count: the loader has run ahead in the pause, and caches are cold.
_WARMUP_STEPS = 4

# Far beyond the end of the benchmark: it is stopped from outside, and validates nothing.
_NEVER = 10**6


@dataclass(frozen=True)
class Turns:
    """Seconds a step (of one batch) in every turn: the median of the turn's steps."""

    trainer_s: tuple[float, ...]
    bare_s: tuple[float, ...]
    loading_s: tuple[float, ...]

    @property
    def step_ratios(self) -> tuple[float, ...]:
        """The trainer's step over the bare loop's, a turn each; 1 is as fast."""
        return tuple(ours / bare for ours, bare in zip(self.trainer_s, self.bare_s, strict=True))

    @property
    def loading_ratios(self) -> tuple[float, ...]:
        """How many times as many batches one thread loads as the trainer uses, a turn each."""
        return tuple(step / load for step, load in zip(self.trainer_s, self.loading_s, strict=True))


@dataclass(frozen=True)
class TrainingCost:
    """One run of the benchmark; statistics are derived."""

    setting: dict[str, Scalar]
    machine: dict[str, Scalar]
    turns: Turns

    def to_tree(self) -> dict[str, Any]:
        """Samples and statistics as plain JSON values."""
        turns = self.turns
        return {
            "schema": SCHEMA,
            "kind": "training cost, measured",
            "machine": self.machine,
            "setting": self.setting,
            "seconds_a_step": {
                "trainer": list(turns.trainer_s),
                "bare_loop": list(turns.bare_s),
                "loading_by_one_thread": list(turns.loading_s),
            },
            "trainer_over_bare_loop": _spread(turns.step_ratios),
            "loading_rate_over_step_rate": _spread(turns.loading_ratios),
        }


def _spread(ratios: tuple[float, ...]) -> dict[str, float]:
    return {"median": statistics.median(ratios), "least": min(ratios), "greatest": max(ratios)}


def training_cost(
    job: Job,
    setting: dict[str, Scalar],
    machine: dict[str, Scalar],
    *,
    turns: int,
    steps: int,
    progress: Callable[[str], None] = lambda _: None,
) -> TrainingCost:
    """Measure the last stage of a job's recipe.

    Args:
        job: what would be trained; nothing of it is kept.
        turns: how often the three take turns.
        steps: that count in a turn of each.

    Raises:
        UsageError: no turn, or no step.
    """
    if turns < 1 or steps < 1:
        raise UsageError("nothing to measure", got=f"{turns} turns of {steps} steps", allowed="at least 1 of each")
    import torch

    recipe = job.recipe
    stage = recipe.stages[-1].model_copy(update={"steps": _NEVER, "epochs": None})
    job = replace(job, recipe=recipe.model_copy(update={"stages": (stage,), "validate_every": _NEVER}))
    with TemporaryDirectory(prefix="searchkit-bench-") as folder:
        found = _take_turns(job, Path(folder), turns, steps, progress)
    threads: dict[str, Scalar] = {"torch_threads": torch.get_num_threads(), "loader_threads": job.workers}
    batch: dict[str, Scalar] = {"batch": stage.batch, "amp": recipe.amp, "turns": turns, "steps_a_turn": steps}
    return TrainingCost({**setting, **batch, **threads}, machine, found)


def _take_turns(job: Job, folder: Path, turns: int, steps: int, progress: Callable[[str], None]) -> Turns:
    from searchkit.training.run_folder import RunFolder
    from searchkit.training.train import Report, Trainer

    times: dict[str, list[float]] = {"trainer": [], "bare": [], "loading": []}
    durations: list[float] = []
    # What a step began with; the others' turns are not in it.
    began = 0.0

    def listen(_: Report) -> None:
        nonlocal began
        durations.append(time.perf_counter() - began)
        if len(durations) == _WARMUP_STEPS + steps:
            times["trainer"].append(statistics.median(durations[_WARMUP_STEPS:]))
            progress(f"turn {len(times['trainer'])} of {turns}")
            times["bare"].append(_median_s(bare, steps))
            times["loading"].append(_median_s(loading, steps))
            durations.clear()
        began = time.perf_counter()

    trainer = Trainer(job, RunFolder(folder), listener=listen, stopping=lambda: len(times["trainer"]) == turns)
    bare, loading = bare_step(job), _loading(_batches(job))
    began = time.perf_counter()
    trainer.run()
    return Turns(*(tuple(times[name]) for name in ("trainer", "bare", "loading")))


def _median_s(step: Callable[[], None], steps: int) -> float:
    durations = []
    for _ in range(_WARMUP_STEPS + steps):
        began = time.perf_counter()
        step()
        durations.append(time.perf_counter() - began)
    return statistics.median(durations[_WARMUP_STEPS:])


def bare_step(job: Job) -> Callable[[], None]:
    """One step of the loop that a person would write down first, on a network of its own."""
    import torch
    import torch.nn.functional as F

    from searchkit.training.augment import IGNORE
    from searchkit.training.train import make_optimiser

    model = job.network.build(training_heads=True).to(job.device).train()
    optimiser = make_optimiser(job.recipe.stages[-1], model)
    images, labels = _batches(job).load(0)
    images, labels = images.to(job.device), labels.to(job.device).long()
    half, auxiliary_weight = job.recipe.amp == "bf16", job.recipe.auxiliary_weight

    def step() -> None:
        with torch.autocast(job.device.type, dtype=torch.bfloat16, enabled=half):
            outputs = model(images)
        main, *extra = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        loss = torch.zeros((), device=job.device)
        for logits, weight in ((main, 1.0), *((other, auxiliary_weight) for other in extra)):
            full = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear")
            loss = loss + weight * F.cross_entropy(full, labels, ignore_index=IGNORE)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if job.device.type == "cuda":
            # The trainer reads its loss in every step, which waits as well.
            torch.cuda.synchronize()

    return step


def _batches(job: Job) -> Batches:
    from searchkit.training.loader import Batches

    stage = job.recipe.stages[-1]
    how = stage.augmentation
    return Batches(job.train, job.seed, how, how.crop_at(job.resolution), stage.batch)


def _loading(batches: Batches) -> Callable[[], None]:
    position = 0

    def step() -> None:
        nonlocal position
        batches.load(position)
        position += 1

    return step
