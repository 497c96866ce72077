"""`searchkit train`: everything that can be refused is refused before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import JsonOption, check_json, err, out, write_json
from .commands import Stop, cached, find_device, progress_bar, stop_signals

if TYPE_CHECKING:
    import torch

    from ..data import Dataset
    from ..networks import Network
    from ..sizes import Size
    from .distillation import Teacher
    from .distributed import World
    from .recipe import Recipe
    from .train import Job, Report, Result

SCHEMA = 1


def train(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="A genotype file, or a name from `searchkit networks`.")
    ],
    data: Annotated[str, typer.Option("--data", metavar="NAME[:PATH]", help="Data set, such as `streets`.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RUN_DIR", help="Folder of the run.")],
    preset: Annotated[str | None, typer.Option("--preset", metavar="NAME", help="A shipped recipe.")] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", metavar="FILE", help="A recipe, as TOML.")] = None,
    resolution: Annotated[str, typer.Option("--resolution", metavar="HxW", help="Height x width.")] = "512x1024",
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", metavar="RUN_DIR|WEIGHTS|NETWORK", help="Trained network whose answers are learnt."),
    ] = None,
    teacher_weights: Annotated[
        Path | None,
        typer.Option("--teacher-weights", metavar="FILE", help="Weights of a --teacher NETWORK (.safetensors)."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed.")] = 0,
    workers: Annotated[int, typer.Option("--workers", min=0, max=64, help="Threads that make batches.")] = 1,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, or cuda:1.")] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in RUN_DIR.")] = False,
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="DIR", help="Decoded samples; ~/.cache/searchkit if left out.")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Keep the weights in float16.")] = False,
    json: JsonOption = None,
) -> None:
    """Train a network on a data set; stops at a signal with its state saved, and goes on with --resume."""
    check_json(json)
    request = _Request.parse(network, data, preset, recipe, resolution, seed)
    world, found_device = _joined(find_device(device), request.recipe)
    found_teacher = _teacher(teacher, teacher_weights, request, found_device)
    config = request.config(found_teacher)
    from .cache_folder import default_root
    from .run_folder import RunFolder, begin, check_new, check_same

    if resume:
        check_same(output, config)
    elif world.leads:
        check_new(output)
    with stop_signals() as stop:
        job = request.job(config, cache or default_root(), found_device, workers, found_teacher)
        job = replace(job, world=world)
        if not resume and world.leads:
            begin(output, config)
        world.barrier()
        folder = RunFolder(output, half=half, tensorboard=world.leads, labels=request.dataset.labels)
        result = _run(job, folder, resume=resume, stop=stop)
    _leave()
    if world.leads:
        _conclude(request, output, result, stop, json)


@dataclass(frozen=True)
class _Request:
    """What the arguments ask for, checked."""

    network: Network
    recipe: Recipe
    size: Size
    dataset: Dataset
    stored: Dataset
    argument: str
    seed: int

    @classmethod
    def parse(
        cls, network: str, data: str, preset: str | None, recipe: Path | None, resolution: str, seed: int
    ) -> _Request:
        from ..data import DATASETS, open_dataset
        from ..errors import UsageError
        from ..networks import resolve
        from ..sizes import Size, parse_size
        from .recipe import check_crops, load_preset, load_recipe

        if preset and recipe:
            raise UsageError("both a preset and a recipe are given", where="--recipe", fix="leave one out")
        found, size = resolve(network), parse_size(resolution)
        how = load_recipe(recipe) if recipe else load_preset(preset or "ssr")
        check_crops(how, size)
        for wanted in {size, *_crops(how, size)}:
            found.check(wanted)
        draws = DATASETS.load(data.partition(":")[0]).draws
        large = Size(size.height * how.stored, size.width * how.stored)
        dataset = open_dataset(data, size=size if draws else None)
        stored = open_dataset(data, size=large) if draws and how.stored > 1 else dataset
        if found.classes != len(dataset.labels):
            err().print(f"{found.name} is built for the {len(dataset.labels)} classes of {dataset.kind}", markup=False)
            found = found.with_classes(len(dataset.labels))
        return cls(found, how, size, dataset, stored, data, seed)

    def crops(self) -> set[Size]:
        """What the network and its teacher see in training."""
        return _crops(self.recipe, self.size)

    def config(self, teacher: Teacher | None) -> dict[str, Any]:
        """Everything that decides the run."""
        return {
            "schema": SCHEMA,
            "network": self.network.to_tree(),
            "digest": self.network.digest,
            "data": {
                "name": self.argument,
                "train": self.stored.fingerprint("train"),
                "val": self.dataset.fingerprint("val"),
            },
            "resolution": str(self.size),
            "seed": self.seed,
            "teacher": teacher.to_tree() if teacher else None,
            "recipe": self.recipe.to_tree(),
        }

    def job(
        self, config: dict[str, Any], cache: Path, device: torch.device, workers: int, teacher: Teacher | None
    ) -> Job:
        from ..sizes import Size
        from .run_folder import identity_of
        from .train import Job

        large = Size(self.size.height * self.recipe.stored, self.size.width * self.recipe.stored)
        return Job(
            network=self.network,
            recipe=self.recipe,
            resolution=self.size,
            seed=self.seed,
            train=cached(self.stored, "train", large, cache),
            validation=cached(self.dataset, "val", self.size, cache),
            identity=identity_of(config),
            device=device,
            workers=workers,
            teacher=teacher.module if teacher else None,
        )


def _crops(recipe: Recipe, size: Size) -> set[Size]:
    return {stage.augmentation.crop_at(size) for stage in recipe.stages}


def _joined(device: torch.device, recipe: Recipe) -> tuple[World, torch.device]:
    """This process among those that `torchrun` has started, if it has."""
    from .distributed import start

    world, found = start(device)
    for stage in recipe.stages:
        world.check_batch(stage.batch)
    return world, found


def _leave() -> None:
    from .distributed import stop

    stop()


def _teacher(argument: str | None, weights: Path | None, request: _Request, device: torch.device) -> Teacher | None:
    """The teacher of the run, checked before it is built."""
    from ..errors import UsageError

    if argument is None:
        if weights is not None:
            raise UsageError("weights of no teacher", where="--teacher-weights", fix="add --teacher with their network")
        return None
    from .distillation import check_teacher, find_teacher, load_teacher

    found, file = find_teacher(argument, weights)
    for size in request.crops():
        found.check(size)
    check_teacher(found, file, request.dataset.labels)
    return load_teacher(found, file, device)


def _run(job: Job, folder: Any, *, resume: bool, stop: Stop) -> Result:
    from .train import Trainer

    stages = len(job.recipe.stages)
    with progress_bar(shown=job.world.leads) as bar:
        task = bar.add_task("training", total=None, facts="")

        def show(report: Report) -> None:
            facts = f"{report.steps_per_s:.2f} steps/s, loss {report.loss:.3f}"
            if report.miou is not None:
                facts += f", mIoU {report.miou:.1%} (best {report.best_miou or 0:.1%})"
            text = f"stage {report.stage + 1} of {stages}"
            bar.update(task, description=text, completed=report.total_step, total=report.total_steps, facts=facts)

        trainer = Trainer(job, folder, listener=show, stopping=lambda: bool(stop.signal))
        if resume:
            trainer.resume()
        try:
            return trainer.run()
        finally:
            folder.close()


def _conclude(request: _Request, output: Path, result: Result, stop: Stop, json: str | None) -> None:
    from .run_folder import WEIGHTS

    tree = {
        "schema": 1,
        "network": request.network.name,
        "digest": request.network.digest,
        "run": str(output),
        "steps": result.total_steps,
        "finished": result.finished,
        "weights": str(output / WEIGHTS) if result.finished else None,
        "miou": result.miou,
        "best_miou": result.best_miou,
    }
    if json:
        write_json(tree, json)
    if not result.finished:
        err().print(f"stopped at step {result.total_steps}; the state is saved, go on with --resume", markup=False)
        raise typer.Exit(128 + stop.signal)
    if json != "-":
        best = "no mIoU" if result.best_miou is None else f"mIoU {result.best_miou:.2%}"
        out().print(f"{output / WEIGHTS}: {result.total_steps} steps, {best} on the validation split", markup=False)
