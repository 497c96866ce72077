"""A picture in, labels out: every way gives the plain one's labels, and the file says what ran."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench import pipeline
from bench.cli import main
from bench.pipeline import PLAIN, Case, PipelineTimes
from searchkit.errors import VerificationError
from searchkit.sizes import Size

SMALL = (Case(Size(64, 128), Size(64, 128)), Case(Size(128, 256), Size(64, 128)))


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    from deploy.native import library

    place = library.cache_folder()
    monkeypatch.setattr(library, "cache_folder", lambda: place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pipeline, "CASES", SMALL)


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    """`ssr` with its weights: in int8 as well, and lower precisions may be chosen."""
    target = tmp_path / "p.json"
    assert main(["pipeline", "ssr", "--threads", "1", "--turns", "2", "--runs", "1", "--json", str(target)]) == 0
    tree = json.loads(target.read_text())
    own, papers = tree["cases"]
    assert list(own["turns_ms"]) == [PLAIN, "graph", "label head", "auto, fp32", "auto, int8"]
    assert list(papers["turns_ms"]) == [PLAIN, "label head", "auto, fp32", "auto, int8"]
    assert own["trained"]
    assert (papers["picture"], papers["input"]) == ("128x256", "64x128")
    for case in (own, papers):
        assert all(len(times) == 2 and min(times) > 0 for times in case["turns_ms"].values())
        assert case["label_agreement_with_plain"][PLAIN] == 1.0
        assert min(case["label_agreement_with_plain"].values()) > 0.9
        assert case["times_as_fast_as_plain"][PLAIN]["median"] == 1.0
    assert own["ran_on"]["graph"] == "onnxruntime:default"
    assert own["ran_on"]["label head"] == "onnxruntime:label_head"
    assert "ssr, 128x256 through 64x128" in capsys.readouterr().out


def test_plain_is_the_papers_protocol(tiny_network):
    """The network's own logits, resized to the picture, and numpy's arg-max."""
    import torch

    from deploy.deployable import Deployable
    from searchkit.data import streets
    from searchkit.normalization import normalise
    from searchkit.pictures import resize_picture

    network, case = tiny_network(), SMALL[1]
    image = streets.draw(0, 3, case.picture).image
    found = pipeline._plain(network, case, 1)(image)
    batch = torch.from_numpy(normalise(resize_picture(image, case.input)))
    with torch.inference_mode():
        logits = Deployable(network, case.input, "raw").built(batch).double()
        full = torch.nn.functional.interpolate(logits, size=case.picture, mode="bilinear")[0]
    best = full.topk(2, dim=0).values
    clear = (best[0] - best[1]).numpy() > 1e-3
    assert clear.mean() > 0.9
    assert np.array_equal(found[clear], full.argmax(0).numpy()[clear])


def test_the_best_is_the_fastest_that_is_right():
    times = {PLAIN: (8.0, 8.0), "right": (4.0, 2.0), "wrong": (1.0, 1.0)}
    agreement = {PLAIN: 1.0, "right": 0.97, "wrong": 0.9699}
    found = PipelineTimes("ssr", True, SMALL[0], times, agreement, {})
    assert found.best == "right"
    assert found.ratio("right") == (3.0, 2.0, 4.0)
    assert found.to_tree()["best"] == "right"


@pytest.mark.parametrize(
    ("agreement", "passes"),
    [
        ({"graph": 0.9989, "label head": 1.0}, False),
        ({"graph": 1.0, "label head": 0.9989}, False),
        ({"graph": 1.0, "label head": 1.0, "auto, fp32": 0.5}, True),
        ({"label head": 0.98}, True),
        ({"label head": 0.96}, False),
        ({"label head": float("nan")}, False),
    ],
)
def test_float32_ways_with_other_labels_are_refused(agreement, passes, tiny_network):
    if passes:
        pipeline._check(agreement, tiny_network())
        return
    with pytest.raises(VerificationError, match="gives other labels than plain"):
        pipeline._check(agreement, tiny_network())
