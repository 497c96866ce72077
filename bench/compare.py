"""The regression check: cells of two files, joined, each with how much slower it became and whether that is too much.

A cell is a regression only where the whole interval lies above the threshold, and passes only where all of it lies at
or below. Between the two it cannot be said, which is told apart from passing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from searchkit.errors import UsageError

from .change import CONFIDENCE, MAX_MORE_ROUNDS, Change, Interval, Side
from .compare_sources import Series, Source, check_networks, differences, pairs

SCHEMA = 1
MACHINES, PROTOCOLS = "machines", "protocols"
ACROSS = (MACHINES, PROTOCOLS)

REGRESSION, PASSES, UNDECIDED = "regression", "passes", "cannot say"
SLOWER, FASTER, ALIKE = "slower", "faster", "no difference seen"

_RULE = re.compile(r"(?:(?P<networks>[^=]+)=)?\+(?P<value>\d{1,6}(?:\.\d{1,6})?)(?P<unit>%|ms)")
_SYNTAX = "'+5%', '+0.5ms', or one for some networks: 'ssr,fasterseg=+2%'"


@dataclass(frozen=True, slots=True)
class Rule:
    """A threshold: `value` percent or milliseconds more; for all networks where none is named."""

    value: float
    unit: str
    networks: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"+{self.value:g}{'' if self.unit == '%' else ' '}{self.unit}"

    @property
    def is_relative(self) -> bool:
        return self.unit == "%"

    @property
    def limit(self) -> float:
        """A ratio, or milliseconds."""
        return 1 + self.value / 100 if self.is_relative else self.value


@dataclass(frozen=True, slots=True)
class Comparison:
    """One cell of both files.

    Attributes:
        rule: None where no threshold was given for it.
        finding: whether it became slower at all; says nothing of the threshold.
        verdict: None without a threshold.
        more_rounds: on each side, that would decide; None where it is decided, or where too many would be needed.
        protocol, machine, versions: what is not the same, as (old, new).
    """

    old: Series
    new: Series
    change: Change
    rule: Rule | None
    protocol: dict[str, tuple[str, str]]
    machine: dict[str, tuple[str, str]]
    versions: dict[str, tuple[str, str]]

    @property
    def finding(self) -> str:
        ratio = self.change.ratio
        if ratio.low is not None and ratio.low > 1:
            return SLOWER
        return FASTER if ratio.high is not None and ratio.high < 1 else ALIKE

    @property
    def verdict(self) -> str | None:
        if self.rule is None:
            return None
        interval = self._judged
        if interval.low is None or interval.high is None:
            return UNDECIDED
        if interval.low > self.rule.limit:
            return REGRESSION
        return PASSES if interval.high <= self.rule.limit else UNDECIDED

    @property
    def more_rounds(self) -> int | None:
        if self.rule is None or self.verdict != UNDECIDED:
            return None
        return self.change.more_rounds(self.rule.limit, relative=self.rule.is_relative)

    @property
    def advice(self) -> str:
        """What would decide an undecided cell, in words; nothing for the others."""
        if self.verdict != UNDECIDED:
            return ""
        more = self.more_rounds
        if more is None and self._judged.low is None:
            return "one sample says nothing of how much it varies: measure again with more rounds"
        if more is None:
            return f"more than {MAX_MORE_ROUNDS} more rounds would be needed: it lies at the threshold"
        return f"about {more} more round{'s' if more > 1 else ''} on each side would decide"

    @property
    def _judged(self) -> Interval:
        assert self.rule is not None
        return self.change.ratio if self.rule.is_relative else self.change.difference_ms

    def to_tree(self) -> dict[str, Any]:
        return {
            "network": self.new.network,
            **asdict(self.new.key),
            "old_ms": self.change.old.median_ms,
            "new_ms": self.change.new.median_ms,
            "old_runs": self.change.old.runs,
            "new_runs": self.change.new.runs,
            "ratio": asdict(self.change.ratio),
            "difference_ms": asdict(self.change.difference_ms),
            "finding": self.finding,
            "threshold": str(self.rule) if self.rule else None,
            "verdict": self.verdict,
            "more_rounds": self.more_rounds,
            "protocol_differs": self.protocol,
            "machine_differs": self.machine,
            "versions_differ": self.versions,
            "warnings": {"old": self.old.warnings, "new": self.new.warnings},
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All cells of both files.

    Attributes:
        only_old, only_new: cells that the other file lacks.
        loud: differences that were let through by name, a sentence each.
        remarks: how the files were read, and why cells are missing.
    """

    old: Source
    new: Source
    comparisons: tuple[Comparison, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    loud: tuple[str, ...]
    remarks: tuple[str, ...]

    def failed(self, *, strict_cells: bool = False) -> bool:
        """Whether a cell is a regression, or, if `strict_cells`, one is missing on either side."""
        missing = bool(self.only_old or self.only_new)
        return (strict_cells and missing) or any(item.verdict == REGRESSION for item in self.comparisons)

    def to_tree(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": SCHEMA,
            "kind": "comparison of measurements",
            "confidence": CONFIDENCE,
            "old": self.old.path,
            "new": self.new.path,
            "warnings": list(self.loud),
            "remarks": list(self.remarks),
            "cells": [item.to_tree() for item in self.comparisons],
            "only_old": list(self.only_old),
            "only_new": list(self.only_new),
        }


def rules_of(arguments: Sequence[str]) -> list[Rule]:
    """What `--fail-if` says.

    Raises:
        UsageError: one that is no threshold, or two for one network.
    """
    found = [_rule(argument) for argument in arguments]
    # No name stands for all the others.
    named = [name for rule in found for name in rule.networks or ("",)]
    for name in named:
        if named.count(name) > 1:
            whom = name or "all networks"
            raise UsageError(f"two thresholds for {whom}", where="--fail-if", fix="give one")
    return found


def _rule(argument: str) -> Rule:
    match = _RULE.fullmatch(argument.replace(" ", ""))
    names = tuple(match["networks"].split(",")) if match and match["networks"] else ()
    if match is None or not all(names):
        raise UsageError("not a threshold", where="--fail-if", got=argument, allowed=_SYNTAX)
    return Rule(float(match["value"]), match["unit"], names)


def compare(old: Source, new: Source, rules: Sequence[Rule] = (), across: Sequence[str] = ()) -> Report:
    """Join the cells of two files and judge each.

    Args:
        rules: as `rules_of`; that of a network goes before that of all.
        across: of `ACROSS`, what may differ.

    Raises:
        UsageError: protocols or machines differ and `across` does not name them; no cell in common; a threshold for a
            network that neither file has.
    """
    _check_across(across)
    check_networks([name for rule in rules for name in rule.networks], (old, new), "--fail-if")
    joined, left, right = pairs(old, new)
    comparisons = tuple(_compared(one, other, rules) for one, other in joined)
    loud = tuple(_loud(comparisons, old, new, across))
    return Report(
        old=old,
        new=new,
        comparisons=comparisons,
        only_old=tuple(item.name for item in left),
        only_new=tuple(item.name for item in right),
        loud=loud,
        remarks=(*old.remarks, *new.remarks, *_failures(old), *_failures(new)),
    )


def _check_across(across: Sequence[str]) -> None:
    for name in across:
        if name not in ACROSS:
            raise UsageError("unknown word", where="--across", got=name, allowed=" or ".join(ACROSS))


def _compared(old: Series, new: Series, rules: Sequence[Rule]) -> Comparison:
    named = [rule for rule in rules if {old.network, new.network} & set(rule.networks)]
    general = [rule for rule in rules if not rule.networks]
    return Comparison(
        old=old,
        new=new,
        change=Change(Side.of(old.rounds_ms), Side.of(new.rounds_ms)),
        rule=next(iter(named + general), None),
        protocol=differences(old.protocol, new.protocol),
        machine=differences(old.machine, new.machine) if old.machine and new.machine else {},
        versions=differences(old.versions, new.versions),
    )


def _loud(comparisons: Sequence[Comparison], old: Source, new: Source, across: Sequence[str]) -> list[str]:
    """What differs and was let through; refuses what was not, all at once."""
    said, refused = [], {}
    for word, whom in ((PROTOCOLS, "how it was measured"), (MACHINES, "the machine")):
        found: dict[str, tuple[str, str]] = {}
        for item in comparisons:
            found = (item.protocol if word == PROTOCOLS else item.machine) | found
        text = "; ".join(f"{name} is {_cut(one)} and {_cut(other)}" for name, (one, other) in sorted(found.items()))
        if text and word in across:
            said.append(f"the {word} differ, so a ratio tells of {whom} as much as of the software: {text}")
        elif text:
            refused[word] = f"{word} differ: {text}"
    if refused:
        options = " ".join(f"--across {word}" for word in refused)
        raise UsageError(
            f"these were not measured alike, {', and '.join(refused.values())}",
            where=f"{old.path} and {new.path}",
            fix=f"measure again in the same way, or give `{options}` if that is what you want to compare",
        )
    return said


def _failures(source: Source) -> list[str]:
    return [
        f"{source.path}: {item.network} on {item.backend} was not measured: {item.problem}" for item in source.failures
    ]


def _cut(text: str) -> str:
    return repr(text if len(text) <= 90 else text[:87] + "...")
