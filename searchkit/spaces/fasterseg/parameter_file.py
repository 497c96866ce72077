"""Architecture parameters of a student and its teacher in one file, and the networks that they are decoded to.

    {"student": {"alpha_1_0": [[...], ...], ...}, "teacher": {"alpha_0_0": [[...], ...], ...}, "source": "..."}

A network's tables have the release's names and layout, see `ArchitectureParameters.from_release`. Beside them may stand
`mIoU02`, `latency02`, `mIoU12` and `latency12` (fractions, ms) of the pairs of branches that end at 1/8 and 1/32, and
at 1/16 and 1/32. The student's decide on the pair, by Eq. 5, and the teacher has the same one; without them it is the
pair at 1/16 and 1/32. `teacher`, `source` and `layout` (words) may be left out. Widths, stem and head are the paper's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any, cast, get_args

from ... import __version__
from ...errors import InputFileError, UsageError, nearest, unknown_name
from ...genotype import Genotype, Provenance
from ...strict_json import Spelling, member, place
from .decoding import BRANCH_PAIRS, ArchitectureParameters, Rule, best_branches, genotype_of
from .genotype import WIDTHS, FasterSegGenotype

STUDENT, TEACHER = "student", "teacher"
_WORDS = ("source", "layout")
_TABLE = re.compile(r"(alpha|ratio)_[0-9]{1,9}_[012]|beta_[0-9]{1,9}_[12]")
_TABLES = "alpha_N_0 to alpha_N_2, beta_N_1, beta_N_2, ratio_N_0 to ratio_N_2"
_MEASURED: dict[tuple[str, tuple[int, ...]], str] = {
    (kind, pair): "{}{}{}".format(kind, *pair) for pair in BRANCH_PAIRS for kind in ("mIoU", "latency")
}
# What the file calls the tables of `ArchitectureParameters`.
_NAMES = {"operators": "alpha", "widths": "ratio"}
_SOURCE_BYTES = 256
_OF_TEACHER: dict[str, Any] = {"widths": WIDTHS[-1:], "stem_width": WIDTHS[-1], "head_width": WIDTHS[-1]}


def networks_of(tree: Mapping[str, Any], rule: str) -> tuple[FasterSegGenotype, dict[str, Genotype]]:
    """The student, and the teacher where the file has one.

    Raises:
        UsageError: there is no such rule.
        InputFileError: the file holds something else; `where` names the field.
    """
    if rule not in get_args(Rule):
        raise unknown_name("rule", rule, get_args(Rule), where="--rule")
    _check_keys(tree, "", (STUDENT, TEACHER, *_WORDS))
    for name in _WORDS:
        if not isinstance(tree.get(name, ""), str):
            raise InputFileError("not words", where=name, got=Spelling.of(tree[name]))
    if STUDENT not in tree:
        raise InputFileError("missing field", where=STUDENT, fix="check that this is the file you meant")
    networks = {name: _tables(tree[name], name) for name in (STUDENT, TEACHER) if name in tree}
    pair, source = _pair(networks[STUDENT]), tree.get("source", "")
    found = {name: _decoded(tables, name, pair, cast(Rule, rule), source) for name, tables in networks.items()}
    return found.pop(STUDENT), dict(found)


def _check_keys(tree: Mapping[str, Any], path: str, allowed: Collection[str]) -> None:
    for name in tree:
        if name not in allowed:
            raise InputFileError(
                "unknown field",
                where=member(path, name),
                allowed=", ".join(allowed),
                fix=f"did you mean {' or '.join(nearest(name, allowed))}?",
            )


def _tables(tree: Any, path: str) -> Mapping[str, Any]:
    """What the file says of one network, each field by itself being what it should be."""
    if not isinstance(tree, dict):
        raise InputFileError("not a network's tables", where=path, got=Spelling.of(tree), allowed=_TABLES)
    for name, value in tree.items():
        where = member(path, name)
        if _TABLE.fullmatch(name):
            _check_table(value, where)
        elif name not in _MEASURED.values():
            allowed = f"{_TABLES}, {', '.join(_MEASURED.values())}"
            raise InputFileError("unknown field", where=where, allowed=allowed)
        elif not _is_number(value):
            raise InputFileError("not a number", where=where, got=Spelling.of(value))
    return tree


def _check_table(value: Any, path: str) -> None:
    if not isinstance(value, list) or not value or not all(isinstance(row, list) and row for row in value):
        raise InputFileError("not a table", where=path, got=Spelling.of(value), allowed="rows of numbers")
    for index, row in enumerate(value):
        if len(row) != len(value[0]):
            raise InputFileError(
                "a row of another length", where=f"{path}[{index}]", allowed=f"{len(value[0])} numbers"
            )
        for column, number in enumerate(row):
            if not _is_number(number):
                raise InputFileError("not a number", where=f"{path}[{index}][{column}]", got=Spelling.of(number))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _pair(tree: Mapping[str, Any]) -> tuple[int, ...]:
    """The ends of the branches."""
    missing = [name for name in _MEASURED.values() if name not in tree]
    if len(missing) == len(_MEASURED):
        return BRANCH_PAIRS[-1]
    if missing:
        fix = f"add it, or leave all of {', '.join(_MEASURED.values())} out"
        raise InputFileError("missing field", where=member(STUDENT, missing[0]), fix=fix)
    found: dict[tuple[int, ...], tuple[float, float]] = {
        pair: (tree[_MEASURED["mIoU", pair]], tree[_MEASURED["latency", pair]]) for pair in BRANCH_PAIRS
    }
    for pair, (_, latency_ms) in found.items():
        if latency_ms <= 0:
            where = member(STUDENT, _MEASURED["latency", pair])
            raise InputFileError("no latency", where=where, got=latency_ms, allowed="more than 0 ms")
    return best_branches(found)


def _decoded(tables: Mapping[str, Any], name: str, pair: tuple[int, ...], rule: Rule, source: str) -> FasterSegGenotype:
    of_teacher = name == TEACHER
    provenance = Provenance(
        name=f"fasterseg-{rule}" + ("-teacher" if of_teacher else ""),
        description=f"decoded from architecture parameters by the rule {rule}",
        source=source.encode()[:_SOURCE_BYTES].decode(errors="ignore") or f"searchkit {__version__}",
    )
    more = _OF_TEACHER if of_teacher else {}
    try:
        parameters = ArchitectureParameters.from_release(tables)
        return genotype_of(parameters, pair, provenance=provenance, teacher=of_teacher, rule=rule, **more)
    except UsageError as error:
        where = place(name, _NAMES.get(error.where or "", error.where or ""))
        raise InputFileError(error.problem, where=where, got=error.got, allowed=error.allowed) from None
