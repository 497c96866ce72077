"""`bench training`: is `searchkit train` as fast as a loop that a person would write, and does it wait for its data?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searchkit.console import JsonOption, check_json, err, out, write_json

if TYPE_CHECKING:
    from searchkit.training.train import Job

    from .training import TrainingCost


def training(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="Genotype file or shipped name.")] = "ssr",
    data: Annotated[str, typer.Option("--data", metavar="NAME[:PATH]", help="Data set.")] = "streets",
    preset: Annotated[str, typer.Option("--preset", metavar="NAME", help="A shipped recipe.")] = "streets-cpu",
    resolution: Annotated[str, typer.Option("--resolution", metavar="HxW", help="Height x width.")] = "128x256",
    split: Annotated[str, typer.Option("--split", help="Samples of this split are loaded.")] = "train",
    turns: Annotated[int, typer.Option("--turns", min=1, max=1000, help="How often the three take turns.")] = 5,
    steps: Annotated[int, typer.Option("--steps", min=1, max=10000, help="Steps that count in a turn.")] = 12,
    workers: Annotated[int, typer.Option("--workers", min=0, max=64, help="Threads that make batches.")] = 1,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="DIR", help="Decoded samples; made for this run if left out.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Time a training step beside a bare PyTorch loop and beside the loader, in turns; nothing is trained.

    The last stage of the recipe is measured.
    """
    from contextlib import ExitStack
    from tempfile import TemporaryDirectory

    check_json(json)
    with ExitStack() as stack:
        folder = cache or Path(stack.enter_context(TemporaryDirectory(prefix="searchkit-bench-")))
        job = _job(network, data, preset, resolution, split, workers, device, folder)
        from . import machine
        from .training import training_cost

        setting = {"network": job.network.name, "digest": job.network.digest, "data": data, "preset": preset}
        console = err()
        cost = training_cost(
            job,
            {**setting, "resolution": str(job.resolution), "device": device},
            machine.describe(),
            turns=turns,
            steps=steps,
            progress=lambda text: console.print(text, markup=False),
        )
    if json:
        write_json(cost.to_tree(), json)
    if json != "-":
        _print(cost)


def _job(
    network: str, data: str, preset: str, resolution: str, split: str, workers: int, device: str, cache: Path
) -> Job:
    from searchkit.data import DATASETS, open_dataset
    from searchkit.networks import resolve
    from searchkit.sizes import Size, parse_size
    from searchkit.training.recipe import check_crops, load_preset

    found, size, recipe = resolve(network), parse_size(resolution), load_preset(preset)
    check_crops(recipe, size)
    found.check(recipe.stages[-1].augmentation.crop_at(size))
    large = Size(size.height * recipe.stored, size.width * recipe.stored)
    dataset = open_dataset(data, size=large if DATASETS.load(data.partition(":")[0]).draws else None)
    from searchkit.training.evaluate import check_device

    check_device(device)
    import torch

    from searchkit.training.cache import prepare
    from searchkit.training.train import Job

    samples = prepare(dataset, split, large, cache, wait=True)
    return Job(
        network=found.with_classes(len(dataset.labels)),
        recipe=recipe,
        resolution=size,
        seed=0,
        train=samples,
        # Never looked at.
        validation=samples,
        identity="benchmark",
        device=torch.device(device),
        workers=workers,
    )


def _print(cost: TrainingCost) -> None:
    from statistics import median

    turns, setting = cost.turns, cost.setting
    step, bare, load = (median(times) * 1e3 for times in (turns.trainer_s, turns.bare_s, turns.loading_s))
    for text in (
        f"{setting['network']} at {setting['resolution']}, batch {setting['batch']}, amp {setting['amp']}, "
        f"{setting['torch_threads']} threads",
        f"training step      {step:8.1f} ms",
        f"bare PyTorch loop  {bare:8.1f} ms   the step takes {_range(turns.step_ratios)} times as long",
        f"loading, 1 thread  {load:8.1f} ms   {_range(turns.loading_ratios)} times the step's rate",
    ):
        out().print(text, markup=False)


def _range(ratios: tuple[float, ...]) -> str:
    from statistics import median

    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
