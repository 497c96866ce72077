"""`history.jsonl`: one JSON object a line, appended while a run goes on; a line that a kill cut short is dropped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import DamagedArtifactError
from ..files import read_bytes, storage_error, write_bytes

_MAX_BYTES = 1 << 30

Row = dict[str, Any]


def append(path: Path, row: Row) -> None:
    """Add one row, flushed to the device.

    Raises:
        StorageError: the disk refused.
    """
    line = json.dumps(row, allow_nan=False).encode() + b"\n"
    try:
        with open(path, "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise storage_error(error, path, needed_bytes=len(line)) from error


def read(path: Path) -> list[Row]:
    """All whole rows; none where there is no file.

    Raises:
        DamagedArtifactError: a line that is not the last is no JSON object.
    """
    if not path.exists():
        return []
    lines = read_bytes(path, limit_bytes=_MAX_BYTES, what="history").split(b"\n")
    rows = []
    # What stands behind the last line end is nothing, or a line that was cut short.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise DamagedArtifactError("not a row of a history", where=f"{path}, line {number}", fix="delete the line")
        rows.append(row)
    return rows


def cut(path: Path, total_step: int) -> list[Row]:
    """Drop the rows behind `total_step`, which a resumed run writes again; returns the others."""
    kept = [row for row in read(path) if row.get("step", 0) <= total_step]
    write_bytes(path, b"".join(json.dumps(row, allow_nan=False).encode() + b"\n" for row in kept))
    return kept
