"""The C++ runtime beside Python's `deploy.load`: the same bundle, frame and number of threads, in turns.

    python -m bench.cpp_runtime --build build/cpp/plain --json cpp-runtime.json

Both sides live through the whole measurement, so that a turn begins with a model that is loaded and warm. What is timed
is a whole call, from a frame in memory to its label map.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Annotated, Any

import numpy as np
import typer

from deploy.deployable import Deployable
from deploy.export import export
from deploy.native.library import Native, native
from deploy.segmenter import Segmenter, load
from searchkit.console import JsonOption, check_json, err, out, write_json
from searchkit.data import streets
from searchkit.errors import UsageError, VerificationError
from searchkit.networks import resolve
from searchkit.sizes import Size

from . import machine
from .measurement import Scalar, percentile

SCHEMA = 1
MODEL_SIZE = Size(512, 1024)
#: Networks, and frames of the model's own size, and of the size that Cityscapes has.
CASES = (
    ("fasterseg", Size(512, 1024)),
    ("ssr", Size(512, 1024)),
    ("fasterseg", Size(1024, 2048)),
    ("ssr", Size(1024, 2048)),
)
#: What the C++ program says of a frame, in nanoseconds.
PARTS = ("call", "fit", "session", "restore")
# Untimed runs at the beginning of a turn: the other side has filled the caches, and its threads may still spin.
_SETTLE = 2


@dataclass(frozen=True)
class Times:
    """One case, measured.

    Attributes:
        python_ms: samples, a list a round, of the call of a `Segmenter`.
        cpp_ms: the same of the C++ program: name of one of `PARTS` -> samples, a list a round.
    """

    network: str
    frame: Size
    python_mode: str
    python_ms: list[list[float]]
    cpp_ms: dict[str, list[list[float]]]

    def ratio(self) -> dict[str, float]:
        """C++ over Python, of medians round by round; below 1, C++ is faster."""
        pairs = zip(self.cpp_ms["call"], self.python_ms, strict=True)
        return _spread([statistics.median(cpp) / statistics.median(python) for cpp, python in pairs])

    def overhead(self) -> dict[str, float]:
        """The share of a frame's time in C++ that is outside ONNX Runtime's session, frame by frame."""
        pairs = zip(_all(self.cpp_ms["call"]), _all(self.cpp_ms["session"]), strict=True)
        return _spread([1 - session / call for call, session in pairs])

    def to_tree(self) -> dict[str, Any]:
        medians = {f"cpp_{name}": statistics.median(_all(rounds)) for name, rounds in self.cpp_ms.items()}
        return {
            "network": self.network,
            "model": str(MODEL_SIZE),
            "frame": str(self.frame),
            "python_mode": self.python_mode,
            "labels_equal": True,
            "median_ms": {"python": statistics.median(_all(self.python_ms))} | medians,
            "cpp_over_python": self.ratio(),
            "outside_session_share": self.overhead(),
            "python_ms": self.python_ms,
            "cpp_ms": self.cpp_ms,
        }


class CppProgram:
    """`time_frames` with a model loaded and a frame in memory."""

    def __init__(self, pipes: tuple[IO[bytes], IO[bytes]]) -> None:
        self._commands, self._answers = pipes

    def turn(self, runs: int) -> list[tuple[float, ...]]:
        """Milliseconds of each of so many runs, in the order of `PARTS`."""
        self._commands.write(b"%d\n" % runs)
        self._commands.flush()
        lines = [self._answers.readline().split() for _ in range(runs)]
        if any(len(words) != len(PARTS) for words in lines):
            raise VerificationError("the C++ program ended", where="time_frames", fix="run it by hand")
        return [tuple(int(word) / 1e6 for word in words) for words in lines]


def measure(
    build: Path, folder: Path, *, threads: int, rounds: int, runs: int, tell: Callable[[str], None]
) -> list[Times]:
    """All cases. `build` has the C++ programs; bundles go to `folder`, or are there already.

    Raises:
        UsageError: a program or the native library is not there.
        VerificationError: labels are not equal.
    """
    for name in ("time_frames", "segment_picture"):
        if not (build / name).is_file():
            raise UsageError("no such program", where="--build", got=build / name, fix="make test-cpp builds it")
    if not isinstance(native(), Native):
        raise UsageError("there is no native library for Python here", fix="see searchkit doctor")
    found = []
    for network, frame in CASES:
        tell(f"{network}, {MODEL_SIZE}, frames of {frame}")
        bundle = folder / network
        if not bundle.exists():
            export(Deployable(resolve(network), MODEL_SIZE, "labels"), bundle)
        found.append(_case(build, bundle, network, frame, threads, rounds, runs))
    return found


def tree_of(results: list[Times], described: dict[str, Scalar], threads: int) -> dict[str, Any]:
    """The whole result as plain JSON values."""
    return {
        "schema": SCHEMA,
        "kind": "C++ runtime beside Python's Segmenter, measured",
        "machine": described,
        "threads": threads,
        "order": "in turns, who begins changes every round",
        "cases": [result.to_tree() for result in results],
    }


def _case(build: Path, bundle: Path, network: str, frame: Size, threads: int, rounds: int, runs: int) -> Times:
    picture = streets.draw(0, 1, frame).image
    with ExitStack() as stack:
        segmenter = stack.enter_context(load(bundle, threads=threads))
        _check_labels(build, bundle, segmenter, picture, threads)
        program = stack.enter_context(_program(build, bundle, picture, threads))
        times = Times(network, frame, segmenter.mode, [], {name: [] for name in PARTS})
        for number in range(rounds):
            turns = [lambda: _python_turn(times, segmenter, picture, runs), lambda: _cpp_turn(times, program, runs)]
            for turn in turns if number % 2 == 0 else reversed(turns):
                turn()
    return times


def _python_turn(times: Times, segmenter: Segmenter, picture: np.ndarray, runs: int) -> None:
    samples = []
    for _ in range(_SETTLE + runs):
        began = time.perf_counter_ns()
        segmenter(picture)
        samples.append((time.perf_counter_ns() - began) / 1e6)
    times.python_ms.append(samples[_SETTLE:])


def _cpp_turn(times: Times, program: CppProgram, runs: int) -> None:
    records = program.turn(_SETTLE + runs)[_SETTLE:]
    for name, samples in zip(PARTS, zip(*records, strict=True), strict=True):
        times.cpp_ms[name].append(list(samples))


@contextmanager
def _program(build: Path, bundle: Path, picture: np.ndarray, threads: int) -> Iterator[CppProgram]:
    command = [str(build / "time_frames"), str(bundle), *map(str, picture.shape[:2]), str(threads), "native"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(picture.tobytes())
        yield CppProgram((process.stdin, process.stdout))
        process.stdin.close()


def _check_labels(build: Path, bundle: Path, segmenter: Segmenter, picture: np.ndarray, threads: int) -> None:
    """Both sides give the same labels, or there is nothing to compare."""
    from PIL import Image

    with TemporaryDirectory(prefix="bench-") as folder:
        given, written = Path(folder) / "in.ppm", Path(folder) / "out.pgm"
        Image.fromarray(picture).save(given)
        command = [str(build / "segment_picture"), str(bundle), str(given), str(written), str(threads)]
        subprocess.run(command, check=True, capture_output=True)
        different = int((np.asarray(Image.open(written)) != segmenter(picture)).sum())
    if different:
        raise VerificationError(f"C++ and Python give other labels at {different} pixels", where=bundle.name)


def _all(rounds: list[list[float]]) -> list[float]:
    return [sample for samples in rounds for sample in samples]


def _spread(values: list[float]) -> dict[str, float]:
    names = (("median", 50), ("lower_quartile", 25), ("upper_quartile", 75), ("least", 0), ("greatest", 100))
    return {name: percentile(values, percent) for name, percent in names}


def cpp_runtime(
    build: Annotated[Path, typer.Option("--build", metavar="DIR", help="Where the C++ programs are.")],
    threads: Annotated[int, typer.Option("--threads", min=1, max=1024, help="Of ONNX Runtime on both sides.")] = 2,
    rounds: Annotated[int, typer.Option("--rounds", min=2, max=1000, help="How often both take a turn.")] = 10,
    runs: Annotated[int, typer.Option("--runs", min=1, max=10000, help="Frames in a turn.")] = 10,
    bundles: Annotated[
        Path | None,
        typer.Option("--bundles", metavar="DIR", help="Bundles by network's name; those not there are made."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Time the C++ runtime and Python's Segmenter in turns, after their labels were found equal."""
    check_json(json)
    console, described = err(), machine.describe()
    with TemporaryDirectory(prefix="bench-") as folder:
        results = measure(
            build,
            bundles or Path(folder),
            threads=threads,
            rounds=rounds,
            runs=runs,
            tell=lambda text: console.print(text, markup=False),
        )
    if json:
        write_json(tree_of(results, described, threads), json)
    if json == "-":
        return
    for result in results:
        ratio, overhead = result.ratio(), result.overhead()
        cpp, python = (statistics.median(_all(side)) for side in (result.cpp_ms["call"], result.python_ms))
        text = (
            f"{result.network:10} {result.frame!s:>9}: C++ {cpp:.2f} ms, "
            f"Python ({result.python_mode}) {python:.2f} ms, ratio {ratio['median']:.3f} "
            f"({ratio['lower_quartile']:.3f} to {ratio['upper_quartile']:.3f}), "
            f"{100 * overhead['median']:.2f} % outside the session"
        )
        out().print(text, markup=False)


if __name__ == "__main__":
    typer.run(cpp_runtime)
