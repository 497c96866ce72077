"""Numbers against the PyTorch network: is the exported model the same function?

ONNX Runtime runs the model with its graph optimiser off and on (the optimiser can change results) on generated street
pictures and on noise, and each run is held against PyTorch. A map with one class everywhere agrees with every broken
network that answers the same, so it proves nothing and does not pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnx
import torch

from searchkit.data import streets
from searchkit.errors import SearchkitError, UsageError, VerificationError
from searchkit.sizes import Size

from .backends.onnxruntime import create_session
from .deployable import Deployable

MAX_ABS_ERROR = 1e-4
MARGIN = 1e-3
MIN_CLASSES = 2
_PICTURE_INDEX = 1000  # far from the pictures that seeded weights are fitted to


@dataclass(frozen=True)
class Comparison:
    """One model run against PyTorch over all pictures.

    Attributes:
        optimiser: whether ONNX Runtime's graph optimiser was on.
        max_abs_error, mean_abs_error: of the logits.
        label_agreement: share of pixels with the same label.
        masked_agreement: the same, over pixels whose two best logits in PyTorch differ by more than `MARGIN`.
        masked_share: share of pixels that these are.
        classes_in_reference: how many labels occur in PyTorch's maps.
    """

    optimiser: bool
    max_abs_error: float
    mean_abs_error: float
    label_agreement: float
    masked_agreement: float
    masked_share: float
    classes_in_reference: int

    def problems(self) -> list[str]:
        """Why this comparison does not pass; empty if it does."""
        state = f"ONNX Runtime with its optimiser {'on' if self.optimiser else 'off'}"
        found = []
        # Written so that NaN fails.
        if not self.max_abs_error <= MAX_ABS_ERROR:
            found.append(f"{state}: max abs error {self.max_abs_error:.3g} exceeds {MAX_ABS_ERROR:g}")
        if self.masked_agreement != 1:
            found.append(f"{state}: labels agree on {self.masked_agreement:.6%} of clear pixels, not on all")
        if not self.masked_share > 0:
            found.append(f"{state}: no pixel has a margin over {MARGIN:g}, so no label could be compared")
        if self.classes_in_reference < MIN_CLASSES:
            found.append(
                "the PyTorch network predicts one class everywhere, so agreement means nothing; "
                "use trained weights or another seed"
            )
        return found


@dataclass(frozen=True)
class Report:
    """All comparisons of one model, and the limits they were held to."""

    comparisons: tuple[Comparison, ...]
    pictures: int
    limits: dict[str, float] = field(
        default_factory=lambda: {
            "max_abs_error": MAX_ABS_ERROR,
            "margin": MARGIN,
            "masked_agreement": 1.0,
            "min_classes_in_reference": MIN_CLASSES,
        }
    )

    @property
    def problems(self) -> list[str]:
        return list(dict.fromkeys(p for c in self.comparisons for p in c.problems()))

    @property
    def passed(self) -> bool:
        return not self.problems

    def to_tree(self) -> dict[str, object]:
        return {
            "schema": 1,
            "passed": self.passed,
            "problems": self.problems,
            "pictures": self.pictures,
            "limits": self.limits,
            "comparisons": [asdict(c) for c in self.comparisons],
        }


def verify(model: Deployable, model_bytes: bytes, *, pictures: Sequence[np.ndarray] | None = None) -> Report:
    """Compare a serialised ONNX model with the PyTorch network it came from.

    Args:
        model: the reference.
        model_bytes: what would be shipped.
        pictures: uint8 RGB H x W x 3 of the model's size; generated ones if None.

    Raises:
        VerificationError: the model does not run, or its output has another shape or type.
        BackendUnavailableError: ONNX Runtime is not installed.
        UsageError: `pictures` is empty.
    """
    pictures = list(pictures) if pictures is not None else _pictures(model.size)
    if not pictures:
        raise UsageError("no picture to compare on", where="pictures", allowed="at least one")
    references = [_reference(model, picture) for picture in pictures]
    comparisons = []
    for optimise in (False, True):
        with _refused("open"):
            session = create_session(model_bytes, device="cpu", optimise=optimise)
            # A label map has no logits to compare, so the tensor in front of the arg-max is read as well.
            probe = create_session(_with_logits(model_bytes), device="cpu", optimise=optimise)
        comparisons.append(_compare(model, session, probe, pictures, references, optimise))
    return Report(tuple(comparisons), len(pictures))


def _pictures(size: Size) -> list[np.ndarray]:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    return [streets.draw(0, _PICTURE_INDEX, size).image, noise]


def _reference(model: Deployable, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PyTorch's logits, as the graph has them in front of its output or its arg-max, and its output."""
    batch = torch.from_numpy(model.contract.encode(picture))
    captured: list[torch.Tensor] = []

    class Capture(torch.overrides.TorchFunctionMode):
        """Keeps what `argmax` is applied to."""

        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            if func in (torch.argmax, torch.Tensor.argmax):
                captured.append(args[0])
            return func(*args, **(kwargs or {}))

    with torch.inference_mode(), Capture():
        output = model.module(batch)
    logits = captured[-1] if captured else output
    return logits.numpy(), output.numpy()


def _with_logits(model_bytes: bytes) -> bytes:
    """The model with the input of its last ArgMax as its only output; unchanged where there is none."""
    model = onnx.load_from_string(model_bytes)
    nodes = [n for n in model.graph.node if n.op_type == "ArgMax"]
    if not nodes:
        return model_bytes
    name = nodes[-1].input[0]
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    for value in [v for v in model.graph.value_info if v.name == name]:
        model.graph.value_info.remove(value)
    return bytes(model.SerializeToString())


def _compare(
    model: Deployable,
    session: Any,
    probe: Any,
    pictures: Sequence[np.ndarray],
    references: Sequence[tuple[np.ndarray, np.ndarray]],
    optimise: bool,
) -> Comparison:
    largest, total, count = 0.0, 0.0, 0
    equal, clear, clear_equal, pixels = 0, 0, 0, 0
    classes: set[int] = set()
    for picture, (logits, output) in zip(pictures, references, strict=True):
        batch = model.contract.encode(picture)
        got, got_logits = _run(session, batch), _run(probe, batch)
        for found, wanted in ((got, output), (got_logits, logits)):
            _check_tensor(found, wanted)
        error = np.abs(got_logits.astype(np.float64) - logits)
        # np.maximum, unlike max, keeps a NaN.
        largest = float(np.maximum(largest, error.max()))
        total, count = total + float(error.sum()), count + error.size
        labels = model.contract.labels(output, model.size)
        same = model.contract.labels(got, model.size) == labels
        mask = _margin(logits, model.size) > MARGIN
        equal, pixels = equal + int(same.sum()), pixels + same.size
        clear, clear_equal = clear + int(mask.sum()), clear_equal + int((same & mask).sum())
        classes |= set(np.unique(labels).tolist())
    return Comparison(
        optimiser=optimise,
        max_abs_error=largest,
        mean_abs_error=total / count,
        label_agreement=equal / pixels,
        masked_agreement=clear_equal / clear if clear else 0.0,
        masked_share=clear / pixels,
        classes_in_reference=len(classes),
    )


def _run(session: Any, batch: np.ndarray) -> np.ndarray:
    with _refused("run"):
        result: np.ndarray = session.run(None, {session.get_inputs()[0].name: batch})[0]
    return result


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """ONNX Runtime has an exception type a reason, and onnx has others; to us they are one."""
    try:
        yield
    except SearchkitError:
        raise
    except Exception as error:
        # The first line says it; what follows may be a stack trace of the runtime.
        reason = str(error).partition("\n")[0][:200]
        raise VerificationError(
            f"ONNX Runtime cannot {what} the exported model: {reason}", fix="report this as a bug"
        ) from error


def _check_tensor(found: np.ndarray, wanted: np.ndarray) -> None:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        raise VerificationError(
            "the exported model answers in another form",
            got=f"{found.dtype} {found.shape}",
            allowed=f"{wanted.dtype} {wanted.shape}",
            fix="report this as a bug",
        )


def _margin(logits: np.ndarray, size: Size) -> np.ndarray:
    """Difference of the two highest logits, N x H x W at `size`."""
    from searchkit.blocks import resize

    best = resize(torch.from_numpy(logits), size).topk(2, dim=1).values
    return (best[:, 0] - best[:, 1]).numpy()
