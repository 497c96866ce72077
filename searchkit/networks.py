"""What a network argument on a command line means, and how it becomes an `nn.Module`.

An argument is a path to a genotype, a path to a bundle, a shipped genotype's name (`ssr`) or a baseline's (`erfnet`).
Nothing is built before its size is checked against the limits.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import genotype as genotypes
from . import strict_json
from .baselines import BASELINES
from .errors import InputFileError, UsageError, unknown_name
from .files import read_bytes
from .genotype import Genotype
from .sizes import Size, SizeRule

if TYPE_CHECKING:
    from torch import nn

SHIPPED = Path(__file__).parent / "genotypes"
DEFAULT_CLASSES = 19


@dataclass(frozen=True)
class Network:
    """A network that can be built: a genotype, or a baseline for some number of classes.

    Attributes:
        name: what tables call it.
        kind: "genotype" or "baseline".
        family: its search space, or "fixed".
        genotype: None for a baseline.
    """

    name: str
    kind: str
    family: str
    classes: int
    genotype: Genotype | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of what defines the network: the genotype's digest, or the baseline's name and classes."""
        if self.genotype is not None:
            return self.genotype.digest
        return hashlib.sha256(strict_json.canonical(self.to_tree())).hexdigest()

    @property
    def size_rule(self) -> SizeRule:
        return self.genotype.size_rule if self.genotype else BASELINES.load(self.name).size_rule

    def check(self, size: Size) -> None:
        """Raise `UsageError` unless the network takes this size and stays within the limits; builds nothing."""
        self.size_rule.check(size, network=self.name)
        if self.genotype is not None:
            self.genotype.cost(size).check(network=self.name)
        else:
            from .footprint import on_meta

            on_meta(self.build_on_meta(), size).check(network=self.name)

    def build(self, *, training_heads: bool = False) -> nn.Module:
        """The network in training mode with PyTorch's default weights; call `check` first.

        `training_heads` has no effect on baselines, which are inference networks.
        """
        if self.genotype is not None:
            from .spaces import SPACES

            return SPACES.load(self.genotype.space).build(self.genotype, training_heads=training_heads)
        return BASELINES.load(self.name).build(self.classes)

    def build_on_meta(self) -> nn.Module:
        """The network with shapes and no storage: costs nothing, computes nothing."""
        import torch

        with torch.device("meta"):
            return self.build().eval()

    def with_classes(self, classes: int) -> Network:
        """The same network for another number of classes."""
        genotype = self.genotype.with_classes(classes) if self.genotype else None
        return replace(self, classes=classes, genotype=genotype)

    def to_tree(self) -> dict[str, object]:
        """What a bundle writes down to find the network again."""
        if self.genotype is not None:
            return self.genotype.to_tree()
        return {"baseline": self.name, "classes": self.classes}

    def to_json(self) -> str:
        return self.genotype.to_json() if self.genotype else json.dumps(self.to_tree(), indent=2) + "\n"


def shipped_genotypes() -> list[str]:
    """Names of the genotypes that come with searchkit."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def known_names() -> list[str]:
    """Every name that `resolve` takes, genotypes first."""
    return [*shipped_genotypes(), *BASELINES.names()]


def resolve(argument: str) -> Network:
    """Find the network that an argument names.

    Raises:
        UsageError: no such name or path; the nearest names are listed.
        InputFileError: the file is not a genotype.
    """
    path = Path(argument)
    looks_like_path = os.sep in argument or argument.endswith(".json") or argument in ("", ".", "..")
    if not looks_like_path:
        if argument in shipped_genotypes():
            return from_genotype(genotypes.load(SHIPPED / f"{argument}.json"))
        baseline = argument.replace("_", "-")
        if baseline in BASELINES.names():
            return Network(baseline, "baseline", "fixed", DEFAULT_CLASSES)
        if not path.exists():
            raise unknown_name("network", argument, known_names())
    if not argument or not path.exists():
        raise UsageError(
            "no such file",
            where=argument or "network",
            allowed=f"a genotype file, a bundle folder, or one of {', '.join(known_names())}",
        )
    return _from_file(path / "network.json" if path.is_dir() else path)


def from_genotype(genotype: Genotype) -> Network:
    return Network(genotype.name, "genotype", genotype.space, genotype.classes, genotype)


def _from_file(path: Path) -> Network:
    data = read_bytes(path, limit_bytes=strict_json.MAX_BYTES, what="genotype")
    tree = strict_json.loads(data, where=str(path))
    if not (isinstance(tree, dict) and "baseline" in tree):
        return from_genotype(genotypes.parse(data, where=str(path)))
    name, classes = tree.get("baseline"), tree.get("classes")
    if set(tree) != {"baseline", "classes"} or name not in BASELINES.names():
        raise InputFileError(
            "not a baseline record",
            where=str(path),
            got=tree,
            allowed=f"baseline: {', '.join(BASELINES.names())}",
        )
    if type(classes) is not int or not 2 <= classes <= 4096:
        raise InputFileError("wrong value", where=f"{path}: classes", got=classes, allowed="2 to 4096")
    return Network(name, "baseline", "fixed", classes)
