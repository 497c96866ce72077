"""The harness itself: what it adds to each call, and whether it agrees with `torch.utils.benchmark`.

`python -m bench.harness --json PATH`. Overhead: a session that does nothing is timed as any other, so all that a turn
takes is the harness. Agreement: one PyTorch session is timed by the harness and by `torch.utils.benchmark`, in the same
process, in turns, so that a machine that slows down slows both.
"""

from __future__ import annotations

import gc
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from deploy.backends import Session, SessionInfo
from searchkit.console import JsonOption, check_json, run, write_json

from . import machine
from .protocol import Protocol
from .statistics import Ratio, percentile, ratio_of_rounds
from .timing import SessionRunner, time_interleaved

if TYPE_CHECKING:
    from .protocol import Scalar

SCHEMA = 1
MAX_OVERHEAD_US = 20.0
MAX_DISAGREEMENT = 0.05

_CALLS = 20_000


class NullSession(Session):
    """Does nothing, at once."""

    @property
    def info(self) -> SessionInfo:
        return SessionInfo("null", "1", "none", "cpu")

    def load(self, batch: np.ndarray) -> None:
        """Nothing to load."""

    def execute(self) -> None:
        """Nothing to run."""

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def output(self) -> np.ndarray:
        return np.zeros(0, np.float32)

    def close(self) -> None:
        """Nothing to free."""


@dataclass(frozen=True)
class Overhead:
    """Microseconds of the harness, a call.

    Attributes:
        in_sample_us: that stand in each sample, as if the network had taken them: the median sample.
        per_call_us: that a call of a turn takes in all, what stands outside the samples included; a value a round.
        limit_us: what it must not pass.
    """

    in_sample_us: float
    per_call_us: tuple[float, ...]
    limit_us: float = MAX_OVERHEAD_US

    @property
    def median_us(self) -> float:
        return percentile(self.per_call_us, 50)


@dataclass(frozen=True)
class Agreement:
    """One PyTorch session, timed in turns.

    Attributes:
        ours_ms, theirs_ms: samples a round, by the harness and by `torch.utils.benchmark`.
        ratio: ours over theirs, round by round.
    """

    network: str
    resolution: str
    threads: int
    ours_ms: tuple[tuple[float, ...], ...]
    theirs_ms: tuple[tuple[float, ...], ...]
    ratio: Ratio


def overhead(rounds: int = 5, calls: int = _CALLS) -> Overhead:
    """Time nothing, `calls` times a round, by the loop that times networks."""
    runner = SessionRunner(NullSession())
    per_call, samples = [], []
    protocol = Protocol(
        warmup_ms=0, rounds=1, round_ms=0, settle_ms=0, min_ms=0, min_runs=0, min_runs_per_round=calls, steady=None
    )
    for _ in range(rounds):
        began: list[int] = []

        def warmed(began: list[int] = began) -> None:
            began.append(time.perf_counter_ns())

        (timing,) = time_interleaved([runner], protocol, warmed=warmed)
        ended = time.perf_counter_ns()
        per_call.append((ended - began[0]) / 1000 / calls)
        samples += timing.rounds_ms[0]
    return Overhead(1000 * percentile(samples, 50), tuple(per_call))


def agreement(name: str, size_text: str, *, rounds: int = 8, round_ms: float = 400) -> Agreement:
    """Time a network's PyTorch session by both, the order changing each round.

    Raises:
        UsageError: no such network, or not at this resolution.
    """
    import torch
    from torch.utils.benchmark import Timer

    from deploy.backends import BACKENDS
    from deploy.deployable import Deployable
    from searchkit.data import streets
    from searchkit.networks import resolve
    from searchkit.sizes import parse_size

    size = parse_size(size_text)
    model = Deployable(resolve(name), size, "logits")
    threads = torch.get_num_threads()
    ours: list[tuple[float, ...]] = []
    theirs: list[tuple[float, ...]] = []
    one_round = Protocol(warmup_ms=100, rounds=1, round_ms=round_ms, min_ms=0, min_runs=8)
    with BACKENDS.load("pytorch").open(model, device="cpu") as session:
        session.load(model.contract.encode(streets.draw(0, 0, size).image))
        # Its timer would take a single thread unless it is told.
        timer = Timer("session.execute()", globals={"session": session}, num_threads=threads)

        def by_us() -> None:
            ours.append(tuple(time_interleaved([SessionRunner(session)], one_round)[0].rounds_ms[0]))

        def by_them() -> None:
            gc.collect()
            measured = timer.blocked_autorange(min_run_time=round_ms / 1000)
            theirs.append(tuple(1000 * seconds for seconds in measured.times))

        for number in range(rounds):
            for way in (by_us, by_them) if number % 2 == 0 else (by_them, by_us):
                way()
    return Agreement(name, str(size), threads, tuple(ours), tuple(theirs), ratio_of_rounds(ours, theirs))


def tree_of(null: Overhead, agreed: list[Agreement], facts: dict[str, Scalar]) -> dict[str, Any]:
    """The whole result as plain JSON values."""
    return {
        "schema": SCHEMA,
        "kind": "harness: overhead of a call, and agreement with torch.utils.benchmark, measured",
        "machine": facts,
        "overhead": asdict(null) | {"median_us": null.median_us},
        "agreement": [asdict(one) for one in agreed],
    }


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    networks: Annotated[
        list[str] | None, typer.Argument(metavar="NETWORK", help="Of the agreement. (default: ssr and fasterseg)")
    ] = None,
    resolution: Annotated[str, typer.Option(metavar="HxW", help="Input of the networks.")] = "256x512",
    rounds: Annotated[int, typer.Option(min=2, max=1000, help="How often both take turns.")] = 8,
    json: JsonOption = None,
) -> None:
    """What the harness adds to a call, and how its times compare with torch.utils.benchmark's."""
    check_json(json)
    people = sys.stderr if json == "-" else sys.stdout
    facts = machine.describe()
    null = overhead()
    spread = f"{min(null.per_call_us):.2f} to {max(null.per_call_us):.2f}"
    print(
        f"a call of nothing: {null.median_us:.2f} us ({spread}), {null.in_sample_us:.2f} us of it in the sample; "
        f"at most {null.limit_us:.0f}",
        file=people,
    )
    agreed = []
    for name in networks or ("ssr", "fasterseg"):
        one = agreement(name, resolution, rounds=rounds)
        agreed.append(one)
        limits = f" ({one.ratio.interval.low:.3f} to {one.ratio.interval.high:.3f})" if one.ratio.interval else ""
        print(
            f"{one.network} at {one.resolution}, {one.threads} threads: ours over torch.utils.benchmark's "
            f"{one.ratio.median:.3f}{limits}; within {MAX_DISAGREEMENT:.0%} is agreement",
            file=people,
        )
    if json:
        write_json(tree_of(null, agreed, facts), json)
    if null.median_us > MAX_OVERHEAD_US or any(abs(one.ratio.median - 1) > MAX_DISAGREEMENT for one in agreed):
        raise typer.Exit(1)


if __name__ == "__main__":
    sys.exit(run(app))
