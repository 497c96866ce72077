"""The front, against a reference that asks every pair, and the command."""

import csv
import io
import itertools
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cli import main
from bench.pareto import Objective, Point, dominates, front_of

RESULTS = Path(__file__).parents[2] / "bench" / "results"
EPYC = str(RESULTS / "epyc-2cores-onnxruntime-512x1024.json")
XEON = str(RESULTS / "xeon-2cores-backends-512x1024.json")
ALL = tuple(Objective)


def point(label, spread=(0.0, 0.0), **values):
    return Point(label, label, {Objective(key): value for key, value in values.items()}, spread, "measured")


def better_or_equal(one, other, objective):
    a, b = one.values[objective], other.values[objective]
    return a >= b if objective is Objective.MIOU else a <= b


def plain_front(points, objectives):
    """Every pair asked, in the words of the definition."""
    kept = []
    for candidate in points:
        beaten = any(
            all(better_or_equal(other, candidate, o) for o in objectives)
            and any(other.values[o] != candidate.values[o] for o in objectives)
            for other in points
        )
        if not beaten:
            kept.append(candidate.label)
    return sorted(kept)


# Few different values, so that ties are common.
VALUES = st.fixed_dictionaries({objective: st.integers(0, 3).map(float) for objective in ALL})


@given(st.lists(VALUES, max_size=12), st.lists(st.sampled_from(ALL), min_size=1, unique=True))
def test_front_is_that_of_the_plain_reference(values, objectives):
    points = [Point(f"n{at}", "n", value, (0.0, 0.0)) for at, value in enumerate(values)]
    found = front_of(points, objectives)
    assert sorted(p.label for p in found.best) == plain_front(points, objectives)
    assert len(found.best) + len(found.beaten) == len(points)
    for beaten in found.beaten:
        wanted = [p for p in found.best if dominates(p, beaten.point, objectives)]
        assert list(beaten.by) == wanted != []


def test_equal_points_stay_and_are_named():
    points = [point("a", miou=70, latency=5), point("b", miou=70, latency=5), point("c", miou=69, latency=5)]
    found = front_of(points, (Objective.MIOU, Objective.LATENCY))
    assert [p.label for p in found.best] == ["a", "b"]
    assert [[p.label for p in group] for group in found.ties] == [["a", "b"]]
    assert [beaten.point.label for beaten in found.beaten] == ["c"]


def test_who_lacks_a_value_is_neither_in_front_nor_behind():
    points = [point("a", miou=70, latency=5), point("b", latency=1)]
    found = front_of(points, (Objective.MIOU, Objective.LATENCY))
    assert [p.label for p in found.best] == ["a"]
    assert [p.label for p in found.missing] == ["b"]


@pytest.mark.parametrize(("spread", "certain"), [((6.0, 7.0), True), ((4.5, 7.0), False)])
def test_a_latency_within_the_spread_of_rounds_is_not_certain(spread, certain):
    points = [point("a", (4.0, 5.0), miou=70, latency=4.5), point("b", spread, miou=70, latency=6)]
    (beaten,) = front_of(points, (Objective.MIOU, Objective.LATENCY)).beaten
    assert beaten.certain is certain
    # Where latency is not asked for its spread does not matter.
    points = [point("a", miou=71), point("b", spread, miou=70)]
    (beaten,) = front_of(points, (Objective.MIOU,)).beaten
    assert beaten.certain


def as_json(capsys, *arguments):
    assert main(["pareto", *arguments, "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)["fronts"]


def test_measured_objectives_need_no_miou(capsys):
    (front,) = as_json(capsys, EPYC, "--objectives", "latency,params")
    assert [p["label"] for p in front["front"]] == ["fast-scnn", "ssr-baseline1"]
    dominated = {p["label"]: p["by"] for p in front["dominated"]}
    assert dominated["fasterseg"] == ["fast-scnn"]
    # Both have 961,807 parameters, and ssr-baseline1 is faster by less than its rounds differ.
    assert dominated["ssr-baseline2"] == ["ssr-baseline1"]
    assert not next(p for p in front["dominated"] if p["label"] == "ssr-baseline2")["certain"]


def test_given_miou(capsys):
    (front,) = as_json(capsys, EPYC, "--miou", "ssr=73.67", "--miou", "fasterseg=60", "--miou", "erfnet=70")
    assert [p["label"] for p in front["front"]] == ["fasterseg", "ssr"]
    assert {p["miou_kind"] for p in front["front"]} == {"given"}
    assert [p["label"] for p in front["dominated"]] == ["erfnet"]
    assert {entry["label"] for entry in front["missing"]} >= {"fast-scnn", "bisenetv2"}


def test_a_given_miou_can_be_of_one_file(capsys):
    fronts = as_json(capsys, EPYC, XEON, "--miou", f"{Path(EPYC).name}/ssr=73.67")
    assert [Path(front["file"]).name for front in fronts] == [Path(EPYC).name]


def test_a_published_miou_of_another_resolution_is_refused(capsys):
    (front,) = as_json(capsys, EPYC, "--published", "val")
    missing = {entry["label"]: entry["why"] for entry in front["missing"]}
    assert "73.1 % at 1024x2048 (published)" in missing["fasterseg"]
    assert [p["label"] for p in front["front"]] == ["ssr"]
    assert front["front"][0]["miou_kind"] == "published"


def evaluation(path, network, percent, *, digest=None, resolution="512x1024", count=500, **changes):
    tree = json.loads(Path(EPYC).read_text())
    facts = next(m["network"] for m in tree["measurements"] if m["network"]["name"] == network)
    subject = {"network": network, "digest": digest or facts["digest"], "trained": True, "weights": "mine"}
    dataset = {"name": "cityscapes", "split": "val", "count": count, "available": 500}
    whole = {"schema": 1, "network": subject, "dataset": dataset, "resolution": resolution, "mean_iou": percent / 100}
    path.write_text(json.dumps(whole | changes))
    return str(path)


def test_measured_and_published_of_one_data_set_are_marked(capsys, tmp_path):
    file = evaluation(tmp_path / "erfnet.json", "erfnet", 80.0)
    (front,) = as_json(capsys, EPYC, file, "--published", "val")
    assert {p["label"]: p["miou_kind"] for p in front["front"]} == {"ssr": "published", "erfnet": "measured"}


def test_other_data_sets_have_fronts_of_their_own(capsys, tmp_path):
    some = evaluation(tmp_path / "a.json", "erfnet", 60.0, count=20)
    whole = evaluation(tmp_path / "b.json", "ssr", 70.0)
    fronts = as_json(capsys, EPYC, some, whole)
    assert [front["miou_scale"] for front in fronts] == ["Cityscapes val, 20 of 500 samples", "Cityscapes val"]


def test_an_evaluation_of_another_network_or_resolution_does_not_count(capsys, tmp_path):
    digest = evaluation(tmp_path / "a.json", "erfnet", 60.0, digest="0a" * 32)
    assert main(["pareto", EPYC, digest]) == 2
    size = evaluation(tmp_path / "b.json", "erfnet", 60.0, resolution="64x128")
    assert main(["pareto", EPYC, size]) == 2
    assert "no network of the files has a known mIoU" in capsys.readouterr().err


def test_table_csv_and_plot(capsys, tmp_path):
    table, plot = tmp_path / "front.csv", tmp_path / "front.svg"
    arguments = [
        "pareto",
        EPYC,
        "--miou",
        "ssr=73.67",
        "--miou",
        "fasterseg=60",
        "--csv",
        str(table),
        "--svg",
        str(plot),
    ]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "fasterseg" in text
    assert "front 2" in text
    assert "left out, as no mIoU is known" in text
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [row["state"] for row in rows if row["network"] in ("ssr", "fasterseg")] == ["front", "front"]
    root = ET.fromstring(plot.read_text())
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"ssr", "fasterseg", "mIoU %", "p50 ms", "mIoU as given"} <= set(words)
    before = plot.read_bytes()
    assert main(arguments) == 0
    assert plot.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([EPYC], 2, "--miou NETWORK=PERCENT"),
        ([EPYC, "--objectives", "speed"], 2, "unknown objective"),
        ([EPYC, "--objectives", ""], 2, "unknown objective"),
        ([EPYC, "--x", "watts"], 2, "unknown objective"),
        ([EPYC, "--miou", "ssr"], 2, "not an mIoU of a network"),
        ([EPYC, "--miou", "=3"], 2, "not an mIoU of a network"),
        ([EPYC, "--miou", "ssr=nan"], 2, "per cent, 0 to 100"),
        ([EPYC, "--miou", "ssr=101"], 2, "per cent, 0 to 100"),
        ([EPYC, "--miou", "srr=70"], 2, "ssr"),
        ([EPYC, "--miou", "other.json/ssr=70"], 2, "no such file was given"),
        ([EPYC, "--published", "train"], 2, "unknown split"),
        ([EPYC, EPYC, "--objectives", "params"], 3, "given twice"),
        ([EPYC, XEON, "--objectives", "latency,params", "--svg", "x.svg"], 2, "one plot holds one front"),
        ([EPYC, "--objectives", "latency,params", "--svg", "x.svg"], 2, "no values for the axes"),
        ([EPYC, "--miou", "ssr=70", "--x", "miou", "--svg", "x.svg"], 2, "both axes"),
        ([EPYC, "--json", "-", "--csv", "-"], 2, "only one result can go to standard output"),
        ([EPYC, "--json", "no/front.json"], 4, "the folder does not exist"),
        ([str(RESULTS)], 3, "a folder"),
        ([str(RESULTS / "none.json")], 3, "does not exist"),
        ([str(RESULTS / "xeon-2cores-lowering.json")], 3, "not a file that a report is made of"),
    ],
)
def test_refusals(capsys, monkeypatch, tmp_path, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    assert main(["pareto", *arguments]) == code
    assert words in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_labels_say_only_what_differs(measured):
    from bench.report.fronts import labels_of

    alike = [measured("a"), measured("b")]
    assert labels_of(alike) == ["a", "b"]
    mixed = [measured("a"), measured("a", backend="openvino", mode="bf16", precision="bf16"), measured("a")]
    assert labels_of(mixed) == ["a onnxruntime", "a openvino:bf16", "a onnxruntime (2)"]


def test_no_measurements(capsys, tmp_path):
    file = tmp_path / "empty.json"
    file.write_text(json.dumps({"schema": 1, "machine": {}, "measurements": [], "failures": []}))
    assert main(["pareto", str(file)]) == 3
    assert "no measurement" in capsys.readouterr().err


def test_every_subset_of_objectives(capsys):
    for size in range(1, 4):
        for chosen in itertools.combinations(["latency", "macs", "params"], size):
            (front,) = as_json(capsys, EPYC, "--objectives", ",".join(chosen))
            assert front["objectives"] == list(chosen)
            assert front["front"]
