"""The small runtime API that a stack embeds: a bundle in, label maps out."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from searchkit.errors import BackendUnavailableError, DamagedArtifactError, SearchkitError, UsageError
from searchkit.label_sets import MAX_CLASSES
from searchkit.sizes import MAX_SIDE_PX, Size

from .backends import BACKENDS, Session
from .backends.onnxruntime import BACKEND as ONNXRUNTIME
from .backends.onnxruntime import create_session
from .bundle import Bundle, read_bundle
from .bundled import BundledModel

DEFAULT_BACKEND = ONNXRUNTIME.name


class _Runner(Protocol):
    """Input tensor to output tensor, from any thread."""

    def __call__(self, batch: np.ndarray) -> np.ndarray: ...

    def close(self) -> None: ...


class _Concurrent:
    """ONNX Runtime's own session, whose `run` may be called by any number of threads at once."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        session = self._session
        if session is None:
            raise _closed()
        result: np.ndarray = session.run(None, {self._input: batch})[0]
        return result

    def close(self) -> None:
        """Whoever is in `run` holds the session until it is done."""
        self._session = None


class _InTurn:
    """A session that holds its input and output, and so serves one thread at a time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._closed = False

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        with self._lock:
            if self._closed:
                raise _closed()
            # A copy: the session may write its next answer where this one is.
            return np.array(self._session.run(batch))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._session.close()


class Segmenter:
    """A loaded bundle: pictures of any size in, label maps of that size out. Safe to share between threads.

    Attributes:
        size: height and width of the model's input; a picture of this size is not resized.
        labels: names and colours of its classes.
        trained: False where the bundle was exported without weights; its maps then mean nothing.
        resize: how pictures of other sizes are fitted.
        backend, device: what it runs on.
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
    ) -> None:
        model = BundledModel(bundle, trust_engines=trust_engines)
        described = model.description
        self.size, self.labels, self.trained = described.size, described.labels, described.trained
        self.resize, self._contract = described.resize, described.contract
        self._dtype = np.uint8 if len(self.labels) <= MAX_CLASSES else np.uint16
        self.backend = backend.replace("_", "-")
        self.device, runner = _open(model, backend, device, threads, mode)
        self._runner: _Runner | None = runner

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Label map H x W of one uint8 RGB picture H x W x 3 of any size; uint8, uint16 over 255 classes.

        Raises:
            UsageError: no such picture, or the segmenter is closed.
        """
        output = self.output(image)
        labels = self._contract.labels(output, self.size)[0].astype(self._dtype, copy=False)
        return self.resize.restore(labels, Size(*image.shape[:2]))

    def batch(self, images: Iterable[np.ndarray]) -> list[np.ndarray]:
        """The label map of each picture, in order. The model takes one at a time, so they are run one by one."""
        return [self(image) for image in images]

    def output(self, image: np.ndarray) -> np.ndarray:
        """The model's own output for one such picture, batch 1: what it is, the bundle's contract says."""
        _check_picture(image)
        runner = self._runner
        if runner is None:
            raise _closed()
        return runner(self._contract.encode(self.resize.fit(image, self.size)))

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


def _open(
    model: BundledModel, backend: str, device: str | None, threads: int | None, mode: str | None
) -> tuple[str, _Runner]:
    """The device in use, and what runs on it."""
    runtime = BACKENDS.load(backend)
    _, chosen = runtime.require(device)
    data = model.onnx
    try:
        if runtime is ONNXRUNTIME and runtime.chosen_mode(mode, model.precision) == runtime.modes[0]:
            return chosen, _Concurrent(create_session(data, device=chosen, threads=threads))
        return chosen, _InTurn(runtime.open(model, device=device, threads=threads, mode=mode))
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


def _closed() -> UsageError:
    return UsageError("the segmenter is closed", fix="call deploy.load again")


def load(
    path: str | Path,
    *,
    device: str | None = None,
    threads: int | None = None,
    backend: str = DEFAULT_BACKEND,
    mode: str | None = None,
    trust_engines: bool = False,
) -> Segmenter:
    """Open a bundle for inference; sizes, hashes and the model's graph are checked first.

    Args:
        path: the bundle's folder.
        device: one of the backend's; its first if None.
        threads: CPU threads; the runtime's own default if None.
        backend: what runs it.
        mode: of the backend; its first if None.
        trust_engines: whether an engine in the bundle, which is code, may be run.

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
    )
