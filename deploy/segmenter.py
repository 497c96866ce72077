"""The small runtime API that a stack embeds: a bundle in, label maps out."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np

from searchkit.errors import DamagedArtifactError, UsageError
from searchkit.label_sets import LabelSet
from searchkit.sizes import Size

from .backends.onnxruntime import create_session
from .bundle import Bundle, read_bundle
from .contracts import CONTRACTS


class Segmenter:
    """A loaded bundle. Not safe to share between threads: make one a thread.

    Attributes:
        size: height and width of the pictures it takes.
        labels: names and colours of its classes.
        trained: False where the bundle was exported without weights; its maps then mean nothing.
    """

    def __init__(self, bundle: Bundle, *, device: str = "cpu", threads: int | None = None) -> None:
        contract = bundle.json("contract.json")
        try:
            self.size = Size(contract["resolution"]["height_px"], contract["resolution"]["width_px"])
            self.labels = LabelSet(
                "bundle",
                tuple(contract["classes"]),
                tuple(tuple(c) for c in contract["palette"]),
                contract["ignore"],
            )
            self.trained = bool(contract["weights"]["trained"])
            self._contract = CONTRACTS.load(contract["io"])
        except (KeyError, TypeError) as error:
            raise DamagedArtifactError(
                f"contract lacks {error}", where=str(bundle.path / "contract.json"), fix="export it again"
            ) from None
        self._session = create_session(bundle.files["model.onnx"], device=device, threads=threads)
        self._input = self._session.get_inputs()[0].name

    def __call__(self, image_HWC: np.ndarray) -> np.ndarray:
        """Label map H x W (uint8) of one uint8 RGB picture H x W x 3 of the bundle's size."""
        if image_HWC.dtype != np.uint8 or image_HWC.shape != (*self.size, 3):
            raise UsageError(
                "not a picture that this bundle takes",
                got=f"{image_HWC.dtype} {image_HWC.shape}",
                allowed=f"uint8 {(*self.size, 3)}",
                fix="resize the picture",
            )
        output = self._session.run(None, {self._input: self._contract.encode(image_HWC)})[0]
        return self._contract.labels(output, self.size)[0].astype(np.uint8)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the session; the segmenter cannot be used after it."""
        del self._session


def load(path: str | Path, *, device: str = "cpu", threads: int | None = None) -> Segmenter:
    """Open a bundle for inference with ONNX Runtime; sizes and hashes are checked first.

    Raises:
        UsageError: no bundle at `path`.
        DamagedArtifactError: a file is not what the manifest says.
        BackendUnavailableError: `device` cannot be used here.
    """
    return Segmenter(read_bundle(Path(path)), device=device, threads=threads)
