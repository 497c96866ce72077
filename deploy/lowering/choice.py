"""Which rewrites an export gets: none, those that were named, or those that a measurement found faster.

The measured choice goes step by step. In each step all rewrites that find something to rewrite are timed beside the
model as it is, in turns; the fastest is kept, if the lower quartile of the ratios says that it is faster and if ONNX
Runtime computes the same function as PyTorch with it. The next step starts from there, because one rewrite may pay only
after another. In the end the whole is timed against the plain model once more.

It is the float32 model that is measured, whatever precision is exported: fp16 and int8 are made from it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, cast

from searchkit.errors import UsageError, unknown_name

from ..backends import BACKENDS, SessionInfo
from ..processor import cores, cpu_name
from . import REWRITES, rewritten
from .timing import Measure, Quartiles, Rewritten, Times, take_turns

if TYPE_CHECKING:
    from ..backends import Model
    from ..deployable import Deployable

AUTO, NONE = "auto", "none"
DEFAULT_BACKEND = "onnxruntime"
ROUNDS = 12
#: The model that a step starts from, among the names of rewrites.
PLAIN = "plain"


@dataclass(frozen=True)
class Lowering:
    """What was asked for.

    Attributes:
        names: rewrites to apply, in this order; None to measure.
        backend, mode: that a measurement runs on.
        threads: of the CPU; the backend's default if None.
        rounds: how often the models take turns in each step.
        tell: told what is being measured.
    """

    names: tuple[str, ...] | None = None
    backend: str = DEFAULT_BACKEND
    mode: str | None = None
    threads: int | None = None
    rounds: int = ROUNDS
    tell: Callable[[str], None] = field(default=lambda _: None, compare=False)

    @classmethod
    def parse(cls, text: str, backend: str | None = None, threads: int | None = None) -> Lowering | None:
        """From the words of a command; None for `none`. Imports no network and measures nothing.

        Args:
            text: `none`, `auto`, or names of rewrites with commas.
            backend: NAME or NAME:MODE; ONNX Runtime if None.

        Raises:
            UsageError: no such rewrite, one twice, a backend that cannot be used so, or settings of a measurement
                without one.
        """
        if text != AUTO and (backend is not None or threads is not None):
            raise UsageError(
                "settings of a measurement without one",
                where="--lowering",
                got=text,
                allowed=AUTO,
                fix="leave out --lowering-backend and --lowering-threads, or measure with --lowering auto",
            )
        if text == NONE:
            return None
        if text == AUTO:
            name, _, mode = (backend or DEFAULT_BACKEND).partition(":")
            return cls(backend=_runs_onnx(name), mode=mode or None, threads=threads)
        names = tuple(name.replace("_", "-") for name in text.split(","))
        if len(set(names)) != len(names):
            raise UsageError("a rewrite is named twice", where="--lowering", got=text, fix="name each once")
        for name in names:
            if name not in REWRITES.names():
                raise unknown_name("rewrite", name, [NONE, AUTO, *REWRITES.names()], where="--lowering")
        return cls(names)

    def run(self, model: Deployable, plain: bytes) -> Lowered:
        """Rewrite the exported float32 model of a network; measures if no names were given."""
        if self.names is not None:
            found, applied = rewritten(plain, self.names)
            return Lowered(found, applied, None)
        backend = BACKENDS.load(self.backend)
        measure = partial(take_turns, backend=backend, mode=self.mode, threads=self.threads, rounds=self.rounds)
        return choose(model, plain, measure, self.tell)


@dataclass(frozen=True)
class Step:
    """Rewrites timed beside the model that the step starts from.

    Attributes:
        times: `PLAIN` and the names of rewrites -> milliseconds a round.
        kept: the rewrite that the next step starts with; None if none was faster, and for the last comparison.
        wrong: rewrites that were faster and not the same function; a bug in them.
    """

    times: Times
    kept: str | None
    wrong: tuple[str, ...] = ()

    def ratio(self, name: str) -> Quartiles:
        """How many times as fast as the step's start."""
        return Quartiles.of(self.times[PLAIN], self.times[name])


@dataclass(frozen=True)
class Measured:
    """What the choice rests on.

    Attributes:
        info: what it was measured on.
        cpu, cores: of the machine.
        steps: in order.
        whole: the plain model beside the chosen one, under the name of `AUTO`; None where nothing was faster.
    """

    info: SessionInfo
    cpu: str
    cores: int
    steps: tuple[Step, ...]
    whole: Step | None


@dataclass(frozen=True)
class Lowered:
    """A rewritten model.

    Attributes:
        model: serialised ONNX, float32.
        applied: the rewrites, in order. Of those that were named, the ones that found something to rewrite.
        measured: None where they were named, and where there was nothing to measure.
    """

    model: bytes
    applied: tuple[str, ...]
    measured: Measured | None


def choose(model: Deployable, plain: bytes, measure: Measure, tell: Callable[[str], None]) -> Lowered:
    """The plain model with those rewrites that `measure` finds faster.

    Args:
        model: whose PyTorch network is the reference.
        plain: its exported float32 model.
    """
    current, info = plain, None
    applied: list[str] = []
    steps: list[Step] = []
    while candidates := _candidates(current, applied):
        tell(f"measuring {', '.join(candidates)}")
        times, info = measure(_variants(model, {PLAIN: current, **candidates}))
        step = _decided(model, candidates, times)
        steps.append(step)
        if step.kept is None:
            break
        tell(f"{step.kept}: {step.ratio(step.kept).median:.2f} times as fast")
        current = candidates[step.kept]
        applied.append(step.kept)
    if info is None:
        return Lowered(plain, (), None)
    whole = None
    if applied:
        times, info = measure(_variants(model, {PLAIN: plain, AUTO: current}))
        whole = Step(times, None)
        # What was faster step by step must be so in one go.
        if not whole.ratio(AUTO).lower > 1:
            current, applied = plain, []
    return Lowered(current, tuple(applied), Measured(info, cpu_name(), cores(), tuple(steps), whole))


def _candidates(current: bytes, applied: list[str]) -> dict[str, bytes]:
    found = {name: REWRITES.load(name).apply(current) for name in REWRITES.names() if name not in applied}
    return {name: model for name, model in found.items() if model is not None}


def _variants(model: Deployable, models: Mapping[str, bytes]) -> dict[str, Model]:
    return {name: Rewritten(model, data) for name, data in models.items()}


def _decided(model: Deployable, candidates: Mapping[str, bytes], times: Times) -> Step:
    step = Step(times, None)
    wrong: list[str] = []
    for name in sorted(candidates, key=lambda name: -step.ratio(name).median):
        if not step.ratio(name).lower > 1:
            continue
        if _is_the_same_function(model, candidates[name]):
            return Step(times, name, tuple(wrong))
        wrong.append(name)
    return Step(times, None, tuple(wrong))


def _is_the_same_function(model: Deployable, candidate: bytes) -> bool:
    from ..verify import verify

    # It has all that a comparison reads.
    return verify(cast("Deployable", Rewritten(model, candidate)), candidate).passed


def _runs_onnx(name: str) -> str:
    backend = BACKENDS.load(name)
    if backend.runs_onnx:
        return backend.name
    allowed = [other for other in BACKENDS.names() if BACKENDS.load(other).runs_onnx]
    raise UsageError(
        f"backend {backend.name} runs the PyTorch network, which is not rewritten",
        where="--lowering-backend",
        got=name,
        allowed=", ".join(allowed),
    )
