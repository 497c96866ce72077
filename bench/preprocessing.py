"""A camera's picture to a network's input, in turns: the steps one by one, and the native kernels' one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from deploy.letterbox import ResizeRule
from deploy.native.preprocessing import kernels, preprocess
from searchkit.errors import VerificationError
from searchkit.normalization import normalise
from searchkit.sizes import Size

from .measurement import Scalar
from .turns import ratio, ratios, samples, take_turns

SCHEMA = 1

# Cameras' resolutions to those of the networks here; the last is not resized.
CASES = (
    (Size(720, 1280), Size(512, 1024)),
    (Size(1080, 1920), Size(512, 1024)),
    (Size(1024, 2048), Size(512, 1024)),
    (Size(1024, 2048), Size(1024, 2048)),
)

#: What `Segmenter` does: Pillow's resize, then numpy's normalisation and transposition.
BASELINE = "pillow and numpy"


@dataclass(frozen=True)
class PreprocessingTimes:
    """Milliseconds of one case: name of the way -> the median of each turn."""

    picture: Size
    input: Size
    turns_ms: dict[str, tuple[float, ...]]

    def ratio(self, name: str) -> tuple[float, float, float]:
        """How many times as fast as the steps one by one: median, least and greatest of the turns."""
        return ratio(self.turns_ms, BASELINE, name)

    def to_tree(self) -> dict[str, Any]:
        return {
            "picture": str(self.picture),
            "input": str(self.input),
            "turns_ms": samples(self.turns_ms),
            "times_as_fast_as_steps": ratios(self.turns_ms, BASELINE),
        }


def measure(threads: int, turns: int, runs: int, progress: Callable[[str], None]) -> list[PreprocessingTimes]:
    """All cases; raises `VerificationError` where results differ by a bit."""
    found = []
    for picture, size in CASES:
        progress(f"{picture} to {size}")
        ways = _ways(picture, size, threads)
        wanted = ways[BASELINE]().copy()
        for name, way in ways.items():
            if not np.array_equal(way(), wanted):
                raise VerificationError(f"{name} gives another input", where="pre-processing")
        found.append(PreprocessingTimes(picture, size, take_turns(ways, turns, runs)))
    return found


def tree_of(results: Sequence[PreprocessingTimes], machine: dict[str, Scalar], threads: int) -> dict[str, Any]:
    """The whole result as plain JSON values."""
    return {
        "schema": SCHEMA,
        "kind": "pre-processing, measured",
        "machine": machine,
        "threads": {BASELINE: 1, "native": 1, f"native, {threads} threads": threads},
        "cases": [result.to_tree() for result in results],
    }


def _ways(picture: Size, size: Size, threads: int) -> dict[str, Callable[[], np.ndarray]]:
    """The native ways write into one array, as a loop over frames does; numpy makes a new one each time."""
    image = np.random.default_rng(0).integers(0, 256, (*picture, 3), np.uint8)
    out = np.empty((1, 3, *size), np.float32)
    rule = ResizeRule()
    ways: dict[str, Callable[[], np.ndarray]] = {BASELINE: lambda: normalise(rule.fit(image, size))}
    for kernel in kernels():
        if kernel != "pillow":
            ways[f"native {kernel}"] = partial(preprocess, image, size, out=out, kernel=kernel)
    if threads > 1:
        ways[f"native, {threads} threads"] = lambda: preprocess(image, size, out=out, threads=threads)
    return ways
