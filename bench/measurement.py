"""One network measured on one backend of one machine: the raw samples and all that they depend on.

Only samples are stored. Percentiles, FPS and ratios are derived from them each time, so that no two figures of one
measurement can disagree, and another definition can be applied to an old measurement.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from deploy.backends import SessionInfo
from searchkit.errors import InputFileError
from searchkit.sizes import Size

from . import _tree

SCHEMA = 1

Scalar = str | int | float | None
Rounds = tuple[tuple[float, ...], ...]

TIMED = (
    "one inference at batch 1 from its start until its result is there; the input lies on the device already; "
    "decoding, normalisation outside the graph and copies are left out"
)

MIN_RUNS = 10
MAX_P90_OVER_P50 = 1.2
MAX_DRIFT = 0.10
MIN_TICKS = 100
MAX_HOST_SHARE = 0.10

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Protocol:
    """How long and in what order networks are timed.

    Attributes:
        warmup_ms, min_warmup_runs: each network first runs, untimed, until both are reached.
        rounds: how often all networks take their turn, so that a machine that slows down slows all of them.
        round_ms, min_runs_per_round: a turn lasts until both are reached.
        settle_ms, min_settle_runs: a turn starts with untimed runs until both are reached. The network before has
            filled the caches and its threads still spin: on 2 cores the first run of a turn took 1.2 to 1.9 times as
            long as the later ones.
        timed: what one sample covers.
    """

    warmup_ms: float = 300
    min_warmup_runs: int = 3
    rounds: int = 5
    round_ms: float = 400
    min_runs_per_round: int = 3
    settle_ms: float = 50
    min_settle_runs: int = 1
    timed: str = TIMED

    @classmethod
    def quick(cls) -> Protocol:
        """A rough look; slow networks get too few runs for a percentile, and their measurement says so."""
        return cls(warmup_ms=100, min_warmup_runs=2, rounds=3, round_ms=150, min_runs_per_round=2)

    def with_rounds(self, rounds: int) -> Protocol:
        """The same with another number of rounds."""
        return replace(self, rounds=rounds)


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What was measured: name, digest, and its size at the measured resolution.

    Attributes:
        conv_macs: multiply-accumulates of convolutions and matrix products, counted where PyTorch dispatches them.
    """

    name: str
    digest: str
    classes: int
    params: int
    conv_macs: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """Derived from samples in milliseconds; `fps` is 1000 / `p50_ms`, so of the median latency at batch 1."""

    runs: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    min_ms: float
    std_ms: float
    fps: float

    @classmethod
    def of(cls, samples_ms: Sequence[float]) -> Statistics:
        """Percentiles as `percentile`; the deviation is that of a sample (n - 1), 0 for a single one."""
        count = len(samples_ms)
        mean = math.fsum(samples_ms) / count
        squares = math.fsum((sample - mean) ** 2 for sample in samples_ms)
        median = percentile(samples_ms, 50)
        return cls(
            runs=count,
            p50_ms=median,
            p90_ms=percentile(samples_ms, 90),
            p99_ms=percentile(samples_ms, 99),
            mean_ms=mean,
            min_ms=min(samples_ms),
            std_ms=math.sqrt(squares / (count - 1)) if count > 1 else 0.0,
            fps=1000 / median,
        )


@dataclass(frozen=True, slots=True)
class Ratio:
    """A latency over another's: the median over rounds, and the quartiles over rounds. Below 1 is faster."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """Samples of one network, and what they were taken on.

    Attributes:
        weights: where they came from; speed does not depend on them.
        io: the tensor contract, which decides what work is in the graph.
        session: backend, version, provider, device and options that were in use.
        artifact_sha256: of the ONNX model that ran; None where the backend runs the PyTorch network itself.
        rounds_ms: wall-clock samples, a tuple a round, in the order they were taken.
        device_rounds_ms: the same runs by the device's own clock, where it has one.
        machine: as `machine.describe`.
        warnings: as `warnings_of`.
    """

    network: NetworkFacts
    weights: str
    resolution: Size
    io: str
    session: SessionInfo
    artifact_sha256: str | None
    protocol: Protocol
    rounds_ms: Rounds
    device_rounds_ms: Rounds | None
    machine: dict[str, Scalar]
    warnings: tuple[str, ...]

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """All samples, in the order they were taken."""
        return tuple(sample for turn in self.rounds_ms for sample in turn)

    @property
    def mode(self) -> str | None:
        """Of the backend; None in measurements older than modes."""
        return self.session.options.get("mode")

    @property
    def precision(self) -> str | None:
        """What was computed in; None in measurements older than precisions."""
        return self.session.options.get("precision")

    @property
    def runtime(self) -> str:
        """Backend and mode, such as `openvino:bf16`; the backend alone where its mode is `default` or not known."""
        backend, mode = self.session.backend, self.mode
        return backend if mode in (None, "default") else f"{backend}:{mode}"

    @property
    def statistics(self) -> Statistics:
        return Statistics.of(self.samples_ms)

    def to_tree(self) -> dict[str, Any]:
        """Plain JSON values; statistics are not among them."""
        return {"schema": SCHEMA} | _tree.encode(self)

    @classmethod
    def from_tree(cls, tree: Any, *, where: str = "measurement") -> Measurement:
        """What `to_tree` gave.

        Raises:
            InputFileError: another schema; a field missing, unknown, of the wrong type or out of range.
        """
        if not isinstance(tree, dict):
            raise InputFileError("not a measurement", where=where, got=type(tree).__name__, allowed="an object")
        if type(tree.get("schema")) is not int or tree["schema"] != SCHEMA:
            raise InputFileError(
                "unknown schema",
                where=f"{where}.schema",
                got=tree.get("schema", "none"),
                allowed=str(SCHEMA),
                fix="read it with the version that wrote it, or measure again",
            )
        fields = {key: value for key, value in tree.items() if key != "schema"}
        measurement: Measurement = _tree.decode(cls, fields, where)
        _check(measurement, where)
        return measurement


def percentile(samples: Sequence[float], percent: float) -> float:
    """Linear interpolation between the two nearest order statistics (numpy's default, type 7 of Hyndman and Fan 1996).

    Below 100 samples the 99th percentile is close to the largest sample.
    """
    ordered = sorted(samples)
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def latency_ratio(one: Measurement, other: Measurement) -> Ratio:
    """Latency of `one` over that of `other`, round by round, as both took their turns in the same rounds.

    Raises:
        ValueError: they have different numbers of rounds, so no two rounds belong together.
    """
    pairs = zip(one.rounds_ms, other.rounds_ms, strict=True)
    ratios = [percentile(a, 50) / percentile(b, 50) for a, b in pairs]
    return Ratio(percentile(ratios, 50), percentile(ratios, 25), percentile(ratios, 75))


def warnings_of(
    rounds_ms: Sequence[Sequence[float]],
    device_rounds_ms: Sequence[Sequence[float]] | None = None,
    *,
    timer_resolution_ms: float | None = None,
) -> list[str]:
    """Why the samples should not be trusted yet, each with what to do next; empty where nothing speaks against them."""
    samples = [sample for turn in rounds_ms for sample in turn]
    if timer_resolution_ms is None:
        timer_resolution_ms = 1000 * time.get_clock_info("perf_counter").resolution
    median = percentile(samples, 50)
    found = []
    if len(samples) < MIN_RUNS:
        found.append(f"only {len(samples)} runs: give more --rounds, or leave out --quick")
    spread = percentile(samples, 90) / median
    if spread > MAX_P90_OVER_P50:
        found.append(f"p90 is {spread:.2f} times p50: close other programs and measure again")
    medians = [percentile(turn, 50) for turn in rounds_ms]
    drift = max(medians) / min(medians) - 1
    if drift > MAX_DRIFT:
        found.append(
            f"rounds are {drift:.0%} apart ({min(medians):.3g} to {max(medians):.3g} ms): "
            "let the machine rest or fix its clocks"
        )
    if min(samples) < MIN_TICKS * timer_resolution_ms:
        found.append(f"shortest run is under {MIN_TICKS} ticks of the timer: give a larger --resolution")
    if device_rounds_ms:
        device = percentile([sample for turn in device_rounds_ms for sample in turn], 50)
        if median > (1 + MAX_HOST_SHARE) * device:
            found.append(
                f"the device works {device:.3g} of {median:.3g} ms, the host takes the rest: use a compiled backend"
            )
    return found


def _check(measurement: Measurement, where: str) -> None:
    """What types do not say: samples are there, positive and paired; digests are digests."""
    rounds, device = measurement.rounds_ms, measurement.device_rounds_ms
    if not rounds or not all(rounds):
        raise InputFileError("no samples", where=f"{where}.rounds_ms", allowed="one or more in each round")
    for name, value in (("rounds_ms", rounds), ("device_rounds_ms", device or ())):
        worst = min((sample for turn in value for sample in turn), default=1.0)
        if worst <= 0:
            raise InputFileError("not a duration", where=f"{where}.{name}", got=worst, allowed="above 0 ms")
    if device is not None and [len(turn) for turn in device] != [len(turn) for turn in rounds]:
        raise InputFileError(
            "samples do not pair", where=f"{where}.device_rounds_ms", allowed="as many a round as in rounds_ms"
        )
    digests = (("network.digest", measurement.network.digest), ("artifact_sha256", measurement.artifact_sha256))
    for name, digest in digests:
        if digest is not None and not _SHA256.fullmatch(digest):
            raise InputFileError("not a SHA-256", where=f"{where}.{name}", got=digest, allowed="64 hex digits")
