"""Settings of search spaces that leave no network or make no sense: refused by `plan` and `search`, nothing is left."""

from __future__ import annotations

import pytest

from searchkit.cli import app
from searchkit.console import run
from searchkit.spaces import SPACES

# Of every space: what has no valid network, and what is none of its settings. Each with the field that is named.
WRONG = {
    "ssr": [
        ("space.depths=[[], [1]]", "space.depths.0"),
        ("space.depths=[[3, 4]]", "space.depths"),
        ("space.depths=[[0], [1]]", "space.depths.0.0"),
        ("space.depths=[[2, 1], [1]]", "not in ascending order"),
        ("space.depths=[[1], [65]]", "space.depths.1.0"),
        ("space.channels=[0, 128]", "space.channels.0"),
        ("space.channels=[128, 64]", "a downsampler widens"),
        ("space.stem=3", "3 < stem"),
        ("space.width_steps=99", "space.width_steps"),
        ("space.width_step=8", "the narrowest width would be 0"),
        ("space.dimensions=[]", "space.dimensions"),
        ('space.dimensions=["depth", "depth"]', "one is named twice"),
    ],
    "fasterseg": [
        ("space.layers=0", "space.layers"),
        ("space.layers=65", "space.layers"),
        ("space.widths=[]", "space.widths"),
        ("space.widths=[0, 4]", "space.widths.0"),
        ("space.widths=[8, 4]", "not in ascending order"),
        ("space.branches=[]", "space.branches"),
        ('space.branches=["8+64"]', "space.branches.0"),
        ("space.stem_width=0", "space.stem_width"),
    ],
    "lgcnet": [
        ("space.length=0", "space.length"),
        ("space.length=65", "space.length"),
        ("space.length=8", "reductions"),
        ("space.reductions=[8, 1]", "in ascending order"),
        ("space.stem=0", "space.stem"),
        ("space.fusion_channels=-1", "space.fusion_channels"),
        ('space.cells="shared"', "nothing to exchange"),
    ],
    "dcnas": [
        ("space.layers=0", "space.layers"),
        ("space.layers=33", "space.layers"),
        ("space.channels=0", "space.channels"),
        ("space.inputs=0", "space.inputs"),
        ("space.kernels=[]", "space.kernels"),
        ("space.kernels=[4]", "space.kernels.0"),
        ("space.kernels=[5, 3]", "not in ascending order"),
        ("space.expansions=[]", "space.expansions"),
        ("space.threshold=0", "space.threshold"),
    ],
}
# Of any space.
_ANY = [
    ("space.nonsense=1", "space.nonsense: unknown setting"),
    ("space=5", "space: wrong value"),
    ("space.a.b.c=1", "space.a"),
    ("nonsense.a=1", "nonsense"),
]
CASES = [(name, *case) for name in SPACES.names() for case in [*WRONG.get(name, []), *_ANY]]


def test_every_space_is_looked_at():
    assert set(WRONG) == set(SPACES.names())


@pytest.mark.parametrize(("space", "setting", "says"), CASES, ids=[f"{name} {setting}" for name, setting, _ in CASES])
@pytest.mark.parametrize("command", ["plan", "search"])
def test_a_setting_without_a_network_is_refused(tmp_path, monkeypatch, capsys, command, space, setting, says):
    monkeypatch.chdir(tmp_path)
    more = ["--pictures", "9"] if command == "plan" else ["--data", "streets", "--cache", "cache", "-o", "run"]
    assert run(app, [command, space, *more, "--resolution", "64x128", "--set", setting]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert says in captured.err
    assert len(captured.err) < 600
    assert "pydantic" not in captured.err
    assert not list(tmp_path.iterdir())
