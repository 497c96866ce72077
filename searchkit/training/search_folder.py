"""The folder of a search.

config.json         everything that decides the search
history.jsonl       losses, entropies, live candidates and expected MACs every few steps; decision points; validations
choices.jsonl       probabilities of all live candidates at the start and behind every decision point
times.jsonl         seconds a step: the one file that a resumed search does not write to the same bytes
checkpoint/         the whole state, see `search_checkpoint`
search.svg          the histories drawn
decisions.json      how each choice of the network was decided
genotype.json       the network; `nearest.json` in its place where it breaks a limit
NAME.json           another network that was found in the same search, such as a teacher
searched.json       the network with the search's own classifier, and
searched.safetensors its weights as the search leaves them, where the supernet can give them
result.json         how the search ended
lock                held while a search runs
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..files import write_bytes, write_text
from ..genotype import Genotype
from ..networks import from_genotype
from . import history
from .history import Row
from .run_folder import CHECKPOINT, HISTORY, weights_bytes
from .search_plots import draw_search

CHOICES, TIMES, PLOTS = "choices.jsonl", "times.jsonl", "search.svg"
DECISIONS, RESULT = "decisions.json", "result.json"
GENOTYPE, NEAREST = "genotype.json", "nearest.json"
SEARCHED, SEARCHED_WEIGHTS = "searched.json", "searched.safetensors"


class SearchFolder:
    """The files of one search.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / CHECKPOINT

    def log(self, row: Row) -> None:
        """Add a row to the history."""
        history.append(self.path / HISTORY, row)

    def log_choices(self, row: Row) -> None:
        """Add the probabilities at a decision point."""
        history.append(self.path / CHOICES, row)

    def log_time(self, step: int, seconds: float) -> None:
        """Add how long the steps since the last row of times took."""
        history.append(self.path / TIMES, {"step": step, "s": round(seconds, 4)})

    def resume(self, step: int) -> None:
        """Forget what was logged behind a checkpoint."""
        for name in (HISTORY, CHOICES, TIMES):
            history.cut(self.path / name, step)

    def draw(self) -> None:
        """Draw the histories as they are now."""
        rows, choices = history.read(self.path / HISTORY), history.read(self.path / CHOICES)
        write_text(self.path / PLOTS, draw_search(rows, choices))

    def write_network(self, genotype: Genotype, *, met: bool) -> Path:
        """The network that the search ends in; returns where it is."""
        path = self.path / (GENOTYPE if met else NEAREST)
        write_text(path, genotype.to_json())
        return path

    def write_companion(self, name: str, genotype: Genotype) -> Path:
        """A network that was found besides; returns where it is."""
        path = self.path / f"{name}.json"
        write_text(path, genotype.to_json())
        return path

    def write_searched(self, genotype: Genotype, state: dict[str, Any], identity: str) -> None:
        """The network that the search itself trained, and its weights."""
        write_text(self.path / SEARCHED, genotype.to_json())
        write_bytes(self.path / SEARCHED_WEIGHTS, weights_bytes(from_genotype(genotype), state, identity))

    def write_decisions(self, decisions: dict[str, Any]) -> None:
        """How each choice was decided, by table."""
        tree = {"schema": 1, "tables": decisions}
        write_text(self.path / DECISIONS, json.dumps(tree, indent=1, allow_nan=False) + "\n")

    def write_result(self, result: dict[str, Any]) -> None:
        """How the search ended; the last file of all."""
        write_text(self.path / RESULT, json.dumps(result, indent=2, allow_nan=False) + "\n")
