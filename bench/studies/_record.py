"""The result file of a study: saved after every row, so that a study that was interrupted goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

from searchkit.errors import InputFileError, SearchFailedError, StorageError, TrainingFailedError, UsageError
from searchkit.files import read_bytes, write_text

from ..protocol import Scalar
from . import Row, Study, StudyRecipe

if TYPE_CHECKING:
    from ._workbench import Workbench

SCHEMA, KIND = 1, "study"
_MAX_BYTES = 64 << 20
# What must be the same where a study goes on: times of other machines and versions are no times of this one.
_SAME_MACHINE = ("cpu", "cores", "torch", "torch_threads")
_FIX = "give the file of the same study with the same options, or another path"


@dataclass
class Record:
    """All that is kept of one study.

    Attributes:
        machine: as `bench.machine.describe`, with `torch_threads`.
        quick: whether it was a trial of the code, whose figures mean nothing.
    """

    study: str
    recipe: dict[str, Any]
    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    machine: dict[str, Scalar]
    quick: bool
    rows: list[Row]

    @property
    def missing(self) -> list[tuple[str, int]]:
        """Arms and seeds without a row, in the order in which they are run: all arms with one seed, then the next."""
        done = {(row.arm, row.seed) for row in self.rows}
        return [(arm, seed) for seed in self.seeds for arm in self.arms if (arm, seed) not in done]

    def to_tree(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {
            "schema": SCHEMA,
            "kind": KIND,
            "study": self.study,
            "quick": self.quick,
            "complete": not self.missing,
            "machine": self.machine,
            "recipe": self.recipe,
            "seeds": list(self.seeds),
            "arms": list(self.arms),
            "cpu_s": round(sum(row.cpu_s for row in self.rows), 3),
            "rows": [asdict(row) for row in self.rows],
        }

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        write_text(path, json.dumps(self.to_tree(), indent=1, allow_nan=False) + "\n")


def read_record(path: Path) -> Record:
    """What `Record.save` wrote.

    Raises:
        InputFileError: it is missing, damaged, or no result of a study.
    """
    data, where = read_bytes(path, limit_bytes=_MAX_BYTES, what="result of a study"), str(path)
    try:
        tree = json.loads(data)
    except ValueError as error:
        raise InputFileError("damaged result of a study", where=where, got=str(error), fix=_FIX) from None
    if not isinstance(tree, dict) or (tree.get("schema"), tree.get("kind")) != (SCHEMA, KIND):
        raise InputFileError("not the result of a study", where=where, fix=_FIX)
    for name in ("study", "recipe", "seeds", "arms", "machine", "quick", "rows"):
        if name not in tree:
            raise InputFileError("missing field", where=f"{where}: {name}", fix=_FIX)
    try:
        rows = [Row(**row) for row in tree["rows"]]
    except TypeError as error:
        raise InputFileError("wrong row", where=f"{where}: rows", got=str(error), fix=_FIX) from None
    return Record(
        study=tree["study"],
        recipe=tree["recipe"],
        seeds=tuple(tree["seeds"]),
        arms=tuple(tree["arms"]),
        machine=tree["machine"],
        quick=tree["quick"],
        rows=rows,
    )


def resumed(fresh: Record, path: Path) -> Record:
    """The rows in a file, for a study that is to go on in it, perhaps with more seeds.

    Raises:
        UsageError: the file is of another study, recipe, machine, or has seeds that were not asked for.
    """
    found = read_record(path)
    if set(found.seeds) <= set(fresh.seeds):
        found = replace(found, seeds=fresh.seeds)
    for name in ("study", "quick", "recipe", "arms", "seeds"):
        one, other = getattr(found, name), getattr(fresh, name)
        if one != other:
            raise UsageError(
                f"the file differs in its {name}", where=str(path), got=str(one), allowed=str(other), fix=_FIX
            )
    for name in _SAME_MACHINE:
        one, other = found.machine.get(name), fresh.machine.get(name)
        if one != other:
            raise UsageError(f"the file was begun with another {name}", where=str(path), got=one, allowed=str(other))
    return found


def run_missing(record: Record, study: Study, bench: Workbench, path: Path | None, tell: Callable[[str], None]) -> None:
    """Run what has no row yet, saving after each row; a search or a training that fails is a row too."""
    missing = record.missing
    total = len(record.arms) * len(record.seeds)
    for number, (arm, seed) in enumerate(missing, total - len(missing) + 1):
        tell(f"{number} of {total}: {arm}, seed {seed}")
        began, values, failed = process_time(), {}, None
        try:
            values = study.run(arm, seed, bench)
        except (SearchFailedError, TrainingFailedError) as error:
            failed = str(error)
        record.rows.append(Row(arm, seed, values, round(process_time() - began, 3), failed))
        if path is not None:
            record.save(path)


def begin(
    name: str, study: Study, recipe: StudyRecipe, seeds: Sequence[int], machine: dict[str, Scalar], *, quick: bool
) -> Record:
    """A study without rows."""
    tree = json.loads(json.dumps(recipe.to_tree()))
    return Record(name, tree, tuple(seeds), study.arms(recipe), machine, quick, [])


def check_free(path: Path, *, resume: bool) -> None:
    """Raise `UsageError` where rows would be overwritten, or there is nothing to go on with."""
    if os.path.exists(path) and not resume:
        raise UsageError("the file is there already", where=str(path), fix="give --resume, or another path")
    if not os.path.isdir(path.parent):
        raise StorageError("no such folder", where=str(path.parent))
