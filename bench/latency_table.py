"""Latency tables measured here: each operator of a search space once a shape, and whole networks to hold the sums to.

An entry is a difference of two measurements, of an operator in a frame and of the frame (`latency_table_frames`),
taken one after the other (`latency_table_turns`). Entries are never fitted to whole networks; those are measured to say
by how much sums miss them (`latency_table_networks`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn

from deploy.backends import BACKENDS, Model, SessionInfo
from searchkit.costs.latency import LatencyTable
from searchkit.errors import unknown_name
from searchkit.sizes import Size
from searchkit.spaces import SPACES, OperatorModule

from . import machine
from .conditions import Watch
from .latency_table_frames import MapShape, Place, framed, place_of
from .latency_table_networks import DRAWN, additivity, networks_ms, sampled, spread
from .latency_table_turns import EVICTED_BYTES, NETWORK, OPERATOR, Opening, Timer, median
from .protocol import Conditions

#: Backends that open an operator by itself.
TIMED_BY = ("onnxruntime", "pytorch")

#: Whole networks that sums are held to.
NETWORKS = 20

#: The least entry, in ms: what a clock tells. The difference of an operator that does nothing may be below 0.
LEAST_MS = 1e-5

# Operators that are held in memory at a time.
_GROUP = 16

Report = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """What is measured, and on what.

    Attributes:
        space: name of the search space, and `settings` of it.
        threads: of the CPU; None for the runtime's default.
        networks: how many whole ones; none skips the comparison.
    """

    space: str
    settings: Mapping[str, Any]
    classes: int
    size: Size
    backend: str
    device: str | None = None
    threads: int | None = None
    networks: int = NETWORKS
    seed: int = 0


@dataclass(frozen=True)
class _Made:
    """An operator, and where it stands."""

    key: str
    module: nn.Module
    place: Place


def measure(setting: Setting, report: Report = lambda text: None) -> LatencyTable:
    """Time every operator of a space, and whole networks beside the sums of their entries.

    Args:
        report: told how far it is, in words, the estimate of the whole time among them.

    Raises:
        UsageError: the space has no operators to be timed, or takes no such size; an unknown backend; or the runtime
            fails.
        BackendUnavailableError: it cannot run here.
    """
    if setting.backend not in TIMED_BY:
        raise unknown_name("backend that times operators", setting.backend, TIMED_BY, where="--backend")
    space = SPACES.load(setting.space)
    space.genotype_type.size_rule.check(setting.size, network=setting.space)
    operators = space.operator_modules(setting.settings, setting.classes, setting.size)
    described, watch = machine.describe(), Watch(gpu=setting.device == "cuda")
    timer = Timer(Opening(setting.backend, setting.device, setting.threads))
    watch.start()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        entries = _entries(operators, setting, timer, report)
    seen = timer.seen
    assert seen is not None, "a space has operators"
    table = LatencyTable(
        device=device_name(seen.device, described),
        runtime=seen.backend,
        precision="fp32",
        batch=1,
        network_input=(setting.size.height, setting.size.width),
        source="measured by bench latency-table",
        entries_ms=entries,
        runtime_version=seen.version,
        driver=_text(described.get("gpu_driver")) if seen.device == "cuda" else None,
        threads=setting.threads,
        date=datetime.now(UTC).date().isoformat(),
        protocol=_in_words(seen.device),
    )
    table = _with_additivity(table, setting, timer, report) if setting.networks else table
    return replace(table, conditions=_measured(setting) | _conditions(described, watch.done(), seen))


def device_name(device: str, described: Mapping[str, str | int | float | None]) -> str:
    """The model of what a session runs on: the CPU's or the GPU's."""
    return str(described.get("gpu" if device == "cuda" else "cpu") or "unknown")


def check_here(table: LatencyTable, *, other_device: bool = False) -> None:
    """Raise `UsageError` where a table is not of this machine's CPU or GPU, or not of the runtime installed here.

    Args:
        other_device: it is known and meant.
    """
    described = machine.describe()
    names = [str(described[key]) for key in ("cpu", "gpu") if described.get(key)]
    device = table.device if table.device in names else (names[-1] if names else None)
    version = None
    if table.runtime in BACKENDS.names():
        version = getattr(BACKENDS.load(table.runtime).probe(), "version", None)
    table.check_place(device, version, other_device=other_device)


def _entries(
    operators: Mapping[str, OperatorModule], setting: Setting, timer: Timer, report: Report
) -> dict[str, float]:
    """Milliseconds of each operator: the median over the turns of what it takes more than its frame."""
    entries: dict[str, float] = {}
    began = time.monotonic()
    for place, group in _groups(operators, setting):
        models: dict[str, Model] = {made.key: framed(made.place, made.module) for made in group}
        # What reads the image has no frame before it.
        if not place.opens:
            models[""] = framed(place, None)
        turns = timer.turns_ms(models, OPERATOR, evict=True)
        frame = turns.pop("", [0.0] * OPERATOR.turns)
        for key, times in turns.items():
            entries[key] = max(LEAST_MS, median([one - other for one, other in zip(times, frame, strict=True)]))
        left = (time.monotonic() - began) / len(entries) * (len(operators) - len(entries))
        report(f"{len(entries)} of {len(operators)} operators; about {left / 60:.1f} min for the others")
    return {key: entries[key] for key in operators}


def _groups(operators: Mapping[str, OperatorModule], setting: Setting) -> Iterator[tuple[Place, list[_Made]]]:
    """Operators that share a frame, so many at a time; made again when their turn has come, as they may be large."""
    shapes: dict[tuple[MapShape, bool], list[str]] = {}
    for key, make in operators.items():
        module, shape = make()
        place = place_of(module, shape, setting.size, setting.classes, where=key)
        shapes.setdefault((shape, place.opens), []).append(key)
    for keys in shapes.values():
        for start in range(0, len(keys), _GROUP):
            group = []
            for key in keys[start : start + _GROUP]:
                module, shape = operators[key]()
                group.append(_Made(key, module, place_of(module, shape, setting.size, setting.classes, where=key)))
            yield group[0].place, group


def _with_additivity(table: LatencyTable, setting: Setting, timer: Timer, report: Report) -> LatencyTable:
    space = SPACES.load(setting.space)
    with torch.device("meta"):
        supernet = space.supernet(setting.settings, setting.classes)
    drawn = sampled(supernet, DRAWN * setting.networks, setting.seed)
    sums = {each.digest: table.predict_ms(space.operator_keys(each, setting.size)) for each in drawn}
    chosen = spread(drawn, [sums[each.digest] for each in drawn], setting.networks)
    measured = networks_ms(chosen, setting.size, timer, report)
    return replace(table, additivity=additivity([sums[each.digest] for each in chosen], measured))


def _measured(setting: Setting) -> dict[str, str | int | float | None]:
    """What was measured, so that it can be measured again."""
    settings = json.dumps(setting.settings, sort_keys=True)
    return {"space": setting.space, "settings": settings, "classes": setting.classes, "seed": setting.seed}


def _conditions(
    described: Mapping[str, str | int | float | None], seen: Conditions, session: SessionInfo
) -> dict[str, str | int | float | None]:
    found = {**described, "others_cores": seen.others_cores, "networks": NETWORK.text}
    for when, state in (("before", seen.before), ("after", seen.after)):
        found |= {f"{name}_{when}": value for name, value in state.items()}
    return found | {f"session_{name}": value for name, value in session.options.items()}


def _in_words(device: str) -> str:
    cache = f", {EVICTED_BYTES >> 20} MiB read before each run" if device == "cpu" else ""
    return f"an operator between 1x1 convolutions, less these: {OPERATOR.text}{cache}; one session open at a time"


def _text(value: object) -> str | None:
    return None if value is None else str(value)
