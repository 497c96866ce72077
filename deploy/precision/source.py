"""What a conversion starts from and what it ends in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from searchkit.sizes import Size

from ..contracts import Contract

SCHEMA = 1


@dataclass(frozen=True)
class Source:
    """A float32 model and what is known of it.

    Attributes:
        model: serialised ONNX.
        contract, size: its inputs and outputs.
        classes: how many it tells apart.
        trained: False for seeded weights; no mIoU means anything then.
    """

    model: bytes
    contract: Contract
    size: Size
    classes: int
    trained: bool


@dataclass(frozen=True)
class Converted:
    """A model in another precision, and the record of how it came about: a JSON tree, see `docs/precision.md`."""

    model: bytes
    record: dict[str, Any]
