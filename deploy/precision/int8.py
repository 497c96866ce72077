"""Int8 with a limit on what it may cost: the layers that hurt most stay float until the limit holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from searchkit.errors import UsageError, VerificationError

from .calibration import Calibration, calibrate
from .fp16 import Kept, to_fp16
from .qdq import FLOAT16_OPSET, Layer, dequantised, find_layers, quantise, range_sources
from .quality import Meter
from .samples import Batches
from .sensitivity import Sensitivity, sensitivities
from .source import Converted, Source

#: Share of the float32 mIoU that int8 may cost where no limit is given.
MAX_LOSS = 0.01

# Enough to put layers in an order; each costs a run of the model a layer.
_ORDER_PICTURES = 4


def to_int8(source: Source, calibration: Calibration, largest: Mapping[str, float]) -> Converted:
    """The model in int8, with as many of its worst layers in float as it takes to hold the limit.

    Where mIoU cannot be measured (seeded weights, a data set of other classes) all layers are int8, and the record says
    why nothing was measured.

    Args:
        largest: see `to_fp16`; empty unless the rest is to be fp16.

    Raises:
        UsageError: a drop is to be held, and cannot be measured; or no opset that the consumer reads has float16
            scales.
        VerificationError: there is nothing to quantise, or the drop exceeds its limit with a single layer in int8.
    """
    _check_opset(source, calibration)
    meter = Meter(source, calibration)
    layers = find_layers(source.model)
    if not layers:
        raise VerificationError("the model has no layer that int8 could serve", fix="use fp32 or fp16")
    samples = calibration.samples(source.size)
    batches = Batches(source.contract, samples, calibration.tell("calibrating"))
    thresholds = calibrate(source.model, range_sources(source.model, layers), batches, calibration.method)
    few = Batches(source.contract, calibration.samples(source.size, _ORDER_PICTURES), _quietly)
    table = sensitivities(source.model, layers, thresholds, few, calibration.tell("measuring layers"))
    search = _Search(source, calibration, meter, layers, table, thresholds, largest)
    kept = search.fewest()
    model, spoiled = search.model(kept)
    record = {
        "method": calibration.method,
        "rest": calibration.rest,
        "ranges": samples.described(),
        "layers": len(layers),
        "kept": [row.layer.name for row in table[:kept]],
        "kept_fp32": [asdict(item) for item in spoiled],
        "sensitivity": [_row(row, position < kept) for position, row in enumerate(table)],
        **search.record(kept),
    }
    return Converted(model, record)


def fewest_kept(passes: Callable[[int], bool], most: int) -> int | None:
    """The number of layers to keep in float: 0, or found by doubling and then halving the gap; None if `most` fails.

    The answer always passed. It is the smallest that does where keeping more never hurts.

    Args:
        passes: whether the limit holds with so many kept.
        most: that may be kept.
    """
    failing, kept = -1, 0
    while not passes(kept):
        if kept == most:
            return None
        failing, kept = kept, min(max(1, 2 * kept), most)
    while kept - failing > 1:
        middle = (failing + kept) // 2
        if passes(middle):
            kept = middle
        else:
            failing = middle
    return kept


class _Search:
    """How many of the worst layers have to stay float."""

    def __init__(
        self,
        source: Source,
        calibration: Calibration,
        meter: Meter,
        layers: Sequence[Layer],
        table: Sequence[Sensitivity],
        thresholds: Mapping[str, float],
        largest: Mapping[str, float],
    ) -> None:
        self._source, self._rest, self._meter = source, calibration.rest, meter
        self._layers, self._worst = layers, [row.layer.node for row in table]
        self._thresholds, self._largest = thresholds, largest
        self._given = calibration.max_miou_drop
        self._found: dict[int, float] = {}

    @property
    def limit_points(self) -> float:
        """Points of mIoU that may be lost."""
        return 100 * MAX_LOSS * self._meter.reference if self._given is None else self._given

    def model(self, kept: int) -> tuple[bytes, list[Kept]]:
        """With the `kept` worst layers in float, and the nodes that stayed float32 where the rest is float16."""
        worst = set(self._worst[:kept])
        layers = [layer for layer in self._layers if layer.node not in worst]
        model = quantise(self._source.model, layers, self._thresholds, self._rest)
        if self._rest == "fp32":
            return model, []
        values = dict(self._largest) | {dequantised(name): value for name, value in self._largest.items()}
        return to_fp16(model, values)

    def fewest(self) -> int:
        """How many layers stay float; 0 where nothing can be measured."""
        if self._meter.unmeasured:
            return 0
        # One layer at least: a model without any would be called int8 and be none.
        kept = fewest_kept(self._passes, len(self._layers) - 1)
        if kept is None:
            best = max(self._found.values())
            raise VerificationError(
                "int8 costs more mIoU than allowed even with a single layer in int8",
                got=f"{self._meter.drop_points(best):.3g} points",
                allowed=f"{self.limit_points:.3g} points",
                fix="allow a larger drop, calibrate on more pictures or by another method, or use fp16",
            )
        return kept

    def record(self, kept: int) -> dict[str, Any]:
        """What was measured, and in which order."""
        if self._meter.unmeasured:
            return {"miou": None, "miou_unmeasured": self._meter.unmeasured}
        tried = [{"kept": count, "miou": found} for count, found in self._found.items()]
        tree = self._meter.tree(self._found[kept], self.limit_points)
        return {"miou": tree | {"tried": tried}, "miou_unmeasured": ""}

    def _passes(self, kept: int) -> bool:
        self._found[kept] = self._meter.of(self.model(kept)[0])
        return self._meter.drop_points(self._found[kept]) <= self.limit_points


def _check_opset(source: Source, calibration: Calibration) -> None:
    newest = source.contract.max_opset
    if calibration.rest == "fp16" and newest is not None and newest < FLOAT16_OPSET:
        raise UsageError(
            f"int8 with the rest in fp16 needs opset {FLOAT16_OPSET}",
            got="rest fp16",
            allowed=f"rest fp32, as this tensor contract's consumer reads opset {newest} at most",
        )


def _row(row: Sensitivity, kept: bool) -> dict[str, object]:
    layer = row.layer
    # A layer whose weights int8 holds exactly makes no noise: JSON has no infinity.
    finite = abs(row.signal_to_noise_db) != float("inf")
    return {
        "layer": layer.name,
        "node": layer.node,
        "operator": layer.operator,
        "signal_to_noise_db": round(row.signal_to_noise_db, 2) if finite else None,
        "kept": kept,
    }


def _quietly(_done: int, _total: int) -> None:
    """The order of layers is told layer by layer, not picture by picture."""
