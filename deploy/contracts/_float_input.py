"""What the contracts with normalised float input have in common: mean and standard deviation are the caller's."""

from __future__ import annotations

import numpy as np

from searchkit.normalization import MEAN, STD, normalise
from searchkit.sizes import Size

from . import Contract, TensorSpec


class FloatInput(Contract):
    """Normalised float32 RGB N x 3 x H x W in, logits N x C x H' x W' out."""

    preprocessing = "NCHW"

    def input_spec(self, size: Size) -> TensorSpec:
        meaning = "RGB, scaled to [0, 1], minus mean, over standard deviation, per channel"
        bounds = (
            min(-m / s for m, s in zip(MEAN, STD, strict=True)),
            max((1 - m) / s for m, s in zip(MEAN, STD, strict=True)),
        )
        return TensorSpec("image", "float32", "NCHW", (1, 3, *size), meaning, "RGB", bounds)

    @property
    def output_name(self) -> str:
        return "logits"

    @property
    def output_layout(self) -> str:
        return "NCHW"

    def check_classes(self, classes: int) -> None:
        """Logits have a channel a class, however many there are."""

    def encode(self, image_HWC: np.ndarray) -> np.ndarray:
        return normalise(image_HWC)

    def labels(self, output: np.ndarray, size: Size) -> np.ndarray:
        """Arg-max over the classes; coarser logits are first resized to `size`, bilinear, half-pixel centres."""
        import torch

        from searchkit.blocks import resize

        logits = resize(torch.from_numpy(output), size)
        return logits.argmax(1).numpy()
