"""Errors say where, what, got, allowed and what to do, and each kind has its exit code."""

from __future__ import annotations

import pytest

from searchkit import errors
from searchkit.errors import InputFileError, SearchkitError, UsageError, nearest, shown, unknown_name

CODES = {
    "UsageError": 2,
    "InputFileError": 3,
    "StorageError": 4,
    "DamagedArtifactError": 5,
    "VerificationError": 5,
    "BackendUnavailableError": 7,
}


def test_exit_codes():
    kinds = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, SearchkitError) and kind is not SearchkitError
    }
    assert {name: kinds[name] for name in CODES} == CODES
    assert set(kinds.values()) <= {2, 3, 4, 5, 6, 7}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "wrong."),
        ({"where": "a.json: stem"}, "a.json: stem: wrong."),
        ({"got": 5}, "wrong (got 5)."),
        ({"got": 0}, "wrong (got 0)."),
        ({"got": "5"}, "wrong (got '5')."),
        ({"got": None}, "wrong."),
        ({"allowed": "1 to 4"}, "wrong (allowed: 1 to 4)."),
        ({"got": 5, "allowed": "1 to 4"}, "wrong (got 5; allowed: 1 to 4)."),
        ({"fix": "use 4"}, "wrong. Use 4."),
        ({"fix": "use 4."}, "wrong. Use 4."),
        ({"fix": "did you mean 4?"}, "wrong. Did you mean 4?"),
        (
            {"where": "--n", "got": 5, "allowed": "1 to 4", "fix": "use 4"},
            "--n: wrong (got 5; allowed: 1 to 4). Use 4.",
        ),
    ],
)
def test_message(arguments, text):
    assert str(SearchkitError("wrong", **arguments)) == text


def test_the_parts_are_kept():
    error = InputFileError("wrong", where="a", got=[1], allowed="b", fix="c")
    assert (error.problem, error.where, error.got, error.allowed, error.fix) == ("wrong", "a", [1], "b", "c")
    assert isinstance(error, SearchkitError)


def test_an_outer_layer_adds_its_place():
    error = InputFileError("wrong", where="stem").at("a.json")
    assert str(error) == "a.json: stem: wrong."
    assert str(InputFileError("wrong").at("a.json")) == "a.json: wrong."
    assert type(error) is InputFileError


@pytest.mark.parametrize("value", ["x" * 1000, list(range(1000)), {"k" * 90: 1}])
def test_what_is_shown_is_cut(value):
    assert len(shown(value)) == 80
    assert shown(value) == repr(value)[:77] + "..."


def test_what_fits_is_shown_whole_and_printable():
    assert shown("x" * 78) == repr("x" * 78)
    assert shown("a\nb\x1b[2J\u202e") == "'a\\nb\\x1b[2J\\u202e'"
    assert shown("x" * 79) == "'" + "x" * 76 + "..."


def test_nearest():
    names = ["ssr", "ssr-baseline1", "fasterseg", "erfnet", "bisenetv2"]
    assert nearest("ssr-baseline", names)[0] == "ssr-baseline1"
    assert nearest("fastseg", names)[0] == "fasterseg"
    assert nearest("b", ["c", "a"]) == ["a", "c"]
    assert nearest("zzzz", names) == ["bisenetv2", "erfnet", "fasterseg"]
    assert len(nearest("ssr", names, count=2)) <= 2
    assert nearest("x", []) == []


def test_unknown_name():
    error = unknown_name("toy", "bal", ["ball", "car"], where="--toy")
    assert isinstance(error, UsageError)
    assert str(error) == "--toy: unknown toy (got 'bal'; allowed: ball, car). Did you mean ball or car?"
    assert str(unknown_name("toy", "x", iter([]))) == "unknown toy (got 'x'; allowed: none is installed)."
