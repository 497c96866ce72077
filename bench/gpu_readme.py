"""README's tables of GPUs, made from the files that `make gpu` wrote, so that no figure is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from searchkit.errors import InputFileError
from searchkit.files import read_bytes, write_text

from .measurement import Measurement

BEGIN = "<!-- GPU tables: begin; written by `python -m bench.gpu_run --readme` -->"
END = "<!-- GPU tables: end -->"
NONE_YET = "No GPU was measured yet: `make gpu` does it on a machine that has one; a table of its file will stand here."

_KIND = "GPU run"
_MAX_BYTES = 256 << 20
_HEADINGS = ("network", "runtime", "precision", "ms", "95% interval", "FPS")


def rewrite(readme: Path, results: Path) -> None:
    """Replace what stands between the two markers of README.

    Raises:
        InputFileError: the markers are not there, or not once each; a result file is damaged.
    """
    text = read_bytes(readme, limit_bytes=1 << 20, what="README").decode()
    write_text(readme, with_section(text, section(results), where=readme.name))


def with_section(text: str, body: str, *, where: str) -> str:
    """The text with `body` between its markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise InputFileError(
            "the markers of the GPU tables are not there once each, in order", where=where, allowed=f"{BEGIN} and {END}"
        )
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{body.strip()}\n{END}{rest.split(END)[1]}"


def section(results: Path) -> str:
    """One part a device, in the order of the names; a sentence where none was measured."""
    parts = []
    for path in sorted(results.glob("*.json")):
        tree = _run(path)
        if tree is not None:
            parts.append("\n".join(_part(path, tree)))
    return "\n\n".join(parts) if parts else NONE_YET


def _run(path: Path) -> dict[str, Any] | None:
    """A run on a GPU; None for results of other kinds, and for trials on a CPU."""
    data = read_bytes(path, limit_bytes=_MAX_BYTES, what="result file")
    try:
        tree = json.loads(data)
    except ValueError as error:
        raise InputFileError(f"not valid JSON: {error}", where=str(path), fix="measure again") from None
    is_run = isinstance(tree, dict) and tree.get("kind") == _KIND and tree.get("device") == "cuda"
    return tree if is_run else None


def _part(path: Path, tree: dict[str, Any]) -> Iterator[str]:
    machine = tree["machine"]
    software = ", ".join(f"{name} {machine[name]}" for name in ("torch", "cuda", "onnxruntime") if machine.get(name))
    yield f"**{machine.get('gpu', 'GPU')}** (driver {machine.get('gpu_driver', 'not known')}; {software}), "
    yield f"measured by `make gpu`, all samples in `bench/results/{path.name}`:"
    yield ""
    for size, measurements in _by_size(path, tree).items():
        yield f"{size}, batch 1:"
        yield ""
        yield _row(_HEADINGS)
        yield "|---|---|---|---:|---:|---:|"
        for measurement in measurements:
            yield _row(_cells(measurement))
        yield ""
    yield from _headline(tree)
    missing = [f"{step['name']} ({step['state']}: {step['why']})" for step in tree["steps"] if step["state"] != "done"]
    yield f"Not whole: {'; '.join(missing)}." if missing else "Every step of the run was done."


def _headline(tree: dict[str, Any]) -> Iterator[str]:
    """SSR against FasterSeg at the paper's resolutions and at equal ones, the paper's figures apart in brackets."""
    for step in tree["steps"]:
        result = step["result"] if isinstance(step["result"], dict) else {}
        for pair in result.get("headline") or []:
            paper = pair["paper_speed"]
            beside = f"the paper on {pair['paper_on']}: {paper:.2f}" if paper else "the paper prints no such pair"
            low, high = pair["interval"] or (None, None)
            ends = f", {low:.2f} to {high:.2f}" if low is not None else ""
            yield (
                f"- SSR {pair['ssr_resolution']} against FasterSeg {pair['fasterseg_resolution']}, {pair['runtime']}: "
                f"{pair['speed']:.2f} times as fast{ends} ({beside})"
            )
            yield ""


def _by_size(path: Path, tree: dict[str, Any]) -> dict[str, list[Measurement]]:
    """Of each network at each resolution its fastest runtime, the fastest network first; the first step that has it."""
    best: dict[tuple[str, str], Measurement] = {}
    for index, step in enumerate(tree["steps"]):
        result = step["result"] if isinstance(step["result"], dict) else {}
        for entry in result.get("measurements", []):
            found = Measurement.from_tree(entry, where=f"{path.name}: steps[{index}]")
            key = (str(found.resolution), found.network.name)
            if key not in best or found.statistics.p50_ms < best[key].statistics.p50_ms:
                best[key] = found
    ordered = sorted(best.values(), key=lambda m: (m.resolution.height * m.resolution.width, m.statistics.p50_ms))
    return {
        size: [m for m in ordered if str(m.resolution) == size]
        for size in dict.fromkeys(str(m.resolution) for m in ordered)
    }


def _cells(measurement: Measurement) -> tuple[str, ...]:
    statistics, interval = measurement.statistics, measurement.interval
    ends = f"{interval.low:.2f} to {interval.high:.2f}" if interval else "one round"
    return (
        measurement.network.name,
        measurement.runtime,
        measurement.precision or "-",
        f"{statistics.p50_ms:.2f}",
        ends,
        f"{statistics.fps:.0f}",
    )


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
