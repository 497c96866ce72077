"""Does an engine fit this machine and this model? Asked before the runtime sees a byte of it.

An engine is code for one version of one library and, with TensorRT, for one GPU. Its header says the version; what
else it was built from stands in `Engine.options`, which a bundle keeps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from searchkit.errors import BackendUnavailableError, DamagedArtifactError, InputFileError

from ..engine_header import Header, read_header


@runtime_checkable
class RecordedModel(Protocol):
    """A model that kept what its engine was built from."""

    def engine_options(self, backend: str) -> Mapping[str, str]:
        """`Engine.options` of the engine that `engine(backend)` gives; empty where nothing was kept."""


def recorded_options(model: object, backend: str) -> Mapping[str, str]:
    """What is recorded of a model's engine; empty where nothing is."""
    return model.engine_options(backend) if isinstance(model, RecordedModel) else {}


def onnx_digest(onnx: bytes) -> str:
    """SHA-256 of a model, by which an engine names what it was built from."""
    return hashlib.sha256(onnx).hexdigest()


def rebuild(backend: str, sm: str) -> str:
    """What to do about an engine that does not fit."""
    return f"build it again here: searchkit export NETWORK --engine {backend} --target {sm}"


def check_header(data: bytes, *, runtime: str, version: str, sm: str, backend: str) -> Header:
    """Refuse an engine of another library, of another version, or for another compute capability.

    Args:
        data: the engine.
        runtime: what it must be of: `tensorrt` or `tensorrt-rtx`.
        version: of the installed library.
        sm: of the GPU here.

    Raises:
        DamagedArtifactError: it is no engine, or is cut short.
        BackendUnavailableError: it is an engine, but not for here; the message has the command that builds one.
    """
    try:
        header = read_header(data)
    except InputFileError as error:
        raise DamagedArtifactError(error.problem, where="engine", got=error.got, fix=rebuild(backend, sm)) from None
    if header.runtime != runtime:
        raise DamagedArtifactError(
            "not an engine of this backend",
            where="engine",
            got=header.runtime,
            allowed=runtime,
            fix=rebuild(backend, sm),
        )
    if header.damage:
        raise DamagedArtifactError("the engine is damaged", where="engine", got=header.damage, fix=rebuild(backend, sm))
    if header.version is None or not same_version(header.version, version):
        raise BackendUnavailableError(
            f"the engine was built by another version of {runtime}",
            got=header.version or "a version that cannot be read",
            allowed=version,
            fix=rebuild(backend, sm),
        )
    if header.targets and sm not in header.targets:
        raise BackendUnavailableError(
            "the engine was built for other GPUs", got=", ".join(header.targets), allowed=sm, fix=rebuild(backend, sm)
        )
    return header


def same_version(one: str, other: str) -> bool:
    """Whether two versions agree as far as both go: wheels of TensorRT 10.4 leave the build number out."""
    pairs = zip(numbers(one), numbers(other), strict=False)
    return len(numbers(one)) >= 3 and len(numbers(other)) >= 3 and all(a == b for a, b in pairs)


def numbers(version: str) -> tuple[int, ...]:
    """Major, minor, patch and build of a version, as far as it goes."""
    return tuple(int(part) for part in version.split(".")[:4] if part.isdigit())


def check_recorded(recorded: Mapping[str, str], here: Mapping[str, str], *, backend: str, sm: str) -> None:
    """Refuse an engine whose record differs from what it would be here; fields that were not recorded are not asked.

    Args:
        recorded: `Engine.options` of the engine.
        here: the same fields, as they are here.

    Raises:
        BackendUnavailableError: a field differs.
    """
    for field, value in here.items():
        if field in recorded and recorded[field] != value:
            raise BackendUnavailableError(
                "the engine was built from or for something else",
                where=f"engine: {field}",
                got=recorded[field],
                allowed=value,
                fix=rebuild(backend, sm),
            )
