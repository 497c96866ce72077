"""What papers print of the networks: `bench/published.toml`. Never ours, and shown apart from what is measured."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parents[1] / "published.toml"


@dataclass(frozen=True)
class Figure:
    """What one source prints of one network; None where it does not say.

    Attributes:
        of: the paper or the person that printed it.
        size: height x width of the input.
        miou_val, miou_test: of Cityscapes, per cent.
    """

    of: str
    size: str | None = None
    device: str | None = None
    software: str | None = None
    fps: float | None = None
    miou_val: float | None = None
    miou_test: float | None = None
    params_m: float | None = None
    gflops: float | None = None
    counts: str | None = None
    note: str | None = None

    @property
    def by_the_paper(self) -> bool:
        """Whether the network's own authors print it."""
        return self.of.split(",")[0].split(" and ")[0] == "paper"


@dataclass(frozen=True)
class PublishedNetwork:
    """A network of the file: its title, its paper, where sources disagree, and what they print."""

    name: str
    title: str
    paper: str
    disagreement: str
    figures: tuple[Figure, ...]


@functools.cache
def published() -> dict[str, PublishedNetwork]:
    """Every network of the file, by name."""
    tree = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return {entry["name"]: _network(entry) for entry in tree["network"]}


def figures_of(network: str) -> Sequence[Figure]:
    """What sources print of a network; nothing of one that the file does not have."""
    entry = published().get(network)
    return entry.figures if entry else ()


def _network(entry: dict[str, Any]) -> PublishedNetwork:
    names = {field.name for field in fields(Figure)}
    figures = tuple(
        Figure(**{key: value for key, value in figure.items() if key in names}) for figure in entry.get("published", [])
    )
    return PublishedNetwork(entry["name"], entry["title"], entry["paper"], entry.get("disagreement", ""), figures)
