"""Names that no stack's file format can trip over.

Class names and network names are other people's text. The formats here separate by `;`, `,`, quotes, `#`, `:` or line
ends, some in parsers that know no escape, so a name keeps its ASCII letters, digits and `. _ -` and spaces; anything
else becomes `_`. Labels are found by their index, so nothing but the spelling is lost.
"""

from __future__ import annotations

import re

from . import Subject

_MAX_CHARACTERS = 64
_UNSAFE = re.compile(r"[^A-Za-z0-9 ._-]")


def identifier(name: str) -> str:
    """A name for folders and models: letters, digits, `_` and `-`, never empty, never starting with a `-`."""
    kept = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:_MAX_CHARACTERS].lstrip("-")
    return kept if re.search(r"[A-Za-z0-9]", kept) else "network"


def class_names(subject: Subject) -> list[str]:
    """One name a class, unlike each other, in the order of the labels."""
    names: list[str] = []
    given = subject.labels.names
    for index in range(subject.classes):
        name = _UNSAFE.sub("_", given[index]).strip()[:_MAX_CHARACTERS].strip() if index < len(given) else ""
        # Letters, so that no parser takes it for a number or a flag.
        if not re.search(r"[A-Za-z]", name):
            name = f"class {index}"
        names.append(name if name not in names else _other(name, index, names))
    return names


def _other(name: str, index: int, taken: list[str]) -> str:
    name = f"{name}_{index}"
    while name in taken:
        name += "_"
    return name


def colours(subject: Subject) -> list[tuple[int, int, int]]:
    """One RGB colour a class; black where the palette has none."""
    palette = subject.labels.palette
    return [palette[index] if index < len(palette) else (0, 0, 0) for index in range(subject.classes)]


def lines(rows: list[str]) -> str:
    """Rows, each ended."""
    return "".join(f"{row}\n" for row in rows)
