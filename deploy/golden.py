"""One picture and what to expect of it: a check of a runtime that needs neither PyTorch nor the network.

`golden.safetensors` holds `image` (uint8 RGB H x W x 3, a generated street), `input` (the model's input tensor),
`output` (the model's output, batch 1) and `labels` (H x W). The output is that of ONNX Runtime on the CPU with its
graph optimiser off: the plainest reading of the graph. How the graph compares with PyTorch is in `verification.json`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from searchkit.data import streets
from searchkit.errors import DamagedArtifactError
from searchkit.label_sets import MAX_CLASSES

from .backends.onnxruntime import create_session

if TYPE_CHECKING:
    from .backends import Model, SessionInfo
    from .bundled import BundledModel
    from .contracts import Contract

FILE = "golden.safetensors"
MIN_CLASSES = 2
#: Share of pixels whose label another runtime must give as well: runtimes sum in different orders, and round
#: differently in the lower precisions. A wrong resize or colour order costs whole percents.
MIN_AGREEMENT = {"fp32": 0.999, "fp16": 0.995, "bf16": 0.97, "int8": 0.97}
_PICTURE_INDEX = 2000  # far from what seeded weights are fitted to and from what an export is verified on


@dataclass(frozen=True)
class Golden:
    """The picture, the input tensor, and what a runtime is to give."""

    image: np.ndarray
    input: np.ndarray
    output: np.ndarray
    labels: np.ndarray

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        from safetensors.numpy import save

        return bytes(save({field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}))

    @classmethod
    def from_bytes(cls, data: bytes, model: Model, *, where: str) -> Golden:
        """Read such a file; raises `DamagedArtifactError` where it is none, or not one of this model."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(data)
        except (SafetensorError, KeyError) as error:
            raise _damaged("not a safetensors file", where, str(error)) from None
        if set(tensors) != {field.name for field in fields(cls)}:
            raise _damaged("not a golden pair", where, sorted(tensors))
        taken, size = model.contract.input_spec(model.size), tuple(model.size)
        # The output has the shape that the network gives it: it is held against what a runtime answers.
        wanted = {"image": ((*size, 3), {"uint8"}), "labels": (size, {"uint8", "uint16"})}
        wanted["input"] = (tuple(taken.shape), {taken.dtype})
        for name, (shape, dtypes) in wanted.items():
            found = tensors[name]
            if found.shape != shape or found.dtype.name not in dtypes:
                raise _damaged(f"the golden {name} is not one of this model", where, f"{found.dtype} {found.shape}")
        return cls(**tensors)


@dataclass(frozen=True)
class GoldenCheck:
    """What a runtime made of the golden picture.

    Attributes:
        agreement: share of pixels with the expected label.
        needed: the share that they must be.
        max_abs_error: of the output where it is floating point, else None.
        classes: how many labels occur in what was found.
        problems: why it does not pass; empty if it does.
    """

    agreement: float
    needed: float
    max_abs_error: float | None
    classes: int
    problems: tuple[str, ...]


def make_golden(model: Model) -> Golden:
    """Run the model on one generated street. The same model gives the same bytes on one machine."""
    contract, size = model.contract, model.size
    image = streets.draw(0, _PICTURE_INDEX, size).image
    batch = contract.encode(image)
    session = create_session(model.onnx, device="cpu", threads=1, optimise=False)
    output: np.ndarray = session.run(None, {session.get_inputs()[0].name: batch})[0]
    return Golden(image, batch, output, _labels(contract, output, model))


def golden_of(model: BundledModel) -> Golden | None:
    """The pair in a bundle; None in bundles of schema 1. Raises `DamagedArtifactError` where it is none."""
    if FILE not in model.bundle.entries:
        return None
    return Golden.from_bytes(model.bundle.files[FILE], model, where=str(model.bundle.path / FILE))


def _labels(contract: Contract, output: np.ndarray, model: Model) -> np.ndarray:
    labels = contract.labels(output, model.size)[0]
    return labels.astype(np.uint8 if labels.max(initial=0) <= MAX_CLASSES else np.uint16)


def check_golden(golden: Golden, model: Model, output: np.ndarray, info: SessionInfo) -> GoldenCheck:
    """Hold a runtime's output for the golden input against what is expected."""
    if output.shape != golden.output.shape or output.dtype != golden.output.dtype:
        problem = f"answers with {output.dtype} {output.shape}, not {golden.output.dtype} {golden.output.shape}"
        return GoldenCheck(0.0, 1.0, None, 0, (problem,))
    precision = "bf16" if "bf16" in info.options.get("precision", "") else model.precision
    needed = MIN_AGREEMENT[precision]
    labels = model.contract.labels(output, model.size)[0]
    agreement = float((labels == golden.labels).mean())
    classes = len(np.unique(labels))
    error = None
    if output.dtype.kind == "f":
        # Two infinities differ by NaN, and NaN fails.
        with np.errstate(invalid="ignore"):
            error = float(np.abs(output.astype(np.float64) - golden.output).max())
    problems = []
    if not np.array_equal(model.contract.encode(golden.image), golden.input):
        problems.append("the picture becomes another input tensor than the golden one")
    # Written so that NaN fails.
    if error is not None and not np.isfinite(error):
        problems.append("the output holds NaN or infinity")
    if not agreement >= needed:
        problems.append(f"labels agree on {agreement:.4%} of pixels, not on {needed:.1%}")
    if classes < MIN_CLASSES:
        problems.append("answers with one class everywhere")
    return GoldenCheck(agreement, needed, error, classes, tuple(problems))


def _damaged(problem: str, where: str, got: Any) -> DamagedArtifactError:
    return DamagedArtifactError(problem, where=where, got=got, fix="export it again")
