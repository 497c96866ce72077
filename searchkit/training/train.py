"""The training loop of a discrete network.

A step is a pure function of the state before it and of (seed, step): the batch, its augmentation and dropout are drawn
at that address. So a run that was killed and resumed ends, on a CPU, in the same bytes as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data import Sample
from ..errors import TrainingFailedError, UsageError
from ..networks import Network
from ..normalization import normalise
from ..sizes import Size
from . import checkpoint, distributed
from .augment import STEP, generator
from .checkpoint import Position
from .distributed import ALONE, World
from .loader import Batches, Samples
from .losses import total_loss
from .metrics import Confusion
from .optimisation import learning_rate, make_optimiser
from .recipe import Recipe, Stage
from .run_folder import RunFolder
from .validation_pictures import ValidationPictures

# Rows of the history are means over so many steps.
LOG_EVERY = 20


@dataclass(frozen=True)
class Job:
    """What is trained, on what, and how.

    Attributes:
        resolution: of the validation, and of crops where the recipe names no size.
        train, validation: samples at `resolution`, those of `train` times `recipe.stored`.
        identity: SHA-256 of everything that decides the run, data included.
        teacher: a network in evaluation mode, for distillation.
        world: this process among those that share the training.
    """

    network: Network
    recipe: Recipe
    resolution: Size
    seed: int
    train: Samples
    validation: Samples
    identity: str
    device: torch.device
    workers: int = 0
    teacher: nn.Module | None = None
    world: World = ALONE


@dataclass(frozen=True)
class Report:
    """What is told after every step."""

    stage: int
    total_step: int
    total_steps: int
    loss: float
    lr: float
    steps_per_s: float
    miou: float | None
    best_miou: float | None


@dataclass(frozen=True)
class Result:
    """How a run ended; mIoU as fractions, of the last and of the best validation."""

    total_steps: int
    finished: bool
    miou: float | None
    best_miou: float | None


Listener = Callable[[Report], None]


def channels_last(job: Job) -> bool:
    """Whether maps are stored channels-last.

    Never in bfloat16 on a CPU: there PyTorch 2.13 (measured on `ssr`) now and then reads memory that nothing was
    written to, and gradients are NaN.
    """
    return job.recipe.channels_last and not (job.device.type == "cpu" and job.recipe.amp == "bf16")


def build(job: Job) -> nn.Module:
    """The network with its training heads, drawn from the run's seed."""
    torch.manual_seed(job.seed)
    model = distributed.synchronised(job.network.build(training_heads=True), job.world).to(job.device)
    if channels_last(job):
        for parameter in model.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


class Trainer:
    """The state of a run and what moves it.

    Args:
        folder: where checkpoints, history and weights go.
        listener: called after every step.
        stopping: asked after every step; where it says True, the state is saved and `run` returns.
    """

    def __init__(
        self,
        job: Job,
        folder: RunFolder,
        *,
        listener: Listener | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.job, self.folder = job, folder
        self.listener, self.stopping = listener, stopping
        for stage in job.recipe.stages:
            job.world.check_batch(stage.batch)
        self.model = build(job)
        self.shared_model = distributed.wrapped(self.model, job.world, job.device)
        self.lengths = [stage.length(len(job.train)) for stage in job.recipe.stages]
        self.average: dict[str, Tensor] | None = None
        if job.recipe.ema_decay is not None:
            self.average = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.position = Position(job.identity, 0, 0, 0)
        self.optimiser = make_optimiser(job.recipe.stages[0], self.model)
        self.miou: float | None = None
        # The network's inference form, for validation and for the weights that are kept.
        self.inference = job.network.build().to(job.device).eval()

    def resume(self) -> None:
        """Go on from the checkpoint, or from the start where a kill came before the first; raises as `restore`."""
        if not self.folder.checkpoint.exists():
            if self.job.world.leads:
                self.folder.resume_history(0)
            return
        position = checkpoint.read_position(self.folder.checkpoint)
        if position.identity != self.job.identity:
            raise UsageError("the checkpoint is of another run", where=str(self.folder.checkpoint))
        stage = min(position.stage, len(self.job.recipe.stages) - 1)
        self.optimiser = make_optimiser(self.job.recipe.stages[stage], self.model)
        self.position = checkpoint.restore(self.folder.checkpoint, self.model, self.average, self.optimiser)
        if not self.job.world.leads:
            return
        rows = self.folder.resume_history(self.position.total_step)
        self.miou = next((row["miou"] for row in reversed(rows) if "miou" in row), None)

    def run(self) -> Result:
        """Train until the end, or until `stopping` says so.

        Raises:
            TrainingFailedError: the loss or the gradient is no number; the weights have not moved.
            StorageError: the disk refused.
        """
        if self.position.total_step == 0:
            self.save()
        while self.position.stage < len(self.lengths):
            if not self._run_stage():
                self.save()
                return self._result(finished=False)
        if self.job.world.leads:
            self.folder.write_weights(self.job.network, self.inference_state(), self.job.identity)
        return self._result(finished=True)

    def _result(self, *, finished: bool) -> Result:
        if self.job.world.leads:
            self.folder.draw_plots()
        return Result(self.position.total_step, finished, self.miou, self.position.best_miou)

    def _run_stage(self) -> bool:
        """Train to the end of the present stage; False where it was stopped before."""
        index = self.position.stage
        clock = Clock(self.position.total_step)
        batches = self._batches(index)
        steps = self.lengths[index]
        stream = batches.iterate(self.position.step, steps, self.job.workers)
        try:
            for images, labels in stream:
                loss, norm, lr = self._step(images, labels)
                self._advance(loss, norm)
                at_end = self.position.step == steps
                if at_end or self.position.step % LOG_EVERY == 0:
                    self._log(lr)
                self._tell(loss, lr, clock)
                if at_end or self.position.step % self.job.recipe.validate_every == 0:
                    self._validate_and_save(at_end=at_end)
                if self.job.world.any(self.stopping()):
                    return self.position.stage == len(self.lengths)
        finally:
            stream.close()
        return True

    def _batches(self, index: int) -> Batches:
        stages, job = self.job.recipe.stages, self.job
        taken = sum(length * stage.batch for length, stage in zip(self.lengths[:index], stages, strict=False))
        how = stages[index].augmentation
        crop, world = how.crop_at(job.resolution), job.world
        return Batches(job.train, job.seed, how, crop, stages[index].batch, taken, world.rank, world.size)

    def _step(self, images: Tensor, labels: Tensor) -> tuple[float, float, float]:
        """One update; returns loss, norm of the gradient before clipping, and learning rate."""
        job, position = self.job, self.position
        stage = job.recipe.stages[position.stage]
        lr = learning_rate(stage, position.step, self.lengths[position.stage])
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        # Dropout is drawn at an address too.
        torch.manual_seed(int(generator(job.seed, STEP, position.total_step, job.world.rank).integers(2**63)))
        self.shared_model.train()
        loss = self._loss(stage, self._to_device(images), labels.to(job.device).long())
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), stage.clip_norm or math.inf)
        values = job.world.mean(float(loss.detach())), float(norm)
        if not all(map(math.isfinite, values)):
            self._refuse(*values, lr)
        self.optimiser.step()
        self._update_average()
        return *values, lr

    def _to_device(self, images: Tensor) -> Tensor:
        layout = torch.channels_last if channels_last(self.job) else torch.contiguous_format
        return images.to(self.job.device).contiguous(memory_format=layout)

    def _precision(self) -> AbstractContextManager[Any]:
        if self.job.recipe.amp == "none":
            return nullcontext()
        return torch.autocast(self.job.device.type, dtype=torch.bfloat16)

    def _loss(self, stage: Stage, images: Tensor, labels: Tensor) -> Tensor:
        recipe, wanted = self.job.recipe, None
        with self._precision():
            if self.job.teacher is not None:
                with torch.no_grad():
                    wanted = self.job.teacher(images)
            outputs = self.shared_model(images)
        return total_loss(
            outputs,
            labels,
            kind=stage.loss,
            loss_at=stage.loss_at,
            auxiliary_weight=recipe.auxiliary_weight,
            teacher=wanted,
            how=recipe.distillation,
        )

    def _refuse(self, loss: float, norm: float, lr: float) -> None:
        position = self.position
        raise TrainingFailedError(
            f"the {'gradient' if math.isfinite(loss) else 'loss'} is no number at step {position.total_step + 1}",
            where=f"stage {position.stage + 1}",
            got=f"loss {loss:g}, gradient norm {norm:g}, learning rate {lr:g}",
            fix="lower the learning rate or set clip_norm; the weights have not moved and the last checkpoint is whole",
        )

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is None or self.job.recipe.ema_decay is None:
            return
        # Young means forget faster, or the first weights would stay in them for long.
        done = self.position.total_step + 1
        decay = min(self.job.recipe.ema_decay, (1 + done) / (10 + done))
        for name, tensor in self.model.state_dict().items():
            if tensor.is_floating_point():
                self.average[name].lerp_(tensor, 1 - decay)
            else:
                self.average[name].copy_(tensor)

    def _advance(self, loss: float, norm: float) -> None:
        p = self.position
        pending = (*p.pending, (loss, norm))
        self.position = replace(p, step=p.step + 1, total_step=p.total_step + 1, pending=pending)

    def _log(self, lr: float) -> None:
        """A row with the means over the steps since the last one."""
        p = self.position
        losses, norms = zip(*p.pending, strict=True)
        means = {"loss": math.fsum(losses) / len(losses), "gradient_norm": math.fsum(norms) / len(norms)}
        if self.job.world.leads:
            self.folder.log({"step": p.total_step, "stage": p.stage, "lr": lr, **means})
        self.position = replace(p, pending=())

    def _tell(self, loss: float, lr: float, clock: Clock) -> None:
        if self.listener is None:
            return
        p = self.position
        rate = clock.rate(p.total_step)
        self.listener(Report(p.stage, p.total_step, sum(self.lengths), loss, lr, rate, self.miou, p.best_miou))

    def _validate_and_save(self, *, at_end: bool) -> None:
        p = self.position
        best_miou = self._validate_and_keep() if self.job.world.leads else p.best_miou
        stage, step = (p.stage + 1, 0) if at_end else (p.stage, p.step)
        self.position = replace(p, stage=stage, step=step, best_miou=best_miou)
        if at_end and stage < len(self.lengths):
            self.optimiser = make_optimiser(self.job.recipe.stages[stage], self.model)
        self.save()

    def _validate_and_keep(self) -> float | None:
        """Log a validation and keep the weights if they are the best so far; returns the best mIoU."""
        p = self.position
        pictures = ValidationPictures(self._validation_count())
        confusion = self.validate(pictures.add)
        self.miou = confusion.mean_iou()
        self.folder.log_validation(p.total_step, p.stage, confusion, pictures)
        if self.miou is None or (p.best_miou is not None and self.miou <= p.best_miou):
            return p.best_miou
        self.folder.write_best(self.job.network, self.inference_state(), self.job.identity, p.total_step)
        return self.miou

    def _validation_count(self) -> int:
        return min(self.job.recipe.validation_pictures or len(self.job.validation), len(self.job.validation))

    def validate(self, watch: Callable[[int, Sample, np.ndarray], None] | None = None) -> Confusion:
        """Label maps of the validation samples against the truth, at the samples' size, by the kept weights.

        Args:
            watch: called with the index of each sample, the sample, and its predicted labels.
        """
        self.inference.load_state_dict(self.inference_state())
        confusion = Confusion(self.job.network.classes)
        with torch.no_grad():
            for index in range(self._validation_count()):
                sample = self.job.validation[index]
                with self._precision():
                    logits = self.inference(torch.from_numpy(normalise(sample.image)).to(self.job.device))
                prediction = predicted(logits, sample.labels.shape).cpu().numpy()[0]
                confusion.add(sample.labels, prediction)
                if watch is not None:
                    watch(index, sample, prediction)
        return confusion

    def inference_state(self) -> dict[str, Tensor]:
        """The kept weights (the running mean where there is one) without those of the training heads."""
        state = self.average if self.average is not None else self.model.state_dict()
        return {name: state[name] for name in self.inference.state_dict()}

    def save(self) -> None:
        """Write the checkpoint; only the process that leads does."""
        if not self.job.world.leads:
            return
        checkpoint.save(self.folder.checkpoint, self.position, self.model, self.average, self.optimiser)


def predicted(logits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """N x C x h x w logits to N x H x W labels, uint8: resized bilinearly, then argmax."""
    if logits.shape[-2:] != shape:
        logits = nn.functional.interpolate(logits.float(), size=shape, mode="bilinear")
    return logits.argmax(1).to(torch.uint8)


class Clock:
    """Steps a second since a step."""

    def __init__(self, first: int) -> None:
        self._first, self._began = first, time.monotonic()

    def rate(self, total_step: int) -> float:
        return (total_step - self._first) / max(time.monotonic() - self._began, 1e-9)
