"""The whole state of a training, as one folder that is replaced in one step.

    model.safetensors      parameters and buffers
    average.safetensors    their running mean, where the recipe asks for one
    optimiser.safetensors  the optimiser's tensors, named `<parameter's index>.<key>`
    state.json             how far the run is, and the SHA-256 of the other files

There is no state of random numbers: each step's are drawn at the address (seed, step), see `augment.generator`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import strict_json
from ..errors import DamagedArtifactError, InputFileError
from ..files import read_bytes, replace_directory, sha256_bytes, write_bytes
from ..weights import MAX_WEIGHTS_BYTES

SCHEMA = 1
STATE = "state.json"
MODEL, AVERAGE, OPTIMISER = "model.safetensors", "average.safetensors", "optimiser.safetensors"
FIX = "delete the folder, and start again or take an older copy"


@dataclass(frozen=True)
class Position:
    """How far a run is.

    Attributes:
        identity: SHA-256 of everything that decides the run; another run's checkpoint is refused.
        stage: index of the stage.
        step: steps of that stage that are done.
        total_step: steps of the run that are done.
        best_miou: the best validation so far, a fraction; None before the first.
        pending: loss and gradient norm of each step that the history has not got yet.
    """

    identity: str
    stage: int
    step: int
    total_step: int
    best_miou: float | None = None
    pending: tuple[tuple[float, float], ...] = ()


def save(
    path: Path,
    position: Position,
    model: nn.Module,
    average: dict[str, Tensor] | None,
    optimiser: torch.optim.Optimizer,
) -> None:
    """Write a checkpoint in place of the one before; after any kill one of the two is whole.

    Raises:
        StorageError: the disk refused; the old checkpoint is untouched.
    """
    from safetensors.torch import save as to_bytes

    files = {MODEL: to_bytes(plain(model.state_dict())), OPTIMISER: to_bytes(_optimiser_tensors(optimiser))}
    if average is not None:
        files[AVERAGE] = to_bytes(plain(average))
    hashes = {name: sha256_bytes(data) for name, data in files.items()}
    with replace_directory(path, is_ours=lambda folder: (folder / STATE).is_file()) as folder:
        for name, data in files.items():
            write_bytes(folder / name, data)
        tree = {"schema": SCHEMA, **asdict(position), "sha256": hashes}
        write_bytes(folder / STATE, json.dumps(tree, indent=2).encode() + b"\n")


def read_position(path: Path) -> Position:
    """How far the run of a checkpoint is; raises as `restore`."""
    return _read_state(path)[0]


def restore(
    path: Path, model: nn.Module, average: dict[str, Tensor] | None, optimiser: torch.optim.Optimizer
) -> Position:
    """Read a checkpoint into a model, its running mean and its optimiser, which must be those of the same run.

    Raises:
        InputFileError: there is no checkpoint.
        DamagedArtifactError: a file is missing, changed, or holds something else than it should.
    """
    position, hashes = _read_state(path)
    expected = {MODEL, OPTIMISER} | ({AVERAGE} if average is not None else set())
    if set(hashes) != expected:
        raise DamagedArtifactError("the checkpoint holds other files than it should", where=str(path), fix=FIX)
    tensors = {name: read_tensors(path / name, hashes[name]) for name in sorted(expected)}
    try:
        model.load_state_dict(tensors[MODEL])
        if average is not None:
            for name, tensor in average.items():
                tensor.copy_(tensors[AVERAGE][name])
        _restore_optimiser(optimiser, tensors[OPTIMISER])
    except (RuntimeError, KeyError, ValueError):
        raise DamagedArtifactError("the checkpoint is of another network", where=str(path), fix=FIX) from None
    return position


def plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, row-major and unshared, as the format wants it."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimiser.state_dict()["state"]
    found = {f"{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}
    return plain({name: value for name, value in found.items() if isinstance(value, Tensor)})


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    # The settings come from the recipe, and the learning rate from the schedule, so the tensors are all there is.
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """One file of a checkpoint; raises `DamagedArtifactError` where it is missing or has changed."""
    from safetensors.torch import load

    try:
        data = read_bytes(path, limit_bytes=MAX_WEIGHTS_BYTES, what="checkpoint")
    except InputFileError as error:
        raise DamagedArtifactError(error.problem, where=str(path), fix=FIX) from None
    if sha256_bytes(data) != sha256:
        raise DamagedArtifactError("the content has changed", where=str(path), fix=FIX)
    tensors: dict[str, Tensor] = load(data)
    return tensors


def _read_state(path: Path) -> tuple[Position, dict[str, str]]:
    where = path / STATE
    if not where.exists():
        raise InputFileError("there is no checkpoint", where=str(path), fix="start without --resume")
    data = read_bytes(where, limit_bytes=strict_json.MAX_BYTES, what="state of the checkpoint")
    try:
        tree: Any = strict_json.loads(data, where=str(where))
        hashes = tree.pop("sha256")
        if tree.pop("schema") != SCHEMA or not isinstance(hashes, dict):
            raise ValueError
        pending = tuple((float(loss), float(norm)) for loss, norm in tree.pop("pending"))
        return Position(**tree, pending=pending), hashes
    except (InputFileError, AttributeError, KeyError, TypeError, ValueError):
        raise DamagedArtifactError("not the state of a checkpoint", where=str(where), fix=FIX) from None
