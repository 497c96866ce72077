"""`bench report`: what was measured, as one HTML file that needs nothing else, and as Markdown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from searchkit.console import check_json, err

from .outputs import check_outputs
from .pareto_cli import MiouOption

FilesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE",
        help="Of `bench fps --json`, `bench roofline --json` and `searchkit evaluate --json`.",
        show_default=False,
    ),
]


def report(
    files: FilesArgument,
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="HTML", help="The report.")] = None,
    markdown: Annotated[str | None, typer.Option("--markdown", metavar="PATH", help="The same for a README.")] = None,
    bundle: Annotated[
        list[str] | None,
        typer.Option("--bundle", metavar="DIR", help="Whose label maps to show; shipped weights if none."),
    ] = None,
    pictures: Annotated[
        int, typer.Option("--pictures", min=0, max=20, help="How many street pictures to segment; 0 for none.")
    ] = 1,
    miou: MiouOption = None,
    title: Annotated[str, typer.Option("--title", metavar="TEXT", help="Of the report.")] = "How fast, how good",
) -> None:
    """Write a report of result files: a summary, plots, tables, drawings and label maps, in one HTML file.

    It loads nothing from anywhere. Several files stand apart: what two machines took is never compared.
    """
    from searchkit.errors import UsageError

    if not output and not markdown:
        raise UsageError("nothing to write", where="--output", allowed="-o report.html, --markdown PATH, or both")
    if output and markdown and os.path.realpath(output) == os.path.realpath(markdown):
        raise UsageError("both reports have the same name", where="--output and --markdown", got=output)
    check_outputs({"--output": output, "--markdown": markdown})
    for path in (output, markdown):
        check_json(path)

    from .report.content import Content, gather

    content: Content = gather(files, miou or [], title)
    if output:
        from .report.label_maps import label_maps
        from .report.page import page

        maps = label_maps([Path(folder) for folder in bundle or []], content.networks, pictures)
        _write(page(content, maps, _again(files, output, bundle, pictures, miou, title)), output)
        err().print(f"wrote {output}", markup=False)
    if markdown:
        from .report.markdown import markdown_report

        _write(markdown_report(content), markdown)
        if markdown != "-":
            err().print(f"wrote {markdown}", markup=False)


def _again(
    files: Sequence[str],
    output: str,
    bundles: Sequence[str] | None,
    pictures: int,
    miou: Sequence[str] | None,
    title: str,
) -> str:
    """The command that makes this report again, in the folder of its files: no path of this machine goes into it."""
    import shlex

    words = ["bench", "report", *map(os.path.basename, files), "-o", os.path.basename(output)]
    for folder in bundles or ():
        words += ["--bundle", Path(folder).name]
    for value in miou or ():
        words += ["--miou", value]
    words += ["--pictures", str(pictures)]
    return shlex.join([*words, "--title", title])


def _write(text: str, path: str) -> None:
    import sys

    from searchkit.files import write_text

    if path == "-":
        sys.stdout.write(text)
    else:
        write_text(path, text)
