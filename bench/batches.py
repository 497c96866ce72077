"""Networks that take several pictures in a call: what is exported elsewhere is batch 1."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from deploy.backends import BACKENDS
from deploy.contracts import Contract, TensorSpec
from deploy.deployable import Deployable
from searchkit.errors import UsageError
from searchkit.sizes import Size

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

MAX_BATCH = 1024


class BatchedContract(Contract):
    """A contract with N pictures where there was one; `encode` puts the same picture N times."""

    def __init__(self, single: Contract, batch: int) -> None:
        self._single, self._batch = single, batch
        self.normalisation_in_graph = single.normalisation_in_graph
        self.output_dtype = single.output_dtype
        self.max_opset = single.max_opset
        # The native kernel prepares one picture.
        self.preprocessing = None

    def check_classes(self, classes: int) -> None:
        self._single.check_classes(classes)

    def wrap(self, network: nn.Module, size: Size) -> nn.Module:
        return self._single.wrap(network, size)

    def input_spec(self, size: Size) -> TensorSpec:
        return self._batched(self._single.input_spec(size))

    def output_spec(self, size: Size, classes: int) -> TensorSpec:
        return self._batched(self._single.output_spec(size, classes))

    def _batched(self, spec: TensorSpec) -> TensorSpec:
        return replace(spec, shape=(self._batch, *spec.shape[1:]))

    def output_meaning(self) -> str:
        return self._single.output_meaning()

    @property
    def output_name(self) -> str:
        return self._single.output_name

    @property
    def output_layout(self) -> str:
        return self._single.output_layout

    def encode(self, image_HWC: np.ndarray) -> np.ndarray:
        import numpy as np

        return np.repeat(self._single.encode(image_HWC), self._batch, axis=0)

    def labels(self, output: np.ndarray, size: Size) -> np.ndarray:
        return self._single.labels(output, size)


class BatchedDeployable(Deployable):
    """As `Deployable` with seeded weights, `batch` pictures a call."""

    def __init__(self, *arguments: object, batch: int, **settings: object) -> None:
        super().__init__(*arguments, **settings)  # type: ignore[arg-type]
        self.contract = BatchedContract(self.contract, batch)


def check_batch(batch: int, backend: str, mode: str, precision: str) -> None:
    """Raise `UsageError` where a runtime takes one picture a call only."""
    if batch == 1:
        return
    if mode in BACKENDS.load(backend).label_head_modes:
        raise UsageError(
            f"the native label head of {backend}:{mode} takes one picture a call",
            where="--batch",
            got=batch,
            allowed="1",
            fix="use another mode",
        )
    if precision == "int8":
        raise UsageError("int8 models are calibrated at batch 1", where="--batch", got=batch, allowed="1")
