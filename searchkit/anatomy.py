"""A network's parts as a tree: shape, parameters, MACs and receptive field of each, found on the meta device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakTensorKeyDictionary

from .footprint import count_params
from .sizes import Size


@dataclass(frozen=True)
class Reach:
    """How far one value of a map sees, height and width apart.

    Attributes:
        span_px: receptive field in pixels of the input.
        step_px: distance in input pixels between neighbouring values of the map.
    """

    span_px: tuple[float, float]
    step_px: tuple[float, float]

    def through(self, kernel: tuple[float, float], stride: tuple[float, float]) -> Reach:
        """Behind a layer that reads `kernel` neighbouring values and moves on by `stride` of them."""
        return Reach(
            (
                self.span_px[0] + (kernel[0] - 1) * self.step_px[0],
                self.span_px[1] + (kernel[1] - 1) * self.step_px[1],
            ),
            (self.step_px[0] * stride[0], self.step_px[1] * stride[1]),
        )


@dataclass
class Part:
    """One module: where it stands, what it is, what leaves it, what it costs.

    `receptive_field_px` is the theoretical one of its output, which may exceed the image; None where the module is
    only a container that is never called.
    """

    name: str
    kind: str
    params: int
    conv_macs: int
    output_shape: tuple[int, ...] | None = None
    receptive_field_px: tuple[int, int] | None = None
    children: list[Part] = field(default_factory=list)

    def to_tree(self) -> dict[str, object]:
        return {
            "name": self.name,
            "kind": self.kind,
            "params": self.params,
            "conv_macs": self.conv_macs,
            "output_shape": list(self.output_shape) if self.output_shape else None,
            "receptive_field_px": list(self.receptive_field_px) if self.receptive_field_px else None,
            "children": [child.to_tree() for child in self.children],
        }


@torch.no_grad()
def dissect(module: nn.Module, size: Size, *, depth: int = 2) -> Part:
    """The tree of `module` (on the meta device, evaluation mode) for an input of `size`, `depth` levels deep."""
    shapes: dict[str, tuple[int, ...]] = {}
    reaches: dict[str, Reach] = {}
    tracker = _ReachTracker()
    handles = [
        layer.register_forward_hook(_recorder(name, shapes, reaches, tracker)) for name, layer in module.named_modules()
    ]
    image = torch.empty(1, 3, size.height, size.width, device="meta")
    tracker.reaches[image] = Reach((1, 1), (1, 1))
    try:
        with FlopCounterMode(display=False, depth=99) as counter, tracker:
            module(image)
    finally:
        for handle in handles:
            handle.remove()
    root = type(module).__name__
    macs = {
        key.removeprefix(root).removeprefix("."): sum(v.values()) // 2 for key, v in counter.get_flop_counts().items()
    }
    macs[""] = counter.get_total_flops() // 2
    return _part("", module, depth, shapes, reaches, macs)


def _part(
    name: str,
    module: nn.Module,
    depth: int,
    shapes: dict[str, tuple[int, ...]],
    reaches: dict[str, Reach],
    macs: dict[str, int],
) -> Part:
    prefix = f"{name}." if name else ""
    # Every level is walked even below `depth`: a container that is never called has only its children's figures.
    children = [
        _part(prefix + child_name, child, depth - 1, shapes, reaches, macs)
        for child_name, child in module.named_children()
    ]
    reach = reaches.get(name)
    return Part(
        name=name.rpartition(".")[2] or type(module).__name__,
        kind=type(module).__name__,
        params=count_params(module),
        conv_macs=macs[name] if name in macs and name in shapes else sum(c.conv_macs for c in children),
        output_shape=shapes.get(name),
        receptive_field_px=(math.ceil(reach.span_px[0]), math.ceil(reach.span_px[1])) if reach else None,
        children=[c for c in children if c.params or c.conv_macs] if depth > 0 else [],
    )


def _recorder(
    name: str, shapes: dict[str, tuple[int, ...]], reaches: dict[str, Reach], tracker: _ReachTracker
) -> Callable[..., None]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            shapes[name] = tuple(output.shape)
            reach = tracker.reaches.get(output)
            if reach is not None:
                reaches[name] = reach

    return hook


def _pair(value: Any) -> tuple[float, float]:
    if isinstance(value, int | float):
        return float(value), float(value)
    return (float(value[0]), float(value[-1]))


class _ReachTracker(TorchFunctionMode):
    """Carries a `Reach` from the inputs of every function to its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.reaches = WeakTensorKeyDictionary()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        known = [self.reaches[t] for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t in self.reaches]
        if known:
            reach = self._after(func, args, kwargs, result, _widest(known))
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    self.reaches[leaf] = reach
        return result

    def _after(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        reach: Reach,
    ) -> Reach:
        name = getattr(func, "__name__", "")
        if name == "conv2d":
            return _conv(reach, args, kwargs)
        if name == "conv_transpose2d":
            return _transposed(reach, args, kwargs)
        if name in ("max_pool2d", "avg_pool2d", "_max_pool2d", "boolean_dispatch"):
            kernel = _pair(args[1] if len(args) > 1 else kwargs["kernel_size"])
            stride = args[2] if len(args) > 2 else kwargs.get("stride")
            return reach.through(kernel, _pair(stride) if stride else kernel)
        if name == "interpolate" or func is F.interpolate:
            mode = args[3] if len(args) > 3 else kwargs.get("mode", "nearest")
            return _resized(reach, args[0], result, 2 if mode == "bilinear" else 1)
        if name == "adaptive_avg_pool2d":
            return _pooled(reach, args[0], result)
        if name == "mean":
            return _averaged(reach, args[0], args[1] if len(args) > 1 else kwargs.get("dim"))
        return reach


def _widest(reaches: list[Reach]) -> Reach:
    return Reach(
        (max(r.span_px[0] for r in reaches), max(r.span_px[1] for r in reaches)),
        (max(r.step_px[0] for r in reaches), max(r.step_px[1] for r in reaches)),
    )


def _conv(reach: Reach, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reach:
    kernel = args[1].shape[-2:]
    stride = _pair(args[3] if len(args) > 3 else kwargs.get("stride", 1))
    dilation = _pair(args[5] if len(args) > 5 else kwargs.get("dilation", 1))
    taps = ((kernel[0] - 1) * dilation[0] + 1, (kernel[1] - 1) * dilation[1] + 1)
    return reach.through(taps, stride)


def _transposed(reach: Reach, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reach:
    """Each output sees ceil(kernel / stride) inputs."""
    kernel = args[1].shape[-2:]
    stride = _pair(args[3] if len(args) > 3 else kwargs.get("stride", 1))
    taps = (math.ceil(kernel[0] / stride[0]), math.ceil(kernel[1] / stride[1]))
    return reach.through(taps, (1 / stride[0], 1 / stride[1]))


def _resized(reach: Reach, source: Tensor, result: Tensor, taps: int) -> Reach:
    """Bilinear: two inputs a side, where there are two; nearest: one."""
    height, width = source.shape[-2:]
    ratios = (height / result.shape[-2], width / result.shape[-1])
    return reach.through((min(taps, height), min(taps, width)), ratios)


def _pooled(reach: Reach, source: Tensor, result: Tensor) -> Reach:
    sides = list(zip(source.shape[-2:], result.shape[-2:], strict=True))
    # Bin i covers floor(i L/b) to ceil((i+1) L/b): where b does not divide L, some are wider than L/b.
    height, width = (max(-(-(i + 1) * side // bins) - i * side // bins for i in range(bins)) for side, bins in sides)
    return reach.through((height, width), (sides[0][0] / sides[0][1], sides[1][0] / sides[1][1]))


def _averaged(reach: Reach, source: Tensor, dims: Any) -> Reach:
    """A mean over the rows, the columns or both; one over the channels reaches no further."""
    if dims is None:
        dims = range(source.dim())
    averaged = {int(dim) % source.dim() for dim in ((dims,) if isinstance(dims, int) else dims)}
    height, width = (source.shape[dim] if source.dim() + dim in averaged else 1 for dim in (-2, -1))
    return reach.through((height, width), (height, width))
