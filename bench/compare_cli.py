"""`bench compare`: whether what was measured before has become slower."""

from __future__ import annotations

from typing import Annotated

import typer

from searchkit.console import JsonOption, check_json, err, out, write_json

_MAX_WIDTH = 240

_FAIL_HELP = "Exit with 1 if a cell is slower by more than this, such as '+5%', '+0.5ms' or 'ssr,erfnet=+2%'."
_ACROSS_HELP = "Compare although `machines` or `protocols` differ; the result says so."
_COLUMN_HELP = "Of trtexec's times: computeMs, or latencyMs with the transfers."


def compare(
    old: Annotated[str, typer.Argument(metavar="OLD", help="File of `bench fps --json`, or of trtexec's times.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="File of the same kind, measured later.")],
    fail_if: Annotated[
        list[str] | None, typer.Option("--fail-if", metavar="[NETWORK=]+N%|+Nms", help=_FAIL_HELP)
    ] = None,
    across: Annotated[list[str] | None, typer.Option("--across", metavar="WHAT", help=_ACROSS_HELP)] = None,
    network: Annotated[
        list[str] | None, typer.Option("--network", metavar="NAME", help="Compare these networks only.")
    ] = None,
    column: Annotated[str, typer.Option("--column", metavar="NAME", help=_COLUMN_HELP)] = "computeMs",
    strict_cells: Annotated[
        bool, typer.Option("--strict-cells", help="Exit with 1 too if a cell is on one side only.")
    ] = False,
    json: JsonOption = None,
    markdown: Annotated[
        str | None, typer.Option("--markdown", metavar="PATH", help="Write it as Markdown; `-` is standard output.")
    ] = None,
) -> None:
    """Say which cells of NEW are slower than in OLD; exit with 1 if one is by more than a threshold.

    A cell fails only where the whole interval of the ratio of medians lies above the threshold.
    """
    _check_outputs(json, markdown)
    from .compare import compare as judged
    from .compare import rules_of
    from .compare_sources import check_networks, read
    from .compare_table import headline, notes, rich_table, summary
    from .compare_table import markdown as in_markdown

    rules = rules_of(fail_if or [])
    before, after = read(old, column), read(new, column)
    check_networks(network or [], (before, after), "--network")
    report = judged(before.only(network or []), after.only(network or []), rules, across or [])
    if json:
        write_json(report.to_tree(), json)
    if markdown:
        _write(in_markdown(report), markdown)
    people = err() if "-" in (json, markdown) else out()
    for text in report.loud:
        people.print(f"WARNING: {text}", style="bold red", markup=False)
    table = rich_table(report)
    # Lines are not folded to a terminal's width: digits would be lost.
    table.width = people.measure(table, options=people.options.update(max_width=_MAX_WIDTH)).maximum
    people.print(table, soft_wrap=True)
    for text in notes(report):
        if not text.startswith("WARNING:"):
            people.print(text, markup=False)
    people.print(f"{headline(report)} {summary(report)}", markup=False)
    if report.failed(strict_cells=strict_cells):
        raise typer.Exit(1)


def _check_outputs(json: str | None, markdown: str | None) -> None:
    from searchkit.errors import UsageError

    if json == markdown == "-":
        raise UsageError("only one result can go to standard output", allowed="one `-`", fix="give a file name")
    check_json(json)
    check_json(markdown)


def _write(text: str, path: str) -> None:
    import sys

    from searchkit.files import write_text

    if path == "-":
        sys.stdout.write(text)
    else:
        write_text(path, text)
