"""What made a model file, for what, and what to do with it: read from its first bytes, nothing is run.

Neither a GPU nor any runtime is needed, and no code in the file is ever executed. What is known of the layouts:

- TensorRT and TensorRT-RTX plans begin with a tag (`ftrt`, `vtrt`), a 32-bit serialisation version (0), and have
  major, minor, patch and build of the library in bytes 24 to 27 (the plan reader among TensorRT's own samples;
  TensorRT-RTX 1.7.1 read back).
- TensorRT-RTX 1.7 has the file's length in bytes 16 to 23 and a mask of compute capabilities in bytes 32 to 35
  (found by building for each of them; documented nowhere, so other versions are not read so).
- Ultralytics puts a 32-bit length and that many bytes of JSON in front of a plan.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field, replace

from searchkit.errors import InputFileError

from ._model_files import ModelFacts, json_object, looks_like_onnx, onnx_facts, plain, safetensors_facts

PREFIX_BYTES = 64
"""Enough to recognise a plan; the facts of ONNX and safetensors files need the whole file."""

MAX_BYTES = 2 << 30

_TAGS = {b"ftrt": "tensorrt", b"vtrt": "tensorrt-rtx"}
_VERSION_AT = 24
_PLAN_BYTES = 28
_RTX_LENGTH_AT, _RTX_TARGETS_AT = 16, 32
_RTX_BITS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121", "newer GPUs")
_MAX_WRAPPER_BYTES = 1 << 20


@dataclass(frozen=True)
class Header:
    """What a model file says of itself.

    Attributes:
        runtime: what opens it: `tensorrt`, `tensorrt-rtx`, `ultralytics-wrapped`, `onnx`, `safetensors`, `torch-aoti`,
            `torch-export`, `torch-pickle`, `zip`, or `unknown`.
        version: of the library that wrote it, such as `10.4.0.26`; None where the file does not say.
        serialization: version of the plan's own layout; None for other files.
        size_bytes: of the whole file.
        targets: compute capabilities that a TensorRT-RTX engine was built for; empty where the file does not say.
        facts: what else is in it, by name.
        notes: remarks, among them on what is not known.
        damage: why the file cannot be whole; None if nothing that can be read so speaks against it.
    """

    runtime: str
    size_bytes: int
    version: str | None = None
    serialization: int | None = None
    targets: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    damage: str | None = None

    def advice(self) -> list[str]:
        """What to do with the file, a sentence a line."""
        lines = [f"the file is damaged ({self.damage}): copy it again or build it again"] if self.damage else []
        return lines + _advice(self)

    def to_tree(self) -> dict[str, object]:
        return {
            "schema": 1,
            "runtime": self.runtime,
            "version": self.version,
            "serialization": self.serialization,
            "size_bytes": self.size_bytes,
            "targets": list(self.targets),
            "facts": self.facts,
            "notes": list(self.notes),
            "damage": self.damage,
            "advice": self.advice(),
        }


def read_header(data: bytes, *, size_bytes: int | None = None) -> Header:
    """Recognise a file by its first bytes.

    Args:
        data: the file, or a prefix of it of at least `PREFIX_BYTES`.
        size_bytes: of the whole file where `data` is a prefix.

    Raises:
        InputFileError: the file is empty, or begins as a plan and ends before its version.
    """
    if not data:
        raise InputFileError("the file is empty", fix="copy it again")
    size = len(data) if size_bytes is None else size_bytes
    if data[:4] in _TAGS:
        return _plan(data, size)
    wrapped = _wrapped_plan(data, size)
    if wrapped:
        return wrapped
    if data[:4] == b"PK\x03\x04":
        return _archive(data, size)
    complete = len(data) >= size
    if looks_like_onnx(data, complete):
        return _described("onnx", size, onnx_facts(data, complete))
    described = safetensors_facts(data, size)
    if described:
        return _described("safetensors", size, described)
    return Header("unknown", size, notes=(f"begins with the bytes {data[:8].hex(' ')}, which no known format does",))


def _described(runtime: str, size: int, found: ModelFacts) -> Header:
    return Header(runtime, size, version=found.version, facts=found.facts, notes=found.notes, damage=found.damage)


def _plan(data: bytes, size: int) -> Header:
    if len(data) < _PLAN_BYTES:
        raise InputFileError(
            "the engine ends before the version of its runtime",
            got=f"{len(data)} bytes",
            allowed=f"at least {_PLAN_BYTES} bytes",
            fix="copy it again",
        )
    serialization = int.from_bytes(data[4:8], "little")
    header = Header(_TAGS[data[:4]], size, serialization=serialization)
    if serialization != 0:
        note = f"serialisation version {serialization} is newer than what is known here: the version was not read"
        return replace(header, notes=(note,))
    version = ".".join(str(byte) for byte in data[_VERSION_AT:_PLAN_BYTES])
    header = replace(header, version=version)
    return _rtx_plan(header, data) if header.runtime == "tensorrt-rtx" else header


def _rtx_plan(header: Header, data: bytes) -> Header:
    if header.version is None or not header.version.startswith("1.7.") or len(data) < _RTX_TARGETS_AT + 4:
        return replace(header, notes=("its compute capabilities are read from engines of version 1.7 only",))
    length = int.from_bytes(data[_RTX_LENGTH_AT:_VERSION_AT], "little")
    damage = None if length == header.size_bytes else f"it says {length} bytes and has {header.size_bytes}"
    mask = int.from_bytes(data[_RTX_TARGETS_AT : _RTX_TARGETS_AT + 4], "little")
    targets = tuple(name for bit, name in enumerate(_RTX_BITS) if mask >> bit & 1)
    unknown = mask >> len(_RTX_BITS)
    notes = (f"compute capabilities of unknown meaning: mask {unknown << len(_RTX_BITS):#x}",) if unknown else ()
    return replace(header, targets=targets, notes=notes, damage=damage)


def _wrapped_plan(data: bytes, size: int) -> Header | None:
    """A plan behind a 32-bit length and JSON, as Ultralytics writes it; None for any other file."""
    length = int.from_bytes(data[:4], "little")
    end = 4 + length
    if data[4:5] != b"{" or not 2 <= length <= _MAX_WRAPPER_BYTES:
        return None
    if len(data) < end + _PLAN_BYTES:
        return Header("ultralytics-wrapped", size, notes=("what is behind its metadata was not read",))
    if data[end : end + 4] not in _TAGS:
        return None
    inner = _plan(data[end:], size - end)
    notes = (f"{end} bytes of metadata stand before the engine; TensorRT itself cannot open it so", *inner.notes)
    return replace(inner, runtime="ultralytics-wrapped", size_bytes=size, facts=_metadata(data[4:end]), notes=notes)


def _metadata(text: bytes) -> dict[str, str]:
    tree = json_object(text)
    if tree is None:
        return {"metadata": "not JSON"}
    return {plain(key): plain(value) for key, value in tree.items()}


def _archive(data: bytes, size: int) -> Header:
    """A zip archive; its table of contents is at its end, so a prefix tells only that it is one."""
    if len(data) < size:
        return Header("zip", size, notes=("what is in it is listed at its end, which was not read",))
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError, ValueError) as error:
        return Header("zip", size, damage=plain(error))
    facts = {"entries": str(len(names))}
    if any("aotinductor/" in name for name in names):
        return Header("torch-aoti", size, facts=facts)
    if any(name.endswith("/models/model.json") for name in names):
        return Header("torch-export", size, facts=facts)
    runtime = "torch-pickle" if any(name.endswith("data.pkl") for name in names) else "zip"
    return Header(runtime, size, facts=facts)


def _advice(header: Header) -> list[str]:
    version = header.version or "the version that built it"
    if header.runtime == "tensorrt":
        return [
            f"opens with TensorRT {version} and no other build, unless it was built version compatible",
            "runs on the GPU model that it was built on, unless it was built hardware compatible; "
            "the header does not say which",
            "where it does not open: build it again there, searchkit export NETWORK --engine tensorrt",
            "an engine is code: open it only where you trust its origin",
        ]
    if header.runtime == "tensorrt-rtx":
        runs = ", ".join(header.targets) or "the compute capabilities that were chosen for it"
        lines = [f"opens with TensorRT-RTX {version} on {runs}", "an engine is code: open it only where you trust it"]
        if "sm75" in header.targets:
            lines.append("on sm75 TensorRT-RTX is slow: never publish its speed as that of the GPU; use TensorRT")
        return lines
    if header.runtime == "ultralytics-wrapped":
        return ["cut the metadata off before any other program opens it", "an engine is code: trust its origin first"]
    return _ADVICE[header.runtime]


_ADVICE = {
    "onnx": ["runs with ONNX Runtime; `searchkit doctor --target NAME` says what builds an engine of it"],
    "safetensors": ["tensors only; where they are weights, `searchkit export NETWORK --weights FILE` makes a model"],
    "torch-aoti": ["holds compiled code of one machine: open it only where you trust its origin"],
    "torch-export": ["a PyTorch program: load it with torch.export.load where you trust its origin"],
    "torch-pickle": ["a pickle can run any code when it is opened: do not open it; ask for safetensors"],
    "zip": ["an archive: unpack it with care, then inspect what is in it"],
    "unknown": ["not an engine or a model that searchkit knows"],
}
