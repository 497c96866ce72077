"""From a float32 model to the same model in another precision, with a record of what was done and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np
import onnx

from searchkit.data.streets import Streets
from searchkit.files import sha256_bytes

from .activations import largest_magnitudes
from .calibration import Calibration
from .fp16 import to_fp16
from .graph import Graph
from .int8 import to_int8
from .quality import Meter
from .samples import Batches
from .source import SCHEMA, Converted, Source

#: Points of mIoU that fp16 may cost.
MAX_FP16_DROP = 0.1

# Enough to see how large activations become.
_PICTURES = 8


def convert(source: Source, precision: str, calibration: Calibration | None) -> Converted:
    """The model in `fp16` or `int8`, and the record of it, the SHA-256 of the model included.

    Args:
        calibration: needed for int8. For fp16 generated streets show how large activations become where there is none,
            and no mIoU is measured.

    Raises:
        UsageError: a drop of mIoU is to be held, and cannot be measured; or the contract's consumer reads no opset that
            has what is asked for.
        VerificationError: int8 cannot hold the drop.
        InputFileError: a picture of the data set cannot be read.
    """
    if precision == "int8":
        assert calibration is not None
        found = to_int8(source, calibration, magnitudes(source, calibration) if calibration.rest == "fp16" else {})
    else:
        found = _to_half(source, calibration)
    model = onnx.load_from_string(found.model)
    onnx.helper.set_model_props(
        model, {entry.key: entry.value for entry in model.metadata_props} | {"searchkit.precision": precision}
    )
    data = bytes(model.SerializeToString(deterministic=True))
    record = {"schema": SCHEMA, "precision": precision, **found.record, "model_sha256": sha256_bytes(data)}
    return replace(found, model=data, record=record)


def magnitudes(source: Source, calibration: Calibration | None) -> dict[str, float]:
    """Activation -> largest |x| on pictures of the calibration, or generated streets without one, and on noise."""
    given = calibration or Calibration(Streets(source.size))
    batches = Batches(source.contract, given.samples(source.size, _PICTURES), given.tell("looking for magnitudes"))
    return largest_magnitudes(source.model, Graph(source.model).activations(), _WithNoise(batches, source))


class _WithNoise:
    """Batches, and one of noise: no picture drives some activations further."""

    def __init__(self, batches: Batches, source: Source) -> None:
        self._batches, self._source = batches, source

    def __iter__(self) -> Iterator[np.ndarray]:
        yield from self._batches
        noise = np.random.default_rng(0).integers(0, 256, (*self._source.size, 3), dtype=np.uint8)
        yield self._source.contract.encode(noise)


def _to_half(source: Source, calibration: Calibration | None) -> Converted:
    meter = Meter(source, calibration) if calibration else None
    model, kept = to_fp16(source.model, magnitudes(source, calibration))
    record: dict[str, object] = {"kept": [asdict(item) for item in kept]}
    if calibration and meter:
        limit = MAX_FP16_DROP if calibration.max_miou_drop is None else calibration.max_miou_drop
        record["miou"] = meter.tree(meter.of(model), limit) if not meter.unmeasured else None
        record["miou_unmeasured"] = meter.unmeasured
    return Converted(model, record)
