"""Tensor contracts: what goes into an exported network and what comes out, one file each.

Consumers disagree on dtype, layout, value range and on where normalisation and arg-max happen; one export cannot serve
them all. A contract wraps the network in the operations that its consumer leaves to the model.
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
    """One input or output: name, numpy dtype, layout, shape and what the values mean."""

    name: str
    dtype: str
    layout: str
    shape: tuple[int, ...]
    meaning: str

    def to_tree(self) -> dict[str, object]:
        return asdict(self) | {"shape": list(self.shape)}


class Contract(ABC):
    """One way to talk to a network."""

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
        """Name of the output tensor, which is also what it is: `logits` or `labels`."""

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

    def example(self, size: Size) -> Tensor:
        """An input of the right shape and dtype for tracing; its values do not matter."""
        import torch

        spec = self.input_spec(size)
        return torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype))


CONTRACTS: Registry[Contract] = Registry("deploy.contracts", "CONTRACT", "tensor contract")
