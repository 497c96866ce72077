"""The `bench` command."""

from __future__ import annotations

import sys

import typer

from searchkit.console import run

from . import (
    compare_cli,
    fasterseg_step_cli,
    fps_cli,
    headline_cli,
    label_head_cli,
    latency_table_cli,
    lowering_cli,
    pareto_cli,
    pipeline_cli,
    preprocessing_cli,
    profile_cli,
    report_cli,
    roofline_cli,
    study_cli,
    supernet_step_cli,
    training_cli,
)

app = typer.Typer(
    name="bench",
    help="Measure networks: how fast they are here, and what they consist of.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(fps_cli.fps)
app.command()(headline_cli.headline)
app.command()(training_cli.training)
app.command("supernet-step")(supernet_step_cli.supernet_step)
app.command("fasterseg-step")(fasterseg_step_cli.fasterseg_step)
app.command("label-head")(label_head_cli.label_head)
app.command("latency-table")(latency_table_cli.latency_table)
app.command()(lowering_cli.lowering)
app.command()(preprocessing_cli.preprocessing)
app.command()(pipeline_cli.pipeline)
app.command()(profile_cli.profile)
app.command()(pareto_cli.pareto)
app.command()(report_cli.report)
app.command()(roofline_cli.roofline)
app.command()(compare_cli.compare)
app.command()(study_cli.study)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run(app, argv)


if __name__ == "__main__":
    sys.exit(main())
