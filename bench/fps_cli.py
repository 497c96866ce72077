"""The command `bench fps`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from searchkit.console import JsonOption

from .outputs import check_outputs, ended, listed, people, progress_bar, write_results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchkit.networks import Network

    from .fps import Outcome, Setting
    from .protocol import Protocol

_MAX_DURATION_S = 86_400

NetworksArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NETWORK",
        help="Genotype files, bundles or shipped names; all shipped ones if none.",
        show_default=False,
    ),
]
ResolutionOption = Annotated[
    str, typer.Option("--resolution", metavar="HxW", help="Input, height x width, such as 512x1024.")
]
BackendOption = Annotated[
    list[str] | None,
    typer.Option(
        "--backend",
        metavar="NAME[:MODE],...",
        help="Such as openvino:bf16; several with commas; `all` is every one here, `auto` the fastest that passes. "
        "(default: onnxruntime)",
    ),
]
PrecisionOption = Annotated[
    list[str] | None,
    typer.Option("--precision", metavar="NAME,...", help="Of the models: fp32, fp16, int8. (default: fp32)"),
]
IoOption = Annotated[
    str,
    typer.Option("--io", metavar="NAME", help="Tensor contract; with `logits` all answer at the input's resolution."),
]
DeviceOption = Annotated[str | None, typer.Option(help="Such as cpu or cuda; the backend's first if not given.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, max=1024, help="CPU threads; the backend's default if not given.")
]
RoundsOption = Annotated[
    int | None, typer.Option(min=1, max=1000, help="How often the networks take turns. (default: 8)")
]
QuickOption = Annotated[bool, typer.Option("--quick", help="A rough look: fewer and shorter turns.")]
BatchOption = Annotated[int, typer.Option(min=1, max=1024, help="Pictures a call; FPS counts pictures.")]
TransfersOption = Annotated[
    bool,
    typer.Option("--transfers/--no-transfers", help="Time handing the input over and copying the result back, too."),
]
ProcessingOption = Annotated[
    bool, typer.Option("--processing", help="Time a picture in and labels out: what `--io` leaves to the host, too.")
]
MlperfOption = Annotated[
    bool, typer.Option("--mlperf", help="Query after query for 600 s a network, as MLPerf's single-stream rules.")
]
DurationOption = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="With --mlperf: shorter, which is no longer MLPerf's.")
]
FastersegOption = Annotated[
    bool, typer.Option("--fasterseg", help="As FasterSeg's authors: 10 runs, then a block of six seconds, mean.")
]
CsvOption = Annotated[
    str | None, typer.Option("--csv", metavar="PATH", help="Write the table as CSV; `-` is standard output.")
]
MarkdownOption = Annotated[
    str | None, typer.Option("--markdown", metavar="PATH", help="Write the table as Markdown; `-` is standard output.")
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Exit with 1 if a measurement carries a warning.")]


def fps(
    networks: NetworksArgument = None,
    resolution: ResolutionOption = "512x1024",
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    io: IoOption = "logits",
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    rounds: RoundsOption = None,
    quick: QuickOption = False,
    batch: BatchOption = 1,
    transfers: TransfersOption = False,
    processing: ProcessingOption = False,
    mlperf: MlperfOption = False,
    duration: DurationOption = None,
    fasterseg: FastersegOption = False,
    json: JsonOption = None,
    csv: CsvOption = None,
    markdown: MarkdownOption = None,
    strict: StrictOption = False,
) -> None:
    """Time networks in turns on this machine and compare them with FasterSeg.

    FPS is pictures a call x 1000 / median latency in ms. Networks and backends take turns, so that a machine that slows
    down slows all of them alike. What was timed, and how, stands below the table and in the files.
    """
    from searchkit.networks import known_names, resolve
    from searchkit.sizes import parse_size

    files = {"--json": json, "--csv": csv, "--markdown": markdown}
    check_outputs(files)
    size = parse_size(resolution)
    protocol = protocol_of(quick=quick, rounds=rounds, mlperf=mlperf, duration_s=duration, fasterseg=fasterseg)
    if mlperf and batch != 1:
        raise _refused("single stream sends one picture a query", "--batch", batch, "1", "leave out --mlperf")
    found = [resolve(name) for name in networks or known_names()]

    from . import machine
    from .fps import Setting
    from .printing import print_fps
    from .table import rows_of

    setting = Setting(size, io, protocol, machine.describe(), device, threads, batch, transfers, processing)
    outcome = _measure(found, listed(backend), listed(precision), setting)
    rows = rows_of(outcome.measurements)
    # First what took minutes: whoever reads the table may have gone away.
    write_results(files, rows, outcome, setting.machine)
    print_fps(people(files), rows, setting)
    ended(outcome, files, strict=strict)


def protocol_of(
    *,
    quick: bool = False,
    rounds: int | None = None,
    mlperf: bool = False,
    duration_s: float | None = None,
    fasterseg: bool = False,
) -> Protocol:
    """The protocol that the options name; raises `UsageError` where they contradict each other."""
    from .protocol import Protocol

    named = [
        option for option, given in (("--quick", quick), ("--mlperf", mlperf), ("--fasterseg", fasterseg)) if given
    ]
    if len(named) > 1:
        raise _refused("these are different protocols", " and ".join(named), None, "one of them", "leave the other out")
    if duration_s is not None and not mlperf:
        raise _refused("only single stream has a duration", "--duration", duration_s, "with --mlperf", "give --rounds")
    if duration_s is not None and not 0 < duration_s <= _MAX_DURATION_S:
        raise _refused("not a duration", "--duration", duration_s, f"above 0, at most {_MAX_DURATION_S} seconds", None)
    if rounds is not None and mlperf:
        raise _refused("single stream is one round", "--rounds", rounds, "without --mlperf", "leave one of them out")
    if mlperf:
        return Protocol.mlperf(duration_s)
    protocol = Protocol.fasterseg() if fasterseg else Protocol.quick() if quick else Protocol()
    return protocol if rounds is None else protocol.with_rounds(rounds)


def _refused(problem: str, where: str, got: object, allowed: str, fix: str | None) -> Exception:
    from searchkit.errors import UsageError

    return UsageError(problem, where=where, got=got, allowed=allowed, fix=fix)


def _measure(
    networks: Sequence[Network], backends: Sequence[str], precisions: Sequence[str], setting: Setting
) -> Outcome:
    from deploy.contracts import CONTRACTS

    from .fps import ALL, left_out, measure, runtimes_of, steps

    CONTRACTS.load(setting.io)
    runtimes = runtimes_of(backends, setting.device, precisions)
    for remark in left_out(setting.device, precisions) if ALL in backends else []:
        print(remark, file=sys.stderr)
    least_s = setting.protocol.ms_a_round * setting.protocol.rounds * len(networks) * len(runtimes) / 1000
    if setting.protocol.rounds == 1 and least_s > 60:
        print(f"this takes at least {least_s / 60:.0f} minutes", file=sys.stderr)
    with progress_bar(steps(networks, runtimes, setting.protocol)) as step:
        return measure(networks, runtimes, setting, step)
