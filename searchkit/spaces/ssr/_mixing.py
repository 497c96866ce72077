"""The arithmetic of one supernet layer, forward and backward, written out so that it is fast and keeps little.

What makes it equal to Eq. 5 read literally, and cheaper:

- The mixed mid mask m is at least 0, so ReLU(m * BatchNorm(u)) is ReLU of a BatchNorm whose scale and shift are
  multiplied by m; the operator's weight and out mask go into the second BatchNorm in the same way. No mask is a pass.
- Resizing is linear, so the operators at half the resolution are summed before one resize.
- A bias in front of a BatchNorm over the batch changes nothing but the running mean.
- Taps of a dilated convolution that only see padding are left out.
- Of each operator the outputs of its two convolutions are kept, in the type of computation; what lies between is
  computed again in the backward pass. With checkpointing even these are.
- Only those gradients are computed that the step needs: an architecture step has none for weights.

Statistics, coefficients and sums are float32 (float64 where the layer is), whatever the maps are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._taps import Taps

_aten = torch.ops.aten


@dataclass(frozen=True)
class Running:
    """Running statistics that a BatchNorm over the batch updates."""

    mean: Tensor
    var: Tensor
    momentum: float


@dataclass(frozen=True)
class Branch:
    """What one operator is, besides its weights.

    Attributes:
        dilation: of both convolutions.
        half: whether it works at half the resolution.
        norms: of its two BatchNorms; None is a plain scale and shift.
    """

    dilation: int
    half: bool
    norms: tuple[Running | None, Running | None]


@dataclass(frozen=True)
class Plan:
    """What a layer does.

    Attributes:
        branches: its operators.
        eps: BatchNorm's.
        checkpointing: whether operators are computed again in the backward pass.
    """

    branches: tuple[Branch, ...]
    eps: float
    checkpointing: bool


# Mean and reciprocal standard deviation of a BatchNorm over the batch; None of a plain scale and shift.
_Statistics = tuple[Tensor, Tensor] | None


def _normalise(u: Tensor, scale: Tensor, shift: Tensor, statistics: _Statistics) -> Tensor:
    """Scale and shift of what the statistics normalise, in one pass."""
    mean, var = _neutral(scale) if statistics is None else (statistics[0], statistics[1].pow(-2))
    normal: Tensor = _aten.native_batch_norm(u, scale, shift, mean, var, False, 0.0, 0.0)[0]
    return normal


def _normalise_batch(
    u: Tensor, scale: Tensor, shift: Tensor, running: Running | None, eps: float, *, update: bool
) -> tuple[Tensor, _Statistics]:
    """BatchNorm over the batch, or a plain scale and shift where `running` is None."""
    if running is None:
        return _normalise(u, scale, shift, None), None
    mean, var = (running.mean, running.var) if update else (None, None)
    y, mean, invstd = _aten.native_batch_norm(u, scale, shift, mean, var, True, running.momentum, eps)
    return y, (mean, invstd)


def _normalise_backward(
    grad: Tensor, u: Tensor, scale: Tensor, statistics: _Statistics, *, need_input: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the input (as needed), the scale and the shift."""
    need = [need_input, True, True]
    if statistics is None:
        mean, var = _neutral(scale)
        found = _aten.native_batch_norm_backward(grad, u, scale, mean, var, mean, var, False, 0.0, need)
    else:
        mean, invstd = statistics
        # Running statistics are not read where the batch has its own.
        found = _aten.native_batch_norm_backward(grad, u, scale, mean, invstd, mean, invstd, True, 0.0, need)
    return found[0], found[1], found[2]


def _neutral(scale: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance that change nothing."""
    return torch.zeros_like(scale), torch.ones_like(scale)


@dataclass
class _Kept:
    """What the backward pass of an operator needs of its forward pass."""

    u: Tensor
    v: Tensor
    first: _Statistics
    second: _Statistics


@dataclass
class _Gradients:
    x: Tensor | None
    weights: tuple[Tensor, Tensor] | None
    affine: tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class _Operator:
    """One operator in one pass.

    Attributes:
        branch: what it is.
        x: its input, pooled if it works at half the resolution.
        weights: of its convolutions, as they are kept.
        cast: the taps that are computed, in the type of computation.
        affine: scale and shift of the first and of the second norm.
        eps: BatchNorm's.
    """

    branch: Branch
    x: Tensor
    weights: tuple[Tensor, Tensor]
    cast: tuple[Tensor, Tensor]
    affine: tuple[Tensor, Tensor, Tensor, Tensor]
    eps: float

    def _convs(self) -> tuple[Taps, Taps]:
        return Taps.at(0, self.branch.dilation, self.x), Taps.at(1, self.branch.dilation, self.x)

    def forward(self, *, update: bool) -> tuple[Tensor, _Kept]:
        """The weighted output in front of dropout; running statistics follow if `update`."""
        scale1, shift1, scale2, shift2 = self.affine
        first, second = self._convs()
        u = first.forward(self.x, self.cast[0])
        a, statistics1 = _normalise_batch(u, scale1, shift1, self.branch.norms[0], self.eps, update=update)
        v = second.forward(a.relu_(), self.cast[1])
        z, statistics2 = _normalise_batch(v, scale2, shift2, self.branch.norms[1], self.eps, update=update)
        return z, _Kept(u, v, statistics1, statistics2)

    def backward(self, grad: Tensor, kept: _Kept, need_x: bool, need_weights: bool) -> _Gradients:
        """Gradients, of x and of the weights as needed."""
        scale1, shift1, scale2, _ = self.affine
        first, second = self._convs()
        a = _normalise(kept.u, scale1, shift1, kept.first).relu_()
        dv, dscale2, dshift2 = _normalise_backward(grad, kept.v, scale2, kept.second, need_input=True)
        da, w2 = second.backward(dv, a, self.cast[1], (True, need_weights))
        da = _aten.threshold_backward(da, a, 0)
        need_u = need_x or need_weights
        du, dscale1, dshift1 = _normalise_backward(da, kept.u, scale1, kept.first, need_input=need_u)
        x, w1 = first.backward(du, self.x, self.cast[0], (need_x, need_weights)) if need_u else (None, None)
        weights = None
        if need_weights and w1 is not None:
            weights = first.widened(w1, self.weights[0]), second.widened(w2, self.weights[1])
        return _Gradients(x, weights, (dscale1, dshift1, dscale2, dshift2))


class _Sum:
    """A sum of maps with the first channels in common, in the wide type, channels last."""

    def __init__(self, channels: int, dtype: torch.dtype) -> None:
        self._channels, self._dtype = channels, dtype
        self.total: Tensor | None = None

    def add(self, term: Tensor) -> None:
        """Add a map that nobody else uses: the first of full width becomes the sum."""
        channels = term.shape[1]
        if self.total is not None:
            into = self.total if channels == self._channels else self.total[:, :channels]
            into.add_(term)
        elif channels == self._channels:
            self.total = term.to(self._dtype)
        else:
            size = term.shape[0], self._channels, *term.shape[2:]
            self.total = torch.empty(
                size, dtype=self._dtype, device=term.device, memory_format=torch.channels_last
            ).zero_()
            self.total[:, :channels].copy_(term)


class Mix(torch.autograd.Function):
    """ReLU(residual * x + sum over operators of dropout * (scale2, shift2 after everything else)).

    Inputs: plan; x N x C x H x W; pooled N x C x H/2 x W/2 or None; residual: channels; drop: operators x N x channels
    of 0 and 1, or None; four of operators x channels: scale and shift of the first and of the second norm; then two
    weights an operator. Shorter operators use the first channels of what is stacked.
    """

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        x: Tensor,
        pooled: Tensor | None,
        residual: Tensor,
        drop: Tensor | None,
        scale1: Tensor,
        shift1: Tensor,
        scale2: Tensor,
        shift2: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        affine = (scale1, shift1, scale2, shift2)
        sums = {half: _Sum(scale2.shape[1], residual.dtype) for half in (False, True)}
        casts = _casts(plan, x, pooled, weights)
        kept: list[_Kept] = []
        for index, operator in enumerate(_operators(plan, x, pooled, affine, weights, casts)):
            z, found = operator.forward(update=True)
            if drop is not None:
                z.mul_(_drop(drop, index, z.shape[1]))
            sums[operator.branch.half].add(z)
            if not plan.checkpointing:
                kept.append(found)
        total, half = sums[False].total, sums[True].total
        if half is not None:
            resized = _aten.upsample_bilinear2d(half, list(x.shape[2:]), True)
            total = resized if total is None else total.add_(resized)
        assert total is not None
        common = min(total.shape[1], x.shape[1])
        total[:, :common].addcmul_(x[:, :common].to(total.dtype), _per_channel(residual[:common]))
        result = total.relu_().to(x.dtype)
        _save(ctx, plan, (x, pooled, residual, drop, *affine, *weights, *casts, result), kept)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        plan, (x, pooled, residual, drop, *rest), kept = _saved(ctx)
        count = 2 * len(plan.branches)
        affine, weights, casts, result = tuple(rest[:4]), rest[4 : 4 + count], rest[4 + count : -1], rest[-1]
        need = ctx.needs_input_grad
        grad = _aten.threshold_backward(grads[0].to(x.dtype), result, 0)
        wide = grad.to(residual.dtype)
        uppers = {False: grad, True: _upper_half(wide, x, pooled)}
        inputs = {half: _Sum(x.shape[1], residual.dtype) for half in (False, True)}
        of_weights: list[Tensor | None] = []
        of_affine: list[tuple[Tensor, ...]] = []
        for index, operator in enumerate(_operators(plan, x, pooled, affine, weights, casts)):
            found = kept[index] if kept else operator.forward(update=False)[1]
            half, out = operator.branch.half, operator.weights[1].shape[0]
            upper = _first(uppers[half], out)
            if drop is not None:
                upper = upper * _drop(drop, index, out)
            gradients = operator.backward(
                upper.contiguous(memory_format=torch.channels_last), found, need[2 if half else 1], any(need[9:])
            )
            if gradients.x is not None:
                inputs[half].add(gradients.x)
            of_weights += gradients.weights or (None, None)
            of_affine.append(gradients.affine)
        common = min(wide.shape[1], x.shape[1])
        if need[1]:
            inputs[False].add(_first(wide, common) * _per_channel(residual[:common]))
        of_residual = None
        if need[3]:
            of_residual = torch.zeros_like(residual)
            of_residual[:common] = (_first(wide, common) * _first(x, common)).sum((0, 2, 3))
        stacked = [_stack(rows, like) for rows, like in zip(zip(*of_affine, strict=True), affine, strict=True)]
        of_inputs = [_narrow(inputs[half].total, x.dtype) for half in (False, True)]
        return (None, *of_inputs, of_residual, None, *stacked, *of_weights)


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


def _first(x: Tensor, channels: int) -> Tensor:
    return x if x.shape[1] == channels else x[:, :channels]


def _drop(drop: Tensor, index: int, channels: int) -> Tensor:
    """What channel dropout keeps of one operator, to multiply maps by."""
    return drop[index, :, :channels, None, None]


def _narrow(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if x is None else x.to(dtype)


def _stack(rows: tuple[Tensor, ...], like: Tensor) -> Tensor:
    """Vectors as rows of a tensor like the other, shorter ones filled with zeros."""
    if all(row.numel() == like.shape[1] for row in rows):
        return torch.stack(rows)
    stacked = torch.zeros_like(like)
    for into, row in zip(stacked, rows, strict=True):
        into[: row.numel()] = row
    return stacked


def _upper_half(wide: Tensor, x: Tensor, pooled: Tensor | None) -> Tensor:
    """The gradient of the sum at half the resolution."""
    if pooled is None:
        return wide
    size = [*wide.shape[:2], *pooled.shape[2:]]
    half: Tensor = _aten.upsample_bilinear2d_backward(wide, list(x.shape[2:]), size, True)
    return half.to(x.dtype)


def _casts(plan: Plan, x: Tensor, pooled: Tensor | None, weights: tuple[Tensor, ...]) -> list[Tensor]:
    """The taps that are computed, in the type of computation."""
    cast = []
    for index, branch in enumerate(plan.branches):
        inputs = pooled if branch.half and pooled is not None else x
        for axis in (0, 1):
            cast.append(Taps.at(axis, branch.dilation, inputs).weight(weights[2 * index + axis], x.dtype))
    return cast


def _operators(
    plan: Plan,
    x: Tensor,
    pooled: Tensor | None,
    affine: tuple[Tensor, ...],
    weights: Sequence[Tensor],
    casts: Sequence[Tensor],
) -> Iterator[_Operator]:
    rows = [values.unbind(0) for values in affine]
    for index, branch in enumerate(plan.branches):
        inputs = pooled if branch.half and pooled is not None else x
        own = weights[2 * index], weights[2 * index + 1]
        cut = [
            row[index] if row[index].numel() == conv.shape[0] else row[index][: conv.shape[0]]
            for row, conv in zip(rows, (own[0], own[0], own[1], own[1]), strict=True)
        ]
        yield _Operator(
            branch, inputs, own, (casts[2 * index], casts[2 * index + 1]), (cut[0], cut[1], cut[2], cut[3]), plan.eps
        )


def _save(ctx: Any, plan: Plan, given: tuple[Tensor | None, ...], kept: list[_Kept]) -> None:
    tensors: list[Tensor | None] = list(given)
    for found in kept:
        tensors += [found.u, found.v, *(found.first or (None, None)), *(found.second or (None, None))]
    ctx.plan, ctx.given = plan, len(given)
    ctx.save_for_backward(*tensors)


def _saved(ctx: Any) -> tuple[Plan, tuple[Any, ...], list[_Kept]]:
    tensors = ctx.saved_tensors
    kept = []
    for start in range(ctx.given, len(tensors), 6):
        u, v, *statistics = tensors[start : start + 6]
        pairs = [None if a is None else (a, b) for a, b in zip(statistics[::2], statistics[1::2], strict=True)]
        kept.append(_Kept(u, v, pairs[0], pairs[1]))
    return ctx.plan, tensors[: ctx.given], kept
