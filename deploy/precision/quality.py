"""What a converted model is worth: mIoU on a data set, and how far its logits are from the float32 model's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from searchkit.errors import UsageError
from searchkit.pictures import resize_picture
from searchkit.sizes import Size
from searchkit.training.metrics import Confusion

from ..backends.onnxruntime import create_session
from ..contracts import Contract
from .calibration import Calibration
from .samples import Samples
from .source import Source


def mean_iou(
    model: bytes, contract: Contract, samples: Samples, classes: int, tell: Callable[[int, int], None]
) -> float:
    """mIoU (0 to 1) of a model, run by ONNX Runtime on the CPU as it is shipped, its optimiser on.

    The protocol is `labels` of `searchkit.training.evaluate`, the one that every contract can follow: labels at the
    input's size, brought to the size of the true ones by nearest neighbour.
    """
    session = create_session(model, device="cpu")
    name = session.get_inputs()[0].name
    confusion = Confusion(classes, ignore=samples.dataset.labels.ignore)
    for done, sample in enumerate(samples, 1):
        output = session.run(None, {name: contract.encode(sample.image)})[0]
        labels = contract.labels(output, samples.size)[0].astype(np.uint8)
        confusion.add(sample.labels, resize_picture(labels, Size(*sample.labels.shape), nearest=True))
        tell(done, len(samples))
    return confusion.mean_iou() or 0.0


class Meter:
    """The mIoU of a float32 model and of its conversions on a calibration's data set.

    Attributes:
        unmeasured: why nothing can be measured; empty where it can.

    Raises:
        UsageError: a drop is to be held, and cannot be measured.
    """

    def __init__(self, source: Source, calibration: Calibration) -> None:
        self._source, self._calibration = source, calibration
        samples = calibration.miou_samples(source.size)
        self.unmeasured = _obstacle(source, calibration, samples)
        if self.unmeasured and calibration.max_miou_drop is not None:
            raise UsageError(
                f"the drop of mIoU cannot be measured: {self.unmeasured}",
                where="maximal drop of mIoU",
                got=calibration.max_miou_drop,
                fix="leave it out, or give trained weights and a data set of their classes with a split val",
            )
        self._samples = samples
        self._reference: float | None = None

    @property
    def reference(self) -> float:
        """mIoU of the float32 model, 0 to 1; measured once."""
        if self._reference is None:
            self._reference = self.of(self._source.model)
        return self._reference

    def of(self, model: bytes) -> float:
        """mIoU of a model, 0 to 1."""
        assert self._samples is not None, self.unmeasured
        source, tell = self._source, self._calibration.tell("measuring mIoU")
        return mean_iou(model, source.contract, self._samples, source.classes, tell)

    def drop_points(self, found: float) -> float:
        """How much a mIoU is under the float32 model's, in points."""
        return 100 * (self.reference - found)

    def tree(self, found: float, limit_points: float) -> dict[str, object]:
        """The measurement as JSON."""
        assert self._samples is not None, self.unmeasured
        return {
            **self._samples.described(),
            "fp32": self.reference,
            "converted": found,
            "drop_points": self.drop_points(found),
            "limit_points": limit_points,
        }


def _obstacle(source: Source, calibration: Calibration, samples: Samples | None) -> str:
    """Why mIoU cannot be measured; empty where it can."""
    dataset = calibration.dataset
    if not source.trained:
        return "the weights are not trained"
    if len(dataset.labels) != source.classes:
        return f"{dataset.kind} has {len(dataset.labels)} classes, the network {source.classes}"
    return "" if samples else f"{dataset.kind} has no split val"


def centred_logits(model: bytes, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Logits, N x C x H x W, less their mean over the classes, float64.

    What all classes have in common decides nothing. The optimiser is off: the figures are those of the graph.

    Args:
        model: whose only output is the logits.
    """
    session = create_session(model, device="cpu", optimise=False)
    name = session.get_inputs()[0].name
    for batch in batches:
        logits = session.run(None, {name: batch})[0].astype(np.float64)
        yield logits - logits.mean(axis=1, keepdims=True)


def signal_to_noise_db(reference: Iterable[np.ndarray], found: Iterable[np.ndarray]) -> float:
    """10 log10 of the energy of the reference over that of the difference; infinite where they are equal."""
    signal = noise = 0.0
    for wanted, got in zip(reference, found, strict=True):
        signal += float(np.square(wanted).sum())
        noise += float(np.square(got - wanted).sum())
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")
