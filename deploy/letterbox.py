"""How a picture of any size gets the size that a model takes, and how its labels get back.

`stretch` is what the papers do: the whole picture, both sides scaled by themselves. `letterbox` keeps the proportions
and fills what is left at the bottom and at the right with one colour. Pictures are scaled bilinearly with antialiasing,
labels by nearest neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from searchkit.errors import unknown_name
from searchkit.pictures import resize_picture
from searchkit.sizes import Size

RULES = ("stretch", "letterbox")
GREY = (114, 114, 114)


@dataclass(frozen=True)
class ResizeRule:
    """One of `RULES`; `pad` is the RGB colour beside a letterboxed picture.

    Raises:
        UsageError: no such rule.
        ValueError: `pad` is no colour.
    """

    name: str = "stretch"
    pad: tuple[int, int, int] = GREY

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise unknown_name("resize rule", self.name, RULES, where="--resize")
        if len(self.pad) != 3 or any(type(value) is not int or not 0 <= value <= 255 for value in self.pad):
            raise ValueError(f"{self.pad!r} is not an RGB colour")

    def fit(self, picture: np.ndarray, size: Size) -> np.ndarray:
        """A uint8 picture H x W x 3 at `size`; the very array if it has that size already."""
        if picture.shape[:2] == tuple(size):
            return picture
        inside = self.inside(Size(*picture.shape[:2]), size)
        scaled = resize_picture(picture, inside)
        if inside == size:
            return scaled
        fitted = np.empty((*size, 3), np.uint8)
        fitted[:] = self.pad
        fitted[: inside.height, : inside.width] = scaled
        return fitted

    def restore(self, labels: np.ndarray, picture: Size) -> np.ndarray:
        """A label map of a fitted picture at the size of the picture itself."""
        size = Size(*labels.shape)
        if picture == size:
            return labels
        inside = self.inside(picture, size)
        return resize_picture(labels[: inside.height, : inside.width], picture, nearest=True)

    def inside(self, picture: Size, size: Size) -> Size:
        """Where the picture lies in the model's input, from the top left corner."""
        if self.name == "stretch":
            return size
        scale = min(size.height / picture.height, size.width / picture.width)
        sides = (max(1, min(limit, round(side * scale))) for side, limit in zip(picture, size, strict=True))
        return Size(*sides)

    def to_tree(self) -> dict[str, Any]:
        """As a bundle's contract states it."""
        tree: dict[str, Any] = {"rule": self.name, "pictures": "bilinear, antialiased", "labels": "nearest"}
        if self.name == "letterbox":
            tree |= {"place": "top left", "pad_rgb": list(self.pad)}
        return tree

    @classmethod
    def from_tree(cls, tree: Any) -> ResizeRule:
        """What `to_tree` wrote; None, as in bundles of schema 1, is `stretch`."""
        if tree is None:
            return cls()
        pad = tree.get("pad_rgb", GREY)
        return cls(tree["rule"], tuple(pad))
