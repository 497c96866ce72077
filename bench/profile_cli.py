"""`bench profile`: what a network consists of, and with `--layers` what each layer takes in a runtime."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from searchkit.console import JsonOption, check_json, err, out, write_json

if TYPE_CHECKING:
    from .layer_times import LayerTimes
    from .peaks import Peaks

_RUNS = 20
_WHERE = ("--backend", "--io", "--threads", "--runs", "--csv")


def profile(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="Genotype file, bundle or shipped name.", show_default=False)
    ],
    resolution: Annotated[
        str, typer.Option("--resolution", metavar="HxW", help="Input, height x width, such as 512x1024.")
    ] = "512x1024",
    layers: Annotated[bool, typer.Option("--layers", help="Time each layer with the runtime's own profiler.")] = False,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend", metavar="NAME[:MODE]", help="With --layers: onnxruntime, openvino, pytorch or tensorrt."
        ),
    ] = None,
    io: Annotated[
        str | None, typer.Option("--io", metavar="NAME", help="With --layers: tensor contract. (default: logits)")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="With --layers: CPU threads.")] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, max=10_000, help=f"With --layers: how often it runs. (default: {_RUNS})")
    ] = None,
    json: JsonOption = None,
    csv: Annotated[
        str | None,
        typer.Option("--csv", metavar="PATH", help="With --layers: a line a step; `-` is standard output."),
    ] = None,
) -> None:
    """Count parameters, operations by operator and stage, and memory; with --layers, time each layer.

    Without --layers nothing is timed. With it, the times are those of the runtime's own profiler, beside the
    multiply-accumulates and bytes of what each step computes and the least that these take on this machine.
    """
    from searchkit.errors import UsageError

    check_json(json)
    check_json(csv)
    if json == csv == "-":
        raise UsageError("only one result can go to standard output", allowed="one `-`", fix="give a file name")
    if layers:
        _layers(network, resolution, backend or "onnxruntime", io or "logits", threads, runs or _RUNS, json, csv)
        return
    given = dict(zip(_WHERE, (backend, io, threads, runs, csv), strict=True))
    if unused := [option for option, value in given.items() if value is not None]:
        raise UsageError(f"{unused[0]} belongs to --layers", where=unused[0], fix="add --layers, or leave it out")
    _count(network, resolution, json)


def _count(network: str, resolution: str, json: str | None) -> None:
    from searchkit.networks import resolve
    from searchkit.sizes import parse_size

    size = parse_size(resolution)
    found = resolve(network)

    from .printing import print_profile
    from .profile import profile as count

    result = count(found, size)
    print_profile(err() if json == "-" else out(), result)
    if json:
        write_json(result.to_tree(), json)


def _layers(
    network: str,
    resolution: str,
    backend: str,
    io: str,
    threads: int | None,
    runs: int,
    json: str | None,
    csv: str | None,
) -> None:
    from deploy.backends import BACKENDS
    from deploy.contracts import CONTRACTS
    from deploy.deployable import Deployable
    from searchkit.networks import resolve
    from searchkit.sizes import parse_size

    from . import layer_times, machine, peaks
    from .roofline import Roof

    size = parse_size(resolution)
    found = resolve(network)
    CONTRACTS.load(io)
    name, _, mode = backend.partition(":")
    layer_times.profiler_of(name)
    chosen = BACKENDS.load(name).chosen_mode(mode.replace("-", "_") or None, "fp32")
    device = BACKENDS.load(name).require(None)[1]
    described, precision = machine.describe(), "bf16" if chosen.startswith("bf16") else "fp32"
    cores = threads or peaks.threads_here()
    rates = peaks.measure([precision], device=device, threads=cores, quick=True)
    model = Deployable(found, size, io)
    times = layer_times.times_of(model, name, Roof.of_peaks(rates, precision), mode=chosen, threads=cores, runs=runs)
    _print(times, rates, precision, to_people=json != "-" and csv != "-")
    if json:
        write_json(times.to_tree() | {"peaks": rates.to_tree(), "machine": described}, json)
    if csv == "-":
        sys.stdout.write(times.csv_text())
    elif csv:
        from searchkit.files import write_text

        write_text(csv, times.csv_text())


def _print(times: LayerTimes, rates: Peaks, precision: str, *, to_people: bool) -> None:
    from . import roofline_text as text

    console = out() if to_people else err()
    profiled = times.profiled
    lines = [
        text.paragraph(
            f"{times.network}, {times.resolution} (height x width), batch 1, io {times.io}; times by the "
            f"profiler of {profiled.backend}:{profiled.mode} {profiled.version} on {profiled.device}, "
            f"medians of {profiled.runs} runs"
        ),
        text.peaks_text(rates, [precision]),
        "",
        text.rows_text(times.rows, profiled.steps_ms),
        "",
        text.paragraph(
            f"Limit of all layers {text.digits(times.limit.ms)} ms, {times.attained:.0%} of the profiled run, which "
            f"takes {text.digits(profiled.whole_ms)} ms. A step without MACs and bytes does what the limit has not."
        ),
        *map(text.paragraph, times.remarks()),
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
