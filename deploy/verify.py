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
from .discrepancy import largest, share, signal_to_noise_db
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
        float64_masked_agreement: `masked_agreement` with PyTorch in float64; None where it was not needed.
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
    float64_masked_agreement: float | None = None

    def problems(
        self, limits: Limits = LIMITS["fp32"], rounding: float | None = None, rounding_agreement: float | None = None
    ) -> list[str]:
        """Why this comparison does not pass; empty if it does.

        Args:
            rounding, rounding_agreement: PyTorch's own error and agreement, float32 against float64.
        """
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
        if not (self.masked_agreement >= limits.clear_agreement or self.flips_as_pytorch(rounding_agreement)):
            wanted = "on all" if limits.clear_agreement == 1 else f"on {limits.clear_agreement:.1%}"
            true = f" (with float64: {self.float64_masked_agreement:.6%})" if self.float64_masked_agreement else ""
            found.append(f"{state}: labels agree on {self.masked_agreement:.6%} of clear pixels, not {wanted}{true}")
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

    def flips_as_pytorch(self, rounding_agreement: float | None) -> bool:
        """Whether about as few clear pixels differ from float64 as of PyTorch in float32.

        A network that places values where a maximum was (ENet's unpooling) jumps where two are equal but for rounding.
        """
        if self.float64_masked_agreement is None or rounding_agreement is None:
            return False
        return 1 - self.float64_masked_agreement <= FACTOR * (1 - rounding_agreement)

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
        rounding_agreement: share of clear pixels that these two label alike; None where it was not needed.
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
    rounding_agreement: float | None = None

    @property
    def limits(self) -> Limits:
        """What the precision is held to."""
        return LIMITS[self.precision]

    @property
    def problems(self) -> list[str]:
        """Why the model does not pass; empty if it does."""
        own = (self.limits, self.rounding, self.rounding_agreement)
        found = list(dict.fromkeys(p for c in self.comparisons for p in c.problems(*own)))
        # Two states that are each as near to float64 as PyTorch need not be nearer to each other.
        near = all(c.flips_as_pytorch(self.rounding_agreement) for c in self.comparisons)
        if not (self.optimiser_agreement >= self.limits.clear_agreement or near):
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
            "pytorch_float64_masked_agreement": self.rounding_agreement,
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
    rounding = rounding_agreement = None
    if limits.max_abs_error is not None and not all(c.within(limits.max_abs_error) for c in comparisons):
        comparisons, rounding, rounding_agreement = _against_float64(
            model, pictures, references, (off, on), comparisons
        )
    record = model.precision_record or {}
    miou = record.get("miou")
    # Two infinities differ by NaN, and NaN fails.
    with np.errstate(invalid="ignore"):
        return Report(
            comparisons,
            len(pictures),
            model.precision,
            share([a == b for a, b in zip(off.labels, on.labels, strict=True)], [r.clear for r in references]),
            largest([a - b for a, b in zip(off.logits, on.logits, strict=True)]),
            miou,
            miou is not None and record["model_sha256"] != sha256_bytes(model_bytes),
            rounding,
            rounding_agreement,
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
        max_abs_error=largest(errors),
        mean_abs_error=sum(float(np.abs(error).sum()) for error in errors) / count,
        label_agreement=share(same, everywhere),
        masked_agreement=share(same, clear),
        masked_share=share(clear, everywhere),
        classes_in_reference=len({label for wanted in references for label in np.unique(wanted.labels).tolist()}),
        output_max_abs_error=largest(outputs),
        signal_to_noise_db=signal_to_noise_db(errors, references),
    )


def _against_float64(
    model: Deployable,
    pictures: Sequence[np.ndarray],
    references: Sequence[Reference],
    runs: Sequence[_Run],
    comparisons: Sequence[Comparison],
) -> tuple[tuple[Comparison, ...], float, float]:
    """The comparisons with error and agreement against PyTorch in float64, and both of PyTorch in float32."""
    true = [exact(model, picture) for picture in pictures]
    true_labels = [model.contract.labels(answer.output, model.size) for answer in true]
    clear = [wanted.clear for wanted in references]

    def agreement(labels: Sequence[np.ndarray]) -> float:
        return share([found == wanted for found, wanted in zip(labels, true_labels, strict=True)], clear)

    def error(outputs: Sequence[np.ndarray], logits: Sequence[np.ndarray]) -> float:
        errors = [found - wanted.logits for found, wanted in zip(logits, true, strict=True)]
        errors += [o - wanted.output for o, wanted in zip(outputs, true, strict=True) if o.dtype.kind == "f"]
        return largest(errors)

    with np.errstate(invalid="ignore"):
        rounding = error([r.output for r in references], [r.logits for r in references])
        replaced = tuple(
            replace(
                comparison,
                float64_max_abs_error=error(run.outputs, run.logits),
                float64_masked_agreement=agreement(run.labels),
            )
            for comparison, run in zip(comparisons, runs, strict=True)
        )
    return replaced, rounding, agreement([r.labels for r in references])


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
