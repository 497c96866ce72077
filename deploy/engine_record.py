"""`engines.json` of a bundle: what made each engine, for which devices, from which model.

An engine is code. Its record is data and may be read by anyone; the engine itself is opened only where its origin is
trusted, and only if it is the one that the record is about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from searchkit.errors import DamagedArtifactError
from searchkit.files import sha256_bytes

from .backends import Engine
from .bundle import Bundle

RECORDS = "engines.json"
_FOLDER = "engines/"
_SUFFIX = re.compile(r"\.[a-z0-9_.-]{1,16}")


@dataclass(frozen=True)
class EngineRecord:
    """What a bundle says of one engine.

    Attributes:
        file: its name in the bundle.
        backend: that made it and runs it.
        version: of the compiler; engines are tied to it.
        targets: what it runs on, such as `sm75`.
        bytes, sha256: of the engine.
        onnx_sha256: of the model that it was made from.
        options: settings of the build.
    """

    file: str
    backend: str
    version: str
    targets: tuple[str, ...]
    bytes: int
    sha256: str
    onnx_sha256: str
    options: dict[str, str]


def engine_files(engines: Sequence[Engine], onnx_sha256: str) -> tuple[dict[str, bytes], list[EngineRecord]]:
    """The engines, at most one a backend, as files of a bundle, and their records; nothing where there are none."""
    files: dict[str, bytes] = {}
    records: list[EngineRecord] = []
    for engine in sorted(engines, key=lambda engine: engine.backend):
        assert _SUFFIX.fullmatch(engine.suffix), engine.suffix
        name = f"{_FOLDER}{engine.backend}{engine.suffix}"
        assert name not in files, "one engine a backend"
        files[name] = engine.data
        records.append(
            EngineRecord(
                file=name,
                backend=engine.backend,
                version=engine.version,
                targets=tuple(engine.targets),
                bytes=len(engine.data),
                sha256=sha256_bytes(engine.data),
                onnx_sha256=onnx_sha256,
                options=dict(sorted(engine.options.items())),
            )
        )
    if records:
        tree = {"schema": 1, "engines": [asdict(record) for record in records]}
        files[RECORDS] = (json.dumps(tree, indent=2) + "\n").encode()
    return files, records


def read_records(bundle: Bundle) -> list[EngineRecord]:
    """The records of a bundle's engines, each of an engine that is there and is the one it was.

    Raises:
        DamagedArtifactError: a record is none, is of another engine or of another model, or an engine has no record.
    """
    held = {name for name in bundle.entries if name.startswith(_FOLDER)}
    if RECORDS not in bundle.entries:
        if held:
            raise _damaged(bundle, "an engine without a record", sorted(held)[0])
        return []
    try:
        records = [_record(tree) for tree in bundle.json(RECORDS)["engines"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(bundle, "not the records of engines", str(error)) from None
    if sorted(record.file for record in records) != sorted(held):
        raise _damaged(bundle, "records of other engines than there are", sorted(held))
    if len({record.backend for record in records}) != len(records):
        raise _damaged(bundle, "two engines for one backend", [record.backend for record in records])
    for record in records:
        entry = bundle.entries[record.file]
        if (record.sha256, record.bytes) != (entry.sha256, entry.bytes):
            raise _damaged(bundle, "the record of another engine", record.file)
        if record.onnx_sha256 != bundle.entries["model.onnx"].sha256:
            raise _damaged(bundle, "an engine of another model", record.file)
    return records


def _record(tree: Any) -> EngineRecord:
    record = EngineRecord(**{**tree, "targets": tuple(tree["targets"]), "options": dict(tree["options"])})
    texts = [record.file, record.backend, record.version, record.sha256, record.onnx_sha256, *record.targets]
    texts += [*record.options, *record.options.values()]
    typed = type(record.bytes) is int and isinstance(tree["targets"], list)
    if not typed or not all(isinstance(text, str) for text in texts):
        raise ValueError("a value of another type")
    return record


def _damaged(bundle: Bundle, problem: str, got: object) -> DamagedArtifactError:
    return DamagedArtifactError(problem, where=str(bundle.path / RECORDS), got=got, fix="export it again")
