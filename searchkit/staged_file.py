"""A file that another program writes piece by piece, and that is whole or not there.

`files.write_bytes` takes all bytes at once; a video that an encoder writes is too large for that. The encoder is given
a name beside the target, of the form that `files` clears away after a kill, and the target takes its place at the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .files import _beside, _clear_dead, _refuse_special, _resolved, _sync_path, _translated


@contextmanager
def staged_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a name to write to, in the folder of `path`; it becomes `path` when the block ends well.

    On any failure or interrupt what was at `path` is whole and nothing else is left.

    Raises:
        StorageError: the disk refused, or something that is not a regular file has the name. Errors of the block itself
            pass through as they are.
        UsageError: the path cannot be a file name at all.
    """
    with _translated(path):
        target = _resolved(path)
        _refuse_special(target)
        _clear_dead(target)
        # Found out now rather than by the other program.
        _sync_path(target.parent)
    staging = _beside(target, "tmp")
    try:
        yield staging
        with _translated(path):
            _sync_path(staging)
            os.replace(staging, target)
            _sync_path(target.parent)
    finally:
        with suppress(OSError):
            os.unlink(staging)
