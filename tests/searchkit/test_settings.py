"""Settings of plug-ins out of plain values: what is taken, what is refused, and how that is said."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field, field_validator

from searchkit.errors import UsageError
from searchkit.settings import parse_settings
from searchkit.strategies import Settings


class Example(Settings):
    """One field of each kind."""

    rate: Annotated[float, Field(gt=0)] = 0.5
    steps: int = 3
    keep: tuple[int, ...] = (5, 1)
    mode: Literal["mean", "sum"] = "mean"
    loud: bool = False

    @field_validator("steps")
    @classmethod
    def _even_is_wrong(cls, steps):
        if steps % 2 == 0:
            raise ValueError("Odd numbers only")
        return steps


def parse(**values):
    return parse_settings(Example, values, what="[strategy]")


def test_what_is_left_out_takes_its_default():
    assert parse() == Example()
    assert parse(rate=2, keep=[4, 2, 1], loud=True) == Example(rate=2.0, keep=(4, 2, 1), loud=True)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rat": 1.0}, r"\[strategy\].rat: unknown setting \(allowed: rate\)"),
        ({"rate": 0.0}, r"\[strategy\].rate: wrong setting \(got 0.0; allowed: input should be greater than 0"),
        ({"rate": "1"}, r"\[strategy\].rate: wrong setting \(got '1'"),
        ({"steps": 1.5}, r"\[strategy\].steps: wrong setting \(got 1.5"),
        ({"steps": 4}, r"\[strategy\].steps: wrong setting \(got 4; allowed: odd numbers only\)"),
        ({"steps": True}, r"\[strategy\].steps: wrong setting \(got True"),
        ({"keep": [5, "x"]}, r"\[strategy\].keep.1: wrong setting \(got 'x'"),
        ({"mode": "max"}, r"\[strategy\].mode: wrong setting \(got 'max'; allowed: input should be 'mean' or 'sum'"),
        ({"loud": 1}, r"\[strategy\].loud: wrong setting"),
        ({"rate": float("nan")}, r"\[strategy\]: a value is neither text, number nor boolean"),
        ({"rate": float("inf")}, r"\[strategy\]: a value is neither"),
        ({"mode": object()}, r"\[strategy\]: a value is neither"),
    ],
)
def test_what_is_wrong_is_named(values, said):
    with pytest.raises(UsageError, match=said):
        parse(**values)


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        parse().rate = 3.0
