"""`searchkit evaluate`: how well a network or a bundle segments a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import JsonOption, check_json, err, out, write_json

if TYPE_CHECKING:
    from .data import Dataset
    from .sizes import Size
    from .training.evaluate import Evaluation, Predictor, Seen

_DEFAULT_RESOLUTION = "512x1024"


Network = Annotated[
    str, typer.Argument(metavar="NETWORK|BUNDLE", help="A genotype file, a name, or a folder made by `export`.")
]
Data = Annotated[str, typer.Option("--data", metavar="NAME[:PATH]", help="The data set and where it lies.")]
Weights = Annotated[
    str | None,
    typer.Option("--weights", metavar="FILE", help="Trained weights (.safetensors), or `streets`; seeded if left out."),
]
Split = Annotated[str, typer.Option("--split", help="Which part of the data set.")]
Resolution = Annotated[
    str | None,
    typer.Option("--resolution", metavar="HxW", help="Height x width of the input; 512x1024, or the bundle's."),
]
DataSize = Annotated[
    str | None,
    typer.Option("--data-size", metavar="HxW", help="Size of pictures and labels, for data sets that draw them."),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only so many samples, evenly spread.")]
Protocol = Annotated[
    str | None, typer.Option("--protocol", help="logits: resize logits, as the papers do; labels: resize the map.")
]
Boundary = Annotated[float, typer.Option("--boundary", help="Width of boundaries, a share of the picture's diagonal.")]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, max=1024, help="CPU threads; the runtime's default if left out.")
]
ConfusionPicture = Annotated[Path | None, typer.Option("--confusion", metavar="PNG", help="Draw the confusion matrix.")]
SheetPicture = Annotated[
    Path | None, typer.Option("--sheet", metavar="PNG", help="Draw the worst and the best samples side by side.")
]
SheetRows = Annotated[int, typer.Option("--sheet-rows", min=1, max=20, help="How many of each.")]
SubmissionFolder = Annotated[
    Path | None, typer.Option("--submission", metavar="DIR", help="Write the PNGs that the Cityscapes server takes.")
]


def evaluate(
    network: Network,
    data: Data,
    weights: Weights = None,
    split: Split = "val",
    resolution: Resolution = None,
    data_size: DataSize = None,
    limit: Limit = None,
    protocol: Protocol = None,
    boundary: Boundary = 0.02,
    device: Device = "cpu",
    threads: Threads = None,
    json: JsonOption = None,
    confusion: ConfusionPicture = None,
    sheet: SheetPicture = None,
    sheet_rows: SheetRows = 3,
    submission: SubmissionFolder = None,
) -> None:
    """Measure a network on a data set: IoU a class, mIoU, boundary IoU."""
    check_json(json)
    dataset = _dataset(data, data_size, split)
    for path in (confusion, sheet):
        _check_picture(path)
    predictor = _predictor(network, weights, resolution, device, threads, dataset, split)
    watchers: list[Callable[[Seen], Any]] = []
    drawn = None
    if sheet:
        from .training.evaluation_pictures import Sheet

        drawn = Sheet(dataset.labels, sheet_rows)
        watchers.append(drawn.add)
    if submission:
        from .training.submission import Submission

        watchers.append(_submit(Submission(submission, dataset.labels)))
    if not predictor.subject.trained:
        err().print(f"weights are {predictor.subject.weights}: no figure below means anything", markup=False)
    from .training.evaluate import evaluate as measure
    from .training.evaluate import torch_threads

    with torch_threads(threads), _progress(split) as advance:
        found = measure(
            predictor,
            dataset,
            split,
            dataset_name=data.partition(":")[0],
            protocol=protocol,
            limit=limit,
            boundary_ratio=boundary,
            watch=lambda seen: [watch(seen) for watch in (*watchers, advance)],
        )
    _write(found, json, confusion)
    if sheet and drawn:
        from .pictures import write_picture

        write_picture(sheet, drawn.draw())
    if json != "-":
        _print(found)


def _dataset(data: str, size: str | None, split: str) -> Dataset:
    from .data import open_dataset
    from .sizes import parse_size

    dataset = open_dataset(data, size=parse_size(size, where="--data-size") if size else None)
    dataset.count(split)
    return dataset


def _predictor(
    network: str,
    weights: str | None,
    resolution: str | None,
    device: str,
    threads: int | None,
    dataset: Dataset,
    split: str,
) -> Predictor:
    from deploy.predictor import bundle_predictor, is_bundle_argument

    from .errors import UsageError
    from .networks import resolve
    from .sizes import parse_size
    from .trained import find_weights
    from .training.evaluate import check_dataset, network_predictor

    # Whatever can be refused is refused before torch is imported.
    size: Size | None = parse_size(resolution) if resolution else None
    found = resolve(network)
    check_dataset(dataset, split, found.classes, network=found.name)
    if not is_bundle_argument(network):
        file = find_weights(weights, found.name) if weights else None
        return network_predictor(found, size or parse_size(_DEFAULT_RESOLUTION), weights=file, device=device)
    if weights is not None:
        raise UsageError("a bundle holds its own weights", where="--weights", got=weights, fix="leave it out")
    predictor = bundle_predictor(Path(network), device=device, threads=threads)
    if size not in (None, predictor.resolution):
        raise UsageError(
            "a bundle takes one size",
            where="--resolution",
            got=str(size),
            allowed=str(predictor.resolution),
            fix="leave it out, or export again",
        )
    return predictor


def _submit(folder: Any) -> Callable[[Seen], Any]:
    return lambda seen: folder.add(seen.name, seen.prediction)


@contextmanager
def _progress(split: str) -> Iterator[Callable[[Seen], None]]:
    """A bar on standard error, where that is a terminal, with rate, time and time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = err()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(split, total=None, rate="")

        def advance(seen: Seen) -> None:
            bar.update(task, total=seen.total, advance=1)
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            bar.update(task, rate=f"{speed:.1f} pictures/s" if speed else "")

        yield advance


def _write(found: Evaluation, json: str | None, confusion: Path | None) -> None:
    if json:
        write_json(found.to_tree(), json)
    if confusion:
        from .pictures import write_picture
        from .training.evaluation_pictures import draw_confusion

        title = (
            f"{found.subject.network} on {found.dataset} {found.split} ({found.count} pictures): "
            f"mIoU {_percent(found.confusion.mean_iou())} %; rows in %"
        )
        write_picture(confusion, draw_confusion(found.confusion, found.names, title=title))


def _print(found: Evaluation) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("class", no_wrap=True)
    for heading in ("IoU %", "boundary IoU %", "share of pixels %"):
        table.add_column(heading, justify="right", no_wrap=True)
    columns = (found.confusion.iou(), found.boundary.iou(), found.confusion.share())
    for name, *values in zip(found.names, *columns, strict=True):
        table.add_row(name, *map(_percent, values))
    means = (found.confusion.mean_iou(), found.boundary.mean_iou())
    table.add_row("mean", *map(_percent, means), "", style="bold")
    console = out()
    console.print(table)
    confusion, subject = found.confusion, found.subject
    console.print(
        f"pixel accuracy {_percent(confusion.pixel_accuracy())} %, mean accuracy "
        f"{_percent(confusion.mean_accuracy())} %, frequency-weighted IoU "
        f"{_percent(confusion.frequency_weighted_iou())} %",
        markup=False,
    )
    from .training.evaluate import PROTOCOLS

    console.print(
        f"{subject.network} ({subject.digest[:12]}), {subject.runtime}, weights {subject.weights}\n"
        f"{found.dataset} {found.split}: {found.count} of {found.available} pictures, network at {found.resolution}; "
        f"{PROTOCOLS[found.protocol]}; boundaries are {found.boundary.ratio:.3g} of the diagonal wide; a class that "
        "occurs nowhere is left out of the means",
        markup=False,
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _check_picture(path: Path | None) -> None:
    """Refuse a picture that could not be written, before the work rather than after it."""
    if path is None:
        return
    from .errors import UsageError

    check_json(str(path))
    if path.suffix.lower() != ".png":
        raise UsageError("pictures are written as PNG", got=path.name, allowed="a name that ends in .png")
