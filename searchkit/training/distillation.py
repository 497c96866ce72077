"""Knowledge distillation: a trained network, the teacher, whose answers another one learns too.

Source: Chen et al. (FasterSeg), ICLR 2020, section 3.3, Eq. 4. The teacher is trained before; it is frozen, in
evaluation mode, and costs one forward pass a step without gradients.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import strict_json
from ..blocks import resize
from ..errors import InputFileError, UsageError
from ..label_sets import LabelSet
from ..networks import Network, parse_network, resolve
from ..weights import load_weights, read_metadata
from .recipe import Distillation
from .run_folder import BEST, CONFIG, LABELS, WEIGHTS

# What a search that has one leaves beside its network.
TEACHER = "teacher.json"


def divergence(student: Tensor, teacher: Tensor, how: Distillation) -> Tensor:
    """Kullback-Leibler divergence between the class distributions of a student and its teacher, a scalar.

    Both are divided by the temperature first, and the divergence is multiplied by its square, so that gradients keep
    their size. All pixels count, those without a label too. The teacher gets no gradient.

    Args:
        student: logits N x C x H x W.
        teacher: logits N x C x h x w, which are resized to the student's.
    """
    wanted = resize(teacher.detach().float(), student.shape[-2:])
    of_student = F.log_softmax(student.float() / how.temperature, dim=1)
    of_teacher = F.log_softmax(wanted / how.temperature, dim=1)
    if how.direction == "student||teacher":
        terms = of_student.exp() * (of_student - of_teacher)
    else:
        terms = of_teacher.exp() * (of_teacher - of_student)
    count = student.numel() if how.mean == "elements" else student.numel() // student.shape[1]
    return terms.sum() * (how.temperature**2 / count)


@dataclass(frozen=True)
class Teacher:
    """A teacher that is ready.

    Attributes:
        module: frozen, in evaluation mode.
        digest: of its network.
        sha256: of its weights file.
    """

    module: nn.Module
    digest: str
    sha256: str

    def to_tree(self) -> dict[str, str]:
        """What names it in the configuration of a run."""
        return {"digest": self.digest, "weights": self.sha256}


def find_teacher(argument: str, weights: Path | None) -> tuple[Network, Path]:
    """The network and the weights file that `--teacher` and `--teacher-weights` name.

    Args:
        argument: a folder of `searchkit train`, or weights of one; where `weights` is given, any network.

    Raises:
        UsageError: there is no such file or network; it has no weights.
        InputFileError: the weights do not say what network they are of.
    """
    if weights is not None:
        return resolve(argument), weights
    path = Path(argument)
    # Unlike `Path.is_file`, this also takes a name that is too long for the disk.
    if os.path.isfile(path / CONFIG):
        return _of_weights(_of_run(path))
    if path.suffix == ".safetensors":
        return _of_weights(path)
    resolve(argument)
    raise UsageError(
        "a teacher needs its weights",
        where="--teacher",
        got=argument,
        allowed="the folder of a training, or weights from one",
        fix="name one of these, or add --teacher-weights",
    )


def _of_run(folder: Path) -> Path:
    if (folder / WEIGHTS).exists():
        return folder / WEIGHTS
    searched = folder / TEACHER
    if searched.exists():
        raise UsageError(
            "a search finds a teacher and does not train it",
            where=str(folder),
            fix=f"train {searched} first, and name the folder of that training",
        )
    fix = "name the folder of a training that has ended"
    if (folder / BEST).exists():
        fix += f", or {BEST} in this one"
    raise UsageError(f"the teacher's folder has no {WEIGHTS}", where=str(folder), fix=fix)


def _of_weights(path: Path) -> tuple[Network, Path]:
    record = read_metadata(path).get("network")
    if record is None:
        raise InputFileError(
            "the weights do not say what network they are of",
            where=str(path),
            fix="give the network as --teacher and this file as --teacher-weights",
        )
    return parse_network(record.encode(), where=f"{path}: network"), path


def check_teacher(network: Network, weights: Path, labels: LabelSet) -> None:
    """Raise `UsageError` unless a teacher answers in the classes of a data set."""
    if network.classes != len(labels):
        raise UsageError(
            "the teacher has another number of classes",
            where="--teacher",
            got=network.classes,
            allowed=str(len(labels)),
            fix="take a teacher that was trained on the same classes",
        )
    for index, (found, wanted) in enumerate(zip(_classes(weights, labels), labels.names, strict=True)):
        if found != wanted:
            raise UsageError(
                "the teacher was trained on other classes",
                where=f"--teacher: class {index}",
                got=found,
                allowed=wanted,
                fix="take a teacher that was trained on the same classes",
            )


def _classes(weights: Path, labels: LabelSet) -> Sequence[str]:
    """What the classes of a weights file are called; those of `labels` where it does not say."""
    recorded = read_metadata(weights).get(LABELS)
    if recorded is None:
        return labels.names
    names = strict_json.loads(recorded.encode(), where=f"{weights}: {LABELS}")
    if not isinstance(names, list) or len(names) != len(labels) or not all(isinstance(name, str) for name in names):
        raise InputFileError("the names of its classes cannot be read", where=str(weights), fix="take other weights")
    return names


def load_teacher(network: Network, weights: Path, device: torch.device) -> Teacher:
    """Build and load it; raises `InputFileError` where the weights do not fit the network."""
    module = network.build().eval()
    loaded = load_weights(module, weights, digest=network.digest)
    return Teacher(module.requires_grad_(False).to(device), network.digest, loaded.sha256 or "")
