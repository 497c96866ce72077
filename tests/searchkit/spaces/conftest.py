"""Plain references that the tests of every space share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from searchkit.sizes import Size
from searchkit.spaces.fasterseg.decoding import OPERATORS, ArchitectureParameters


class Parts:
    """Parameters and convolution MACs of a module, by the dotted names of its submodules.

    MACs are counted by hand: a convolution works once per weight and output pixel.
    """

    def __init__(self, module: nn.Module, size: Size) -> None:
        self._params = {name: parameter.numel() for name, parameter in module.named_parameters()}
        self._macs: dict[str, int] = {}
        hooks = [
            layer.register_forward_hook(lambda layer, _in, out, name=name: self._count(name, layer, out))
            for name, layer in module.named_modules()
            if isinstance(layer, nn.Conv2d)
        ]
        with torch.no_grad():
            module(torch.empty(1, 3, *size, device="meta"))
        for hook in hooks:
            hook.remove()

    def _count(self, name: str, layer: nn.Conv2d, out: Tensor) -> None:
        self._macs[name] = self._macs.get(name, 0) + layer.weight.numel() * out.shape[2] * out.shape[3]

    def params(self, *prefixes: str) -> int:
        return self._sum(self._params, prefixes)

    def macs(self, *prefixes: str) -> int:
        return self._sum(self._macs, prefixes)

    @staticmethod
    def _sum(values: dict[str, int], prefixes: tuple[str, ...]) -> int:
        found = [value for name, value in values.items() if f"{name}.".startswith(tuple(f"{p}." for p in prefixes))]
        assert found, prefixes
        return sum(found)


@pytest.fixture
def count_parts() -> type[Parts]:
    return Parts


def _rows(source: int, target: int) -> Tensor:
    """The matrix that resizes one axis linearly with the corners aligned."""
    matrix = torch.zeros(target, source, dtype=torch.float64)
    for row in range(target):
        place = row * (source - 1) / (target - 1) if target > 1 else 0.0
        low = min(int(place), source - 1)
        high = min(low + 1, source - 1)
        matrix[row, low] += 1 - (place - low)
        matrix[row, high] += place - low
    return matrix


@pytest.fixture
def resize_aligned():
    """Bilinear resize with aligned corners, pixel by pixel; N x C x H x W in float64."""

    def resize(x: Tensor, height: int, width: int) -> Tensor:
        rows, columns = _rows(x.shape[2], height), _rows(x.shape[3], width)
        return torch.einsum("yh,nchw,xw->ncyx", rows, x, columns)

    return resize


@pytest.fixture
def trained():
    """Gives a module BatchNorm statistics and biases as training would leave them; evaluation mode, float64."""

    def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        module.double().eval()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                for values, low in ((layer.weight, 0.5), (layer.bias, -0.5), (layer.running_var, 0.5)):
                    values.data = low + torch.rand(values.shape, generator=generator, dtype=torch.float64)
                layer.running_mean = torch.randn(layer.running_mean.shape, generator=generator, dtype=torch.float64)
        return module

    return randomise


def _flat(layers: int, widths: int = 2) -> ArchitectureParameters:
    operators = [np.zeros((layers - rate, len(OPERATORS))) for rate in range(3)]
    for rows in operators:
        rows[:, OPERATORS.index("conv")] = 1
    beta = [np.zeros((layers - 2, 2)), np.zeros((layers - 3, 2))]
    return ArchitectureParameters(
        operators, beta, [np.zeros((n, widths)) for n in (layers - 1, layers - 1, layers - 2)]
    )


@pytest.fixture(scope="session")
def flat() -> Callable[..., ArchitectureParameters]:
    """`flat(layers)`: FasterSeg's parameters without preference for anything, but for `conv` in every cell."""
    return _flat


@pytest.fixture(scope="session")
def drawn() -> Callable[..., ArchitectureParameters]:
    """`drawn(layers, seed)`: FasterSeg's parameters from a normal distribution."""

    def draw(layers: int, seed: int, widths: int = 3, spread: float = 2.0) -> ArchitectureParameters:
        rng, like = np.random.default_rng(seed), _flat(layers, widths)

        def normal(arrays: Any) -> list[np.ndarray]:
            return [rng.normal(0, spread, rows.shape) for rows in arrays]

        return ArchitectureParameters(normal(like.operators), normal(like.beta), normal(like.widths))

    return draw
