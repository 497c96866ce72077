"""A network with everything that decides what is deployed: weights, input size, tensor contract, precision.

It hands out the two forms that backends start from, the PyTorch module (the float32 reference) and the ONNX model in
its precision, and makes each at most once.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from searchkit import __version__
from searchkit.errors import UsageError, unknown_name
from searchkit.networks import Network
from searchkit.normalization import MEAN, STD
from searchkit.sizes import Size
from searchkit.weights import Weights, load_weights, seed_weights

from .contracts import CONTRACTS, Contract
from .lowering.choice import Lowered, Lowering
from .lowering.pools import lower
from .lowering.record import record as lowering_record
from .onnx import export_onnx
from .opset import downgrade
from .precision import PRECISIONS
from .precision.calibration import Calibration
from .precision.conversion import convert
from .precision.source import Converted, Source


class Deployable:
    """One network at one input size under one tensor contract, batch 1.

    Args:
        network: what to build.
        size: height and width of the input image.
        io: name of the tensor contract.
        weights: a safetensors file, or None for seeded weights.
        seed: of the seeded weights.
        precision: of the exported model, one of `PRECISIONS`.
        calibration: what int8 learns from and is measured on; fp16 takes it too, fp32 has no use for it.
        lowering: which rewrites the ONNX model gets; none if None.

    Raises:
        UsageError: the size or the number of classes does not suit, the network exceeds a limit, or precision and
            calibration do not fit each other; nothing is built then.
        InputFileError: the weights file does not fit.
    """

    def __init__(
        self,
        network: Network,
        size: Size,
        io: str,
        *,
        weights: Path | None = None,
        seed: int = 0,
        precision: str = "fp32",
        calibration: Calibration | None = None,
        lowering: Lowering | None = None,
    ) -> None:
        _check_precision(precision, calibration)
        self.contract: Contract = CONTRACTS.load(io)
        self.contract.check_classes(network.classes)
        network.check(size)
        self.network, self.size, self.io = network, size, io.replace("_", "-")
        self.precision, self.calibration = precision, calibration
        self._weights_file, self._seed, self._lowering = weights, seed, lowering

    @cached_property
    def _built(self) -> tuple[nn.Module, Weights]:
        module = self.network.build()
        if self._weights_file is None:
            weights = seed_weights(module, seed=self._seed, size_rule=self.network.size_rule)
        else:
            weights = load_weights(module, self._weights_file, digest=self.network.digest)
        return module.eval(), weights

    @property
    def built(self) -> nn.Module:
        """The PyTorch network without its contract, in evaluation mode."""
        return self._built[0]

    @property
    def weights(self) -> Weights:
        return self._built[1]

    @cached_property
    def module(self) -> nn.Module:
        """The PyTorch network inside its contract, in evaluation mode: the reference."""
        return self.contract.wrap(self._built[0], self.size).eval()

    @cached_property
    def lowered(self) -> nn.Module:
        """The copy that is exported: pools of a known size."""
        return lower(self.module, self.example())

    @cached_property
    def _exported(self) -> bytes:
        """What the exporter writes, before any rewrite."""
        return export_onnx(
            self.lowered,
            self.example(),
            input_name=self.contract.input_spec(self.size).name,
            output_name=self.contract.output_name,
            metadata=self.metadata(),
        )

    @cached_property
    def lowering(self) -> Lowered:
        """The float32 model as it is exported, with the rewrites that were asked for, and what chose them."""
        if self._lowering is None:
            return Lowered(self._exported, (), None)
        return self._lowering.run(self, self._exported)

    @property
    def lowering_record(self) -> dict[str, Any] | None:
        """Which rewrites the model has, and the measurement that chose them; None where none were asked for."""
        return None if self._lowering is None else lowering_record(self.lowering)

    @cached_property
    def onnx_fp32(self) -> bytes:
        """The serialised ONNX model in float32, which other precisions are made from; opset as the contract wants."""
        newest, model = self.contract.max_opset, self.lowering.model
        return model if newest is None else downgrade(model, newest)

    @cached_property
    def _converted(self) -> Converted:
        source = Source(self.onnx_fp32, self.contract, self.size, self.network.classes, self.weights.trained)
        return convert(source, self.precision, self.calibration)

    @cached_property
    def onnx(self) -> bytes:
        """The serialised ONNX model in its precision.

        Raises:
            VerificationError: int8 costs more mIoU than the calibration allows.
            UsageError, InputFileError: see `convert`.
        """
        return self.onnx_fp32 if self.precision == "fp32" else self._converted.model

    @property
    def precision_record(self) -> dict[str, Any] | None:
        """How the model came to its precision, as JSON: see `docs/precision.md`; None for fp32."""
        return None if self.precision == "fp32" else self._converted.record

    def engine(self, backend: str) -> bytes | None:
        """None: a network that is being exported has no engine yet."""
        return None

    @property
    def onnx_sha256(self) -> str:
        return hashlib.sha256(self.onnx).hexdigest()

    def example(self) -> Tensor:
        return self.contract.example(self.size)

    def metadata(self) -> dict[str, str]:
        """What the float32 ONNX model says of itself; nothing of this machine, no time."""
        input_spec = self.contract.input_spec(self.size)
        return {
            "searchkit.version": __version__,
            "searchkit.network": self.network.name,
            "searchkit.digest": self.network.digest,
            "searchkit.weights": self.weights.text,
            "searchkit.trained": str(self.weights.trained).lower(),
            "searchkit.io": self.io,
            "searchkit.precision": "fp32",
            "searchkit.input": f"{input_spec.dtype} {input_spec.layout} {input_spec.meaning}",
            "searchkit.output": f"{self.contract.output_layout} {self.contract.output_meaning()}",
            "searchkit.resolution": str(self.size),
            "searchkit.classes": str(self.network.classes),
            "searchkit.mean": ",".join(map(str, MEAN)),
            "searchkit.std": ",".join(map(str, STD)),
        }


def _check_precision(precision: str, calibration: Calibration | None) -> None:
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS, where="--precision")
    if precision == "int8" and calibration is None:
        raise UsageError(
            "int8 needs pictures to calibrate on", where="--calibration", fix="name a data set, such as streets"
        )
    if precision == "fp32" and calibration is not None:
        raise UsageError(
            "fp32 needs no calibration", where="--calibration", fix="leave it out, or choose --precision int8"
        )
