"""Numbers against the PyTorch network: is the exported model the same function?

ONNX Runtime runs the model with its graph optimiser off and on (the optimiser can change results, and breaks some
quantised models) on generated street pictures and on noise. Each run is held against PyTorch in float32, and the two
against each other. How near is near enough depends on the precision, see `limits`. A map with one class everywhere
agrees with every broken network that answers the same, so it proves nothing and does not pass.

Where the graph ends in an arg-max or a softmax, the tensor in front of it is compared as the logits, and the output
besides, in its own type.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx

from searchkit.data import streets
from searchkit.errors import SearchkitError, UsageError, VerificationError
from searchkit.files import sha256_bytes
from searchkit.sizes import Size

from .backends.onnxruntime import create_session
from .deployable import Deployable
from .limits import LIMITS, Limits
from .reference import Reference, reference
from .rounding import FACTOR, exact

_PICTURE_INDEX = 1000  # far from the pictures that seeded weights are fitted to


@dataclass(frozen=True)
class Comparison:
    """One model run against PyTorch over all pictures.

    Attributes:
        optimiser: whether ONNX Runtime's graph optimiser was on.
        max_abs_error, mean_abs_error: of the logits.
        label_agreement: share of pixels with the same label.
        masked_agreement: the same, over clear pixels: those whose two best logits in PyTorch differ by more than the
            margin.
        masked_share: share of pixels that these are.
        classes_in_reference: how many labels occur in PyTorch's maps.
        output_max_abs_error: of an output that is float; 0 where it is labels, which `label_agreement` compares.
        float64_max_abs_error: of logits and float output against PyTorch in float64; None where it was not needed.
        signal_to_noise_db: energy of PyTorch's logits, less their mean over the classes, over that of the error; None
            where there is no error.
    """

    optimiser: bool
    max_abs_error: float
    mean_abs_error: float
    label_agreement: float
    masked_agreement: float
    masked_share: float
    classes_in_reference: int
    output_max_abs_error: float = 0.0
    signal_to_noise_db: float | None = None
    float64_max_abs_error: float | None = None

    def problems(self, limits: Limits = LIMITS["fp32"], rounding: float | None = None) -> list[str]:
        """Why this comparison does not pass; empty if it does. `rounding`: PyTorch's own error in float32."""
        state = f"ONNX Runtime with its optimiser {'on' if self.optimiser else 'off'}"
        found = []
        # Written so that NaN fails.
        errors = {"max abs error": self.max_abs_error, "max abs error of the output": self.output_max_abs_error}
        for name, error in errors.items():
            if limits.max_abs_error is not None and not error <= limits.max_abs_error:
                if not self._is_rounding(limits.max_abs_error, rounding):
                    found.append(f"{state}: {name} {error:.3g} exceeds {limits.max_abs_error:g}{self._true(rounding)}")
            elif not math.isfinite(error):
                found.append(f"{state}: {name} is {error}")
        if not self.masked_agreement >= limits.clear_agreement:
            wanted = "on all" if limits.clear_agreement == 1 else f"on {limits.clear_agreement:.1%}"
            found.append(f"{state}: labels agree on {self.masked_agreement:.6%} of clear pixels, not {wanted}")
        if not self.masked_share > 0:
            found.append(f"{state}: no pixel has a margin over {limits.margin_text}, so no label could be compared")
        if self.classes_in_reference < limits.min_classes:
            found.append(
                "the PyTorch network predicts one class everywhere, so agreement means nothing; "
                "use trained weights or another seed"
            )
        return found

    def _true(self, rounding: float | None) -> str:
        if self.float64_max_abs_error is None or rounding is None:
            return ""
        return f" (against float64: {self.float64_max_abs_error:.3g}; PyTorch in float32: {rounding:.3g})"

    def within(self, limit: float) -> bool:
        """Whether logits and output are as near to PyTorch in float32 as that."""
        return self.max_abs_error <= limit and self.output_max_abs_error <= limit

    def _is_rounding(self, limit: float, rounding: float | None) -> bool:
        """Whether the model is as near to float64 as the limit asks, or about as near as PyTorch itself is."""
        if self.float64_max_abs_error is None or rounding is None:
            return False
        return self.float64_max_abs_error <= max(limit, FACTOR * rounding)


@dataclass(frozen=True)
class Report:
    """All comparisons of one model, and the limits they were held to.

    Attributes:
        comparisons: with the optimiser off and on.
        pictures: how many were compared.
        precision: of the model; decides the limits.
        optimiser_agreement: share of clear pixels that both states of the optimiser label alike.
        optimiser_max_abs_error: of the logits between the two.
        miou: what was measured on a data set, see `docs/precision.md`; None where nothing was.
        rounding: largest error of PyTorch in float32 against itself in float64; None where it was not needed.
        other_model: whether `miou` was measured on another model than the verified one.
    """

    comparisons: tuple[Comparison, ...]
    pictures: int
    precision: str = "fp32"
    optimiser_agreement: float = 1.0
    optimiser_max_abs_error: float = 0.0
    miou: dict[str, Any] | None = None
    other_model: bool = False
    rounding: float | None = None

    @property
    def limits(self) -> Limits:
        """What the precision is held to."""
        return LIMITS[self.precision]

    @property
    def problems(self) -> list[str]:
        """Why the model does not pass; empty if it does."""
        found = list(dict.fromkeys(p for c in self.comparisons for p in c.problems(self.limits, self.rounding)))
        if not self.optimiser_agreement >= self.limits.clear_agreement:
            found.append(
                f"ONNX Runtime with its optimiser off and on agrees on {self.optimiser_agreement:.6%} of clear pixels, "
                f"not on {self.limits.clear_agreement:.1%}"
            )
        if self.miou is not None and not self.miou["drop_points"] <= self.miou["limit_points"]:
            found.append(
                f"{self.precision} costs {self.miou['drop_points']:.3g} points of mIoU on {self.miou['dataset']}, "
                f"more than {self.miou['limit_points']:.3g}"
            )
        if self.other_model:
            found.append("the mIoU on record was measured on another model")
        return found

    @property
    def passed(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def to_tree(self) -> dict[str, object]:
        """All of it as JSON."""
        return {
            "schema": 1,
            "precision": self.precision,
            "passed": self.passed,
            "problems": self.problems,
            "pictures": self.pictures,
            "limits": self.limits.to_tree(),
            "comparisons": [asdict(c) for c in self.comparisons],
            "optimiser_agreement": self.optimiser_agreement,
            "optimiser_max_abs_error": self.optimiser_max_abs_error,
            "pytorch_float64_max_abs_error": self.rounding,
            "miou": self.miou,
        }


@dataclass(frozen=True)
class _Run:
    """What ONNX Runtime answered to each picture."""

    outputs: list[np.ndarray]
    logits: list[np.ndarray]
    labels: list[np.ndarray]


def verify(model: Deployable, model_bytes: bytes, *, pictures: Sequence[np.ndarray] | None = None) -> Report:
    """Compare a serialised ONNX model with the PyTorch network it came from, by the limits of the model's precision.

    Args:
        model: the reference, and what it says of its precision.
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
    limits = LIMITS[model.precision]
    references = [reference(model, picture, limits) for picture in pictures]
    off, on = (_run(model, model_bytes, pictures, references, optimise) for optimise in (False, True))
    comparisons = tuple(_compare(run, references, optimise) for run, optimise in ((off, False), (on, True)))
    rounding = None
    if limits.max_abs_error is not None and not all(c.within(limits.max_abs_error) for c in comparisons):
        comparisons, rounding = _against_float64(model, pictures, references, (off, on), comparisons)
    record = model.precision_record or {}
    miou = record.get("miou")
    # Two infinities differ by NaN, and NaN fails.
    with np.errstate(invalid="ignore"):
        return Report(
            comparisons,
            len(pictures),
            model.precision,
            _share([a == b for a, b in zip(off.labels, on.labels, strict=True)], [r.clear for r in references]),
            _largest([a - b for a, b in zip(off.logits, on.logits, strict=True)]),
            miou,
            miou is not None and record["model_sha256"] != sha256_bytes(model_bytes),
            rounding,
        )


def _pictures(size: Size) -> list[np.ndarray]:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    return [streets.draw(0, _PICTURE_INDEX, size).image, noise]


def _run(
    model: Deployable,
    model_bytes: bytes,
    pictures: Sequence[np.ndarray],
    references: Sequence[Reference],
    optimise: bool,
) -> _Run:
    with _refused("open"):
        session = create_session(model_bytes, device="cpu", optimise=optimise)
        # A label map has no logits to compare, so the tensor in front of the decision is read as well.
        probe = create_session(_with_logits(model_bytes), device="cpu", optimise=optimise)
    run = _Run([], [], [])
    for picture, wanted in zip(pictures, references, strict=True):
        batch = model.contract.encode(picture)
        output, logits = _answer(session, batch), _answer(probe, batch)
        _check_tensor(output, wanted.output)
        _check_tensor(logits, wanted.logits)
        run.outputs.append(output)
        run.logits.append(logits.astype(np.float64))
        run.labels.append(model.contract.labels(output, model.size))
    return run


def _with_logits(model_bytes: bytes) -> bytes:
    """The model with the input of its last ArgMax or Softmax as its only output; unchanged where there is none.

    Not by way of shape inference: what is verified may be wrong in any way. That tensor is float32 in each precision.
    """
    model = onnx.load_from_string(model_bytes)
    nodes = [node for node in model.graph.node if node.op_type in ("ArgMax", "Softmax")]
    if not nodes:
        return model_bytes
    name = nodes[-1].input[0]
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    for value in [v for v in model.graph.value_info if v.name == name]:
        model.graph.value_info.remove(value)
    return bytes(model.SerializeToString())


def _compare(run: _Run, references: Sequence[Reference], optimise: bool) -> Comparison:
    errors = [got - wanted.logits for got, wanted in zip(run.logits, references, strict=True)]
    same = [got == wanted.labels for got, wanted in zip(run.labels, references, strict=True)]
    outputs = [
        got.astype(np.float64) - wanted.output
        for got, wanted in zip(run.outputs, references, strict=True)
        if wanted.output.dtype.kind == "f"
    ]
    everywhere = [np.ones_like(mask) for mask in same]
    clear = [wanted.clear for wanted in references]
    count = sum(error.size for error in errors)
    return Comparison(
        optimiser=optimise,
        max_abs_error=_largest(errors),
        mean_abs_error=sum(float(np.abs(error).sum()) for error in errors) / count,
        label_agreement=_share(same, everywhere),
        masked_agreement=_share(same, clear),
        masked_share=_share(clear, everywhere),
        classes_in_reference=len({label for wanted in references for label in np.unique(wanted.labels).tolist()}),
        output_max_abs_error=_largest(outputs),
        signal_to_noise_db=_signal_to_noise_db(errors, references),
    )


def _against_float64(
    model: Deployable,
    pictures: Sequence[np.ndarray],
    references: Sequence[Reference],
    runs: Sequence[_Run],
    comparisons: Sequence[Comparison],
) -> tuple[tuple[Comparison, ...], float]:
    """The comparisons with their errors against PyTorch in float64, and PyTorch's own in float32."""
    true = [exact(model, picture) for picture in pictures]

    def error(outputs: Sequence[np.ndarray], logits: Sequence[np.ndarray]) -> float:
        errors = [found - wanted.logits for found, wanted in zip(logits, true, strict=True)]
        errors += [o - wanted.output for o, wanted in zip(outputs, true, strict=True) if o.dtype.kind == "f"]
        return _largest(errors)

    with np.errstate(invalid="ignore"):
        rounding = error([r.output for r in references], [r.logits for r in references])
        found = (error(run.outputs, run.logits) for run in runs)
        return tuple(replace(c, float64_max_abs_error=e) for c, e in zip(comparisons, found, strict=True)), rounding


def _largest(errors: Sequence[np.ndarray]) -> float:
    """The largest magnitude; NaN where one is."""
    # np.max, unlike max, keeps a NaN.
    return float(np.max([np.abs(error).max() for error in errors])) if errors else 0.0


def _share(hits: Sequence[np.ndarray], of: Sequence[np.ndarray]) -> float:
    """Of the pixels that are true in `of`, how many are in `hits`; 0 where there are none."""
    total = sum(int(mask.sum()) for mask in of)
    return sum(int((hit & mask).sum()) for hit, mask in zip(hits, of, strict=True)) / total if total else 0.0


def _signal_to_noise_db(errors: Sequence[np.ndarray], references: Sequence[Reference]) -> float | None:
    # What all classes have in common decides nothing.
    noise = sum(float(np.square(error - error.mean(axis=1, keepdims=True)).sum()) for error in errors)
    signal = sum(float(np.square(wanted.centred).sum()) for wanted in references)
    found = 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None
    return found if found is not None and math.isfinite(found) else None


def _answer(session: Any, batch: np.ndarray) -> np.ndarray:
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
