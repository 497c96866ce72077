"""How far an exported model may be from the PyTorch network, by precision.

float32 is held to the numbers: rounding in another order is all that may differ. Elsewhere the logits differ by design,
and what has to stay is the answer: the labels of *clear* pixels, whose two best logits differ by more than a margin.
That margin is absolute in fp32. In fp16 and int8 it is in standard deviations of the picture's logits, since their
errors grow with what they compute; that makes the limits mean the same for seeded weights, whose logits are close
together, as for trained ones.

The figures are measured: seven networks with seeded weights (64x128, two streets and noise) and `ssr` with trained
ones agreed on all clear pixels in fp16, where 98 % are clear; in int8, calibrated by each of the methods, on at least
99.5 % of them, where 22 to 90 % are clear. Two exchanged classes, a wrong resize or a skipped layer are far outside.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_ABS_ERROR = 1e-4
MARGIN = 1e-3
MIN_CLASSES = 2


@dataclass(frozen=True)
class Limits:
    """What a comparison must keep.

    Attributes:
        max_abs_error: of the logits, and of the output where it is float; None where they differ by design.
        margin: that makes a pixel clear.
        relative_margin: whether it is in standard deviations of the picture's logits.
        clear_agreement: least share of the clear pixels with PyTorch's label, and of those that ONNX Runtime labels
            alike with its optimiser off and on.
        min_classes: least number of labels in PyTorch's maps.
    """

    max_abs_error: float | None
    margin: float
    relative_margin: bool
    clear_agreement: float
    min_classes: int = MIN_CLASSES

    @property
    def margin_text(self) -> str:
        """The margin as words."""
        return f"{self.margin:g}" + (" standard deviations of the logits" if self.relative_margin else "")

    def to_tree(self) -> dict[str, object]:
        """As the verification record has them."""
        return {
            "max_abs_error": self.max_abs_error,
            "margin": self.margin,
            "margin_unit": "standard deviation of the picture's logits" if self.relative_margin else "logit",
            "masked_agreement": self.clear_agreement,
            "optimiser_agreement": self.clear_agreement,
            "min_classes_in_reference": self.min_classes,
        }


LIMITS = {
    "fp32": Limits(MAX_ABS_ERROR, MARGIN, False, 1.0),
    "fp16": Limits(None, 0.01, True, 0.999),
    "int8": Limits(None, 0.5, True, 0.99),
}
