"""The small runtime API that a stack embeds: a bundle in, label maps out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np

from searchkit.errors import BackendUnavailableError, DamagedArtifactError, SearchkitError, UsageError, unknown_name
from searchkit.label_sets import MAX_CLASSES
from searchkit.sizes import MAX_SIDE_PX, Size

from .automatic import AUTO, choose
from .backends import BACKENDS, Model
from .backends.onnxruntime import BACKEND as ONNXRUNTIME
from .backends.onnxruntime import mode_for_labels
from .bundle import Bundle, read_bundle
from .bundled import BundledModel
from .headless import HeadlessModel
from .native.label_head import label_head
from .native.library import ready
from .native.preprocessing import preprocess
from .runners import Runner, closed, open_runner

DEFAULT_BACKEND = ONNXRUNTIME.name
#: Where labels are decided: at the model's own size, or at the picture's.
LABELS_AT = ("model", "picture")


class Segmenter:
    """A loaded bundle: pictures of any size in, label maps of that size out. Safe to share between threads.

    Attributes:
        size: height and width of the model's input; a picture of this size is not resized.
        labels: names and colours of its classes.
        trained: False where the bundle was exported without weights; its maps then mean nothing.
        resize: how pictures of other sizes are fitted.
        backend, mode, device: what it runs on.
        choice: what `auto` measured; None where the backend was named.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str | None = None,
        threads: int | None = None,
        backend: str = DEFAULT_BACKEND,
        mode: str | None = None,
        trust_engines: bool = False,
        labels_at: str = "model",
    ) -> None:
        model = BundledModel(bundle, trust_engines=trust_engines)
        described = model.description
        self.size, self.labels, self.trained = described.size, described.labels, described.trained
        self.resize, self._contract = described.resize, described.contract
        self._dtype = np.uint8 if len(self.labels) <= MAX_CLASSES else np.uint16
        self._at_picture = _at_picture(labels_at, model)
        self.choice = None
        if backend == AUTO:
            self.choice = choose(model, device=device, threads=threads, mode=mode)
            backend, mode = self.choice.backend, self.choice.mode
        self.backend = backend.replace("_", "-")
        gives_logits = self._contract.output_name == "logits"
        shown = HeadlessModel(model) if self._at_picture and not gives_logits else model
        self._corners = shown.corners if isinstance(shown, HeadlessModel) else "half_pixel"
        self.device, self.mode, runner = _open(model, shown, backend, device, threads, mode)
        self._runner: Runner | None = runner
        self._native = ready()
        self._decides = self._at_picture or (gives_logits and self._native and self._dtype == np.uint8)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Label map H x W of one uint8 RGB picture H x W x 3 of any size; uint8, uint16 over 255 classes.

        Raises:
            UsageError: no such picture, or the segmenter is closed.
        """
        output, picture = self.output(image), Size(*image.shape[:2])
        if self._at_picture:
            return self._decide(output, picture)
        if self._decides:
            return self.resize.restore(self._decide(output, self.size), picture)
        labels = self._contract.labels(output, self.size)[0].astype(self._dtype, copy=False)
        return self.resize.restore(labels, picture)

    def _decide(self, logits: np.ndarray, size: Size) -> np.ndarray:
        """Labels of logits N x C x h x w, by the native kernel where it is ready."""
        kernel = None if self._native else "torch"
        return label_head(logits[0], size, corners=self._corners, kernel=kernel)

    def batch(self, images: Iterable[np.ndarray]) -> list[np.ndarray]:
        """The label map of each picture, in order. The model takes one at a time, so they are run one by one."""
        return [self(image) for image in images]

    def output(self, image: np.ndarray) -> np.ndarray:
        """The model's own output for one such picture, batch 1: what it is, the bundle's contract says.

        Where labels are decided at the picture's size, it is the logits.
        """
        _check_picture(image)
        runner = self._runner
        if runner is None:
            raise closed()
        return runner(self._input(image))

    def _input(self, image: np.ndarray) -> np.ndarray:
        """A picture as the model's input tensor: one native pass where that is ready, else step by step."""
        layout = self._contract.preprocessing
        picture = Size(*image.shape[:2])
        if not self._native or layout is None or (layout == "pixels" and picture == self.size):
            return self._contract.encode(self.resize.fit(image, self.size))
        inside = self.resize.inside(picture, self.size)
        return preprocess(image, self.size, inside=inside, pad=self.resize.pad, layout=layout)

    def overlay(self, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The picture and the colours of its label map, half and half: uint8 RGB H x W x 3.

        Raises:
            UsageError: no such picture, or the label map has another size.
        """
        _check_picture(image)
        if labels.shape != image.shape[:2]:
            raise UsageError(
                "a label map of another size than the picture", got=labels.shape, allowed=str(image.shape[:2])
            )
        return ((self.colour(labels).astype(np.uint16) + image) // 2).astype(np.uint8)

    def colour(self, labels: np.ndarray) -> np.ndarray:
        """A label map H x W in the bundle's colours: uint8 RGB H x W x 3; black where a class has none."""
        return self.labels.colour(np.minimum(labels, MAX_CLASSES).astype(np.uint8))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the session; a second time does nothing. Pictures that other threads have begun are finished."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()


def _at_picture(labels_at: str, model: BundledModel) -> bool:
    if labels_at not in LABELS_AT:
        raise unknown_name("place of the labels", labels_at, LABELS_AT, where="labels_at")
    if labels_at == "model":
        return False
    described = model.description
    if described.resize.name != "stretch":
        raise UsageError(
            "labels at the picture's size need a picture that fills the model's input",
            got=described.resize.name,
            allowed="stretch",
            fix="export with --resize stretch",
        )
    if len(described.labels) > MAX_CLASSES or described.contract.output_name not in ("logits", "labels"):
        raise UsageError(
            "labels at the picture's size are made of logits, which this bundle does not have",
            got=described.io,
            allowed=f"raw, logits, labels or triton, at most {MAX_CLASSES} classes",
            fix="export with --io labels",
        )
    return True


def _open(
    model: BundledModel, shown: Model, backend: str, device: str | None, threads: int | None, mode: str | None
) -> tuple[str, str, Runner]:
    """The device and mode in use, and what runs `shown`, which is the bundle's model, whole or headless."""
    runtime = BACKENDS.load(backend)
    _, chosen = runtime.require(device)
    data = model.onnx
    try:
        if mode is None and runtime is ONNXRUNTIME and shown is model:
            mode = mode_for_labels(data, chosen)
        mode = runtime.chosen_mode(mode, model.precision)
        if shown is not model:
            # The head stands behind the session anyway.
            mode = runtime.label_head_modes.get(mode, mode)
        return chosen, mode, open_runner(runtime, shown, device=chosen, threads=threads, mode=mode)
    except BackendUnavailableError as error:
        raise model.advise_trust(backend, error) from error.__cause__
    except SearchkitError:
        raise
    except Exception as error:
        # Each runtime has exceptions of its own.
        reason = str(error).partition("\n")[0]
        raise DamagedArtifactError(
            f"{runtime.name} cannot open the model", where=str(model.bundle.path / "model.onnx"), got=reason
        ) from error


def _check_picture(image: Any) -> None:
    if (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and all(1 <= side <= MAX_SIDE_PX for side in image.shape[:2])
    ):
        return
    got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    raise UsageError(
        "not a picture",
        got=got,
        allowed=f"a numpy array, uint8, height x width x 3, RGB, sides from 1 to {MAX_SIDE_PX} px",
        fix="convert it first, such as with searchkit.pictures.read_picture",
    )


def load(
    path: str | Path,
    *,
    device: str | None = None,
    threads: int | None = None,
    backend: str = DEFAULT_BACKEND,
    mode: str | None = None,
    trust_engines: bool = False,
    labels_at: str = "model",
) -> Segmenter:
    """Open a bundle for inference; sizes, hashes and the model's graph are checked first.

    Args:
        path: the bundle's folder.
        device: one of the backend's; its first if None.
        threads: CPU threads; the runtime's own default if None.
        backend: what runs it; `auto` for the fastest that is installed and passes the bundle's golden picture.
        mode: of the backend; its first if None. ONNX Runtime on a CPU then ends in the native label head where that is
            compiled and the model gives labels.
        trust_engines: whether an engine in the bundle, which is code, may be run.
        labels_at: `model`: labels are decided at the model's size, and repeated or left out for pictures of another;
            `picture`: logits are resized to the picture's size and labels decided there, as the papers score.

    Raises:
        UsageError: no bundle at `path`, or no such backend or mode.
        DamagedArtifactError: a file is not what the manifest says, or not what searchkit writes.
        BackendUnavailableError: the backend or the device cannot be used here.
    """
    return Segmenter(
        read_bundle(Path(path)),
        device=device,
        threads=threads,
        backend=backend,
        mode=mode,
        trust_engines=trust_engines,
        labels_at=labels_at,
    )
