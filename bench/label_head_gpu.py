"""Resize and arg-max on a CUDA device, in turns: PyTorch's operators and the one-pass kernel of Triton.

`python -m bench.label_head_gpu FILE` writes the result as JSON. Run by `make gpu`; not run where it was written: there
was no GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from searchkit.console import write_json
from searchkit.errors import VerificationError

from . import machine
from .label_head import CASES, CLASSES
from .turns import ratios, samples, take_turns

if TYPE_CHECKING:
    from torch import Tensor

    from searchkit.sizes import Size

SCHEMA = 1
BASELINE = "pytorch"
TURNS, RUNS = 7, 50

# Labels may differ where two classes are closer than float32 can tell apart: this share of all pixels at most.
_MOST_TIES = 1e-5


def measure(turns: int = TURNS, runs: int = RUNS) -> list[dict[str, Any]]:
    """Every case, as plain JSON values; raises `VerificationError` where labels differ by more than ties."""
    found = []
    for source, target in CASES:
        logits = _logits(source)
        ways = _ways(logits, target)
        wanted = ways[BASELINE]()
        different = {name: int((way() != wanted).sum()) for name, way in ways.items()}
        for name, count in different.items():
            if count > _MOST_TIES * target.height * target.width:
                raise VerificationError(f"{name} gives other labels at {count} pixels", where="label head")
        times = take_turns({name: _waited(way) for name, way in ways.items()}, turns, runs)
        found.append(
            {
                "classes": CLASSES,
                "logits": str(source),
                "labels": str(target),
                "turns_ms": samples(times),
                f"times_as_fast_as_{BASELINE}": ratios(times, BASELINE),
            }
        )
    return found


def main(path: str) -> None:
    """Measure and write."""
    tree = {"schema": SCHEMA, "kind": "label head on a GPU, measured", "machine": machine.describe()}
    write_json(tree | {"cases": measure()}, path)


def _logits(source: Size) -> Tensor:
    """Smooth ones, as a network's are: noise at an eighth of the resolution, resized."""
    import torch

    coarse = torch.randn(1, CLASSES, source.height // 8, source.width // 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=tuple(source), mode="bilinear")[0].cuda()


def _ways(logits: Tensor, target: Size) -> dict[str, Callable[[], Tensor]]:
    import torch

    from deploy.native.triton_label_head import label_head

    def pytorch() -> Tensor:
        with torch.inference_mode():
            full = torch.nn.functional.interpolate(logits[None], size=tuple(target), mode="bilinear")
            return full.argmax(1)[0].to(torch.uint8)

    return {BASELINE: pytorch, "triton": lambda: label_head(logits, target)}


def _waited(way: Callable[[], Tensor]) -> Callable[[], None]:
    """By the wall clock until the labels are there, as `bench fps` times networks."""
    import torch

    def run() -> None:
        way()
        torch.cuda.synchronize()

    return run


if __name__ == "__main__":
    main(sys.argv[1])
