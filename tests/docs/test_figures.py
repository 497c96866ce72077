"""Figures in the documents are those of the files that they name."""

import json
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]


def cells(document: str, first: str) -> list[str]:
    """The cells of the table row that begins with `first`."""
    for line in (ROOT / document).read_text(encoding="utf-8").splitlines():
        found = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and found[0] == first:
            return found
    raise AssertionError(f"{document} has no row {first}")


def spread(ratio: dict[str, float], digits: int) -> str:
    return f"{ratio['median']:.{digits}f} ({ratio['least']:.{digits}f} to {ratio['greatest']:.{digits}f})"


def test_what_a_training_step_costs():
    tree = json.loads((ROOT / "bench/results/xeon-2cores-training-128x256.json").read_text())
    milliseconds = {name: median(times) * 1e3 for name, times in tree["seconds_a_step"].items()}
    step = cells("docs/training.md", "a step of `searchkit train`")
    assert step[1:] == [
        f"{milliseconds['trainer']:.0f}",
        f"{spread(tree['trainer_over_bare_loop'], 2)} of the bare loop's time",
    ]
    assert cells("docs/training.md", "a step of the bare loop")[1] == f"{milliseconds['bare_loop']:.0f}"
    assert cells("docs/training.md", "loading a batch, one thread")[1:] == [
        f"{milliseconds['loading_by_one_thread']:.1f}",
        f"{spread(tree['loading_rate_over_step_rate'], 1)} times the rate of steps",
    ]
