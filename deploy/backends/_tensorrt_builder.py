"""What building has in common in TensorRT and TensorRT-RTX: a log, the parser, cancelling.

`trt` stands for the module `tensorrt` or `tensorrt_rtx` throughout; their interfaces agree in all that is used here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

from searchkit.errors import BackendUnavailableError, VerificationError

from ..signals import deferred_signals

_MAX_MESSAGES = 64
_MAX_TEXT = 1000
# What a machine without a GPU is told again and again; it is never the reason for a refusal.
_DRIVERLESS = "CUDA driver version is insufficient"


@cache
def message_log(trt: Any) -> Any:
    """The one logger of this process: a second one would be ignored with a warning.

    It has `messages`, a list of (severity, text) from warnings upwards, and `drain()`, which empties that.
    """

    class MessageLog(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: deque[tuple[str, str]] = deque(maxlen=_MAX_MESSAGES)

        # Called from the library's own threads; must not raise.
        def log(self, severity: Any, msg: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.WARNING):
                self.messages.append((severity.name, msg))

        def drain(self) -> list[tuple[str, str]]:
            taken = list(self.messages)
            self.messages.clear()
            return taken

    return MessageLog()


def errors(log: Any, *, otherwise: str) -> str:
    """What the library complained of since the log was drained, in its own words; `otherwise` if of nothing."""
    found = [text for severity, text in log.drain() if severity.endswith("ERROR") and _DRIVERLESS not in text]
    return "; ".join(dict.fromkeys(found))[:_MAX_TEXT] or otherwise


def build_plan(trt: Any, onnx: bytes, *, flags: int, configure: Callable[[Any], None], what: str) -> bytes:
    """Compile a model.

    Args:
        flags: `NetworkDefinitionCreationFlag` bits.
        configure: is given the `IBuilderConfig` before the build.
        what: name of the library, for messages.

    Raises:
        VerificationError: the parser or the builder refuses the model; its words are kept.
    """
    log = message_log(trt)
    log.drain()
    builder = trt.Builder(log)
    network = builder.create_network(flags)
    # The network's weights lie in the parser: it stays until the engine is built.
    parser = trt.OnnxParser(network, log)
    _parse(parser, onnx, log, what)
    config = builder.create_builder_config()
    configure(config)
    return _build(trt, builder, network, config, what)


def _parse(parser: Any, onnx: bytes, log: Any, what: str) -> None:
    if parser.parse(onnx):
        return
    complaints = [_complaint(parser.get_error(i)) for i in range(parser.num_errors)]
    reason = "; ".join(complaints)[:_MAX_TEXT] or errors(log, otherwise="it gives no reason")
    raise VerificationError(f"{what} does not read the model: {reason}", fix="no engine was built")


def _complaint(error: Any) -> str:
    lines = [line for line in error.desc().splitlines() if _DRIVERLESS not in line]
    where = " ".join(part for part in (error.node_operator(), repr(error.node_name())) if part not in ("", "''"))
    return f"{where}: {' '.join(lines)}" if where else " ".join(lines)


def _build(trt: Any, builder: Any, network: Any, config: Any, what: str) -> bytes:
    """Ctrl-C cancels between two steps: an interrupt inside the library would end the process."""
    log = message_log(trt)
    with deferred_signals() as interrupted:
        config.progress_monitor = _cancelled_by(trt, interrupted)
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = errors(log, otherwise="it gives no reason")
        raise VerificationError(f"{what} cannot build the model: {reason}", fix="no engine was built")
    return bytes(plan)


def deserialised(trt: Any, runtime: Any, data: bytes, what: str, *, fix: str) -> Any:
    """The engine in these bytes.

    Raises:
        BackendUnavailableError: the library does not open it; its words are kept.
    """
    log = message_log(trt)
    log.drain()
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        reason = errors(log, otherwise="it gives no reason")
        raise BackendUnavailableError(f"{what} cannot open the engine: {reason}", fix=fix)
    return engine


def _cancelled_by(trt: Any, interrupted: Callable[[], bool]) -> Any:
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Nothing is shown."""

        def step_complete(self, phase_name: str, step: int) -> bool:
            return not interrupted()

        def phase_finish(self, phase_name: str) -> None:
            """Nothing is shown."""

    return Monitor()
