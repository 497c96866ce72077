"""`bench roofline`: how fast a network could be, here or on a device that is not here, and how near a run comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searchkit.console import JsonOption, check_json, err, out, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from deploy.deployable import Deployable
    from searchkit.sizes import Size

    from .fps import Runtime
    from .layer_times import LayerTimes
    from .layers import Layer
    from .measurement import Measurement
    from .peaks import Peaks
    from .roofline import Limit, Roof

HERE = "here"
ALL = "all"
SCHEMA = 1

_PROFILED_RUNS, _PROFILED_RUNS_QUICK = 20, 5


NetworksArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="NETWORK", help="Genotype files, bundles or shipped names.", show_default=False),
]
ResolutionOption = Annotated[str, typer.Option("--resolution", metavar="HxW", help="Input, height x width.")]
DeviceOption = Annotated[
    str,
    typer.Option("--device", metavar="NAME,...", help="`here` is measured; one of devices.toml, or `all`, predicted."),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision", metavar="NAME", help="fp32, tf32, bf16, fp16 or int8. (default: the backend's, or fp32)"
    ),
]
BackendOption = Annotated[str, typer.Option("--backend", metavar="NAME[:MODE]", help="What runs the networks here.")]
IoOption = Annotated[str, typer.Option("--io", metavar="NAME", help="Tensor contract.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, max=1024, help="CPU threads, of networks and peak rates alike. (default: all)")
]
TopOption = Annotated[int, typer.Option("--top", min=0, max=1000, help="How many layers to show.")]
QuickOption = Annotated[bool, typer.Option("--quick", help="A rough look: shorter turns, smaller matrices.")]
PublishedOption = Annotated[
    bool, typer.Option("--published", help="Show the published (device, FPS) pairs beside their limits.")
]
RecountOption = Annotated[
    str | None,
    typer.Option("--recount", metavar="PATH", help="Count the layers of the published pairs anew; minutes."),
]


def roofline(
    networks: NetworksArgument = None,
    resolution: ResolutionOption = "512x1024",
    device: DeviceOption = HERE,
    precision: PrecisionOption = None,
    backend: BackendOption = "onnxruntime",
    io: IoOption = "logits",
    threads: ThreadsOption = None,
    top: TopOption = 5,
    quick: QuickOption = False,
    published: PublishedOption = False,
    recount: RecountOption = None,
    json: JsonOption = None,
) -> None:
    """Say how fast networks could be at most, layer by layer, and which share of that they attain.

    On this machine both sides are measured. For a device that is not here the limit is computed from its data sheet,
    and what PyTorch and TensorRT attain of it is predicted, with the error that this has on published figures.
    """
    from searchkit.errors import UsageError

    check_json(json)
    check_json(recount)
    if not (networks or published or recount):
        raise UsageError(
            "no network is named", where="NETWORK", allowed="one or more, or --published", fix="name one, such as ssr"
        )
    console = err() if json == "-" else out()
    tree: dict[str, Any] = {"schema": SCHEMA, "kind": "roofline"}
    if recount:
        _recount(recount)
    if networks:
        tree |= _limits(console, networks, resolution, device, precision, backend, io, threads, top, quick)
    if published:
        from .elsewhere import published as show_published

        tree |= show_published(console)
    if json:
        write_json(tree, json)


def _limits(
    console: Console,
    names: Sequence[str],
    resolution: str,
    device: str,
    precision: str | None,
    backend: str,
    io: str,
    threads: int | None,
    top: int,
    quick: bool,
) -> dict[str, Any]:
    from deploy.contracts import CONTRACTS
    from deploy.deployable import Deployable
    from searchkit.networks import resolve
    from searchkit.sizes import parse_size

    from .devices import devices
    from .peaks import threads_here

    size = parse_size(resolution)
    found = [resolve(name) for name in names]
    CONTRACTS.load(io)
    asked = list(dict.fromkeys(name.strip() for name in device.split(",")))
    others = [name for name in asked if name != HERE]
    absent = list(devices()) if ALL in others else others
    roofs = _roofs(absent, precision or "fp32")
    runtime = _runtime(backend, precision) if HERE in asked else None
    models = [Deployable(network, size, io) for network in found]
    progress = _teller()
    tree: dict[str, Any] = {"resolution": str(size), "io": io}
    if runtime is not None:
        counted = _counted(models, _precision(runtime, precision), progress)
        tree["here"] = _here(
            console, models, counted, runtime, _precision(runtime, precision), threads or threads_here(), top, quick
        )
    if roofs:
        from .elsewhere import elsewhere

        counted = _counted(models, precision or "fp32", progress)
        tree["elsewhere"] = elsewhere(console, found, counted, roofs, top)
    return tree


def _teller() -> Callable[[str], None]:
    """Says on a terminal what is being done."""
    console = err()
    return (lambda text: console.print(text, markup=False)) if console.is_terminal else (lambda text: None)


def _counted(models: Sequence[Deployable], precision: str, progress: Callable[[str], None]) -> list[tuple[Layer, ...]]:
    """The layers of each network; from the float32 model, with values as wide as in the precision."""
    from .layers import layers_of

    counted = []
    for model in models:
        progress(f"layers of {model.network.name}")
        counted.append(layers_of(model.onnx, precision))
    return counted


def _roofs(names: Sequence[str], precision: str) -> list[Roof]:
    """Of devices that are not here; of several, those that have no rate in the precision are left out and named."""
    import sys

    from searchkit.errors import UsageError

    from .devices import find
    from .roofline import Roof

    roofs = []
    for name in names:
        found = find(name)
        try:
            roofs.append(Roof.of_device(found, precision))
        except UsageError as error:
            if len(names) == 1:
                raise
            print(f"{found.name} left out: {error}", file=sys.stderr)
    return roofs


def _runtime(backend: str, precision: str | None) -> Runtime:
    """The one backend that runs here, and whether it computes in the precision that is asked for."""
    from searchkit.errors import UsageError

    from .fps import runtimes_of

    found = runtimes_of([backend], precisions=[precision] if precision in ("fp16", "int8") else [])
    if len(found) != 1 or "," in backend or found[0].backend == "auto":
        raise UsageError("one backend at a time", where="--backend", got=backend, allowed="NAME or NAME:MODE")
    (runtime,) = found
    computes = _precision(runtime, None)
    if precision is not None and precision != computes:
        raise UsageError(
            f"{runtime} does not compute in this precision",
            where="--precision",
            got=precision,
            allowed=computes,
            fix="choose a mode that does, such as openvino:bf16, or a --device",
        )
    return runtime


def _precision(runtime: Runtime, precision: str | None) -> str:
    """What a runtime computes in: its model's precision, or its mode's."""
    if precision is not None:
        return precision
    return "bf16" if runtime.precision == "fp32" and runtime.mode.startswith("bf16") else runtime.precision


def _here(
    console: Console,
    models: Sequence[Deployable],
    counted: Sequence[tuple[Layer, ...]],
    runtime: Runtime,
    precision: str,
    threads: int,
    top: int,
    quick: bool,
) -> dict[str, Any]:
    """Measure the machine, then the networks, then their layers; print and return it all."""
    from . import machine, peaks, roofline_text
    from .roofline import Roof, limit

    described, progress = machine.describe(), _teller()
    device = _device_of(runtime)
    rates = peaks.measure([precision], device=device, threads=threads, quick=quick, progress=progress)
    roof = Roof.of_peaks(rates, precision)
    limits = [limit(layers, roof) for layers in counted]
    measured = _measured(models, runtime, threads, described, quick, progress)
    console.print(roofline_text.peaks_text(rates, [precision]), markup=False, soft_wrap=True)
    console.print()
    _print_measured(console, models, limits, measured, runtime)
    times = _layer_times(models, runtime, roof, threads, quick) if top else []
    for entry in times:
        console.print("\n" + roofline_text.losses_text(entry, top), markup=False, soft_wrap=True)
        for remark in entry.remarks():
            console.print(roofline_text.paragraph(remark), markup=False, soft_wrap=True)
    return _here_tree(models, limits, measured, times, rates, described, runtime)


def _device_of(runtime: Runtime) -> str:
    """The device that the backend takes by itself."""
    from deploy.backends import BACKENDS

    return BACKENDS.load(runtime.backend).require(None)[1]


def _measured(
    models: Sequence[Deployable],
    runtime: Runtime,
    threads: int,
    described: dict[str, Any],
    quick: bool,
    progress: Callable[[str], None],
) -> list[Measurement]:
    """Timed as `bench fps` times; a network that fails ends the command, as there is nothing to compare then."""
    from .fps import Setting, measure
    from .measurement import Protocol

    model = models[0]
    protocol = Protocol.quick() if quick else Protocol()
    setting = Setting(model.size, model.io, protocol, described, threads=threads)
    outcome = measure([entry.network for entry in models], [runtime], setting, progress)
    if outcome.stopped is not None:
        raise outcome.stopped
    if outcome.failures:
        raise outcome.failures[0].error.at(str(outcome.failures[0].network))
    by_digest = {entry.network.digest: entry for entry in outcome.measurements}
    return [by_digest[entry.network.digest] for entry in models]


def _print_measured(
    console: Console,
    models: Sequence[Deployable],
    limits: Sequence[Limit],
    measured: Sequence[Measurement],
    runtime: Runtime,
) -> None:
    from . import roofline_text as text

    headings = ("network", *text.LIMIT_HEADINGS, "measured ms", "attained")
    rows = [
        [model.network.name, *text.limit_cells(found), text.digits(ms), f"{found.ms / ms:.0%}"]
        for model, found, ms in zip(models, limits, [entry.statistics.p50_ms for entry in measured], strict=True)
    ]
    console.print(text.columns(headings, rows), markup=False, soft_wrap=True)
    console.print()
    lines = [
        f"Measured ms: p50 on {runtime}, batch 1. Attained: limit over measured. Above 100 % a cache, or an algorithm "
        "with fewer multiplications, beats what is counted.",
        *(f"! {entry.network.name}: {warning}" for entry in measured for warning in entry.warnings),
    ]
    for line in lines:
        console.print(text.paragraph(line), markup=False, soft_wrap=True)


def _layer_times(
    models: Sequence[Deployable], runtime: Runtime, roof: Roof, threads: int, quick: bool
) -> list[LayerTimes]:
    """None where the backend has no profiler, or runs a model in a precision of its own."""
    from . import layer_times

    if runtime.backend not in layer_times.BACKENDS or runtime.precision != "fp32":
        return []
    runs = _PROFILED_RUNS_QUICK if quick else _PROFILED_RUNS
    return [
        layer_times.times_of(model, runtime.backend, roof, mode=runtime.mode, threads=threads, runs=runs)
        for model in models
    ]


def _here_tree(
    models: Sequence[Deployable],
    limits: Sequence[Limit],
    measured: Sequence[Measurement],
    times: Sequence[LayerTimes],
    rates: Peaks,
    described: dict[str, Any],
    runtime: Runtime,
) -> dict[str, Any]:
    results = []
    for index, (model, found, entry) in enumerate(zip(models, limits, measured, strict=True)):
        results.append(
            {
                "network": model.network.name,
                "digest": model.network.digest,
                "conv_macs": entry.network.conv_macs,
                "limit": found.to_tree(),
                "measured_p50_ms": entry.statistics.p50_ms,
                "attained": found.ms / entry.statistics.p50_ms,
                "measurement": entry.to_tree(),
                "layer_times": times[index].to_tree() if times else None,
            }
        )
    return {"backend": str(runtime), "machine": described, "peaks": rates.to_tree(), "results": results}


def _recount(path: str) -> None:
    """Write what `published_layers.json` holds, from the networks as they are now."""
    from searchkit.errors import UsageError
    from searchkit.files import write_text

    from . import pairs

    if path == "-":
        raise UsageError("the counted layers go to a file", where="--recount", got=path, allowed="a path")
    wanted: list[tuple[str, Size]] = [(pair.network, pair.resolution) for pair in pairs.pairs()[0]]
    write_text(path, pairs.counted_text(pairs.count(wanted, _teller())))
