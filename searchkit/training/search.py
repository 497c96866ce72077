"""The search loop: first-order bilevel updates, and decision points at which the supernet really shrinks.

A step (Algorithm 1 of the SSR paper) is one update of the architecture parameters with the weights held still, then one
of the weights with the architecture held still. As in a training, every random number is drawn at the address
(seed, step), so that a search that was killed and resumed ends, on a CPU, in the same bytes as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..choices import Alive, Weights, check_choosable
from ..errors import SearchFailedError, UsageError
from ..strategies import Progress
from ..supernet import weights_of
from . import search_checkpoint
from .augment import generator
from .carry_over import Parameters
from .distributed import average_buffers, average_gradients
from .metrics import Confusion
from .search_batches import Streams
from .search_checkpoint import SearchPosition
from .search_computing import Logits, channels_last, configured, heads_loss, held_still, precision
from .search_decisions import Probabilities, as_arrays, decisions, expected_weights, mac_prices, measures, trajectory
from .search_folder import SearchFolder
from .search_job import Listener, SearchJob, SearchReport
from .search_optimisers import make_optimisers, make_weight_optimiser, shrunk_optimisers
from .search_schedule import SearchSchedule, check_batches
from .search_validation import confusion_of
from .train import Clock

# Rows of the history are means over so many steps.
LOG_EVERY = 20
# Streams of one seed beside those of `augment`: what is drawn for one purpose never shifts what is drawn for another.
ARCHITECTURE_STEP, WEIGHT_STEP, DECISION = 11, 12, 13


class Searcher:
    """The state of a search and what moves it.

    Args:
        folder: where checkpoints and histories go.
        listener: called after every step.
        stopping: asked after every step; where it says True, the state is saved and `run` returns.

    Raises:
        UsageError: no network of the space is within the limits, or a batch cannot be shared out.
    """

    def __init__(
        self,
        job: SearchJob,
        folder: SearchFolder,
        *,
        listener: Listener | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.job, self.folder = job, folder
        self.listener, self.stopping = listener, stopping
        self.recipe = recipe = job.recipe
        check_batches(recipe, job.world)
        torch.manual_seed(job.seed)
        self.supernet = job.build().to(job.device)
        self._configure()
        job.limits.check(self.supernet)
        self.strategy = job.lead(self.supernet.levels)
        self.optimisers = make_optimisers(recipe, self.supernet)
        self.position = SearchPosition(job.identity)
        self.schedule = SearchSchedule.of(recipe, len(job.train))
        self.steps, self.warmup = self.schedule.steps, self.schedule.warmup
        self.streams = Streams.of(recipe, self.schedule, job.train, job.resolution, job.seed, job.world)
        self._prices = mac_prices()
        self._seen: dict[str, Any] = {}
        self._logged_s, self._lr = time.monotonic(), 0.0

    def _configure(self) -> None:
        self._forward = configured(self.supernet, self.recipe, self.job.device)

    def resume(self) -> None:
        """Go on from the checkpoint, or from the start where a kill came before the first.

        Raises:
            UsageError: the checkpoint is of another search.
            DamagedArtifactError: it is not whole.
        """
        path = self.folder.checkpoint
        if not path.exists():
            if self.job.world.leads:
                self.folder.resume(-1)
            return
        saved = search_checkpoint.read_state(path)
        if saved.position.identity != self.job.identity:
            raise UsageError("the checkpoint is of another search", where=str(path))
        search_checkpoint.load_structure(saved, path, self.supernet, self.strategy)
        self._configure()
        self.optimisers = make_optimisers(self.recipe, self.supernet)
        search_checkpoint.load_tensors(saved, path, self.supernet, self.optimisers)
        self.position = saved.position
        if self.job.world.leads:
            # The first row of choices is written again by a search that has made no step.
            self.folder.resume(self.position.step or -1)

    @property
    def finished(self) -> bool:
        """Whether the search is over: every step is done, or every choice is decided and the recipe ends there."""
        p = self.position
        discrete = self.recipe.stop_when_discrete and not self.supernet.undecided() and p.decisions > 0
        return p.step >= self.steps or discrete

    def run(self) -> bool:
        """Search until the end, or until `stopping` says so; returns whether it is the end.

        Raises:
            SearchFailedError: a loss or a gradient is no number, and nothing has moved by it; or the strategy would
                remove the last candidate of a choice.
            StorageError: the disk refused.
        """
        if self.position.step == 0 and self.position.decisions == 0:
            self._look()
            self._log_choices()
            self.save()
        self._look()
        clock = Clock(self.position.step)
        self._logged_s = time.monotonic()
        while not self.finished:
            stop = self.schedule.stop(self.position.step)
            if not self._run_until(stop, clock):
                self.save()
                return self.finished
            if stop in self.schedule.decisions:
                self._decide()
            if stop in self.schedule.changes:
                self._begin_phase()
        return True

    def _begin_phase(self) -> None:
        """The weights go on with an optimiser that remembers nothing; a kill costs nothing of the phase before."""
        self._flush()
        self.optimisers.weights = make_weight_optimiser(self.recipe)(self.supernet.network_parameters().values())
        self.save()

    def _run_until(self, stop: int, clock: Clock) -> bool:
        """Make all steps up to `stop`; False where it was stopped before."""
        start = self.position.step
        learns = self.strategy.learns and start >= self.warmup and self.supernet.undecided() > 0
        with closing(self.streams.iterate(start, stop, self.warmup if learns else None, self.job.workers)) as batches:
            for batch, other in batches:
                self._lr = self.schedule.rate(self.position.step)
                second = None if other is None else self._architecture_step(*other)
                first = self._weight_step(*batch)
                p = self.position
                self.position = replace(p, step=p.step + 1, pending=(*p.pending, (first, second)))
                if self.position.step % LOG_EVERY == 0:
                    self._flush()
                self._tell(first, clock)
                if self.job.world.any(self.stopping()) and self.position.step != stop:
                    return False
        return True

    def _draw_at(self, stream: int, rank: int = 0) -> None:
        """Seed torch's generator at the address of this step."""
        torch.manual_seed(int(generator(self.job.seed, stream, self.position.step, rank).integers(2**63)))

    def _relaxed(self, stream: int) -> dict[str, Tensor]:
        self._draw_at(stream)
        return {name: self.strategy.relax(table) for name, table in self.supernet.tables.items()}

    def _passes(self, stream: int, weights: Weights) -> list[Weights]:
        """What this step runs. It is the same in all processes, as what is drawn of the architecture before; what is
        drawn after it, for dropout, is not."""
        found = list(self.supernet.passes(weights, warmup=self.position.step < self.warmup))
        self._draw_at(stream, 1 + self.job.world.rank)
        return found

    def _architecture_step(self, images: Tensor, labels: Tensor) -> float:
        """One update of the architecture parameters; returns the task's loss."""
        network, parameters = self.supernet.network_parameters(), self.supernet.architecture_parameters()
        how = self.recipe.architecture
        with held_still(network):
            relaxed = self._relaxed(ARCHITECTURE_STEP)
            # Gradients of all passes meet here, and go through the relaxation together.
            leaves = {name: weights.detach().requires_grad_() for name, weights in relaxed.items()}
            passes = self._passes(ARCHITECTURE_STEP, leaves)
            loss = self._backward(images, labels, passes, how.loss_scale)
            total = self.strategy.regularize(self.supernet.tables)
            if self.job.limits.pulls:
                expected = expected_weights(self.strategy, self.supernet.tables)
                penalty = self.job.limits.penalty(self.supernet, expected, self.position.cost_factor)
                total = total + penalty.to(total.dtype)
            pairs: list[tuple[Tensor, Tensor | None]] = [
                (relaxed[name], leaf.grad) for name, leaf in leaves.items() if leaf.grad is not None
            ]
            if total.requires_grad:
                pairs.append((how.loss_scale * total, None))
            torch.autograd.backward([tensor for tensor, _ in pairs], [gradient for _, gradient in pairs])
            value = loss + total.detach()
            self._update(value, self.optimisers.architecture, parameters, how.clip_norm, "architecture")
        return self.job.world.mean(float(loss))

    def _weight_step(self, images: Tensor, labels: Tensor) -> float:
        """One update of the weights; returns the loss."""
        with torch.no_grad():
            passes = self._passes(WEIGHT_STEP, self._relaxed(WEIGHT_STEP))
        for group in self.optimisers.weights.param_groups:
            group["lr"] = self._lr
        loss = self._backward(images, labels, passes, 1.0)
        parameters = self.supernet.network_parameters()
        self._update(loss, self.optimisers.weights, parameters, self.recipe.weights.clip_norm, "weight")
        return self.job.world.mean(float(loss))

    def _backward(self, images: Tensor, labels: Tensor, passes: list[Weights], scale: float) -> Tensor:
        """The sum of the losses of all passes, each of which went backward, times `scale`, before the next began."""
        total = torch.zeros((), device=self.job.device)
        for weights in passes:
            loss = self._loss(images, labels, weights)
            # With the weights held still, a pass that the architecture has no part in has no gradient.
            if loss.requires_grad:
                (scale * loss).backward()
            total = total + loss.detach()
        return total

    def _loss(self, images: Tensor, labels: Tensor, weights: Weights) -> Tensor:
        self.supernet.train()
        target = labels.to(self.job.device).long()
        return heads_loss(self._logits(images, weights), target, self.supernet.head_weights, self.recipe.loss)

    def _logits(self, images: Tensor, weights: Weights) -> Logits:
        device = self.job.device
        layout = torch.channels_last if channels_last(self.recipe, device) else torch.contiguous_format
        with precision(self.supernet, self.recipe, device):
            return self._forward(images.to(device).contiguous(memory_format=layout), weights)

    def _update(
        self, loss: Tensor, optimiser: torch.optim.Optimizer, parameters: Parameters, clip: float | None, which: str
    ) -> None:
        """One step of an optimiser by the gradients that are there, which are gone afterwards; nothing has moved where
        the loss or its gradient is no number."""
        average_gradients(parameters.values(), self.job.world)
        norm = float(nn.utils.clip_grad_norm_(parameters.values(), clip or math.inf))
        value = self.job.world.mean(float(loss))
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise SearchFailedError(
                f"the {'gradient' if math.isfinite(value) else 'loss'} of the {which} step is no number "
                f"at step {self.position.step + 1}",
                got=f"loss {value:g}, gradient norm {norm:g}",
                fix="lower the learning rate or set clip_norm; nothing has moved by it; the last checkpoint is whole",
            )
        optimiser.step()
        # Else they would lie beside the maps of the next update.
        optimiser.zero_grad(set_to_none=True)

    def _decide(self) -> None:
        """A decision point: ask the strategy, keep within the budgets, shrink, write down, save."""
        self._flush()
        p, supernet = self.position, self.supernet
        probabilities = self.probabilities()
        done = max(0, p.step - self.warmup)
        progress = Progress(done, self.steps - self.warmup, p.decisions, len(self.schedule.decisions))
        self._draw_at(DECISION)
        before = supernet.alive()
        feasible = self.job.limits.feasible
        wanted = self.strategy.decide(supernet.tables, progress, lambda alive: feasible(supernet, alive))
        check_choosable(before, wanted)
        after = supernet.closed(self.job.limits.guarded(supernet, wanted, probabilities))
        factor = self.job.limits.adapted(supernet, expected_weights(self.strategy, supernet.tables), p.cost_factor)
        self.position = replace(p, decisions=p.decisions + 1, cost_factor=factor)
        self._note(after, probabilities, "shrinking")
        kept = sum(int((after[name] & ~wanted[name]).sum()) for name in after)
        removed = sum(int((before[name] & ~after[name]).sum()) for name in after)
        self.shrink(after)
        self._look()
        row = {"step": p.step, "decision": p.decisions, "removed": removed, "kept_by_budget": kept, **self._seen}
        self._append(row | ({"cost_factor": factor} if self.job.limits.costs else {}))
        self._log_choices()
        every = self.recipe.validate_every
        if every and self.position.decisions % every == 0:
            self._append({"step": p.step, **self.validation_row(self.relaxed_weights())})
        self.save()

    def _note(self, after: Alive, probabilities: Probabilities, by: str) -> None:
        """Remember how choices were decided."""
        p = self.position
        found = {name: dict(rows) for name, rows in p.decided.items()}
        for name, rows in decisions(self.supernet.tables, after, probabilities, p.step, by).items():
            found.setdefault(name, {}).update(rows)
        self.position = replace(p, decided=found)

    def choose(self, probabilities: Probabilities) -> None:
        """The end: decide what is undecided by argmax within the budgets, and shrink the supernet to it.

        It cannot be trained on afterwards: the optimisers do not follow.
        """
        preferences = self.supernet.weighed(
            probabilities, lambda weights: self.validation_row(weights)["miou"], self._cost
        )
        chosen = self.job.limits.chosen(self.supernet, preferences)
        self._note(chosen, probabilities, "argmax")
        self.supernet.shrink(chosen)
        self._configure()

    def _cost(self, alive: Alive) -> float:
        """Of one network: milliseconds by the search's latency table, where there is one, else MACs."""
        with torch.no_grad():
            weights = weights_of(alive, self.job.device)
            if (found := self.job.limits.milliseconds(self.supernet, weights)) is not None:
                return found
            return float(self._prices.expected(self.supernet.parts(weights, self.job.resolution)))

    def shrink(self, after: Alive) -> None:
        """Remove what does not live in `after`, with what both optimisers remember of it."""
        supernet = self.supernet
        if all(np.array_equal(after[name], mask) for name, mask in supernet.alive().items()):
            return
        before = supernet.network_parameters(), supernet.architecture_parameters()
        cuts = supernet.shrink(after)
        self._configure()
        self.optimisers = shrunk_optimisers(self.recipe, self.optimisers, before, supernet, cuts)

    def _look(self) -> None:
        """Entropies, live candidates and expected costs as they are now."""
        self._seen = measures(self.supernet, self.probabilities(), self._prices, self.job.resolution)

    def _flush(self) -> None:
        """A row with the means over the steps since the last one, if there are any."""
        pending = self.position.pending
        if not pending:
            return
        self._look()
        row: dict[str, Any] = {"step": self.position.step, "lr": self._lr}
        row["loss"] = math.fsum(first for first, _ in pending) / len(pending)
        if others := [second for _, second in pending if second is not None]:
            row["architecture_loss"] = math.fsum(others) / len(others)
        self._append({**row, **self._seen})
        now_s = time.monotonic()
        if self.job.world.leads:
            self.folder.log_time(self.position.step, now_s - self._logged_s)
        self._logged_s = now_s
        self.position = replace(self.position, pending=())

    def _append(self, row: dict[str, Any]) -> None:
        if self.job.world.leads:
            self.folder.log(row)

    def _log_choices(self) -> None:
        if self.job.world.leads:
            found = trajectory(self.supernet, self.probabilities())
            self.folder.log_choices({"step": self.position.step, "probabilities": found})

    def _tell(self, loss: float, clock: Clock) -> None:
        if self.listener is None:
            return
        p, seen = self.position, self._seen
        rate, alive = clock.rate(p.step), sum(seen["alive"].values())
        self.listener(SearchReport(p.step, self.steps, loss, rate, seen["entropy"], alive, seen["undecided"]))

    @torch.no_grad()
    def relaxed_weights(self) -> dict[str, Tensor]:
        """The strategy's probabilities: how the supernet is validated."""
        return {name: self.strategy.probabilities(table) for name, table in self.supernet.tables.items()}

    @torch.no_grad()
    def probabilities(self) -> Probabilities:
        """The strategy's probabilities as arrays whose rows sum to 1."""
        return as_arrays(expected_weights(self.strategy, self.supernet.tables))

    def decided_weights(self) -> dict[str, Tensor]:
        """Weights of the network that is left, once every choice is decided."""
        return weights_of(self.supernet.alive(), self.job.device)

    def validate(self, weights: Weights) -> Confusion:
        """Label maps of the validation samples against the truth, at the samples' size, by the supernet."""
        average_buffers(self.supernet, self.job.world)
        return confusion_of(self.supernet, self.job.validation, lambda images: self._logits(images, weights))

    def validation_row(self, weights: Weights) -> dict[str, Any]:
        """mIoU and IoU of each class of the supernet, as fractions."""
        confusion = self.validate(weights)
        return {"miou": confusion.mean_iou(), "iou": confusion.iou()}

    def save(self) -> None:
        """Write the checkpoint; only the process that leads does."""
        average_buffers(self.supernet, self.job.world)
        if self.job.world.leads:
            state = self.strategy.state()
            search_checkpoint.save(self.folder.checkpoint, self.position, self.supernet, self.optimisers, state)
