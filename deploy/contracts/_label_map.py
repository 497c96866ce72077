"""What the contracts whose answer is a label map have in common."""

from __future__ import annotations

from searchkit.errors import UsageError
from searchkit.label_sets import MAX_CLASSES


def check_label_map(classes: int, io: str) -> None:
    """Raise `UsageError` where a label map of bytes cannot tell `classes` apart: 255 stands for "ignore" everywhere."""
    if classes > MAX_CLASSES:
        raise UsageError(
            "too many classes for a uint8 label map",
            where=f"--io {io}",
            got=classes,
            allowed=f"at most {MAX_CLASSES}",
            fix="use --io raw",
        )
