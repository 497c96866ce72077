"""What a network consists of: parameters, operations by operator and by stage, memory. Nothing is timed.

Two counts stand side by side. `conv_macs` is taken where PyTorch dispatches its operators: convolutions and matrix
products, whatever becomes of their results. fvcore's is taken from a trace: it also counts BatchNorm, resizing and
pooling, and leaves out what the trace drops. fvcore counts one multiply-accumulate as one FLOP, BatchNorm 2 and
bilinear resizing 4 an output element; relu, concatenation, slicing and reshaping count nothing; operators it does not
know are listed, not hidden.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from searchkit.anatomy import Part, dissect
from searchkit.footprint import count_params, on_meta
from searchkit.networks import Network
from searchkit.sizes import Size

from . import _tree

SCHEMA = 1

# fvcore's names of what the dispatcher counts.
_MATRIX_OPERATORS = ("conv", "linear", "matmul", "addmm", "bmm", "einsum")


@dataclass(frozen=True, slots=True)
class StageRow:
    """One child of the network, or one of that child's own stages.

    Attributes:
        depth: 1 for a child of the network, 2 for a stage within it.
        macs: fvcore's count.
        output_shape: N, C, H, W; None where the module is only a container.
    """

    name: str
    depth: int
    params: int
    macs: int
    output_shape: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Counts:
    """What can be counted in any module.

    Attributes:
        params: of the module as it was given.
        weights_bytes: of all that is saved with it, buffers included.
        conv_macs: convolutions and matrix products, counted at dispatch.
        macs: fvcore's total.
        macs_by_operator: fvcore's total, split.
        uncounted_operators: what fvcore has no rule for, and how often it occurs.
        activation_peak_bytes: the most that an eager forward pass at batch 1 keeps at one time, weights not included.
        stages: in the order of the module; the row "(between stages)" is what the network does outside its children.
        warnings: why the counts should be read with care.
    """

    params: int
    weights_bytes: int
    conv_macs: int
    macs: int
    macs_by_operator: dict[str, int]
    uncounted_operators: dict[str, int]
    activation_peak_bytes: int
    stages: tuple[StageRow, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """A network and its counts at one resolution, batch 1.

    Attributes:
        params_with_training_heads: with what only training uses; None where the network has nothing of that kind.
    """

    network: str
    digest: str
    classes: int
    resolution: Size
    params_with_training_heads: int | None
    counts: Counts

    def to_tree(self) -> dict[str, Any]:
        """Plain JSON values."""
        tree: dict[str, Any] = _tree.encode(self)
        counts = tree.pop("counts")
        return {"schema": SCHEMA, **tree, **counts}


def profile(network: Network, size: Size) -> Profile:
    """Count a network at an input of `size`.

    Raises:
        UsageError: it does not take this size, or exceeds a limit; nothing is allocated then.
    """
    network.check(size)
    counts = count(network.build(), size)
    with torch.device("meta"):
        with_heads = count_params(network.build(training_heads=True))
    return Profile(
        network=network.name,
        digest=network.digest,
        classes=network.classes,
        resolution=size,
        params_with_training_heads=with_heads if with_heads != counts.params else None,
        counts=counts,
    )


@torch.no_grad()
def count(module: nn.Module, size: Size) -> Counts:
    """Count any module that takes 1 x 3 x H x W, built on the CPU; it is run once there, in evaluation mode."""
    module = module.eval()
    meta = copy.deepcopy(module).to("meta")
    cost = on_meta(meta, size)
    analysis = _analysis(module, size)
    with _quiet():
        by_operator = {name: int(macs) for name, macs in sorted(analysis.by_operator().items())}
        by_module = analysis.by_module()
        uncounted = {name: int(times) for name, times in sorted(analysis.unsupported_ops().items())}
    return Counts(
        params=cost.params,
        weights_bytes=sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values()),
        conv_macs=cost.conv_macs,
        macs=sum(by_operator.values()),
        macs_by_operator=by_operator,
        uncounted_operators=uncounted,
        activation_peak_bytes=cost.activation_bytes,
        stages=tuple(_stages(dissect(meta, size, depth=3), by_module)),
        warnings=tuple(_cross_check(cost.conv_macs, by_operator)),
    )


def _analysis(module: nn.Module, size: Size) -> FlopCountAnalysis:
    # On the meta device fvcore's trace fails (torch 2.13), so this one really computes.
    analysis = FlopCountAnalysis(module, torch.zeros(1, 3, size.height, size.width))
    # Its log lines say what `uncounted_operators` says.
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without fvcore's log: what it says stands in the result."""
    logger = logging.getLogger("fvcore")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _cross_check(conv_macs: int, by_operator: dict[str, int]) -> list[str]:
    traced = sum(by_operator.get(name, 0) for name in _MATRIX_OPERATORS)
    if traced == conv_macs:
        return []
    return [
        f"the trace has {traced:,} MACs of convolutions and matrix products, {conv_macs:,} were dispatched: "
        "a result is computed and not used, or fvcore does not know an operator; look for the dead branch"
    ]


def _stages(root: Part, by_module: Any) -> Iterator[StageRow]:
    inside = 0
    for child in root.children:
        inside += int(by_module[child.name])
        yield _row(child, child.name, 1, by_module)
        # A unit such as convolution, norm, activation is not worth rows of its own; a chain of units is.
        if any(grandchild.children for grandchild in child.children):
            for grandchild in child.children:
                yield _row(grandchild, f"{child.name}.{grandchild.name}", 2, by_module)
    if int(by_module[""]) != inside:
        yield StageRow("(between stages)", 1, 0, int(by_module[""]) - inside, None)


def _row(part: Part, name: str, depth: int, by_module: Any) -> StageRow:
    return StageRow(name, depth, part.params, int(by_module[name]), part.output_shape)
