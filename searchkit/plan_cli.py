"""`searchkit plan`: what a search will need, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import JsonOption, check_json, out, write_json

if TYPE_CHECKING:
    from .sizes import Size
    from .supernet import Supernet
    from .training.plan import Pictures, Plan, Rates, Row
    from .training.search_recipe import SearchRecipe


def plan(
    space: Annotated[str, typer.Argument(metavar="SPACE", help="Search space, such as `ssr`.")],
    data: Annotated[
        str | None, typer.Option("--data", metavar="NAME[:PATH]", help="Data set whose pictures are counted.")
    ] = None,
    pictures: Annotated[
        int | None, typer.Option("--pictures", min=2, metavar="N", help="Training pictures, in place of --data.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="A shipped recipe: paper (default), demo, smoke.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", metavar="FILE", help="A recipe, as TOML.")] = None,
    resolution: Annotated[
        str | None, typer.Option("--resolution", metavar="HxW", help="Height x width; the recipe's if left out.")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Pictures of an update.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="A field of the recipe; may be repeated.")
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option("--device", metavar="NAME", help="Devices to predict for. (default: v100)")
    ] = None,
    classes: Annotated[int | None, typer.Option("--classes", min=2, help="Classes; those of --data, or 19.")] = None,
    json: JsonOption = None,
) -> None:
    """Count memory, work, steps and disk of a search, and predict its hours; nothing is allocated or run."""
    check_json(json)
    from .errors import UsageError
    from .sizes import Size, parse_size
    from .spaces import SPACES
    from .training.batch_statistics import check_search
    from .training.distributed import ALONE
    from .training.plan import PUBLISHED
    from .training.plan import plan as planned

    if (data is None) == (pictures is None):
        raise UsageError(
            "how many pictures there are is not clear", where="--data", fix="give either --data or --pictures"
        )
    found = _recipe(space, preset, recipe, batch, settings or [])
    size = parse_size(resolution) if resolution else Size(*(found.resolution or (512, 1024)))
    known, of_data = _pictures(data, pictures, size)
    kind = SPACES.load(space)
    kind.genotype_type.size_rule.check(size, network=space)
    rates = tuple(_rates(name, found.amp) for name in device or ["v100"])
    published = PUBLISHED if _is_the_papers(space, found, size) else ()

    def build() -> Supernet:
        return kind.supernet(found.space, classes or of_data or 19)

    check_search(build, found, size, ALONE)
    result = planned(build, space, found, size, known, rates, published)
    if json:
        write_json(result.to_tree(), json)
    if json != "-":
        _print(result)


def _recipe(space: str, preset: str | None, path: Path | None, batch: int | None, settings: list[str]) -> SearchRecipe:
    from .errors import InputFileError, UsageError
    from .training.search_recipe import (
        DEFAULT_PRESET,
        changed,
        load_search_recipe,
        merged_error,
        parse_search_recipe,
    )

    if preset and path:
        raise UsageError("both a preset and a recipe are given", where="--recipe", fix="leave one out")
    tree = load_search_recipe(space, preset=preset, path=path)
    where = str(path) if path else f"preset {preset or DEFAULT_PRESET}"
    parse_search_recipe(tree, where=where)
    if batch is not None:
        settings = [*settings, f"batch={batch}"]
    try:
        return parse_search_recipe(changed(tree, settings), where="recipe")
    except InputFileError as error:
        raise merged_error(error) from None


def _pictures(data: str | None, pictures: int | None, size: Size) -> tuple[Pictures, int | None]:
    """How many there are, and the number of classes where a data set says so."""
    from .data import DATASETS, open_dataset
    from .training.plan import Pictures

    if data is None:
        return Pictures(pictures or 0, 0), None
    draws = DATASETS.load(data.partition(":")[0]).draws
    dataset = open_dataset(data, size=size if draws else None)
    return Pictures(dataset.count("train"), dataset.count("val")), len(dataset.labels)


def _rates(name: str, amp: str) -> Rates:
    from bench.devices import find

    from .errors import UsageError
    from .training.plan import Rates

    device = find(name)
    # PyTorch's convolutions take TF32 where the device has it.
    wanted = ("bf16",) if amp == "bf16" else ("tf32", "fp32")
    known = [peak.precision for peak in device.peak]
    precision = next((each for each in wanted if each in known), None)
    if precision is None:
        raise UsageError(f"no rate in bf16 is known for {device.title}", where="--device", got=name, fix="set amp=none")
    rate = device.best(precision).tera_ops
    return Rates(device.name, device.title, precision, rate, device.bandwidth_gb_s, device.memory_gb)


def _is_the_papers(space: str, recipe: SearchRecipe, size: Size) -> bool:
    """Whether this is the search that the paper's figures are of."""
    asked = (space, recipe.space, recipe.batch, recipe.epochs, recipe.amp, recipe.checkpointing, tuple(size))
    return asked == ("ssr", {}, 6, 200, "none", False, (512, 1024))


def _print(plan: Plan) -> None:
    from rich.table import Table

    console = out()
    cut = "" if plan.crop == plan.size else f" cut to {plan.crop}"
    early = plan.pretraining
    console.print(
        f"{plan.space} at {plan.size}{cut}, batch {plan.batch}: {plan.steps - (early.steps if early else 0):,} steps "
        f"of two updates over {plan.pictures.train:,} pictures, {plan.decisions} decision points",
        markup=False,
    )
    if early:
        console.print(
            f"before them {early.steps:,} steps of the weights alone, at {early.crop}, batch {early.batch}: peak "
            f"{early.needs.peak_bytes / 2**20:,.1f} MiB, {early.needs.macs / 1e9:,.3g} GMACs a step",
            markup=False,
        )
    console.print()
    table = Table(box=None, pad_edge=False)
    for heading in ("candidates", "peak MiB", "weights", "gradients", "moments", "activations", "GMACs a step"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in plan.rows:
        worst = row.needs.worst
        of = (
            worst.peak_bytes,
            worst.weights_bytes,
            worst.gradients_bytes,
            worst.moments_bytes,
            worst.activations_bytes,
        )
        mib = [f"{value / 2**20:,.1f}" for value in of]
        table.add_row(str(row.candidates or "all"), *mib, f"{row.work.macs / 1e9:,.3g}")
    console.print(table)
    console.print(
        "counted: MiB of tensors at the highest point of the architecture and the weight update; what kernels, the "
        "allocator and the runtime take for themselves comes on top",
        markup=False,
    )
    console.print(_said_of_draws(plan.rows[0]), markup=False)
    console.print()
    for rates in plan.devices:
        _print_device(plan, rates)
    for figure in plan.published:
        console.print(f"published: {figure['figure']} ({figure['source']})", markup=False)
    disk = plan.disk
    console.print(
        f"disk: {_gib(disk.total)} GiB at most: caches {_gib(disk.caches)}, a checkpoint {_gib(disk.checkpoint)} "
        f"(two while one replaces the other)",
        markup=False,
    )


def _said_of_draws(row: Row) -> str:
    if len(row.draws) == 1:
        return "not sampled: the strategy lets all candidates that live take part in every step"
    peaks = [needs.worst.peak_bytes / 2**20 for needs in row.draws]
    return (
        f"sampled: {len(row.draws)} steps as the strategy draws them where a search begins, each candidate as probable "
        f"as any other; memory of the one that needs most (with all candidates {max(peaks):,.1f} MiB, the mean is "
        f"{sum(peaks) / len(peaks):,.1f}), MACs of the mean"
    )


def _print_device(plan: Plan, rates: Rates) -> None:
    from .training.plan import UTILISATION

    def hours(row: Row) -> str:
        low, high = plan.hours(rates, row.work)
        # What takes a moment reads better in seconds.
        unit, scale = ("h", 1.0) if high >= 0.1 else ("s", 3600.0)
        return f"{low * scale:.2g} to {high * scale:.2g} {unit}"

    last = plan.rows[-1]
    memory = "fits" if plan.peak_bytes <= rates.memory_gb * 1e9 else "does not fit"
    out().print(
        f"predicted for {rates.title}: {hours(plan.rows[0])} if nothing were removed, {hours(last)} if every step "
        f"were one of {last.candidates or 'all'} candidate a choice; {rates.precision} at {rates.tera_ops:g} Tops and "
        f"{rates.bandwidth_gb_s:g} GB/s, of which {UTILISATION[0]:.0%} to {UTILISATION[1]:.0%} are assumed to be "
        f"attained; {memory} in its {rates.memory_gb:g} GB",
        markup=False,
    )


def _gib(value: int) -> str:
    return f"{value / 2**30:.2f}"
