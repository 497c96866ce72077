"""`searchkit strategies`, as a command."""

from __future__ import annotations

import json

import pytest

from searchkit.cli import app
from searchkit.console import run
from searchkit.strategies import STRATEGIES


@pytest.fixture
def cli(capsys):
    def call(*argv):
        code = run(app, list(argv))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return code, captured.out, captured.err

    return call


def test_all_are_listed_with_their_settings(cli):
    code, text, _ = cli("strategies")
    assert code == 0
    for name in STRATEGIES.names():
        assert f"\n{name}  {STRATEGIES.summary(name)}" in f"\n{text}"
        for field in STRATEGIES.load(name).settings_type.model_fields:
            assert f"  {field} " in text
    assert "choices_a_decision  left out:" in text
    assert '"mean": mean:' in text


def test_one_as_json(cli, tmp_path):
    code, text, _ = cli("strategies", "ssr", "--json", "-")
    assert code == 0
    tree = json.loads(text)
    (row,) = tree.pop("strategies")
    assert tree == {"schema": 1}
    assert row["name"] == "ssr"
    assert (row["learns"], row["ends_discrete"]) == (True, False)
    assert row["settings"]["threshold"]["default"] == 0.1
    assert row["settings"]["weight"]["default"] == {
        "depth": 0.15,
        "dilation-spatial": 0.3,
        "channel": 0.3,
        "other": 0.3,
    }
    assert "at most this share" in row["settings"]["threshold"]["about"]
    file = tmp_path / "all.json"
    code, text, _ = cli("strategies", "--json", str(file))
    assert code == 0
    assert "ssr" in text
    assert [r["name"] for r in json.loads(file.read_text())["strategies"]] == STRATEGIES.names()


def test_defaults_that_are_printed_can_be_given_back(cli):
    from searchkit.settings import parse_settings

    for row in json.loads(cli("strategies", "--json", "-")[1])["strategies"]:
        model = STRATEGIES.load(row["name"]).settings_type
        given = {name: setting["default"] for name, setting in row["settings"].items()}
        assert parse_settings(model, given, what="strategy") == model()


def test_an_unknown_one_is_refused(cli):
    code, text, error = cli("strategies", "sssr")
    assert (code, text) == (2, "")
    assert "unknown search strategy" in error
    assert "ssr" in error
