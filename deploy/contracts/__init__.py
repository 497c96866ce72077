"""Tensor contracts: what goes into an exported network and what comes out, one file each.

Consumers disagree on dtype, layout, colour order, value range and on where normalisation and arg-max happen; one export
cannot serve them all. A contract wraps the network in the operations that its consumer leaves to the model.

Every graph keeps TensorRT's rules: nothing but Cast touches a uint8 tensor, channels are swapped after the cast, no
resize is antialiased, and an arg-max is cast from int64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from searchkit.registry import Registry
from searchkit.sizes import Size

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: name, numpy dtype, layout, shape and what the values mean.

    Attributes:
        shape: one number a letter of `layout`; -1 for a side that the network decides.
        colour_order: `RGB` or `BGR` of a picture; empty for what is none.
        value_range: lowest and highest value that a picture can lead to; None where there is no bound.
    """

    name: str
    dtype: str
    layout: str
    shape: tuple[int, ...]
    meaning: str
    colour_order: str = ""
    value_range: tuple[float, float] | None = None

    def to_tree(self) -> dict[str, object]:
        bounds = None if self.value_range is None else list(self.value_range)
        return asdict(self) | {"shape": list(self.shape), "value_range": bounds}


class Contract(ABC):
    """One way to talk to a network.

    Attributes:
        normalisation_in_graph: whether mean and standard deviation are inside the model; if not, whoever feeds it
            applies them.
        output_dtype: numpy dtype of the output.
        max_opset: newest ONNX opset that the consumer reads; None where the exporter's own will do.
        preprocessing: the layout of `deploy.native.preprocessing` that gives what `encode` does; None if none does.
    """

    normalisation_in_graph: bool = False
    output_dtype: str = "float32"
    max_opset: int | None = None
    preprocessing: str | None = None

    @abstractmethod
    def check_classes(self, classes: int) -> None:
        """Raise `UsageError` where the output cannot tell that many classes apart."""

    @abstractmethod
    def wrap(self, network: nn.Module, size: Size) -> nn.Module:
        """The network with the contract's own operations around it."""

    @abstractmethod
    def input_spec(self, size: Size) -> TensorSpec:
        """What the wrapped network takes at an image of `size`, batch 1."""

    @abstractmethod
    def output_meaning(self) -> str:
        """What the output's values are."""

    @property
    @abstractmethod
    def output_name(self) -> str:
        """Name of the output tensor, which is also what it is: `logits`, `probabilities` or `labels`."""

    @property
    @abstractmethod
    def output_layout(self) -> str:
        """Layout of the output tensor, such as NCHW."""

    @abstractmethod
    def encode(self, image_HWC: np.ndarray) -> np.ndarray:
        """A uint8 RGB picture H x W x 3 as the input tensor."""

    @abstractmethod
    def labels(self, output: np.ndarray, size: Size) -> np.ndarray:
        """The output tensor as a label map N x H x W of `size`, uint8 or wider."""

    def output_spec(self, size: Size, classes: int) -> TensorSpec:
        """What the wrapped network answers to an image of `size`, batch 1."""
        sides = {"N": 1, "C": classes, "H": size.height, "W": size.width}
        bounds = {"probabilities": (0.0, 1.0), "labels": (0.0, classes - 1.0)}
        return TensorSpec(
            self.output_name,
            self.output_dtype,
            self.output_layout,
            tuple(sides[axis] for axis in self.output_layout),
            self.output_meaning(),
            value_range=bounds.get(self.output_name),
        )

    def example(self, size: Size) -> Tensor:
        """An input of the right shape and dtype for tracing; its values do not matter."""
        import torch

        spec = self.input_spec(size)
        return torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype))


CONTRACTS: Registry[Contract] = Registry("deploy.contracts", "CONTRACT", "tensor contract")
