"""What is known of a network's mIoU. Nothing of it is measured here: each figure says whose it is."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass

from searchkit.files import read_bytes
from searchkit.sizes import Size
from searchkit.trained import SHIPPED, shipped_for

from .report.published import Figure, figures_of

_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Miou:
    """mIoU in per cent.

    Attributes:
        split: such as `val`.
        source: who says so: the paper, or the data that weights which come with searchkit were tried on.
        size: of the input, as it is printed; None where it is not said.
        fits: whether `size` is the one that was asked for.
    """

    percent: float
    split: str
    source: str
    size: str | None
    fits: bool


@dataclass(frozen=True, slots=True)
class KnownMiou:
    """Two figures that must not be compared with each other.

    Attributes:
        published: of Cityscapes, as the network's own paper prints it.
        shipped: of the weights that come with searchkit, on the generated pictures that they were trained for.
    """

    published: Miou | None
    shipped: Miou | None


@functools.cache
def known_miou(network: str, size: Size) -> KnownMiou:
    """What is known of the network of this name; of figures at several sizes, the one at `size` goes first."""
    return KnownMiou(_published(network, size), _shipped(network, size))


def _published(network: str, size: Size) -> Miou | None:
    own = [figure for figure in figures_of(network) if figure.by_the_paper]
    # A figure at the right size is worth more than one of the validation set: sizes differ by points, splits by less.
    ordered = sorted(own, key=lambda figure: figure.size != str(size))
    found = [miou for figure in ordered if (miou := _of_figure(figure, size))]
    return found[0] if found else None


def _of_figure(figure: Figure, size: Size) -> Miou | None:
    fits = figure.size == str(size)
    if figure.miou_val is not None:
        return Miou(figure.miou_val, "val", figure.of, figure.size, fits)
    if figure.miou_test is not None:
        return Miou(figure.miou_test, "test", figure.of, figure.size, fits)
    return None


def _shipped(network: str, size: Size) -> Miou | None:
    for data in shipped_for(network):
        record = SHIPPED / f"{network}.{data}.json"
        tree = json.loads(read_bytes(record, limit_bytes=_MAX_BYTES, what="record of weights"))
        measured, trained_at = tree["measured"], str(Size(*tree["resolution"]))
        percent = 100 * float(measured["miou"])
        return Miou(percent, str(measured["split"]), data, trained_at, trained_at == str(size))
    return None
