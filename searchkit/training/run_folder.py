"""The folder of a run.

config.json         everything that decides the run, and its SHA-256
history.jsonl       losses every few steps, and validations
checkpoint/         the whole state, see `checkpoint`
best.safetensors    weights of the best validation
last.safetensors    weights at the end
weights.safetensors what to export: those of `best`
plots.svg           the history drawn: loss, learning rate, mIoU, IoU of each class
validation.png      a few samples of the last validation
tensorboard/        scalars and the sheets of all validations, where TensorBoard is installed
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import strict_json
from ..errors import DamagedArtifactError, UsageError
from ..files import read_bytes, sha256_bytes, storage_error, write_bytes, write_text
from ..label_sets import LabelSet, generic_labels
from ..networks import Network
from ..pictures import write_picture
from ..weights import MAX_WEIGHTS_BYTES
from . import history
from .history import Row
from .metrics import Confusion
from .plots import draw_plots
from .tensorboard_files import TensorBoardFiles
from .validation_pictures import ValidationPictures

CONFIG, HISTORY, CHECKPOINT = "config.json", "history.jsonl", "checkpoint"
PLOTS, VALIDATION, TENSORBOARD = "plots.svg", "validation.png", "tensorboard"
# Names of the classes, as JSON, in the metadata of weights.
LABELS = "labels"
BEST, LAST, WEIGHTS = "best.safetensors", "last.safetensors", "weights.safetensors"


class RunFolder:
    """The files of one run.

    Args:
        path: the folder.
        half: weights are kept in float16 rather than float32.
        tensorboard: also write TensorBoard's files.
        labels: names and colours of the classes in plots and pictures; generic ones if None.
    """

    def __init__(
        self, path: Path, *, half: bool = False, tensorboard: bool = False, labels: LabelSet | None = None
    ) -> None:
        self.path = path
        self.half = half
        self.checkpoint = path / CHECKPOINT
        self._labels = labels
        self._tensorboard = TensorBoardFiles(path / TENSORBOARD) if tensorboard else None

    def log(self, row: Row) -> None:
        """Add a row to the history."""
        history.append(self.path / HISTORY, row)
        if self._tensorboard is not None:
            self._tensorboard.add_scalars(self._scalars(row), row["step"])

    def _scalars(self, row: Row) -> dict[str, float]:
        found = {name: value for name, value in row.items() if isinstance(value, float)}
        shares = row.get("iou", [])
        # Classes that occur nowhere have no IoU.
        named = zip(self._label_set(len(shares)).names, shares, strict=True) if shares else ()
        return found | {f"iou/{name}": share for name, share in named if share is not None}

    def _label_set(self, classes: int) -> LabelSet:
        return self._labels or generic_labels(classes)

    def log_validation(self, step: int, stage: int, confusion: Confusion, pictures: ValidationPictures) -> None:
        """Add a validation to the history, and draw it."""
        miou, labels = confusion.mean_iou(), self._label_set(confusion.classes)
        self.log({"step": step, "stage": stage, "miou": miou, "iou": confusion.iou()})
        shown = "no labelled pixel" if miou is None else f"mIoU {100 * miou:.1f} %"
        sheet = pictures.draw(labels, f"step {step}, stage {stage + 1}, {shown}")
        write_picture(self.path / VALIDATION, sheet)
        if self._tensorboard is not None:
            self._tensorboard.add_picture("validation", sheet, step)
        self.draw_plots()

    def draw_plots(self) -> None:
        """Draw the history as it is now."""
        write_text(self.path / PLOTS, draw_plots(history.read(self.path / HISTORY), self._labels))

    def resume_history(self, total_step: int) -> list[Row]:
        """Forget what was logged behind a checkpoint."""
        if self._tensorboard is not None:
            self._tensorboard.forget_behind(total_step)
        return history.cut(self.path / HISTORY, total_step)

    def write_best(self, network: Network, state: dict[str, Tensor], identity: str, total_step: int) -> None:
        write_bytes(self.path / BEST, self._weights_bytes(network, state, identity, step=total_step))

    def write_weights(self, network: Network, state: dict[str, Tensor], identity: str) -> None:
        """The end of a run: the last weights, and those of the best validation under the name to export."""
        last = self._weights_bytes(network, state, identity)
        write_bytes(self.path / LAST, last)
        best = self.path / BEST
        data = read_bytes(best, limit_bytes=MAX_WEIGHTS_BYTES, what="weights") if best.exists() else last
        write_bytes(self.path / WEIGHTS, data)

    def _weights_bytes(
        self, network: Network, state: dict[str, Tensor], identity: str, *, step: int | None = None
    ) -> bytes:
        names = self._labels.names if self._labels else None
        return weights_bytes(network, state, identity, half=self.half, step=step, names=names)

    def close(self) -> None:
        """Let go of TensorBoard's files."""
        if self._tensorboard is not None:
            self._tensorboard.close()


def weights_bytes(
    network: Network,
    state: dict[str, Tensor],
    identity: str,
    *,
    half: bool = False,
    step: int | None = None,
    names: Sequence[str] | None = None,
) -> bytes:
    """Weights as safetensors; the metadata names the network (`digest`, `network` as JSON), the run and the classes."""
    from safetensors.torch import save

    kind = torch.float16 if half else torch.float32
    tensors = {
        name: tensor.detach().cpu().to(kind if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in state.items()
    }
    metadata = {"digest": network.digest, "network": json.dumps(network.to_tree()), "run": identity}
    if step is not None:
        metadata["step"] = str(step)
    if names is not None:
        metadata[LABELS] = json.dumps(list(names))
    return _sorted_metadata(save(tensors, metadata))


def _sorted_metadata(data: bytes) -> bytes:
    """The same file with its metadata in order: the library writes them in a random one."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    ordered = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def config_bytes(config: dict[str, Any]) -> bytes:
    """The configuration as the JSON that stands in the run's folder."""
    return json.dumps(config, indent=2).encode() + b"\n"


def identity_of(config: dict[str, Any]) -> str:
    """SHA-256 of everything that decides a run."""
    return sha256_bytes(strict_json.canonical(config))


def check_new(path: Path, *, lock: str = "") -> None:
    """Raise `UsageError` unless the folder is missing, or empty but for what a run leaves that was killed at once.

    Args:
        lock: name of the file that a run locks before it begins.
    """
    names = [entry.name for entry in path.iterdir()] if path.is_dir() else []
    if (path.exists() and not path.is_dir()) or any(name != lock and not _is_begun_config(name) for name in names):
        fix = "add --resume to go on with it, or choose another" if (path / CONFIG).exists() else "choose another"
        raise UsageError("the folder is not empty", where=str(path), fix=fix)


def _is_begun_config(name: str) -> bool:
    """Whether this is a `config.json` that was being written; the next one takes its place."""
    return name.startswith(f".{CONFIG}.") and name.endswith(".tmp")


def begin(path: Path, config: dict[str, Any], *, lock: str = "") -> None:
    """Write `config.json` into a folder that is new or empty (see `check_new`); raises `UsageError` for any other."""
    check_new(path, lock=lock)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, path) from error
    write_bytes(path / CONFIG, config_bytes(config))


def check_same(path: Path, config: dict[str, Any]) -> None:
    """Raise unless a folder holds the run that `config` describes.

    Raises:
        UsageError: there is no run, or it is another one; the first field that differs is named.
        DamagedArtifactError: `config.json` cannot be read.
    """
    if not (path / CONFIG).exists():
        raise UsageError("there is no run to resume", where=str(path), fix="start without --resume")
    data = read_bytes(path / CONFIG, limit_bytes=strict_json.MAX_BYTES, what="config of the run")
    try:
        found = json.loads(data)
    except ValueError:
        raise DamagedArtifactError("not the config of a run", where=str(path / CONFIG), fix="start anew") from None
    for key in sorted(set(found) | set(config)):
        if found.get(key) != config.get(key):
            raise UsageError(
                f"the run was started with another {key}",
                where=str(path / CONFIG),
                fix="give the same arguments, or start anew in another folder",
            )
