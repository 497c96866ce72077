"""Sessions as a segmenter uses them: one input tensor in, one output tensor out, from any thread."""

from __future__ import annotations

import threading
from typing import Any, Protocol

import numpy as np

from searchkit.errors import UsageError

from .backends import Backend, Model, Session
from .backends.onnxruntime import BACKEND as ONNXRUNTIME
from .backends.onnxruntime import LABEL_HEAD, create_session

_CONCURRENT_MODES = ("default", LABEL_HEAD)


class Runner(Protocol):
    """Input tensor to output tensor, from any thread."""

    def __call__(self, batch: np.ndarray) -> np.ndarray: ...

    def close(self) -> None: ...


class Concurrent:
    """ONNX Runtime's own session, whose `run` may be called by any number of threads at once."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        session = self._session
        if session is None:
            raise closed()
        result: np.ndarray = session.run(None, {self._input: batch})[0]
        return result

    def close(self) -> None:
        """Whoever is in `run` holds the session until it is done."""
        self._session = None


class InTurn:
    """A session that holds its input and output, and so serves one thread at a time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._closed = False

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        with self._lock:
            if self._closed:
                raise closed()
            # A copy: the session may write its next answer where this one is.
            return np.array(self._session.run(batch))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._session.close()


def open_runner(backend: Backend, model: Model, *, device: str, threads: int | None, mode: str) -> Runner:
    """What runs a model on a backend in one of its modes; raises what `Backend.open` does."""
    if backend is ONNXRUNTIME and mode in _CONCURRENT_MODES:
        return Concurrent(create_session(model.onnx, device=device, threads=threads, mode=mode))
    return InTurn(backend.open(model, device=device, threads=threads, mode=mode))


def closed() -> UsageError:
    """What is said to whoever goes on using a closed segmenter."""
    return UsageError("the segmenter is closed", fix="call deploy.load again")
