"""`--backend auto`: what is installed is opened, checked on the golden picture, timed in turns; the fastest is taken.

A runtime passes by the same limits as in `searchkit verify`. What compiles for tens of seconds when it is opened is
left out (`Backend.slow_modes`), and so are engines that would have to be built first. The choice is kept in the user's
cache under a key of all that decides it; a kept one is checked again, not measured again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchkit.errors import BackendUnavailableError, SearchkitError, UsageError

from .backends import BACKENDS, Available, Compiler
from .bundled import BundledModel
from .golden import Golden, check_golden, golden_of, make_golden
from .processor import cores, cpu_name

if TYPE_CHECKING:
    from .backends import Model, Session

AUTO = "auto"

_WARM_UPS = 2
_ROUNDS = 5
_TURN_S = 0.15
_MIN_RUNS = 3
# After the warm-up, what is so many times slower than the fastest is not timed further.
_HOPELESS = 2.0


@dataclass(frozen=True)
class Tried:
    """One mode of one backend.

    Attributes:
        latency_ms: median of the rounds' medians; of one run where it was hopeless; None where it was not timed.
        problem: why it was not taken; None where it could have been.
        agreement: share of the golden picture's labels that it gives; None where it did not run.
        precision: what it computes in, such as `bf16`.
    """

    backend: str
    mode: str
    latency_ms: float | None = None
    problem: str | None = None
    agreement: float | None = None
    precision: str | None = None

    @property
    def name(self) -> str:
        """As on the command line."""
        return f"{self.backend}:{self.mode}"


@dataclass(frozen=True)
class Choice:
    """What was taken, and what it was measured against, fastest first; `remembered` where nothing was measured now."""

    backend: str
    mode: str
    tried: tuple[Tried, ...]
    remembered: bool = False

    @property
    def text(self) -> str:
        """In one line, for people."""
        taken = self.tried[0]
        rest = [f"{t.name} {t.latency_ms:.1f}" for t in self.tried[1:] if t.problem is None and t.latency_ms]
        measured = "measured before" if self.remembered else "measured now"
        computed = f", computes in {taken.precision}" if taken.precision else ""
        others = f"; {', '.join(rest)} ms" if rest else ""
        return f"{taken.name}{computed}: {taken.latency_ms:.1f} ms, {measured}{others}"

    def to_tree(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass
class _Candidate:
    tried: Tried
    session: Session
    times_ms: list[float]


def choose(
    model: Model,
    *,
    device: str | None = None,
    threads: int | None = None,
    mode: str | None = None,
    remember: bool = True,
) -> Choice:
    """The fastest backend and mode here for a model.

    Args:
        model: of a bundle, or one that is being exported.
        device: that it must have; None for any.
        threads: of the CPU; the runtimes' defaults if None.
        mode: must be None: it is what is chosen.
        remember: whether a choice that was made before on this machine is taken, and this one kept.

    Raises:
        UsageError: a mode was named.
        BackendUnavailableError: nothing that is installed gives the right labels.
    """
    if mode is not None:
        raise UsageError(
            "`auto` chooses the mode", where="--backend", got=mode, fix="name the backend, or leave it out"
        )
    golden = (golden_of(model) if isinstance(model, BundledModel) else None) or make_golden(model)
    kept = _Kept(model, device, threads) if remember else None
    known = kept.read() if kept else None
    if known and _still_right(known, model, golden, device, threads):
        return known
    tried = _measure(model, golden, device, threads)
    taken = tried[0]
    if taken.problem is not None:
        problems = "; ".join(f"{t.name}: {t.problem}" for t in tried)
        raise BackendUnavailableError(f"no backend here runs the model and gives the right labels: {problems}")
    choice = Choice(taken.backend, taken.mode, tried)
    if kept:
        kept.write(choice)
    return choice


def candidates(model: Model, device: str | None) -> Iterator[tuple[str, str]]:
    """Backend and mode of all that can be opened here within seconds; not all of them will."""
    for name in BACKENDS.names():
        backend = BACKENDS.load(name)
        state = backend.probe()
        if not isinstance(state, Available) or device not in (None, *state.devices) or not state.devices:
            continue
        if model.precision not in backend.precisions:
            continue
        if isinstance(backend, Compiler) and model.engine(backend.name) is None:
            continue
        yield from ((backend.name, mode) for mode in backend.modes if mode not in backend.slow_modes)


def _measure(model: Model, golden: Golden, device: str | None, threads: int | None) -> tuple[Tried, ...]:
    """All candidates, the fastest that passed first."""
    with ExitStack() as stack:
        open_ones: list[_Candidate] = []
        refused: list[Tried] = []
        for backend, mode in candidates(model, device):
            found = _try(backend, mode, model, golden, device, threads, stack)
            if isinstance(found, Tried):
                refused.append(found)
            else:
                open_ones.append(found)
        fastest = min((c.times_ms[-1] for c in open_ones), default=0.0)
        hopeful = [c for c in open_ones if c.times_ms[-1] <= _HOPELESS * fastest]
        slow = [_timed(c) for c in open_ones if c not in hopeful]
        for candidate in hopeful:
            candidate.times_ms.clear()
        for _ in range(_ROUNDS):
            for candidate in hopeful:
                candidate.times_ms.append(_turn_ms(candidate.session))
        passed = [_timed(c) for c in hopeful] + slow
    passed.sort(key=lambda t: t.latency_ms or 0.0)
    return (*passed, *refused)


def _try(
    backend: str,
    mode: str,
    model: Model,
    golden: Golden,
    device: str | None,
    threads: int | None,
    stack: ExitStack,
) -> _Candidate | Tried:
    """An open session that gave the right labels and was warmed up; or why there is none."""
    with ExitStack() as own:
        try:
            session = own.enter_context(BACKENDS.load(backend).open(model, device=device, threads=threads, mode=mode))
            found = check_golden(golden, model, session.run(golden.input), session.info)
            for _ in range(_WARM_UPS):
                latency_ms = _run_ms(session)
        except Exception as error:
            # Each runtime has exceptions of its own; whatever one says, the others are tried.
            return Tried(backend, mode, problem=str(error).partition("\n")[0])
        precision = session.info.options.get("precision")
        if found.problems:
            problem = "; ".join(found.problems)
            return Tried(backend, mode, problem=problem, agreement=found.agreement, precision=precision)
        stack.push(own.pop_all())
    return _Candidate(Tried(backend, mode, agreement=found.agreement, precision=precision), session, [latency_ms])


def _timed(candidate: _Candidate) -> Tried:
    tree = asdict(candidate.tried) | {"latency_ms": statistics.median(candidate.times_ms)}
    return Tried(**tree)


def _turn_ms(session: Session) -> float:
    """Median latency of a turn."""
    times: list[float] = []
    end = time.perf_counter() + _TURN_S
    while len(times) < _MIN_RUNS or time.perf_counter() < end:
        times.append(_run_ms(session))
    return statistics.median(times)


def _run_ms(session: Session) -> float:
    start = time.perf_counter()
    session.execute()
    session.synchronize()
    return (time.perf_counter() - start) * 1e3


def _still_right(known: Choice, model: Model, golden: Golden, device: str | None, threads: int | None) -> bool:
    """Whether a kept choice opens and passes today."""
    try:
        backend = BACKENDS.load(known.backend)
        with backend.open(model, device=device, threads=threads, mode=known.mode) as session:
            return not check_golden(golden, model, session.run(golden.input), session.info).problems
    except SearchkitError:
        return False


class _Kept:
    """The file of one choice: model, machine, versions of the backends, device and threads are in its name."""

    def __init__(self, model: Model, device: str | None, threads: int | None) -> None:
        digest = hashlib.sha256(model.onnx)
        states = {name: BACKENDS.load(name).probe() for name in BACKENDS.names()}
        versions = {name: state.version for name, state in states.items() if isinstance(state, Available)}
        for fact in (platform.machine(), cpu_name(), cores(), versions, device, threads, os.environ.get("CXX")):
            digest.update(f"{fact}\0".encode())
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.path = root / "searchkit" / "auto" / f"{digest.hexdigest()[:32]}.json"

    def read(self) -> Choice | None:
        """None where there is none, or none that can be read."""
        try:
            tree = json.loads(self.path.read_text())
            tried = tuple(Tried(**one) for one in tree["tried"])
            return Choice(str(tree["backend"]), str(tree["mode"]), tried, remembered=True) if tried else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, choice: Choice) -> None:
        """A cache that cannot be written costs the next start some seconds, nothing else."""
        from searchkit.files import write_text

        with suppress(OSError, SearchkitError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps(choice.to_tree(), indent=1) + "\n")
