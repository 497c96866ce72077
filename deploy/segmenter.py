"""The small runtime API that a stack embeds: a bundle in, label maps out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np

from searchkit.errors import DamagedArtifactError, SearchkitError, UsageError
from searchkit.label_sets import MAX_CLASSES, LabelSet
from searchkit.sizes import MAX_SIDE_PX, Size

from .backends.onnxruntime import BACKEND, create_session
from .bundle import Bundle, read_bundle
from .contracts import CONTRACTS


def _integer(value: Any, lowest: int, highest: int) -> int:
    if type(value) is not int or not lowest <= value <= highest:
        raise ValueError(f"{value!r} is not an integer from {lowest} to {highest}")
    return value


def _byte(value: Any) -> int:
    return _integer(value, 0, 255)


class Segmenter:
    """A loaded bundle. Not safe to share between threads: make one a thread.

    Attributes:
        size: height and width of the pictures it takes.
        labels: names and colours of its classes.
        trained: False where the bundle was exported without weights; its maps then mean nothing.
    """

    def __init__(self, bundle: Bundle, *, device: str = "cpu", threads: int | None = None) -> None:
        where = bundle.path / "contract.json"
        try:
            self._read(bundle.json("contract.json"))
        except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
            raise DamagedArtifactError(
                "not a contract", where=str(where), got=str(error), fix="export it again"
            ) from None
        BACKEND.require(device)
        try:
            self._session = create_session(bundle.files["model.onnx"], device=device, threads=threads)
        except SearchkitError:
            raise
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise DamagedArtifactError(
                "ONNX Runtime cannot open the model", where=str(bundle.path / "model.onnx"), got=reason
            ) from error
        self._input = self._session.get_inputs()[0].name

    def _read(self, contract: Any) -> None:
        resolution = contract["resolution"]
        self.size = Size(*(_integer(resolution[side], 1, MAX_SIDE_PX) for side in ("height_px", "width_px")))
        palette = tuple((_byte(red), _byte(green), _byte(blue)) for red, green, blue in contract["palette"])
        names = tuple(str(name) for name in contract["classes"])
        if not names or len(palette) > len(names):
            raise ValueError(f"{len(names)} classes in {len(palette)} colours")
        self.labels = LabelSet("bundle", names, palette, _byte(contract["ignore"]))
        self.trained = bool(contract["weights"]["trained"])
        self._contract = CONTRACTS.load(contract["io"])
        self._dtype = np.uint8 if len(names) <= MAX_CLASSES else np.uint16

    def __call__(self, image_HWC: np.ndarray) -> np.ndarray:
        """Label map H x W of one uint8 RGB picture H x W x 3 of the bundle's size; uint8, uint16 over 255 classes."""
        return self._contract.labels(self.output(image_HWC), self.size)[0].astype(self._dtype)

    def output(self, image_HWC: np.ndarray) -> np.ndarray:
        """The model's own output for one such picture, batch 1: logits or labels, as the bundle's contract says."""
        if image_HWC.dtype != np.uint8 or image_HWC.shape != (*self.size, 3):
            raise UsageError(
                "not a picture that this bundle takes",
                got=f"{image_HWC.dtype} {image_HWC.shape}",
                allowed=f"uint8 {(*self.size, 3)}",
                fix="resize the picture",
            )
        output: np.ndarray = self._session.run(None, {self._input: self._contract.encode(image_HWC)})[0]
        return output

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
