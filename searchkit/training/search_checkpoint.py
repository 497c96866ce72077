"""The whole state of a search, as one folder that is replaced in one step.

    supernet.safetensors   parameters and buffers of what lives
    optimisers.safetensors what both optimisers remember, `weights/<parameter>/<key>` and `architecture/...`
    state.json             what lives, how far the search is, the strategy's memory, the SHA-256 of the other files

As for a training there is no state of random numbers, and the structure of a supernet is a function of what lives, so a
search is restored by building the whole supernet, shrinking it, and loading.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..choices import Alive
from ..errors import DamagedArtifactError, InputFileError
from ..files import read_bytes, replace_directory, sha256_bytes, write_bytes
from ..strategies import Strategy
from ..supernet import Supernet
from .carry_over import named_state, restore_named_state
from .checkpoint import FIX, STATE, plain, read_tensors

SCHEMA = 1
# A strategy may remember a few numbers of every candidate.
_MAX_BYTES = 1 << 28
SUPERNET, OPTIMISERS = "supernet.safetensors", "optimisers.safetensors"


@dataclass(frozen=True)
class SearchPosition:
    """How far a search is.

    Attributes:
        identity: SHA-256 of everything that decides the search; another one's checkpoint is refused.
        step: steps that are done.
        decisions: decision points that are behind it.
        pending: sum of the losses (weights, architecture) and of steps that the history has not got yet.
        decided: by table and choice, how it was decided; see `search_decisions.Decision`.
        cost_factor: of the price in the loss, where it adapts; see `searchkit.costs.loss`.
    """

    identity: str
    step: int = 0
    decisions: int = 0
    pending: tuple[tuple[float, float | None], ...] = ()
    decided: dict[str, dict[str, Any]] = field(default_factory=dict)
    cost_factor: float = 1.0


@dataclass
class Optimisers:
    """Those of the weights and of the architecture parameters."""

    weights: torch.optim.Optimizer
    architecture: torch.optim.Optimizer

    def parts(self, supernet: Supernet) -> list[tuple[str, torch.optim.Optimizer, dict[str, torch.nn.Parameter]]]:
        """Name, optimiser and its parameters by name, of both."""
        return [
            ("weights", self.weights, supernet.network_parameters()),
            ("architecture", self.architecture, supernet.architecture_parameters()),
        ]


def save(
    path: Path, position: SearchPosition, supernet: Supernet, optimisers: Optimisers, strategy: Mapping[str, Any]
) -> None:
    """Write a checkpoint in place of the one before; after any kill one of the two is whole.

    Args:
        strategy: its state.

    Raises:
        StorageError: the disk refused; the old checkpoint is untouched.
    """
    from safetensors.torch import save as to_bytes

    remembered: dict[str, Tensor] = {}
    for which, optimiser, parameters in optimisers.parts(supernet):
        remembered |= {f"{which}/{name}": value for name, value in named_state(optimiser, parameters).items()}
    files = {SUPERNET: to_bytes(plain(supernet.state_dict())), OPTIMISERS: to_bytes(plain(remembered))}
    alive = {
        name: ["".join("01"[int(lives)] for lives in row) for row in mask] for name, mask in supernet.alive().items()
    }
    tree = {
        "schema": SCHEMA,
        **asdict(position),
        "alive": alive,
        "strategy": strategy,
        "sha256": {name: sha256_bytes(data) for name, data in files.items()},
    }
    text = json.dumps(tree, indent=1, allow_nan=False)
    with replace_directory(path, is_ours=lambda folder: (folder / STATE).is_file()) as folder:
        for name, data in files.items():
            write_bytes(folder / name, data)
        write_bytes(folder / STATE, text.encode() + b"\n")


@dataclass(frozen=True)
class Saved:
    """What `state.json` says."""

    position: SearchPosition
    alive: dict[str, list[str]]
    strategy: dict[str, Any]
    sha256: dict[str, str]


def read_state(path: Path) -> Saved:
    """How far the search of a checkpoint is.

    Raises:
        InputFileError: there is no checkpoint.
        DamagedArtifactError: `state.json` is not what it should be.
    """
    where = path / STATE
    if not where.exists():
        raise InputFileError("there is no checkpoint", where=str(path), fix="start without --resume")
    data = read_bytes(where, limit_bytes=_MAX_BYTES, what="state of the checkpoint")
    try:
        tree: Any = json.loads(data)
        if tree.pop("schema") != SCHEMA:
            raise ValueError
        hashes, alive, strategy = tree.pop("sha256"), tree.pop("alive"), tree.pop("strategy")
        if set(hashes) != {SUPERNET, OPTIMISERS} or not all(isinstance(x, dict) for x in (hashes, alive, strategy)):
            raise ValueError
        pending = tuple((float(loss), None if other is None else float(other)) for loss, other in tree.pop("pending"))
        return Saved(SearchPosition(**tree, pending=pending), alive, strategy, hashes)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise DamagedArtifactError("not the state of a search", where=str(where), fix=FIX) from None


def load_structure(saved: Saved, path: Path, supernet: Supernet, strategy: Strategy) -> None:
    """Shrink a whole supernet to what lived, and give the strategy its memory; tensors are loaded afterwards.

    Raises:
        DamagedArtifactError: the checkpoint is of another supernet or another strategy.
    """
    alive = alive_in(saved, supernet, path)
    try:
        supernet.shrink(alive)
        strategy.load_state(saved.strategy)
    except (ValueError, KeyError, IndexError, TypeError):
        raise DamagedArtifactError("the checkpoint is of another search", where=str(path), fix=FIX) from None


def alive_in(saved: Saved, supernet: Supernet, path: Path) -> Alive:
    """What lived; raises `DamagedArtifactError` where that is not of this supernet."""
    try:
        found = {name: _mask(saved.alive[name], mask.shape) for name, mask in supernet.alive().items()}
    except (KeyError, TypeError, ValueError):
        raise DamagedArtifactError("the checkpoint is of another supernet", where=str(path), fix=FIX) from None
    return found


def _mask(rows: list[str], shape: tuple[int, ...]) -> np.ndarray:
    mask = np.array([[{"0": False, "1": True}[mark] for mark in row] for row in rows], dtype=bool)
    if mask.shape != shape:
        raise ValueError
    return mask


def load_tensors(saved: Saved, path: Path, supernet: Supernet, optimisers: Optimisers) -> None:
    """Load a supernet that has been shrunk to what lived, and fresh optimisers of it.

    Raises:
        DamagedArtifactError: a file is missing, changed, or holds something else than it should.
    """
    tensors = {name: read_tensors(path / name, saved.sha256[name]) for name in (SUPERNET, OPTIMISERS)}
    try:
        supernet.load_state_dict(tensors[SUPERNET])
        remembered = tensors[OPTIMISERS]
        for which, optimiser, parameters in optimisers.parts(supernet):
            mine = {name.removeprefix(f"{which}/"): t for name, t in remembered.items() if name.startswith(f"{which}/")}
            restore_named_state(optimiser, parameters, mine)
    except (RuntimeError, KeyError, ValueError):
        raise DamagedArtifactError("the checkpoint is of another supernet", where=str(path), fix=FIX) from None
