"""An engine that runs: the same for TensorRT 10, 11 and TensorRT-RTX. Not run here on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from searchkit.data import streets
from searchkit.errors import BackendUnavailableError, DamagedArtifactError, UsageError, VerificationError

from . import Session, SessionInfo
from ._cuda import CudaStream
from ._tensorrt_builder import errors, message_log

if TYPE_CHECKING:
    from . import Model

_PICTURE_INDEX = 1000


class EngineSession(Session):
    """One execution context with one input, one output and a stream of its own.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.
        runtime: that deserialised the engine; must outlive it.
        make_context: from the engine to an execution context.
        cuda: closed with the session.

    Raises:
        DamagedArtifactError: the engine's tensors are not the model's.
        BackendUnavailableError: there is no execution context to be had.
    """

    def __init__(
        self,
        trt: Any,
        model: Model,
        runtime: Any,
        engine: Any,
        make_context: Callable[[Any], Any],
        cuda: CudaStream,
        info: SessionInfo,
    ) -> None:
        self._log = message_log(trt)
        self._cuda, self._info = cuda, info
        self._runtime, self._engine = runtime, engine
        self._context: Any = None
        self._input_name, self._output_name = self._tensors(trt, model)
        self._input = self._array(trt, self._input_name)
        self._output = self._array(trt, self._output_name)
        with cuda.current():
            self._context = make_context(engine)
        if self._context is None:
            raise BackendUnavailableError(
                f"no execution context: {errors(self._log, otherwise='no reason is given')}",
                fix="check the GPU's free memory",
            )
        self._input_at = self._place(self._input, self._input_name)
        self._output_at = self._place(self._output, self._output_name)

    def _place(self, array: np.ndarray, name: str) -> int:
        address = self._cuda.allocate(array.nbytes)
        with self._cuda.current():
            if not self._context.set_tensor_address(name, address):
                raise BackendUnavailableError(
                    f"tensor {name} cannot be placed: {errors(self._log, otherwise='no reason is given')}"
                )
        return address

    def _tensors(self, trt: Any, model: Model) -> tuple[str, str]:
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        outputs = [n for n in names if n not in inputs]
        spec = model.contract.input_spec(model.size)
        found = self._array(trt, inputs[0]) if len(inputs) == 1 else None
        if found is None or len(outputs) != 1 or (found.shape, found.dtype.name) != (tuple(spec.shape), spec.dtype):
            shown = "; ".join(f"{n} {tuple(self._engine.get_tensor_shape(n))}" for n in names)
            raise DamagedArtifactError(
                "the engine is of another model",
                where="engine",
                got=shown,
                allowed=f"{spec.name} {spec.shape} {spec.dtype} in, one tensor out",
                fix="build it again from the bundle's ONNX model",
            )
        return inputs[0], outputs[0]

    def _array(self, trt: Any, name: str) -> np.ndarray:
        shape = tuple(self._engine.get_tensor_shape(name))
        if any(side < 1 for side in shape):
            raise DamagedArtifactError(
                "the engine has a tensor of no fixed size", where="engine", got=f"{name} {shape}", fix="build it again"
            )
        return np.zeros(shape, trt.nptype(self._engine.get_tensor_dtype(name)))

    @property
    def info(self) -> SessionInfo:
        return self._info

    def load(self, batch: np.ndarray) -> None:
        if (batch.shape, batch.dtype) != (self._input.shape, self._input.dtype):
            raise UsageError(
                "not what the engine takes",
                got=f"{batch.dtype} {batch.shape}",
                allowed=f"{self._input.dtype} {self._input.shape}",
            )
        self._cuda.upload(self._input_at, np.ascontiguousarray(batch))

    def execute(self) -> None:
        with self._cuda.current():
            started = self._context.execute_async_v3(self._cuda.handle)
        if not started:
            raise BackendUnavailableError(
                f"the engine does not run: {errors(self._log, otherwise='no reason is given')}",
                fix="check the GPU's free memory",
            )

    def synchronize(self) -> None:
        self._cuda.synchronize()

    def output(self) -> np.ndarray:
        result = np.empty_like(self._output)
        self._cuda.download(self._output_at, result)
        return result

    def close(self) -> None:
        # Each needs the next one while it is taken down.
        self._context = self._engine = self._runtime = None
        self._cuda.close()


def check_answers(model: Model, session: Session) -> None:
    """Run generated pictures through a new session, and refuse it if it answers as no segmentation network does.

    A GPU path that does not work can give zeros without an error, so this is asked at every opening.

    Raises:
        VerificationError: numbers that are none, zeros, or one class on every picture.
    """
    noise = np.random.default_rng(0).integers(0, 256, (*model.size, 3), dtype=np.uint8)
    problem = ""
    for picture in (streets.draw(0, _PICTURE_INDEX, model.size).image, noise):
        output = session.run(model.contract.encode(picture))
        if output.dtype.kind == "f" and not np.isfinite(output).all():
            problem = "NaN or infinity"
            break
        if not output.any():
            problem = "zeros"
        elif len(np.unique(model.contract.labels(output, model.size))) > 1:
            return
        else:
            problem = "one class"
    raise VerificationError(
        f"the engine answers with {problem} for a generated picture",
        where=f"{session.info.backend} on {session.info.options.get('gpu', session.info.device)}",
        fix="use another backend, and report the model and the GPU",
    )
