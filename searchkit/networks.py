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
from typing import TYPE_CHECKING, Any

from . import genotype as genotypes
from . import strict_json
from .baselines import BASELINES
from .errors import InputFileError, UsageError, nearest, unknown_name
from .files import read_bytes
from .genotype import Genotype
from .sizes import Size, SizeRule

if TYPE_CHECKING:
    from torch import nn

SHIPPED = Path(__file__).parent / "genotypes"
DEFAULT_CLASSES = 19
# What a bundle keeps of its network.
# Of a bundle, and of a search that has ended.
_RECORD, _FOUND = "network.json", "genotype.json"


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
        """The same network for another number of classes; raises `UsageError` where that is out of range."""
        genotypes.check_classes(classes)
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
        InputFileError: the file is not a genotype, or the folder neither a bundle nor that of a search that has ended.
    """
    path = Path(argument)
    looks_like_path = os.sep in argument or argument.endswith(".json") or argument in ("", ".", "..")
    if not looks_like_path:
        if argument in shipped_genotypes():
            return from_genotype(genotypes.load(SHIPPED / f"{argument}.json"))
        baseline = argument.replace("_", "-")
        if baseline in BASELINES.names():
            return Network(baseline, "baseline", "fixed", DEFAULT_CLASSES)
        # Unlike `Path.exists`, this also takes a name that is too long for the disk.
        if not os.path.exists(path):
            raise unknown_name("network", argument, known_names())
    if not argument or not os.path.exists(path):
        raise UsageError(
            "no such file",
            where=argument or "network",
            allowed=f"a genotype file, the folder of a bundle or a search, or one of {', '.join(known_names())}",
        )
    return _from_folder(path) if path.is_dir() else _from_file(path)


def from_genotype(genotype: Genotype) -> Network:
    """The network that a genotype describes, under the name in its provenance."""
    return Network(genotype.name, "genotype", genotype.space, genotype.classes, genotype)


def _from_folder(path: Path) -> Network:
    for name in (_RECORD, _FOUND):
        if (path / name).exists():
            return _from_file(path / name)
    raise InputFileError(
        f"folder has no {_RECORD}, as a bundle has, and no {_FOUND}, as a search leaves",
        where=str(path),
        allowed="a genotype file, or the folder of a bundle or a search",
        fix="check the path",
    )


def _from_file(path: Path) -> Network:
    return parse_network(read_bytes(path, limit_bytes=strict_json.MAX_BYTES, what="genotype"), where=str(path))


def parse_network(data: bytes, *, where: str) -> Network:
    """The network that `Network.to_tree` describes, as JSON; raises `InputFileError` for anything else."""
    tree = strict_json.loads(data, where=where)
    if isinstance(tree, dict) and "baseline" in tree and "schema" not in tree:
        return _from_baseline_record(tree, where)
    return from_genotype(genotypes.parse(data, where=where))


def _from_baseline_record(tree: dict[str, Any], where: str) -> Network:
    for name in tree:
        if name not in ("baseline", "classes"):
            raise InputFileError(
                "unknown field",
                where=strict_json.place(where, strict_json.member("", name)),
                allowed="baseline, classes",
                fix="delete it",
            )
    baseline, known = tree["baseline"], BASELINES.names()
    if baseline not in known:
        raise InputFileError(
            "unknown baseline",
            where=f"{where}: baseline",
            got=strict_json.Spelling.of(baseline),
            allowed=", ".join(known),
            fix=f"did you mean {' or '.join(nearest(str(baseline), known))}?",
        )
    if "classes" not in tree:
        raise InputFileError("missing field", where=f"{where}: classes", fix='add it, such as "classes": 19')
    try:
        genotypes.check_classes(tree["classes"])
    except UsageError as error:
        raise InputFileError(
            "wrong value",
            where=f"{where}: classes",
            got=strict_json.Spelling.of(tree["classes"]),
            allowed=f"an integer, {error.allowed}",
        ) from None
    return Network(baseline, "baseline", "fixed", tree["classes"])
