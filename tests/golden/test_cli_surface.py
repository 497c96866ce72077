"""The commands and their options: what a script may rely on. A change here is a change for every user."""

from __future__ import annotations

import typer

from bench.cli import app as bench
from searchkit.cli import app as searchkit
from searchkit.console import run

AT = ("--resolution", False, "512x1024")
JSON = ("--json", False, None)
BACKEND = (
    ("--backend", False, "onnxruntime"),
    ("--device", False, None),
    ("--threads", False, None),
    ("--trust-engine", False, False),
)

# Command -> its parameters in order: names, whether it must be given, default.
SEARCHKIT = {
    "data caches": [("--cache", False, None), ("--delete", False, None), JSON],
    "data check": [("data", True, None), JSON],
    "data frequencies": [("data", True, None), ("--split", False, "train"), ("--count", False, 200), JSON],
    "data list": [JSON],
    "data prepare": [
        ("data", True, None),
        ("--resolution", True, None),
        ("--cache", True, None),
        ("--split", False, None),
        JSON,
    ],
    "data sample": [
        ("data", True, None),
        ("--output -o", True, None),
        ("--index", False, 0),
        ("--split", False, "train"),
        ("--seed", False, None),
        ("--resolution", False, None),
        ("--difficulty", False, None),
        ("--labels", False, None),
    ],
    "data sheet": [
        ("data", True, None),
        ("--output -o", True, None),
        ("--split", False, "train"),
        ("--count", False, 12),
        ("--columns", False, 4),
        ("--resolution", False, "80x160"),
    ],
    "doctor": [("--target", False, None), ("--build-native", False, False), JSON],
    "evaluate": [
        ("network", True, None),
        ("--data", True, None),
        ("--weights", False, None),
        ("--split", False, "val"),
        ("--resolution", False, None),
        ("--data-size", False, None),
        ("--limit", False, None),
        ("--protocol", False, None),
        ("--boundary", False, 0.02),
        ("--device", False, "cpu"),
        ("--threads", False, None),
        JSON,
        ("--confusion", False, None),
        ("--sheet", False, None),
        ("--sheet-rows", False, 3),
        ("--submission", False, None),
    ],
    "export": [
        ("network", True, None),
        ("--weights", False, None),
        AT,
        ("--io", False, "raw"),
        ("--precision", False, "fp32"),
        ("--calibration", False, None),
        ("--calibration-method", False, None),
        ("--calibration-pictures", False, None),
        ("--max-miou-drop", False, None),
        ("--int8-rest", False, None),
        ("--engine", False, None),
        ("--target", False, None),
        ("--lowering", False, "none"),
        ("--lowering-backend", False, None),
        ("--lowering-threads", False, None),
        ("--resize", False, "stretch"),
        ("--output -o", False, None),
        ("--seed", False, 0),
        JSON,
    ],
    "inspect": [("file", True, None), JSON],
    "networks": [AT, ("--costs", False, False), JSON],
    "run": [
        ("bundle", True, None),
        ("source", True, None),
        ("--output -o", True, None),
        ("--overlay", False, False),
        ("--labels", False, False),
        *BACKEND,
        JSON,
    ],
    "schema": [("space", False, None), ("--json", False, "-")],
    "segment": [
        ("bundle", True, None),
        ("image", True, None),
        ("--output -o", True, None),
        ("--overlay", False, False),
        JSON,
    ],
    "show": [("network", True, None), AT, ("--depth", False, 2), ("--svg", False, None), JSON],
    "train": [
        ("network", True, None),
        ("--data", True, None),
        ("--output -o", True, None),
        ("--preset", False, None),
        ("--recipe", False, None),
        AT,
        ("--teacher", False, None),
        ("--teacher-weights", False, None),
        ("--seed", False, 0),
        ("--workers", False, 1),
        ("--device", False, "cpu"),
        ("--resume", False, False),
        ("--cache", False, None),
        ("--half", False, False),
        JSON,
    ],
    "verify": [("bundle", True, None), *BACKEND, JSON],
    "plan": [
        ("space", True, None),
        ("--data", False, None),
        ("--pictures", False, None),
        ("--preset", False, None),
        ("--recipe", False, None),
        ("--resolution", False, None),
        ("--batch", False, None),
        ("--set", False, None),
        ("--device", False, None),
        ("--classes", False, None),
        JSON,
    ],
    "search": [
        ("space", True, None),
        ("--data", True, None),
        ("--output -o", True, None),
        ("--strategy", False, None),
        ("--preset", False, None),
        ("--recipe", False, None),
        ("--dimensions", False, None),
        ("--set", False, None),
        ("--resolution", False, None),
        ("--split", False, None),
        ("--max-macs", False, None),
        ("--max-params", False, None),
        ("--max-latency", False, None),
        ("--latency-table", False, None),
        ("--other-device", False, False),
        ("--budget-resolution", False, None),
        ("--seed", False, 0),
        ("--workers", False, 1),
        ("--device", False, "cpu"),
        ("--resume", False, False),
        ("--cache", False, None),
        JSON,
    ],
    "strategies": [
        ("name", False, None),
        JSON,
    ],
    "decode": [
        ("parameters", True, None),
        ("--output -o", True, None),
        ("--rule", False, None),
        ("--space", False, None),
        ("--companion", False, None),
        AT,
        JSON,
    ],
}
TURNS = [("--threads", False, 2), ("--turns", False, 5), ("--runs", False, 10), JSON]

BENCH = {
    "compare": [
        ("old", True, None),
        ("new", True, None),
        ("--fail-if", False, None),
        ("--across", False, None),
        ("--network", False, None),
        ("--column", False, "computeMs"),
        ("--strict-cells", False, False),
        JSON,
        ("--markdown", False, None),
    ],
    "fasterseg-step": [
        ("--resolution", False, "256x512"),
        ("--batch", False, 3),
        JSON,
    ],
    "fps": [
        ("networks", False, None),
        AT,
        ("--backend", False, None),
        ("--precision", False, None),
        ("--io", False, "logits"),
        ("--device", False, None),
        ("--threads", False, None),
        ("--rounds", False, None),
        ("--quick", False, False),
        ("--batch", False, 1),
        ("--transfers --no-transfers", False, False),
        ("--processing", False, False),
        ("--mlperf", False, False),
        ("--duration", False, None),
        ("--fasterseg", False, False),
        JSON,
        ("--csv", False, None),
        ("--markdown", False, None),
        ("--strict", False, False),
    ],
    "headline": [
        ("--resolution", False, "1024x2048"),
        ("--backend", False, None),
        ("--precision", False, None),
        ("--io", False, "logits"),
        ("--device", False, None),
        ("--threads", False, None),
        ("--rounds", False, None),
        ("--quick", False, False),
        JSON,
        ("--csv", False, None),
        ("--markdown", False, None),
        ("--strict", False, False),
    ],
    "label-head": TURNS,
    "latency-table": [
        ("space", True, None),
        ("--output -o", True, None),
        AT,
        ("--backend", False, "onnxruntime"),
        ("--device", False, None),
        ("--threads", False, None),
        ("--classes", False, 19),
        ("--set", False, None),
        ("--networks", False, 20),
        ("--seed", False, 0),
    ],
    "lowering": [
        ("networks", False, None),
        AT,
        ("--backend", False, "onnxruntime"),
        ("--threads", False, 2),
        ("--rounds", False, 12),
        JSON,
    ],
    "pareto": [
        ("files", True, None),
        ("--objectives", False, None),
        ("--x", False, "latency"),
        ("--y", False, "miou"),
        ("--miou", False, None),
        ("--published", False, None),
        JSON,
        ("--csv", False, None),
        ("--svg", False, None),
    ],
    "pipeline": [
        ("networks", False, None),
        ("--threads", False, 2),
        ("--turns", False, 5),
        ("--runs", False, 5),
        JSON,
    ],
    "preprocessing": TURNS,
    "profile": [
        ("network", True, None),
        AT,
        ("--layers", False, False),
        ("--backend", False, None),
        ("--io", False, None),
        ("--threads", False, None),
        ("--runs", False, None),
        JSON,
        ("--csv", False, None),
    ],
    "report": [
        ("files", True, None),
        ("--output -o", False, None),
        ("--markdown", False, None),
        ("--bundle", False, None),
        ("--pictures", False, 1),
        ("--miou", False, None),
        ("--title", False, "How fast, how good"),
    ],
    "roofline": [
        ("networks", False, None),
        AT,
        ("--device", False, "here"),
        ("--precision", False, None),
        ("--backend", False, "onnxruntime"),
        ("--io", False, "logits"),
        ("--threads", False, None),
        ("--top", False, 5),
        ("--quick", False, False),
        ("--published", False, False),
        ("--recount", False, None),
        JSON,
    ],
    "study": [
        ("name", False, None),
        ("--seeds", False, "0,1,2"),
        ("--count", False, None),
        ("--spaces", False, None),
        ("--steps", False, None),
        ("--quick", False, False),
        ("--resume", False, False),
        JSON,
    ],
    "supernet-step": [
        ("--resolution", False, "128x256"),
        ("--batch", False, 2),
        ("--threads", False, 2),
        ("--turns", False, 3),
        ("--runs", False, 1),
        JSON,
    ],
    "training": [
        ("network", False, "ssr"),
        ("--data", False, "streets"),
        ("--preset", False, "streets-cpu"),
        ("--resolution", False, "128x256"),
        ("--split", False, "train"),
        ("--turns", False, 5),
        ("--steps", False, 12),
        ("--workers", False, 1),
        ("--device", False, "cpu"),
        ("--cache", False, None),
        JSON,
    ],
}


def surface(command, path=()):
    """Every command below `command`, with its parameters."""
    if hasattr(command, "commands"):
        found = {}
        for name, child in command.commands.items():
            found |= surface(child, (*path, name))
        return found
    rows = [(" ".join([*p.opts, *p.secondary_opts]), p.required, p.default) for p in command.params]
    return {" ".join(path): rows}


def test_searchkit():
    assert surface(typer.main.get_command(searchkit)) == SEARCHKIT


def test_bench():
    assert surface(typer.main.get_command(bench)) == BENCH


def test_every_command_and_option_says_what_it_does():
    def walk(command):
        assert command.help
        for child in getattr(command, "commands", {}).values():
            walk(child)
        for option in command.params:
            assert option.help, f"{command.name} {option.name}"

    walk(typer.main.get_command(searchkit))


def test_help_names_the_command_not_the_file(capsys):
    for app, name in ((searchkit, "searchkit"), (bench, "bench")):
        assert run(app, ["--help"]) == 0
        assert f"Usage: {name} [OPTIONS] COMMAND" in capsys.readouterr().out
