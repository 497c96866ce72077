"""`searchkit data`: list, check, look at and prepare data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import JsonOption, check_json, err, out, write_json

if TYPE_CHECKING:
    from .data import Dataset, Sample
    from .label_sets import LabelSet
    from .sizes import Size
    from .training.cache_listing import FoundCache

app = typer.Typer(help="Data sets.", no_args_is_help=True)

_BAD_INPUT_FILE = 3

DataArgument = Annotated[
    str, typer.Argument(metavar="NAME[:PATH]", help="A data set from `searchkit data list`, and where its files are.")
]
SplitOption = Annotated[str, typer.Option("--split", help="Which split.")]


@app.command("list")
def list_datasets(json: JsonOption = None) -> None:
    """List the data sets that can be named."""
    from .data import DATASETS

    rows = [{"name": name, "about": DATASETS.summary(name)} for name in DATASETS.names()]
    if json:
        write_json({"schema": 1, "datasets": rows}, json)
    if json != "-":
        for row in rows:
            out().print(f"{row['name']:12} {row['about']}", markup=False)
        out().print("Those that lie on the disk are named with their root: cityscapes:/data/cityscapes")


@app.command()
def check(data: DataArgument, json: JsonOption = None) -> None:
    """Read every file of a data set, and list all that is wrong; exit code 3 if anything is."""
    from .data import open_dataset

    check_json(json)
    dataset = open_dataset(data)
    problems = []
    console = out()
    with err().status("reading every file"):
        for problem in dataset.check():
            problems.append(problem)
            if json != "-":
                console.print(str(problem), markup=False)
    counts = {split: _count(dataset, split) for split in dataset.splits()}
    if json:
        found = [{"path": problem.path, "problem": problem.problem} for problem in problems]
        write_json({"schema": 1, "dataset": data, "samples": counts, "problems": found}, json)
    if json != "-":
        samples = ", ".join(f"{split} {'-' if count is None else count}" for split, count in counts.items())
        verdict = "whole" if not problems else f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        console.print(f"{data}: {verdict}; samples: {samples}", markup=False)
    if problems:
        raise typer.Exit(_BAD_INPUT_FILE)


@app.command()
def prepare(
    data: DataArgument,
    resolution: Annotated[str, typer.Option("--resolution", metavar="HxW", help="Height x width of the samples.")],
    cache: Annotated[Path, typer.Option("--cache", metavar="DIR", help="Folder for caches; made if missing.")],
    split: Annotated[
        list[str] | None, typer.Option("--split", help="Which split; may be repeated. train and val if left out.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Decode splits once, at one size, into memory-mapped arrays; an interrupted run is continued."""
    check_json(json)
    from .sizes import parse_size

    size = parse_size(resolution)
    dataset = _open(data, size)
    wanted = list(dict.fromkeys(split or [name for name in ("train", "val") if name in dataset.splits()]))
    counts = [dataset.count(name) for name in wanted]
    prepared = [_prepare(dataset, name, size, cache) for name in wanted]
    if json:
        rows = [
            {"split": name, "samples": count, "path": str(path)}
            for name, count, path in zip(wanted, counts, prepared, strict=True)
        ]
        write_json({"schema": 1, "dataset": data, "resolution": str(size), "caches": rows}, json)
    if json != "-":
        for name, count, path in zip(wanted, counts, prepared, strict=True):
            out().print(f"{path}: {count} samples of {name} at {size}", markup=False)


@app.command()
def caches(
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="DIR", help="Folder for caches; ~/.cache/searchkit if left out.")
    ] = None,
    delete: Annotated[
        list[str] | None, typer.Option("--delete", metavar="NAME", help="Delete this one; may be repeated.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """List the caches that `prepare` and `train` have made, or delete some: nothing else ever does."""
    check_json(json)
    from .training.cache_folder import default_root
    from .training.cache_listing import delete_caches, list_caches

    root = cache or default_root()
    deleted = delete_caches(root, delete or [])
    left = list_caches(root)
    if json:
        trees = {"caches": left, "deleted": deleted}
        rows = {key: [found.to_tree() for found in each] for key, each in trees.items()}
        write_json({"schema": 1, "cache": str(root), **rows}, json)
    if json != "-":
        for found in deleted:
            out().print(f"deleted {found.path.name}, {_mebibytes(found.bytes)}", markup=False)
        _print_caches(root, left)


def _print_caches(root: Path, caches: list[FoundCache]) -> None:
    for found in caches:
        samples = f"{found.done} of {'?' if found.samples is None else found.samples} samples"
        facts = f"{found.dataset} {found.split} at {found.size}, {samples}, {_mebibytes(found.bytes)}, {found.state}"
        out().print(f"{found.path.name}: {facts}, last used {found.used:%Y-%m-%d %H:%M} UTC", markup=False)
    total = _mebibytes(sum(found.bytes for found in caches))
    out().print(f"{root}: {len(caches)} cache{'s' * (len(caches) != 1)}, {total}", markup=False)


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"


@app.command()
def sample(
    data: DataArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PNG", help="The picture.")],
    index: Annotated[int, typer.Option("--index", help="Which picture.")] = 0,
    split: SplitOption = "train",
    seed: Annotated[
        int | None, typer.Option("--seed", help="streets only: of which endless series, instead of a split.")
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option("--resolution", metavar="HxW", help="Height x width; as stored if left out, streets 512x1024."),
    ] = None,
    difficulty: Annotated[
        float | None, typer.Option("--difficulty", help="streets only: 0 (easy) to 1 (hard); 0.5 if left out.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="PNG", help="Also write the true labels, coloured.")
    ] = None,
) -> None:
    """Write one picture of a data set."""
    from .errors import UsageError
    from .pictures import check_output, write_picture
    from .sizes import parse_size

    for path in filter(None, (output, labels)):
        check_output(path)
    size = parse_size(resolution) if resolution else None
    if data == "streets":
        found, text, label_set = _streets_sample(seed, split, index, size, difficulty)
    else:
        for name, value in (("--seed", seed), ("--difficulty", difficulty)):
            if value is not None:
                raise UsageError("only for streets", where=name, got=value, fix="leave it out")
        dataset = _open(data, size)
        found = _resized(dataset.read(split, index), size)
        text, label_set = f"{data.partition(':')[0]} {dataset.name(split, index)}", dataset.labels
    write_picture(output, found.image)
    if labels:
        write_picture(labels, label_set.colour(found.labels))
    out().print(f"{output}: {text}", markup=False)


@app.command()
def sheet(
    data: DataArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PNG", help="The sheet.")],
    split: SplitOption = "train",
    count: Annotated[int, typer.Option("--count", min=1, max=400, help="How many samples.")] = 12,
    columns: Annotated[int, typer.Option("--columns", min=1, max=40, help="Samples a row.")] = 4,
    resolution: Annotated[
        str, typer.Option("--resolution", metavar="HxW", help="Height x width of each picture.")
    ] = "80x160",
) -> None:
    """Write a contact sheet: samples spread over a split, each picture above its true labels."""
    from .data._sheet import contact_sheet, spread
    from .errors import UsageError
    from .pictures import write_picture
    from .sizes import MAX_SIDE_PX, parse_size

    size = parse_size(resolution)
    if columns * size.width > MAX_SIDE_PX or -(-count // columns) * 2 * size.height > MAX_SIDE_PX:
        raise UsageError("the sheet would be too large", where="--resolution", got=str(size), fix="use a smaller one")
    dataset = _open(data, size)
    indices = spread(dataset.count(split), count)
    if not indices:
        raise UsageError("the split has no samples", where="--split", got=split)
    samples = [_resized(dataset.read(split, index), size) for index in indices]
    picture = contact_sheet(samples, dataset.labels, columns, size)
    write_picture(output, picture)
    out().print(f"{output}: {len(samples)} of {dataset.count(split)} samples of {split}", markup=False)


@app.command()
def frequencies(
    data: DataArgument,
    split: SplitOption = "train",
    count: Annotated[int, typer.Option("--count", min=1, help="How many samples, spread over the split.")] = 200,
    json: JsonOption = None,
) -> None:
    """Measure how many pixels each class covers, and in how many samples it is seen."""
    from .data._sheet import label_shares, spread

    check_json(json)
    dataset = _open(data, None)
    indices = spread(dataset.count(split), count)
    shares = label_shares((dataset.read(split, index) for index in indices), dataset.labels)
    if json:
        write_json({"schema": 1, "dataset": data, "split": split, "samples": len(indices), "classes": shares}, json)
    if json != "-":
        out().print(f"{len(indices)} samples of {split}; % of pixels, % of samples", markup=False)
        for name, row in shares.items():
            out().print(f"{name:16}{row['share_of_pixels']:8.2%}{row['share_of_samples']:8.0%}", markup=False)


def _open(data: str, size: Size | None) -> Dataset:
    """A data set that draws does so at `size`; the others have the size that they are stored in."""
    from .data import DATASETS, open_dataset

    draws = DATASETS.load(data.partition(":")[0]).draws if data.partition(":")[0] else False
    return open_dataset(data, size=size if draws else None)


def _count(dataset: Dataset, split: str) -> int | None:
    from .errors import SearchkitError

    try:
        return dataset.count(split)
    except SearchkitError:
        return None


def _resized(found: Sample, size: Size | None) -> Sample:
    from .data import Sample
    from .pictures import resize_picture

    if size is None:
        return found
    return Sample(resize_picture(found.image, size), resize_picture(found.labels, size, nearest=True))


def _streets_sample(
    seed: int | None, split: str, index: int, size: Size | None, difficulty: float | None
) -> tuple[Sample, str, LabelSet]:
    """The series of a seed has no end, so that it can be drawn from beyond the splits."""
    from .data.streets import DEFAULT_DIFFICULTY, SPLITS, Streets, draw
    from .sizes import Size

    size = size or Size(512, 1024)
    difficulty = DEFAULT_DIFFICULTY if difficulty is None else difficulty
    if seed is None:
        streets = Streets(size, difficulty)
        return (
            streets.read(split, index),
            f"streets picture {index} of {split}, seed {SPLITS[split][0]}",
            streets.labels,
        )
    return draw(seed, index, size, difficulty), f"streets picture {index} of seed {seed}", Streets.labels


def _prepare(dataset: Dataset, split: str, size: Size, folder: Path) -> Path:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from .training.cache import prepare

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err(), transient=True) as bar:
        task = bar.add_task(f"{dataset.kind} {split}", total=None, rate="")

        def show(done: int, total: int) -> None:
            speed = bar.tasks[task].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:.1f} samples/s" if speed else "")

        return prepare(dataset, split, size, folder, show).path
