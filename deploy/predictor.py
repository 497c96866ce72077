"""A bundle as something that `searchkit evaluate` can measure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from searchkit.networks import resolve

from .bundle import MANIFEST, read_bundle
from .bundled import describe
from .segmenter import Segmenter

if TYPE_CHECKING:
    import numpy as np

    from searchkit.training.evaluate import Predictor


def is_bundle_argument(argument: str) -> bool:
    """Whether a network argument names a bundle folder rather than something to build."""
    return (Path(argument) / MANIFEST).is_file()


def bundle_predictor(path: Path, *, device: str = "cpu", threads: int | None = None) -> Predictor:
    """The network in a bundle, computed by ONNX Runtime; hashes are checked first.

    Bundles whose model answers with logits give those, at the resolution that the contract says; all others give
    labels at the input's size.

    Raises:
        UsageError: no bundle at `path`.
        DamagedArtifactError: a file is not what the manifest says.
        BackendUnavailableError: `device` cannot be used here.
    """
    from searchkit.training.evaluate import Predictor, Subject

    bundle = read_bundle(path)
    network, described = resolve(str(path)), describe(bundle)
    # The graph as it is shipped: what is scored is the model, not the native label head.
    segmenter = Segmenter(bundle, device=device, threads=threads, mode="default")
    gives = "logits" if described.contract.output_name == "logits" else "labels"
    subject = Subject(
        network.name,
        network.digest,
        network.classes,
        described.weights,
        segmenter.trained,
        runtime=f"onnxruntime {device}, bundle of contract {described.io}",
        gives=gives,
    )

    def predict(image: np.ndarray) -> np.ndarray:
        if gives == "labels":
            return segmenter(image)
        answer: np.ndarray = segmenter.output(image)[0]
        return answer

    return Predictor(predict, subject, segmenter.size)
