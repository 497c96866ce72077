"""`searchkit search`: everything that can be refused is refused before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import JsonOption, check_json, err, out, write_json
from .commands import Stop, cached, find_device, progress_bar, stop_signals

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch

    from ..costs.latency import LatencyTable
    from .distributed import World
    from .search import Searcher
    from .search_job import SearchJob, SearchReport
    from .search_limits import Timer
    from .search_request import SearchRequest


def search(
    space: Annotated[str, typer.Argument(metavar="SPACE", help="Search space, such as `ssr`.")],
    data: Annotated[str, typer.Option("--data", metavar="NAME[:PATH]", help="Data set, such as `streets`.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RUN_DIR", help="Folder of the search.")],
    strategy: Annotated[
        str | None, typer.Option("--strategy", metavar="NAME", help="See `searchkit strategies`.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", metavar="NAME", help="A recipe of the space: paper (default), demo, smoke."),
    ] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", metavar="FILE", help="A recipe, as TOML.")] = None,
    dimensions: Annotated[
        str | None,
        typer.Option("--dimensions", metavar="A,B", help="What the space searches, such as dilation,channel."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A field of the recipe, such as strategy.threshold=0.2."),
    ] = None,
    resolution: Annotated[
        str | None, typer.Option("--resolution", metavar="HxW", help="Height x width; the recipe's if left out.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="half|same", help="Data of weights and architecture.")
    ] = None,
    max_macs: Annotated[str | None, typer.Option("--max-macs", metavar="7.8G", help="Limit of conv MACs.")] = None,
    max_params: Annotated[str | None, typer.Option("--max-params", metavar="1.1M", help="Limit of parameters.")] = None,
    max_latency: Annotated[
        str | None, typer.Option("--max-latency", metavar="5ms", help="Limit by a latency table.")
    ] = None,
    latency_table: Annotated[str | None, typer.Option("--latency-table", metavar="FILE", help="That table.")] = None,
    other_device: Annotated[
        bool, typer.Option("--other-device", help="The table is of another device, as meant.")
    ] = False,
    budget_resolution: Annotated[
        str | None, typer.Option("--budget-resolution", metavar="HxW", help="At which the limits hold.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed.")] = 0,
    workers: Annotated[int, typer.Option("--workers", min=0, max=64, help="Threads that make batches.")] = 1,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, or cuda:1.")] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in RUN_DIR.")] = False,
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="DIR", help="Decoded samples; ~/.cache/searchkit if left out.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Search a network; stops at a signal with its state saved, and goes on with --resume."""
    check_json(json)
    from .search_request import SearchRequest, Words

    budgets = {"macs": max_macs, "params": max_params, "latency": max_latency, "latency_table": latency_table}
    budgets["resolution"] = budget_resolution
    given = _settings(settings or [], dimensions, split, budgets)
    words = Words(space, data, seed, strategy, preset, recipe, resolution, given)
    request = SearchRequest.parse(words, lambda table: _check_place(table, other_device))
    _search(request, output, device, cache, workers, resume, json, _timer(request, other_device))


def _settings(
    settings: list[str], dimensions: str | None, split: str | None, budgets: dict[str, str | None]
) -> tuple[str, ...]:
    """What options say, as `--set` would; a later setting wins, so those of `--set` are the last word."""
    import json

    found = [f"budgets.{name}={json.dumps(value)}" for name, value in budgets.items() if value is not None]
    if dimensions is not None:
        found.append(f"space.dimensions={json.dumps([name for name in dimensions.split(',') if name])}")
    if split is not None:
        found.append(f"split={json.dumps(split)}")
    return (*found, *settings)


def _check_place(table: LatencyTable, other_device: bool) -> None:
    from bench.latency_table import check_here

    check_here(table, other_device=other_device)


def _timer(request: SearchRequest, other_device: bool) -> Timer | None:
    """What measures the network in the end, where a latency is limited by a table of this machine."""
    from bench.latency_table_networks import Whole

    tables = [budget.table for budget in request.limits.budgets if budget.table is not None]
    return Whole(tables[0]) if tables and not other_device else None


def _search(
    request: SearchRequest,
    output: Path,
    device: str,
    cache: Path | None,
    workers: int,
    resume: bool,
    json: str | None,
    timer: Timer | None,
) -> None:
    from .batch_statistics import check_search
    from .cache_folder import LOCK
    from .distributed import start
    from .distributed import stop as leave
    from .run_folder import begin, check_new, check_same
    from .search_end import conclude
    from .search_schedule import check_batches

    world, found_device = start(find_device(device, verb="search"))
    check_batches(request.recipe, world)
    check_search(request.supernet, request.recipe, request.size, world)
    config = request.config()
    if resume:
        check_same(output, config)
    elif world.leads:
        check_new(output, lock=LOCK)
    result = None
    with _alone(output, world), stop_signals() as stop, _memory_explained(request):
        job = _job(request, cache, found_device, workers, world, config)
        if not resume and world.leads:
            begin(output, config, lock=LOCK)
        world.barrier()
        searcher = _run(job, output, resume=resume, stop=stop)
        if searcher.finished:
            _, result = conclude(searcher, request.provenance(), timer)
    leave()
    if world.leads:
        _tell(request, output, searcher, result, stop, json)


def _alone(output: Path, world: World) -> AbstractContextManager[None]:
    """Hold the lock of the folder: a second search in it is refused."""
    from .cache_folder import locked

    return locked(output, wait=False, busy="is searching in this folder") if world.leads else nullcontext()


@contextmanager
def _memory_explained(request: SearchRequest) -> Iterator[None]:
    """Where memory ran out, say so, and how much a step needs."""
    import torch

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # PyTorch's allocator for CPUs has no error of its own.
        if isinstance(error, RuntimeError) and not (
            isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        ):
            raise
        from ..errors import SearchFailedError
        from .plan import peak_bytes

        needs = peak_bytes(request.supernet, request.recipe, request.size) / 2**30
        raise SearchFailedError(
            f"memory ran out: a step needs up to {needs:.2f} GiB of tensors, as `searchkit plan` counts",
            where=f"{request.space} at {request.size}, batch {request.recipe.batch}",
            fix="lower --resolution or the batch (--set batch=2), or add --set checkpointing=true; "
            "what was saved is whole, and a smaller search is a new one",
        ) from error


def _job(
    request: SearchRequest,
    cache: Path | None,
    device: torch.device,
    workers: int,
    world: World,
    config: dict[str, Any],
) -> SearchJob:
    from ..sizes import Size
    from .cache_folder import default_root
    from .run_folder import identity_of
    from .search_job import SearchJob

    size, times = request.size, request.recipe.stored
    folder = cache or default_root()
    return SearchJob(
        build=request.supernet,
        lead=request.strategy,
        recipe=request.recipe,
        resolution=size,
        seed=request.seed,
        train=cached(request.stored, "train", Size(size.height * times, size.width * times), folder),
        validation=cached(request.dataset, "val", size, folder),
        identity=identity_of(config),
        device=device,
        limits=request.limits,
        workers=workers,
        world=world,
    )


def _run(job: SearchJob, output: Path, *, resume: bool, stop: Stop) -> Searcher:
    from .search import Searcher
    from .search_folder import SearchFolder

    with progress_bar(shown=job.world.leads) as bar:
        task = bar.add_task("searching", total=None, facts="")

        def show(report: SearchReport) -> None:
            facts = (
                f"{report.steps_per_s:.2f} steps/s, loss {report.loss:.3f}, entropy {report.entropy:.3g}, "
                f"{report.alive} alive, {report.undecided} undecided"
            )
            bar.update(task, completed=report.step, total=report.steps, facts=facts)

        searcher = Searcher(job, SearchFolder(output), listener=show, stopping=lambda: bool(stop.signal))
        if resume:
            searcher.resume()
        searcher.run()
        return searcher


def _tell(
    request: SearchRequest,
    output: Path,
    searcher: Searcher,
    result: dict[str, Any] | None,
    stop: Stop,
    json: str | None,
) -> None:
    steps = searcher.position.step
    tree = {"schema": 1, "space": request.space, "run": str(output), "finished": result is not None, "steps": steps}
    if json:
        write_json(tree | (result or {}), json)
    if result is None:
        err().print(
            f"stopped at step {steps} of {searcher.steps}; the state is saved, go on with --resume", markup=False
        )
        raise typer.Exit(128 + stop.signal)
    if json != "-":
        cost = result["cost"]
        quality = [f"{result[key]:.2%}" if result[key] is not None else "none" for key in ("miou_before", "miou_after")]
        out().print(
            f"{result['genotype']}: {cost['params'] / 1e6:.3f} M parameters, {cost['conv_macs'] / 1e9:.4g} GMACs at "
            f"{request.size}, decided by {result['decided_by']} after {steps} steps\n"
            f"mIoU of the supernet on the validation split: {quality[0]}, as this network alone {quality[1]}",
            markup=False,
        )
        for name, path in result["companions"].items():
            todo = ": train it first, and the network with --teacher" if name == "teacher" else ""
            out().print(f"{path}: the {name} that was searched with it{todo}", markup=False)
