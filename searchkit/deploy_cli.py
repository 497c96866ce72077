"""`searchkit verify`, `run` and `segment`: what is done with a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import JsonOption, check_json, err, out, write_json

if TYPE_CHECKING:
    from deploy.prove import Proof
    from deploy.run import Result

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder made by `searchkit export`.")]
BackendOption = Annotated[
    str, typer.Option("--backend", metavar="NAME[:MODE]", help="What runs the model; `searchkit doctor` lists them.")
]
Device = Annotated[str | None, typer.Option("--device", help="Of the backend; its first if left out.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads; the backend's default if left out.")
]
Trust = Annotated[
    bool, typer.Option("--trust-engine", help="Run the bundle's engine, which is code, if the backend needs one.")
]


def verify(
    bundle: BundleArgument,
    backend: BackendOption = "onnxruntime",
    device: Device = None,
    threads: Threads = None,
    trust_engine: Trust = False,
    json: JsonOption = None,
) -> None:
    """Prove a bundle again: its files, its model against the PyTorch network, and its golden picture."""
    check_json(json)
    name, mode = _backend(backend)
    from deploy.bundle import read_bundle

    opened = read_bundle(bundle)
    from deploy.prove import prove

    proof = prove(opened, backend=name, mode=mode, device=device, threads=threads, trust_engines=trust_engine)
    if json:
        write_json(proof.to_tree(), json)
    if json != "-":
        _print_proof(proof)
    if proof.problems:
        from .errors import VerificationError

        raise VerificationError(
            f"verification failed: {'; '.join(proof.problems)}", where=str(bundle), fix="do not use this bundle"
        )


def _backend(argument: str, *, auto: bool = False) -> tuple[str, str | None]:
    """`NAME[:MODE]`, both known; `auto` where that is allowed; raises `UsageError`."""
    from deploy.automatic import AUTO
    from deploy.backends import BACKENDS

    from .errors import unknown_name

    if auto and argument == AUTO:
        return AUTO, None
    name, _, mode = argument.partition(":")
    modes = BACKENDS.load(name).modes
    if mode and mode not in modes:
        raise unknown_name(f"mode of {name}", mode, modes, where="--backend")
    return name, mode or None


def _print_proof(proof: Proof) -> None:
    console = out()
    console.print(
        f"{proof.bundle}: {proof.network} at {proof.resolution}, {proof.precision}, contract {proof.io}, "
        f"bundle of schema {proof.schema}",
        markup=False,
    )
    for check in proof.checks:
        console.print(f"{check.name}: {check.state}: {check.text}", markup=False)
    if proof.unproved and not proof.problems:
        console.print(f"passed, but {len(proof.unproved)} of {len(proof.checks)} could not be proved", markup=False)


def segment(
    bundle: BundleArgument,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture of any size.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PNG", help="The coloured label map.")],
    overlay: Annotated[bool, typer.Option("--overlay", help="Blend the colours with the picture.")] = False,
    json: JsonOption = None,
) -> None:
    """Run a bundle on a picture and write the label map as a coloured PNG."""
    check_json(json)
    from .pictures import check_output, read_picture, write_picture

    check_output(output)
    picture = read_picture(image)
    import numpy as np

    from deploy.segmenter import load

    with load(bundle) as segmenter:
        labels = segmenter(picture)
        _warn_untrained(segmenter.trained)
        write_picture(output, segmenter.overlay(picture, labels) if overlay else segmenter.colour(labels))
    names = segmenter.labels.names
    shares = np.bincount(labels.ravel(), minlength=len(names)) / labels.size
    if json:
        tree = {name: float(share) for name, share in zip(names, shares, strict=False)}
        write_json({"schema": 1, "output": str(output), "share_of_pixels": tree}, json)
    if json != "-":
        size = f"{labels.shape[0]}x{labels.shape[1]}"
        out().print(f"{output}: {size}, {int((shares > 0).sum())} of {len(names)} classes", markup=False)


def _warn_untrained(trained: bool) -> None:
    if not trained:
        err().print("this bundle holds untrained weights: its label map means nothing")


def run(
    bundle: BundleArgument,
    source: Annotated[
        Path, typer.Argument(metavar="IMAGE|FOLDER|VIDEO", help="What to segment; folders with all below them.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="A PNG, a folder, or a video, as the input is.")
    ],
    overlay: Annotated[bool, typer.Option("--overlay", help="Blend the colours with the picture.")] = False,
    labels: Annotated[
        bool, typer.Option("--labels", help="Write class indices as grey values instead of colours.")
    ] = False,
    backend: Annotated[
        str,
        typer.Option(
            "--backend",
            metavar="NAME[:MODE]",
            help="What runs the model: one that `searchkit doctor` lists, or `auto`, the fastest that is right.",
        ),
    ] = "onnxruntime",
    device: Device = None,
    threads: Threads = None,
    trust_engine: Trust = False,
    json: JsonOption = None,
) -> None:
    """Run a bundle on a picture, on a folder of pictures, or on a video (through ffmpeg)."""
    check_json(json)
    from .errors import UsageError

    if overlay and labels:
        raise UsageError("a map of class indices has no overlay", where="--labels", fix="give one of the two")
    style = "overlay" if overlay else "labels" if labels else "colours"
    name, mode = _backend(backend, auto=True)
    from deploy.bundle import read_bundle

    opened = read_bundle(bundle)
    from deploy.run import plan
    from deploy.run import run as run_job
    from deploy.segmenter import Segmenter

    job = plan(source, output, style=style)
    segmenter = Segmenter(opened, device=device, threads=threads, backend=name, mode=mode, trust_engines=trust_engine)
    if segmenter.choice is not None:
        err().print(segmenter.choice.text, markup=False)
    with segmenter, progress() as advance:
        _warn_untrained(segmenter.trained)
        count = len(job.items) if job.kind == "folder" else 0
        seen = iter(range(1, 2**63))
        results = run_job(segmenter, job, style=style, done=lambda path: advance(path.name, next(seen), count))
    if json:
        files = [result.to_tree() for result in results]
        write_json({"schema": 1, "bundle": str(bundle), "style": style, "files": files}, json)
    if json != "-":
        _print_results(results, job.kind, output)
    _refuse_failures(results, source)


def _print_results(results: list[Result], kind: str, output: Path) -> None:
    console = out()
    done = [result for result in results if result.error is None]
    if kind == "folder":
        console.print(f"{output}: {len(done)} of {len(results)} pictures", markup=False)
        return
    (result,) = done
    seen = sum(share > 0 for share in (result.shares or {}).values())
    frames = f"{result.frames} frames of " if kind == "video" else ""
    console.print(f"{output}: {frames}{result.size}, {seen} of {len(result.shares or {})} classes", markup=False)


def _refuse_failures(results: list[Result], source: Path) -> None:
    """The rest was done; a script must hear of those that were not."""
    failed = [result for result in results if result.error is not None]
    if not failed:
        return
    from .errors import InputFileError

    console = err()
    for result in failed:
        console.print(f"not segmented: {result.error}", markup=False)
    raise InputFileError(
        f"{len(failed)} of {len(results)} pictures could not be read",
        where=str(source),
        fix="the others are done; mend or remove these",
    )


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A line on standard error, where that is a terminal: what is being done, how far it is, how fast, time left.

    Yields what is told the work, how much of it is done, and of how much; 0 where that is not known.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = err()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, count="", rate="", visible=False)

        def advance(what: str, done: int, total: int) -> None:
            count = f"{done} of {total}" if total else str(done)
            speed = bar.tasks[0].speed
            rate = f"{speed:.1f}/s" if speed else ""
            bar.update(
                task, description=what, completed=done, total=total or None, count=count, rate=rate, visible=True
            )

        yield advance
