"""The errors that searchkit raises on purpose, each with its exit code.

A person who meets one should need nothing else: it says where the trouble is, what was found, what is allowed and what
to do. Anything that is not a `SearchkitError` and reaches the command line is a bug of searchkit.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MAX_SHOWN = 80


class SearchkitError(Exception):
    """Base of every deliberate refusal.

    Args:
        problem: what is wrong, as a phrase ("unknown field", "file is not UTF-8").
        where: file and field, such as `a.json: stages[1].layers[3].dilation`.
        got: the value found; shown by `repr`, cut at 80 characters.
        allowed: what would have been accepted, as a phrase.
        fix: what to do next, as an imperative sentence.
    """

    exit_code = 1

    def __init__(
        self,
        problem: str,
        *,
        where: str | None = None,
        got: object = None,
        allowed: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.got = got
        self.allowed = allowed
        self.fix = fix

    def at(self, prefix: str) -> SearchkitError:
        """The same error, its place prefixed: outer layers know the file, inner ones the field."""
        self.where = f"{prefix}: {self.where}" if self.where else prefix
        return self

    def __str__(self) -> str:
        text = f"{self.where}: {self.problem}" if self.where else self.problem
        details = []
        if self.got is not None:
            details.append(f"got {shown(self.got)}")
        if self.allowed:
            details.append(f"allowed: {self.allowed}")
        if details:
            text += " (" + "; ".join(details) + ")"
        if self.fix:
            text += f". {self.fix[0].upper()}{self.fix[1:]}"
        return text if text.endswith((".", "?")) else text + "."


class UsageError(SearchkitError):
    """The words of the command, or the arguments of the call, cannot be carried out."""

    exit_code = 2


class InputFileError(SearchkitError):
    """A file that a person gave is not what it should be."""

    exit_code = 3


class StorageError(SearchkitError):
    """The disk refused: full, read-only, missing folder, input/output error."""

    exit_code = 4


class DamagedArtifactError(SearchkitError):
    """Something searchkit wrote does not hold what it was written to hold."""

    exit_code = 5


class VerificationError(DamagedArtifactError):
    """An exported network is not the same function as the PyTorch network it came from."""


class SearchFailedError(SearchkitError):
    """A search cannot go on: what it computes is no number, or nothing it may choose is left."""

    exit_code = 6


class TrainingFailedError(SearchkitError):
    """A training cannot go on: its loss or its gradient is no number."""

    exit_code = 6


class BackendUnavailableError(SearchkitError):
    """A backend cannot run here; the message says why and how to install it."""

    exit_code = 7


def shown(value: object) -> str:
    """`repr`, cut to 80 characters, so that a hostile file cannot flood the terminal."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The names closest to `name`, best first; all of them where there are at most `count`."""
    names = sorted(known)
    if len(names) <= count:
        return names
    return difflib.get_close_matches(name, names, n=count, cutoff=0.3) or names[:count]


def unknown_name(noun: str, name: str, known: Iterable[str], *, where: str | None = None) -> UsageError:
    """A refusal of an unknown name that lists the nearest known ones."""
    names = list(known)
    return UsageError(
        f"unknown {noun}",
        where=where,
        got=name,
        allowed=", ".join(sorted(names)) or "none is installed",
        fix=f"did you mean {' or '.join(nearest(name, names))}?" if names else None,
    )
