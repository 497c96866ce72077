"""A network with everything that decides what is deployed: weights, input size, tensor contract.

It hands out the two forms that backends start from, the PyTorch module (the reference) and the ONNX model, and makes
each at most once.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from searchkit import __version__
from searchkit.networks import Network
from searchkit.normalization import MEAN, STD
from searchkit.sizes import Size
from searchkit.weights import Weights, load_weights, seed_weights

from .contracts import CONTRACTS, Contract
from .lowering import lower
from .onnx import export_onnx


class Deployable:
    """One network at one input size under one tensor contract, batch 1.

    Args:
        network: what to build.
        size: height and width of the input image.
        io: name of the tensor contract.
        weights: a safetensors file, or None for seeded weights.
        seed: of the seeded weights.

    Raises:
        UsageError: the size or the number of classes does not suit, or the network exceeds a limit; nothing is built
            then.
        InputFileError: the weights file does not fit.
    """

    def __init__(self, network: Network, size: Size, io: str, *, weights: Path | None = None, seed: int = 0) -> None:
        self.contract: Contract = CONTRACTS.load(io)
        self.contract.check_classes(network.classes)
        network.check(size)
        self.network, self.size, self.io = network, size, io.replace("_", "-")
        self._weights_file, self._seed = weights, seed

    @cached_property
    def _built(self) -> tuple[nn.Module, Weights]:
        module = self.network.build()
        if self._weights_file is None:
            weights = seed_weights(module, seed=self._seed, size_rule=self.network.size_rule)
        else:
            weights = load_weights(module, self._weights_file, digest=self.network.digest)
        return module.eval(), weights

    @property
    def weights(self) -> Weights:
        return self._built[1]

    @cached_property
    def module(self) -> nn.Module:
        """The PyTorch network inside its contract, in evaluation mode: the reference."""
        return self.contract.wrap(self._built[0], self.size).eval()

    @cached_property
    def lowered(self) -> nn.Module:
        """The rewritten copy that is exported."""
        return lower(self.module, self.example())

    @cached_property
    def onnx(self) -> bytes:
        """The serialised ONNX model."""
        return export_onnx(
            self.lowered,
            self.example(),
            input_name=self.contract.input_spec(self.size).name,
            output_name=self.contract.output_name,
            metadata=self.metadata(),
        )

    @property
    def onnx_sha256(self) -> str:
        return hashlib.sha256(self.onnx).hexdigest()

    def example(self) -> Tensor:
        return self.contract.example(self.size)

    def metadata(self) -> dict[str, str]:
        """What the ONNX model says of itself; nothing of this machine, no time."""
        input_spec = self.contract.input_spec(self.size)
        return {
            "searchkit.version": __version__,
            "searchkit.network": self.network.name,
            "searchkit.digest": self.network.digest,
            "searchkit.weights": self.weights.text,
            "searchkit.trained": str(self.weights.trained).lower(),
            "searchkit.io": self.io,
            "searchkit.input": f"{input_spec.dtype} {input_spec.layout} {input_spec.meaning}",
            "searchkit.output": f"{self.contract.output_layout} {self.contract.output_meaning()}",
            "searchkit.resolution": str(self.size),
            "searchkit.classes": str(self.network.classes),
            "searchkit.mean": ",".join(map(str, MEAN)),
            "searchkit.std": ",".join(map(str, STD)),
        }
