"""Files of driving stacks, one stack a file: what each needs beside the model to load it.

The files of a stack make up one folder; the model (and engines, where a stack takes them) are copied to the places in
it that the stack's module names. Nothing here was loaded by the stack itself: the files are written against the
documented keys, and the tests hold them to lists of those.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from searchkit.errors import UsageError
from searchkit.label_sets import LabelSet
from searchkit.registry import Registry
from searchkit.sizes import Size

from ..contracts import TensorSpec

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TARGET = re.compile(r"sm[0-9]{2,3}")


@dataclass(frozen=True)
class Subject:
    """What is being packed.

    Attributes:
        name: of the network; any text, stacks write it as `identifier` makes it.
        io: the tensor contract, by name.
        size: height and width of the input image.
        input, output: the model's tensors, batch 1.
        labels: names and colours of the classes.
        precision: `fp32`, `fp16` or `int8`.
        mean, std: of RGB scaled to [0, 1].
        model_file: name of the ONNX file.
        engines: target such as `sm75` to file name, of engines made by TensorRT. No stack here loads those of
            TensorRT-RTX.

    Raises:
        UsageError: a file name that is a path or needs quoting, or a target of another form.
    """

    name: str
    io: str
    size: Size
    input: TensorSpec
    output: TensorSpec
    labels: LabelSet
    precision: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    model_file: str = "model.onnx"
    engines: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.model_file, *self.engines.values()):
            if not _FILE_NAME.fullmatch(name):
                raise UsageError("not a file name that every stack reads", got=name, allowed="letters, digits, . _ -")
        for target in self.engines:
            if not _TARGET.fullmatch(target):
                raise UsageError("not a target", where="engines", got=target, allowed="such as sm75")

    @property
    def classes(self) -> int:
        """How many the network tells apart; they may be more than have a name."""
        shape = dict(zip(self.output.layout, self.output.shape, strict=True))
        return len(self.labels) if self.output.name == "labels" else shape["C"]


class Stack(ABC):
    """One driving stack.

    Attributes:
        name: of the plug-in, as in lists.
        contracts: tensor contracts that it can read, by name.
        half: whether it takes models whose own inputs and outputs are half precision.
    """

    name: str
    contracts: tuple[str, ...]
    half: bool = False

    def files(self, subject: Subject) -> dict[str, bytes]:
        """The stack's files, relative path to content; the same bytes every time.

        Raises:
            UsageError: the stack cannot read the subject's tensor contract, or its half-precision tensors.
        """
        if subject.io.replace("_", "-") not in self.contracts:
            raise UsageError(
                f"{self.name} cannot read this tensor contract",
                where="--io",
                got=subject.io,
                allowed=", ".join(self.contracts),
                fix=f"export it with --io {self.contracts[0]}",
            )
        if "float16" in (subject.input.dtype, subject.output.dtype) and not self.half:
            raise UsageError(
                f"{self.name} takes no half-precision inputs and outputs",
                got=f"{subject.input.dtype} in, {subject.output.dtype} out",
                allowed="float32",
                fix="export it with float32 inputs and outputs",
            )
        return {path: text.encode("ascii") for path, text in self.texts(subject).items()}

    @abstractmethod
    def texts(self, subject: Subject) -> dict[str, str]:
        """The files of a subject whose contract the stack reads, in ASCII."""


STACKS: Registry[Stack] = Registry("deploy.stacks", "STACK", "driving stack")


def readers(io: str) -> list[str]:
    """Names of the stacks that can read a tensor contract, sorted."""
    wanted = io.replace("_", "-")
    return [name for name in STACKS.names() if wanted in STACKS.load(name).contracts]
