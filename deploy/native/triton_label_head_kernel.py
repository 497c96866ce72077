"""The kernel of `deploy.native.triton_label_head`, in Triton's language: Python that Triton compiles.

A program decides ROWS x COLUMNS pixels. Neighbouring pixels read the same or neighbouring logits, so most reads are
served by the nearest cache, and nothing but labels is written.
"""

from __future__ import annotations

import triton
import triton.language as tl

#: Pixels of a program.
ROWS = 4
COLUMNS = 64

#: Arguments that are numbers: one compiled kernel is for all their values that fit into 32 bits.
SIZES = (
    "classes",
    "height",
    "width",
    "class_stride",
    "row_stride",
    "column_stride",
    "out_height",
    "out_width",
)

#: For the compiler: products and sums are rounded one by one, as in `deploy.native.reference`.
OPTIONS = {"enable_fp_fusion": False}

#: Larger logits count as this, see `deploy.native.label_head`.
LARGEST = tl.constexpr(1e37)

_PROBABILITY = tl.constexpr(1)
_MARGIN = tl.constexpr(2)


@triton.jit
def _tap(position: tl.tensor, source: tl.tensor, target: tl.tensor, aligned: tl.constexpr) -> tuple:
    """The two of `source` positions that an output position blends, and the weight of the higher one.

    The place is part / whole, exactly; sides of at most 32768 fit into 32 bits.
    """
    if aligned:
        whole = tl.maximum(target - 1, 1)
        part = position * (source - 1)
    else:
        whole = 2 * target
        part = tl.maximum((2 * position + 1) * source - target, 0)
    low = part // whole
    weight = tl.div_rn((part - low * whole).to(tl.float32), (whole + tl.full(low.shape, 0, tl.int32)).to(tl.float32))
    return low.to(tl.int64), tl.minimum(low + 1, source - 1).to(tl.int64), weight


@triton.jit
def _bounded(address: tl.tensor) -> tl.tensor:
    """Float32 logits; what is no number or too large to be blended is replaced before it can spoil its neighbours."""
    value = tl.load(address).to(tl.float32)
    value = tl.where(value == value, value, -LARGEST)
    return tl.minimum(tl.maximum(value, -LARGEST), LARGEST)


@triton.jit
def _blended(
    row_above: tl.tensor, row_below: tl.tensor, left: tl.tensor, right: tl.tensor, across: tl.tensor, down: tl.tensor
) -> tl.tensor:
    """The interpolated logits of one class: columns first, then rows."""
    first = _bounded(row_above + left)
    above = first + across * (_bounded(row_above + right) - first)
    first = _bounded(row_below + left)
    below = first + across * (_bounded(row_below + right) - first)
    return above + down * (below - above)


@triton.jit(do_not_specialize=SIZES)
def label_head_kernel(
    logits: tl.tensor,
    labels: tl.tensor,
    levels: tl.tensor,
    classes: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    class_stride: tl.tensor,
    row_stride: tl.tensor,
    column_stride: tl.tensor,
    out_height: tl.tensor,
    out_width: tl.tensor,
    aligned: tl.constexpr,
    certainty: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
) -> None:
    """C x height x width logits, strides in elements, to out_height x out_width labels and levels of certainty.

    `certainty` is 0 for none (then `levels` is not touched), 1 for the probability, 2 for the margin. The grid is
    columns of the output / `columns`, rows of the output / `rows`.
    """
    x = tl.program_id(0) * columns + tl.arange(0, columns)[None, :]
    y = tl.program_id(1) * rows + tl.arange(0, rows)[:, None]
    # Pixels beyond the map read what its last ones read, and are not stored.
    left, right, across = _tap(tl.minimum(x, out_width - 1), width, out_width, aligned)
    upper, lower, down = _tap(tl.minimum(y, out_height - 1), height, out_height, aligned)
    left, right = left * column_stride, right * column_stride
    row_above, row_below = logits + upper * row_stride, logits + lower * row_stride
    step = class_stride + tl.full([1, 1], 0, tl.int64)
    best = tl.full([rows, columns], -3.4e38, tl.float32)
    second = best
    winner = tl.full([rows, columns], 0, tl.int32)
    for c in range(classes):
        value = _blended(row_above + c * step, row_below + c * step, left, right, across, down)
        if certainty == _MARGIN:
            second = tl.maximum(second, tl.minimum(best, value))
        winner = tl.where(value > best, c, winner)
        best = tl.maximum(best, value)
    wanted = (x < out_width) & (y < out_height)
    pixel = y.to(tl.int64) * out_width + x
    tl.store(labels + pixel, winner.to(tl.uint8), mask=wanted)
    if certainty == _MARGIN:
        level = tl.minimum(best - second, 255.0 / 16.0) * 16.0
        tl.store(levels + pixel, (level + 0.5).to(tl.uint8), mask=wanted)
    if certainty == _PROBABILITY:
        total = tl.full([rows, columns], 0.0, tl.float32)
        for c in range(classes):
            total += tl.exp(_blended(row_above + c * step, row_below + c * step, left, right, across, down) - best)
        tl.store(levels + pixel, (tl.minimum(255.0 / total, 255.0) + 0.5).to(tl.uint8), mask=wanted)
