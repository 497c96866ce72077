"""How networks are timed, and what one sample covers: stored with every measurement. Reasons: `docs/protocol.md`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from ._tree import absent
from .mlperf import MIN_DURATION_MS, MIN_QUERIES, MIN_QUERIES_SHORTENED

Scalar = str | int | float | None

INTERLEAVED = "interleaved rounds"
SINGLE_STREAM = "single stream"
FASTERSEG = "fasterseg"

TIMED = (
    "one inference at batch 1 from its start until its result is there; the input lies on the device already; "
    "decoding, normalisation outside the graph and copies are left out"
)


@dataclass(frozen=True, slots=True)
class Steady:
    """When a warm-up is over: the last `windows` windows have medians no further apart than `tolerance`.

    Attributes:
        window_ms: length of a window; one run at least.
        tolerance: greatest median over least, less 1.
        max_ms: a warm-up ends here, steady or not, once the protocol's fewest runs are made.
    """

    window_ms: float = 200
    windows: int = 3
    tolerance: float = 0.05
    max_ms: float = 3000


@dataclass(frozen=True, slots=True)
class WarmUp:
    """How a warm-up ended.

    Attributes:
        steady: whether the rate was; None where the protocol did not ask.
        change: greatest over least median of the last windows, less 1; None where there were too few windows.
    """

    ms: float
    runs: int
    steady: bool | None
    change: float | None


@dataclass(frozen=True, slots=True)
class Timed:
    """What a sample covers. The defaults are what searchkit timed before it was stated field by field.

    Attributes:
        batch: pictures of one call.
        clock: `wall`, or `wall and device events` where events of the device stand beside each sample.
        transfers: whether the input is handed over and the result copied back inside the sample.
        preprocessing: `outside` (not timed), `in the graph`, or `on the host` (timed there).
        postprocessing: `none` (scores come out), `in the graph` or `on the host`: arg-max to labels.
        cuda_graph: whether a recorded graph is replayed.
        streams: inferences at the same time; the next one starts when the last one has ended.
    """

    batch: int = 1
    clock: str = "wall"
    transfers: bool = False
    preprocessing: str = "outside"
    postprocessing: str = "none"
    cuda_graph: bool = False
    streams: int = 1

    @property
    def text(self) -> str:
        """In one line, for people."""
        pictures = "one picture" if self.batch == 1 else f"{self.batch} pictures"
        copies = "hand-over and copy back included" if self.transfers else "input and result stay on the device"
        parts = [
            f"a call of {pictures} by {self.clock} clock"
            if self.clock == "wall"
            else f"a call of {pictures}, {self.clock}",
            copies,
            f"pre-processing {self.preprocessing}",
            f"arg-max {self.postprocessing}" if self.postprocessing != "none" else "no arg-max",
            "CUDA graph" if self.cuda_graph else "no CUDA graph",
            f"{self.streams} stream" + ("s" if self.streams > 1 else ""),
        ]
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Memory:
    """The most memory that opening and running a network took, and how that was seen."""

    peak_bytes: int
    how: str


@dataclass(frozen=True, slots=True)
class Conditions:
    """The state of the machine after the warm-up and after the last round, as far as it can be read.

    Attributes:
        others_cores: processor cores that other processes kept busy meanwhile, on average.
    """

    before: dict[str, Scalar]
    after: dict[str, Scalar]
    others_cores: float | None


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
        timed: what one sample covers, in words.
        name: one of `INTERLEAVED`, `SINGLE_STREAM` and `FASTERSEG`.
        steady: when the warm-up is over; None where it is by `warmup_ms` alone.
        min_runs, min_ms: of all rounds together.
        calibration_runs: 0 where each run is a sample. Else a round is one sample, the mean of as many runs as fit
            `round_ms`, judged by a block of so many runs, doubled until it takes a second.
    """

    warmup_ms: float = 300
    min_warmup_runs: int = 3
    rounds: int = 8
    round_ms: float = 200
    min_runs_per_round: int = 3
    settle_ms: float = 50
    min_settle_runs: int = 1
    timed: str = TIMED
    name: str = field(default=INTERLEAVED, metadata=absent(INTERLEAVED))
    steady: Steady | None = field(default=Steady(), metadata=absent(None))
    min_runs: int = field(default=64, metadata=absent(0))
    min_ms: float = field(default=1000.0, metadata=absent(0.0))
    calibration_runs: int = field(default=0, metadata=absent(0))

    @classmethod
    def quick(cls) -> Protocol:
        """A rough look; slow networks get too few runs for a percentile, and their measurement says so."""
        steady = Steady(window_ms=50, max_ms=500)
        return cls(
            warmup_ms=100, min_warmup_runs=2, rounds=3, round_ms=150, min_runs_per_round=2, steady=steady, min_runs=0
        )

    @classmethod
    def mlperf(cls, duration_s: float | None = None) -> Protocol:
        """Query after query as in MLPerf inference's single-stream scenario (see `bench.mlperf`).

        Args:
            duration_s: shorter than the rules' 600 s, which the result then says; None for 600 s.
        """
        shorter = duration_s is not None and 1000 * duration_s < MIN_DURATION_MS
        least_ms = MIN_DURATION_MS if duration_s is None else 1000 * duration_s
        least = MIN_QUERIES_SHORTENED if shorter else MIN_QUERIES
        return cls(name=SINGLE_STREAM, rounds=1, round_ms=least_ms, min_runs=least, min_ms=least_ms)

    @classmethod
    def fasterseg(cls) -> Protocol:
        """As FasterSeg's authors time, and many after them: 10 runs to warm up, then one block of six seconds."""
        return cls(
            name=FASTERSEG,
            warmup_ms=0,
            min_warmup_runs=10,
            rounds=1,
            round_ms=6000,
            min_runs_per_round=1,
            settle_ms=0,
            min_settle_runs=0,
            steady=None,
            min_runs=0,
            min_ms=0.0,
            calibration_runs=100,
        )

    def with_rounds(self, rounds: int) -> Protocol:
        """The same with another number of rounds; fewer ones are longer, so that all together stay as long."""
        return replace(self, rounds=rounds)

    @property
    def runs_a_round(self) -> int:
        """The fewest runs of a turn."""
        return max(self.min_runs_per_round, math.ceil(self.min_runs / self.rounds))

    @property
    def ms_a_round(self) -> float:
        """The shortest turn."""
        return max(self.round_ms, self.min_ms / self.rounds)

    @property
    def is_mlperf_length(self) -> bool:
        """Whether duration and number of queries are those of MLPerf's rules."""
        return self.name == SINGLE_STREAM and self.ms_a_round >= MIN_DURATION_MS and self.runs_a_round >= MIN_QUERIES
