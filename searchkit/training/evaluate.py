"""How well a network segments a data set, by the papers' protocol.

A picture is resized to the network's resolution, the network answers, its logits are resized bilinearly to the
labels' own size, the greatest wins, and every labelled pixel counts once ("directly resize the predicted maps to the
original resolution", SSR, section 5.2). One picture at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..data import Dataset, Sample
from ..errors import InputFileError, UsageError
from ..networks import Network
from ..normalization import normalise
from ..pictures import resize_picture
from ..sizes import Size
from .metrics import BOUNDARY_RATIO, BoundaryIoU, Confusion

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

SCHEMA = 1

#: A picture at the network's input size (H x W x 3, uint8, RGB) to logits (C x h x w, float, of any size) or to labels
#: at the input size (H x W, integer).
Predict = Callable[[np.ndarray], "np.ndarray | Tensor"]

#: How an answer gets the labels' size.
PROTOCOLS = {
    "logits": "logits resized bilinearly to the labels' size, then arg-max",
    "labels": "logits resized bilinearly to the input's size, arg-max, labels resized by nearest neighbour",
}


@dataclass(frozen=True)
class Subject:
    """What is evaluated, as results state it.

    Attributes:
        network: its name.
        digest: SHA-256 of what defines the network.
        classes: how many it tells apart.
        weights: where they came from, for people.
        trained: False where they are seeded; no figure means anything then.
        runtime: what computes it, such as `pytorch cpu`.
        gives: `logits` or `labels`.
    """

    network: str
    digest: str
    classes: int
    weights: str
    trained: bool
    runtime: str
    gives: str = "logits"


@dataclass(frozen=True)
class Predictor:
    """Something that can be evaluated, at the one input size that it takes."""

    predict: Predict
    subject: Subject
    resolution: Size


@dataclass(frozen=True)
class Seen:
    """One evaluated sample.

    Attributes:
        position: how many were evaluated before it, of `total`.
        index: of the sample in its split.
        prediction: H x W, uint8, at the size of the sample's labels.
        mean_iou: of this sample alone; None where it has no labelled pixel.
    """

    position: int
    total: int
    index: int
    name: str
    sample: Sample
    prediction: NDArray[np.uint8]
    mean_iou: float | None


@dataclass(frozen=True)
class Evaluation:
    """Measured quality of one network on one split; figures are derived from the counts.

    Attributes:
        dataset: its name.
        fingerprint: what decides the split's bytes.
        names: of the classes.
        count: samples evaluated, of `available`.
        protocol: a key of `PROTOCOLS`.
        samples: name and mIoU of each sample, in order.
    """

    subject: Subject
    dataset: str
    split: str
    fingerprint: str
    names: tuple[str, ...]
    count: int
    available: int
    resolution: Size
    protocol: str
    confusion: Confusion
    boundary: BoundaryIoU
    samples: tuple[tuple[str, float | None], ...]

    def to_tree(self) -> dict[str, object]:
        """All of it as JSON; ratios are 0 to 1, null where a class does not occur."""
        confusion, boundary = self.confusion, self.boundary
        columns = zip(self.names, confusion.iou(), boundary.iou(), confusion.accuracy(), confusion.share(), strict=True)
        keys = ("name", "iou", "boundary_iou", "accuracy", "share_of_pixels")
        return {
            "schema": SCHEMA,
            "searchkit": __version__,
            "network": vars(self.subject),
            "dataset": {
                "name": self.dataset,
                "split": self.split,
                "fingerprint": self.fingerprint,
                "count": self.count,
                "available": self.available,
            },
            "resolution": str(self.resolution),
            "protocol": {"name": self.protocol, "text": PROTOCOLS[self.protocol]},
            "mean_iou": confusion.mean_iou(),
            "mean_boundary_iou": boundary.mean_iou(),
            "pixel_accuracy": confusion.pixel_accuracy(),
            "mean_accuracy": confusion.mean_accuracy(),
            "frequency_weighted_iou": confusion.frequency_weighted_iou(),
            "classes": [dict(zip(keys, row, strict=True)) for row in columns],
            "samples": [{"name": name, "mean_iou": value} for name, value in self.samples],
            "confusion": confusion.to_tree(),
            "boundary": boundary.to_tree(),
        }


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    split: str,
    *,
    dataset_name: str,
    protocol: str | None = None,
    limit: int | None = None,
    boundary_ratio: float = BOUNDARY_RATIO,
    watch: Callable[[Seen], Any] | None = None,
) -> Evaluation:
    """Measure a network on a split.

    Args:
        dataset_name: what results call the data set.
        protocol: a key of `PROTOCOLS`; by default the papers' (`logits`), or `labels` for what gives labels only.
        limit: evaluate this many samples, spread evenly over the split.
        boundary_ratio: see `BoundaryIoU`.
        watch: called with each sample once it is counted.

    Raises:
        UsageError: no such split; another number of classes; a protocol that the network cannot follow.
        InputFileError: a sample cannot be read, or the network answers with NaN or infinity.
    """
    subject = predictor.subject
    available = check_dataset(dataset, split, subject.classes, network=subject.network)
    protocol = _protocol(protocol, subject)
    indices = spread(available, limit)
    ignore = dataset.labels.ignore
    confusion = Confusion(subject.classes, ignore=ignore)
    boundary = BoundaryIoU(subject.classes, ratio=boundary_ratio, ignore=ignore)
    samples: list[tuple[str, float | None]] = []
    for position, index in enumerate(indices):
        sample, name = dataset.read(split, index), dataset.name(split, index)
        prediction = predict_labels(predictor, sample.image, Size(*sample.labels.shape), protocol)
        own = Confusion(subject.classes, ignore=ignore)
        own.add(sample.labels, prediction)
        confusion.merge(own)
        boundary.add(sample.labels, prediction)
        samples.append((name, own.mean_iou()))
        if watch:
            watch(Seen(position, len(indices), index, name, sample, prediction, own.mean_iou()))
    return Evaluation(
        subject,
        dataset_name,
        split,
        dataset.fingerprint(split),
        dataset.labels.names,
        len(indices),
        available,
        predictor.resolution,
        protocol,
        confusion,
        boundary,
        tuple(samples),
    )


def check_dataset(dataset: Dataset, split: str, classes: int, *, network: str) -> int:
    """How many samples a split has, after checking that a network of `classes` can be evaluated on it.

    Raises:
        UsageError: no such split, none in it, or another number of classes.
    """
    count = dataset.count(split)
    if count == 0:
        raise UsageError("split is empty", where="--split", got=split, fix="check the data set's folder")
    if len(dataset.labels) != classes:
        raise UsageError(
            f"{network} and the data set differ in their number of classes",
            where="--data",
            got=f"{len(dataset.labels)} classes ({dataset.labels.name})",
            allowed=f"{classes} classes",
            fix="give a network that was trained on this label set",
        )
    return count


def spread(available: int, limit: int | None) -> list[int]:
    """`limit` indices, evenly spread over `available`; all of them where `limit` is None or larger.

    The first ones would be a biased choice: the first 267 pictures of Cityscapes val are one city.
    """
    if limit is not None and limit < 1:
        raise UsageError("nothing to evaluate", where="--limit", got=limit, allowed="at least 1")
    wanted = available if limit is None else min(limit, available)
    return [position * available // wanted for position in range(wanted)]


def predict_labels(predictor: Predictor, image: np.ndarray, size: Size, protocol: str) -> np.ndarray:
    """The label map of one picture (H x W x 3, uint8, any size) at `size`, uint8, by a protocol of `PROTOCOLS`.

    Raises:
        InputFileError: the network answers with NaN or infinity.
        UsageError: what `predict` returns is neither logits nor labels.
    """
    import torch

    from ..blocks import resize

    with torch.inference_mode():
        answer = torch.as_tensor(predictor.predict(resize_picture(image, predictor.resolution)))
        _check_answer(answer, predictor)
        if answer.dim() == 3:
            scale = size if protocol == "logits" else predictor.resolution
            answer = resize(answer[None].float(), scale)[0].argmax(0)
        labels = answer.to("cpu", torch.uint8).numpy()
    return resize_picture(labels, size, nearest=True)


def network_predictor(
    network: Network, resolution: Size, *, weights: Path | None = None, seed: int = 0, device: str = "cpu"
) -> Predictor:
    """A PyTorch network with weights from a safetensors file, or seeded ones.

    Raises:
        UsageError: the size does not suit, or PyTorch cannot use `device` here.
        InputFileError: the weights file does not fit.
    """
    from ..weights import load_weights, seed_weights

    network.check(resolution)
    check_device(device)
    module = network.build()
    if weights is None:
        found = seed_weights(module, seed=seed, size_rule=network.size_rule)
    else:
        found = load_weights(module, weights, digest=network.digest)
    subject = Subject(
        network.name, network.digest, network.classes, found.text, found.trained, runtime=f"pytorch {device}"
    )
    return Predictor(module_predict(module, device=device), subject, resolution)


def module_predict(module: nn.Module, *, device: str = "cpu") -> Predict:
    """A module that takes N x 3 x H x W and returns logits, as `Predict`; puts it on `device`, in evaluation mode."""
    import torch

    module.to(device).eval()

    def predict(image: np.ndarray) -> Tensor:
        # The same figures on every run: no choice of algorithm by a race, no shortened mantissa.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            logits: Tensor = module(torch.from_numpy(normalise(image)).to(device))
        return logits[0]

    return predict


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let PyTorch compute on so many CPU threads inside the block; as many as before if None.

    The number belongs to the whole process, so it is put back however the block ends.
    """
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_device(device: str) -> None:
    """Raise `UsageError` unless PyTorch can compute on `device` (`cpu` or `cuda`) here."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("PyTorch finds no CUDA device", where="--device", got=device, allowed="cpu")
    if device not in ("cpu", "cuda"):
        raise UsageError("unknown device", where="--device", got=device, allowed="cpu or cuda")


def _protocol(wanted: str | None, subject: Subject) -> str:
    if wanted is not None and wanted not in PROTOCOLS:
        raise UsageError("unknown protocol", where="--protocol", got=wanted, allowed=" or ".join(PROTOCOLS))
    if wanted == "logits" and subject.gives == "labels":
        raise UsageError(
            "this bundle gives labels, which cannot be resized as logits",
            where="--protocol",
            got=wanted,
            allowed="labels",
            fix="export it with --io raw, or leave --protocol out",
        )
    return wanted or subject.gives


def _check_answer(answer: Tensor, predictor: Predictor) -> None:
    if answer.dim() == 3 and answer.shape[0] == predictor.subject.classes and answer.is_floating_point():
        if not bool(answer.isfinite().all()):
            raise InputFileError(
                "network answers with NaN or infinity", where=predictor.subject.network, fix="use an earlier checkpoint"
            )
        return
    labels = answer.dim() == 2 and tuple(answer.shape) == tuple(predictor.resolution)
    if not labels or answer.is_floating_point() or bool((answer < 0).any() or (answer > 255).any()):
        raise UsageError(
            "not an answer of this network",
            where=predictor.subject.network,
            got=f"{answer.dtype} {tuple(answer.shape)}",
            allowed=f"logits of {predictor.subject.classes} classes, or labels of {predictor.resolution}",
        )
