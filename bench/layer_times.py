"""What each step of a runtime takes, beside the layers that it computes and the limit of those.

The times are the runtime's own (`bench.profilers`), the layers those of the exported model (`bench.layers`). A layer
belongs to the step that has its anchor; a step without an anchor does work that the limit has not: it changes a layout,
or does apart what could be merged.
"""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.deployable import Deployable
from searchkit.errors import UsageError

from . import _tree
from .layers import layers_of
from .profilers import Profiled, Profiler, Step
from .roofline import Bound, Limit, Roof, limit

SCHEMA = 1
BACKENDS = ("onnxruntime", "openvino", "pytorch", "tensorrt")
#: How far the steps together may be from the whole run before the result says so.
MAX_APART = 0.1

_COLUMNS = (
    *("step", "operator", "ms", "share_of_steps", "macs", "bytes", "limit_ms", "attained", "bound_by"),
    *("nodes", "remark"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A step, and the layers whose anchors it computes."""

    step: Step
    layers: tuple[Bound, ...]

    @property
    def macs(self) -> int:
        return sum(bound.layer.macs for bound in self.layers)

    @property
    def bytes(self) -> int:
        return sum(bound.layer.bytes for bound in self.layers)

    @property
    def limit_ms(self) -> float:
        return sum(bound.limit_ms for bound in self.layers)

    @property
    def lost_ms(self) -> float:
        """Time above the limit; below 0 where a cache or a better algorithm beats it."""
        return self.step.ms - self.limit_ms

    @property
    def attained(self) -> float | None:
        """Limit over time; None for a step without layers, or too short for the runtime's clock."""
        return self.limit_ms / self.step.ms if self.layers and self.step.ms else None

    @property
    def bound_by(self) -> str:
        return ", ".join(dict.fromkeys(bound.by for bound in self.layers))


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """A network's steps under one runtime.

    Attributes:
        unmatched: layers whose anchor no step is said to compute.
    """

    network: str
    digest: str
    resolution: str
    io: str
    profiled: Profiled
    limit: Limit
    rows: tuple[Row, ...]
    unmatched: tuple[Bound, ...]

    @property
    def accounted(self) -> float:
        """All steps of a run over the whole run."""
        return self.profiled.summed_ms / self.profiled.whole_ms

    @property
    def attained(self) -> float:
        """The limit of all layers over the whole run."""
        return self.limit.ms / self.profiled.whole_ms

    def furthest(self, count: int) -> list[Row]:
        """The steps that lose most against the limit, in ms."""
        return sorted(self.rows, key=lambda row: -row.lost_ms)[:count]

    def remarks(self) -> list[str]:
        """What a reader must know of these times."""
        whole, steps = self.profiled.whole_ms, self.profiled.summed_ms
        found = [f"All steps of a run take {steps:.3g} of {whole:.3g} ms: {self.accounted:.0%} of the profiled run."]
        if abs(self.accounted - 1) > MAX_APART:
            found.append("The rest is the runtime's own work between its steps, and the profiler's.")
        if abs(self.profiled.steps_ms / steps - 1) > MAX_APART:
            found.append(
                f"! The medians of the steps add up to {self.profiled.steps_ms:.3g} ms: runs differ, so close other "
                "programs and profile again."
            )
        named = [row for row in self.rows if not row.step.nodes]
        if named:
            ms = sum(row.step.ms for row in named)
            found.append(f"{len(named)} steps ({ms:.3g} ms) are matched to no node of the exported model.")
        if self.unmatched:
            ms = sum(bound.limit_ms for bound in self.unmatched)
            found.append(
                f"{len(self.unmatched)} layers ({ms:.3g} ms of the limit) are not said to be in any step: "
                + _listed([bound.layer.name for bound in self.unmatched])
            )
        return found

    def to_tree(self) -> dict[str, Any]:
        """Plain JSON values."""
        profiled: dict[str, Any] = _tree.encode(self.profiled)
        del profiled["steps"]
        return {
            "schema": SCHEMA,
            "kind": "time of each layer, measured by the runtime's profiler",
            "network": self.network,
            "digest": self.digest,
            "resolution": self.resolution,
            "io": self.io,
            "profiled": profiled,
            "steps_ms": self.profiled.steps_ms,
            "accounted": self.accounted,
            "attained": self.attained,
            "limit": self.limit.to_tree(),
            "rows": [_row_tree(row) for row in self.rows],
            "unmatched_layers": [bound.layer.name for bound in self.unmatched],
            "remarks": self.remarks(),
        }

    def csv_text(self) -> str:
        """A line a step, with full precision."""
        target = io.StringIO()
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for row in self.rows:
            share = row.step.ms / self.profiled.steps_ms if self.profiled.steps_ms else 0.0
            figures = [row.step.ms, share, row.macs, row.bytes, row.limit_ms, row.attained, row.bound_by]
            words = [" ".join(row.step.nodes), row.step.remark]
            writer.writerow([row.step.name, row.step.operator, *figures, *words])
        return target.getvalue()


def profiler_of(backend: str) -> Profiler:
    """The profiler of a backend; raises `UsageError` where there is none."""
    if backend not in BACKENDS:
        raise UsageError("no profiler for this backend", where="--backend", got=backend, allowed=", ".join(BACKENDS))
    found: Profiler = importlib.import_module(f".profilers.{backend}", __package__).profile
    return found


def times_of(model: Deployable, backend: str, roof: Roof, *, mode: str, threads: int | None, runs: int) -> LayerTimes:
    """Run a network under a runtime's profiler and set its steps beside the layers.

    Raises:
        UsageError: no profiler for this backend or mode.
        BackendUnavailableError: the backend cannot run here.
    """
    profiled = profiler_of(backend)(model, mode=mode, threads=threads, runs=runs)
    network = model.network
    found = limit(layers_of(model.onnx, roof.precision), roof)
    rows, unmatched = join(profiled.steps, found.bounds)
    return LayerTimes(
        network.name, network.digest, str(model.size), model.io, profiled, found, tuple(rows), tuple(unmatched)
    )


def join(steps: Sequence[Step], bounds: Sequence[Bound]) -> tuple[list[Row], list[Bound]]:
    """Each layer to the first step that has its anchor, and the layers that no step has."""
    left = {bound.layer.name: bound for bound in bounds}
    rows = []
    for step in steps:
        mine = [left.pop(node) for node in step.nodes if node in left]
        rows.append(Row(step, tuple(mine)))
    return rows, list(left.values())


def _row_tree(row: Row) -> dict[str, Any]:
    return {
        **_tree.encode(row.step),
        "layers": [bound.layer.name for bound in row.layers],
        "macs": row.macs,
        "bytes": row.bytes,
        "limit_ms": row.limit_ms,
        "lost_ms": row.lost_ms,
        "attained": row.attained,
        "bound_by": row.bound_by or None,
    }


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more + "."
