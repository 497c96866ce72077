"""Pictures of label maps: a generated street, its truth, and what each network makes of it, as PNG in data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from searchkit.sizes import Size

if TYPE_CHECKING:
    import numpy as np

    from searchkit.data import Sample

_SEED = 2  # that of the streets' `test` split, which no shipped weights were trained or chosen on
_SHIPPED_SIZE = Size(128, 256)


@dataclass(frozen=True)
class Picture:
    """One PNG.

    Attributes:
        uri: the file itself, as `data:image/png;base64,...`.
        words: what it shows, for those who cannot see it and as its caption.
    """

    uri: str
    words: str
    size: Size


@dataclass(frozen=True)
class LabelMaps:
    """Pictures in rows, one a street; `remarks` say where the weights are from and what was left out."""

    rows: tuple[tuple[Picture, ...], ...]
    remarks: tuple[str, ...]


def label_maps(bundles: Sequence[Path], networks: Sequence[str], count: int) -> LabelMaps:
    """Segment `count` generated streets with the bundles, or else with the shipped weights of the networks.

    Raises:
        UsageError, DamagedArtifactError: a folder is no bundle, or is damaged.
        BackendUnavailableError: ONNX Runtime is not installed.
    """
    if not count:
        return LabelMaps((), ("None were asked for.",))
    return _of_bundles(bundles, count) if bundles else _of_shipped(networks, count)


def _of_bundles(bundles: Sequence[Path], count: int) -> LabelMaps:
    from deploy.segmenter import load
    from searchkit.data.streets import draw

    rows: list[list[Picture]] = [[] for _ in range(count)]
    remarks = []
    for path in bundles:
        with load(path, threads=1) as segmenter:
            if not segmenter.trained:
                remarks.append(f"{path.name} was exported without weights: its maps mean nothing.")
            for index, row in enumerate(rows):
                sample = draw(_SEED, index, segmenter.size)
                labels = segmenter(sample.image)
                row += [] if row else [_photograph(sample, index)]
                row.append(_map(segmenter.colour(labels), f"{path.name} at {segmenter.size}", labels, sample))
    return LabelMaps(tuple(map(tuple, rows)), tuple(remarks))


def _of_shipped(networks: Sequence[str], count: int) -> LabelMaps:
    from searchkit.data.streets import draw
    from searchkit.trained import find_weights, shipped_for

    having = [name for name in dict.fromkeys(networks) if "streets" in shipped_for(name)]
    if not having:
        return LabelMaps((), ("No bundle was given, and no weights are shipped for these networks.",))
    from searchkit.label_sets import CITYSCAPES_19

    samples = [draw(_SEED, index, _SHIPPED_SIZE) for index in range(count)]
    rows = [
        [_photograph(sample, at), _map(CITYSCAPES_19.colour(sample.labels), "the truth", None, sample)]
        for at, sample in enumerate(samples)
    ]
    for name in having:
        predicted = _predicted(name, find_weights("streets", name), samples)
        for row, sample, labels in zip(rows, samples, predicted, strict=True):
            row.append(_map(CITYSCAPES_19.colour(labels), f"{name} at {_SHIPPED_SIZE}", labels, sample))
    remark = "Drawn streets and shipped weights, trained on such streets only: they show that it works, not how well."
    return LabelMaps(tuple(map(tuple, rows)), (remark,))


def _predicted(name: str, weights: Path, samples: Sequence[Sample]) -> list[np.ndarray]:
    import numpy as np
    import torch

    from searchkit.networks import resolve
    from searchkit.training.evaluate import network_predictor, torch_threads

    found = []
    # One thread, so that equal inputs give equal bytes however many there are.
    with torch_threads(1), torch.no_grad():
        predictor = network_predictor(resolve(name), _SHIPPED_SIZE, weights=weights)
        for sample in samples:
            logits = torch.as_tensor(predictor.predict(sample.image))[None]
            full = torch.nn.functional.interpolate(logits, tuple(_SHIPPED_SIZE), mode="bilinear", align_corners=False)
            found.append(full[0].argmax(0).numpy().astype(np.uint8))
    return found


def _photograph(sample: Sample, index: int) -> Picture:
    return _picture(sample.image, f"generated street {index + 1}")


def _map(coloured: np.ndarray, name: str, labels: np.ndarray | None, sample: Sample) -> Picture:
    if labels is None:
        return _picture(coloured, name)
    counted = sample.labels != 255
    right = float((labels == sample.labels)[counted].mean()) if counted.any() else 0.0
    return _picture(coloured, f"{name}: {100 * right:.0f} % of this picture's pixels right")


def _picture(pixels: np.ndarray, words: str) -> Picture:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(f"data:image/png;base64,{encoded}", words, Size(*pixels.shape[:2]))
