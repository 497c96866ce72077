"""Our timing beside that of the runtimes' own tools, in turns: `python -m bench.other_tools`.

`benchmark_app` comes with OpenVINO and `onnxruntime_test` with ONNX Runtime; each is a process of its own that opens
the same file. Compared are means, which is what `onnxruntime_test` prints, of as many runs. Its slow first run is
among them: give many.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from deploy.backends import BACKENDS, Session
from deploy.deployable import Deployable
from searchkit.console import JsonOption, check_json, err, out, run, write_json
from searchkit.data import streets
from searchkit.errors import BackendUnavailableError
from searchkit.networks import resolve
from searchkit.sizes import parse_size

SCHEMA = 1
_WARM_UPS = 3
_LIMIT_S = 600


def compare(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="A shipped name.")] = "fasterseg",
    resolution: Annotated[str, typer.Option("--resolution", metavar="HxW")] = "512x1024",
    turns: Annotated[int, typer.Option("--turns", min=1)] = 5,
    runs: Annotated[int, typer.Option("--runs", min=1)] = 60,
    json: JsonOption = None,
) -> None:
    """Time one network by us and by the tools of ONNX Runtime and OpenVINO, which use all cores."""
    from . import machine

    check_json(json)
    described = machine.describe()
    model = Deployable(resolve(network), parse_size(resolution), "raw")
    with TemporaryDirectory(prefix="searchkit-tools-") as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(model.onnx)
        ways: dict[str, Callable[[], float]] = {
            "onnxruntime": lambda: _ours_ms("onnxruntime", model, runs),
            "onnxruntime_test": lambda: _onnxruntime_test_ms(file, runs),
            "openvino": lambda: _ours_ms("openvino", model, runs),
            "benchmark_app": lambda: _benchmark_app_ms(file, runs),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(turns):
            err().print(f"turn {turn + 1} of {turns}")
            for name, way in ways.items():
                times[name].append(way())
    tree = tree_of(network, resolution, runs, times, described)
    if json:
        write_json(tree, json)
    if json != "-":
        for ours, ratios in tree["ours_over_theirs"].items():
            out().print(
                f"{ours}: {ratios['median']:.3f} of the tool's time ({ratios['least']:.3f} to "
                f"{ratios['greatest']:.3f})",
                markup=False,
            )


def tree_of(
    network: str, resolution: str, runs: int, times_ms: dict[str, list[float]], machine: dict[str, Any]
) -> dict[str, Any]:
    """The whole result as plain JSON values; times are means of `runs` in milliseconds, one a turn."""
    found = {}
    for ours, theirs in (("onnxruntime", "onnxruntime_test"), ("openvino", "benchmark_app")):
        ratios = [a / b for a, b in zip(times_ms[ours], times_ms[theirs], strict=True)]
        found[ours] = {"median": median(ratios), "least": min(ratios), "greatest": max(ratios)}
    return {
        "schema": SCHEMA,
        "kind": "our timing beside other tools', measured",
        "machine": machine,
        "network": network,
        "resolution": resolution,
        "runs_a_turn": runs,
        "mean_ms_of_each_turn": times_ms,
        "ours_over_theirs": found,
    }


def _ours_ms(backend: str, model: Deployable, runs: int) -> float:
    with BACKENDS.load(backend).open(model) as session:
        session.load(model.contract.encode(streets.draw(0, 0, model.size).image))
        for _ in range(_WARM_UPS):
            _run(session)
        start = time.perf_counter()
        for _ in range(runs):
            _run(session)
        return (time.perf_counter() - start) * 1e3 / runs


def _run(session: Session) -> None:
    session.execute()
    session.synchronize()


def _onnxruntime_test_ms(file: Path, runs: int) -> float:
    """It has no warm-up: its first run is among the others."""
    return parse_onnxruntime_test(_output("onnxruntime_test", str(file), str(runs)))


def _benchmark_app_ms(file: Path, runs: int) -> float:
    settings = ["-d", "CPU", "-hint", "none", "-api", "sync", "-nstreams", "1", "-pin", "NO", "-infer_precision", "f32"]
    return parse_benchmark_app(_output("benchmark_app", "-m", str(file), *settings, "-niter", str(runs)))


def parse_onnxruntime_test(text: str) -> float:
    """Milliseconds of its `avg latency`."""
    return _number(r"avg latency: ([\d.]+) ms", text)


def parse_benchmark_app(text: str) -> float:
    """Milliseconds of its `Average` latency."""
    return _number(r"Average:\s+([\d.]+) ms", text)


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if found is None:
        raise BackendUnavailableError("the tool prints no latency", got=text[-200:], fix="install another version")
    return float(found[1])


def _output(tool: str, *arguments: str) -> str:
    path = shutil.which(tool, path=sysconfig.get_path("scripts")) or shutil.which(tool)
    if path is None:
        raise BackendUnavailableError(f"there is no {tool} here", fix="pip install onnxruntime openvino")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    if done.returncode:
        raise BackendUnavailableError(f"{tool} failed", got=(done.stderr or done.stdout)[-200:])
    return done.stdout


def main(argv: list[str] | None = None) -> int:
    """Run the comparison; returns the exit code."""
    app = typer.Typer(add_completion=False)
    app.command()(compare)
    return run(app, argv)


if __name__ == "__main__":
    sys.exit(main())
