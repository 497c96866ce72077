"""`searchkit strategies`: how a search can be led, and what can be set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import JsonOption, check_json, out, write_json

if TYPE_CHECKING:
    from .strategies import Strategy


def strategies(
    name: Annotated[str | None, typer.Argument(metavar="[STRATEGY]", help="One strategy; all if left out.")] = None,
    json: JsonOption = None,
) -> None:
    """List the search strategies, with their settings and defaults."""
    check_json(json)
    from .strategies import STRATEGIES

    names = STRATEGIES.names() if name is None else [name]
    rows = [_row(STRATEGIES.load(one), one, STRATEGIES.summary(one)) for one in names]
    if json:
        write_json({"schema": 1, "strategies": rows}, json)
    if json != "-":
        _print(rows)


def _row(strategy: type[Strategy], name: str, about: str) -> dict[str, Any]:
    fields = strategy.settings_type().model_dump(mode="json")
    described = strategy.settings_type.model_fields
    return {
        "name": name,
        "about": about,
        "learns": strategy.learns,
        "ends_discrete": strategy.ends_discrete,
        "settings": {
            field: {"default": default, "about": described[field].description} for field, default in fields.items()
        },
    }


def _print(rows: list[dict[str, Any]]) -> None:
    import json

    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = out()
    for row in rows:
        console.print(Text.assemble((row["name"], "bold"), f"  {row['about']}"))
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for field, setting in row["settings"].items():
            shown = json.dumps(setting["default"]).replace("null", "left out")
            table.add_row(Text(field), Text(f"{shown}: {setting['about']}"))
        if row["settings"]:
            console.print(Padding(table, (0, 0, 0, 2)))
