"""Figures in the documents are those of the files that they name."""

import json
from pathlib import Path
from statistics import mean, median

import pytest

from bench.headline import compare
from bench.result_file import read_results
from bench.studies import STUDIES
from bench.studies._record import read_record
from searchkit.sizes import parse_size

ROOT = Path(__file__).parents[2]


def row(document: str, first: str, length: int) -> list[str]:
    """The cells of the only table row of that length that begins with `first`."""
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    (found,) = (cells for cells in rows if cells[0] == first and len(cells) == length)
    return found


def spread(ratio: dict[str, float], digits: int) -> str:
    return f"{ratio['median']:.{digits}f} ({ratio['least']:.{digits}f} to {ratio['greatest']:.{digits}f})"


def test_what_a_training_step_costs():
    tree = json.loads((ROOT / "bench/results/xeon-2cores-training-128x256.json").read_text())
    milliseconds = {name: median(times) * 1e3 for name, times in tree["seconds_a_step"].items()}
    step = row("docs/training.md", "a step of `searchkit train`", 3)
    assert step[1:] == [
        f"{milliseconds['trainer']:.0f}",
        f"{spread(tree['trainer_over_bare_loop'], 2)} of the bare loop's time",
    ]
    assert row("docs/training.md", "a step of the bare loop", 3)[1] == f"{milliseconds['bare_loop']:.0f}"
    assert row("docs/training.md", "loading a batch, one thread", 3)[1:] == [
        f"{milliseconds['loading_by_one_thread']:.1f}",
        f"{spread(tree['loading_rate_over_step_rate'], 1)} times the rate of steps",
    ]


def test_ssr_against_its_baseline_over_seeds():
    tree = json.loads((ROOT / "bench/results/streets-ssr-against-baseline1.json").read_text())
    means = {}
    for network in ("ssr", "ssr-baseline1"):
        runs = {run["seed"]: run for run in tree["runs"] if run["network"] == network}
        assert sorted(runs) == [0, 1, 2]
        mious = [100 * runs[seed]["mean_iou"] for seed in sorted(runs)]
        boundary = 100 * mean(run["mean_boundary_iou"] for run in runs.values())
        means[network] = mean(mious)
        assert row("docs/training.md", f"`{network}`", 6)[1:] == [
            *(f"{miou:.2f}" for miou in mious),
            f"{means[network]:.2f} %",
            f"{boundary:.2f} %",
        ]
        assert all(mean(run["iou"].values()) == pytest.approx(run["mean_iou"]) for run in runs.values())
    ahead = means["ssr"] - means["ssr-baseline1"]
    assert f"`ssr` is {ahead:.2f} points ahead" in (ROOT / "docs/training.md").read_text()
    assert tree["difference_of_means"] == pytest.approx(ahead / 100)


def test_shipped_weights():
    """The table, and the classes that the text below it names."""
    records = {
        network: json.loads((ROOT / f"searchkit/shipped_weights/{network}.streets.json").read_text())["measured"]
        for network in ("ssr", "fasterseg")
    }
    for network, measured in records.items():
        assert (measured["split"], measured["samples"]) == ("val", 500)
        assert mean(measured["iou"].values()) == pytest.approx(measured["miou"])
        assert row("docs/training.md", f"`{network}`", 4)[3] == f"{100 * measured['miou']:.1f} %"
    ssr, fasterseg = (
        [f"{100 * records[network]['iou'][name]:.1f}" for name in ("pole", "bicycle", "traffic light")]
        for network in ("ssr", "fasterseg")
    )
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    named = "pole {} %, bicycle {} %, traffic light {} %, against {}, {} and {} % of `ssr`"
    assert named.format(*fasterseg, *ssr) in text


@pytest.mark.parametrize("network", ["ssr", "fasterseg"])
def test_what_precisions_cost(network):
    tree = json.loads((ROOT / f"bench/results/precision-{network}-128x256.json").read_text())
    text = (ROOT / "docs/precision.md").read_text(encoding="utf-8")
    for found in tree["precisions"].values():
        miou = found["miou"]
        assert miou["drop_points"] <= miou["limit_points"]
        assert found["passed"]
        assert f"`{network}`: {100 * miou['fp32']:.2f} % in float32" in text
        kept = f"{len(found['kept'])} of {found['layers']}" if found["layers"] else str(len(found["kept"]))
        clear = f"{100 * min(found['clear_agreement']):.2f} % of {100 * found['clear_share']:.0f} %"
        cells = [
            f"{100 * miou['converted']:.2f} %",
            f"{miou['drop_points']:+.3f}",
            kept,
            f"{found['mb']:.2f}",
            f"{100 * min(found['label_agreement']):.2f} %",
            clear,
        ]
        assert f" | {' | '.join(cells)} |\n" in text


def test_what_a_segmenter_adds():
    tree = json.loads((ROOT / "bench/results/xeon-2cores-segmenter-overhead-512x1024.json").read_text())
    around_us = sorted(1e3 * ms for ms in tree["samples"]["around_ms"])
    text = (ROOT / "docs/bundle.md").read_text(encoding="utf-8")
    assert f"{median(around_us):.1f} microseconds a frame" in text
    assert f"{len(around_us)} calls, 99 % of them under 21 microseconds" in text
    assert sum(us < 21 for us in around_us) >= 0.99 * len(around_us)


def test_our_timing_beside_other_tools():
    tree = json.loads((ROOT / "bench/results/xeon-2cores-other-tools.json").read_text())
    text = (ROOT / "docs/backends.md").read_text(encoding="utf-8")
    assert {len(turns) for turns in tree["mean_ms_of_each_turn"].values()} == {7}
    assert tree["runs_a_turn"] == 60
    for name in ("onnxruntime", "openvino"):
        ours = tree["ours_over_theirs"][name]
        assert f"{ours['median']:.3f} of its tool's ({ours['least']:.3f} to {ours['greatest']:.3f}" in text


def test_what_the_harness_costs():
    tree = json.loads((ROOT / "bench/results/xeon-2cores-harness.json").read_text())
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    overhead = tree["overhead"]
    assert f"takes {overhead['median_us']:.2f} microseconds, {overhead['in_sample_us']:.2f} of them inside" in text
    for entry in tree["agreement"]:
        ratio, interval = entry["ratio"]["median"], entry["ratio"]["interval"]
        assert f"{ratio:.3f} ({interval['low']:.3f} to {interval['high']:.3f}) for `{entry['network']}`" in text
    assert len(tree["agreement"]) == 2


def test_ssr_against_fasterseg():
    """Derived anew from the samples; what the file says of them must agree."""
    whole = parse_size("1024x2048")
    measurements = read_results(ROOT / "bench/results/xeon-2cores-headline.json").measurements
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    found = compare(measurements, whole)
    assert len(found) == 6
    for c in found:
        paper = f"{c.paper_fps[0]:.0f} to {c.paper_fps[1]:.0f} FPS, {c.paper_speed:.2f}x" if c.paper_fps else "-"
        speed = f"{c.speed:.2f}x ({c.interval[0]:.2f} to {c.interval[1]:.2f})"
        fps = f"{c.fps[0]:.3g} to {c.fps[1]:.3g} FPS"
        cells = (c.ssr_resolution, c.fasterseg_resolution, c.runtime, fps, speed, paper)
        assert f"| {' | '.join(cells)} |\n" in text
        assert (c.speed > 1) == (c.ssr_resolution != c.fasterseg_resolution)
        assert c.speed > 1 or c.speed < 0.5


def test_pre_processing():
    tree = json.loads((ROOT / "bench/results/xeon-2cores-preprocessing.json").read_text())
    text = (ROOT / "docs/native.md").read_text(encoding="utf-8")
    for case in tree["cases"]:
        times = {name: median(turns) for name, turns in case["turns_ms"].items()}
        factors = {name: ratio["median"] for name, ratio in case["times_as_fast_as_steps"].items()}
        first, *others = times
        cells = [f"{times[first]:.1f} ms", *(f"{times[name]:.1f} ms, {factors[name]:.1f}x" for name in others)]
        assert f"| {case['picture']} | {case['input']} | {' | '.join(cells)} |\n" in text
    assert len(tree["cases"]) == 4


def test_a_picture_in_labels_out():
    tree = json.loads((ROOT / "bench/results/xeon-2cores-pipeline-512x1024.json").read_text())
    text = (ROOT / "docs/native.md").read_text(encoding="utf-8")
    best, reached = {}, {}
    for case in tree["cases"]:
        factors = {name: ratio["median"] for name, ratio in case["times_as_fast_as_plain"].items()}
        times = {name: median(turns) for name, turns in case["turns_ms"].items()}
        ways = ("graph", "label head", "auto, fp32", "auto, int8")
        cells = [f"{times[way]:.1f} ms, {factors[way]:.1f}x" if way in times else "-" for way in ways]
        fastest = case["best"]
        ran = f"`{case['ran_on'][fastest]}`, {100 * case['label_agreement_with_plain'][fastest]:.2f} %"
        first = f"`{case['network']}` | {case['picture']} | {times['plain']:.1f} ms"
        assert f"| {first} | {' | '.join(cells)} | {ran} |\n" in text
        lower = "bf16" in case["ran_on"][fastest]
        best.setdefault(lower, []).append(factors[fastest])
        reached.setdefault(case["network"], []).append(factors[fastest] >= 3)
    both, none = sum(map(all, reached.values())), sum(not any(cases) for cases in reached.values())
    one = len(reached) - both - none
    assert f"Of the {len(reached)} networks, {both} are at least 3 times as fast in both cases, {one} in one" in text
    assert f", and {none} in none" in text
    for network, cases in reached.items():
        assert all(cases) or text.count(f"`{network}`") > 2
    assert f"{min(best[True]):.1f} to {max(best[True]):.1f} times as fast as plain where bfloat16" in text
    assert f"it is {min(best[False]):.1f} to {max(best[False]):.1f} times" in text


def test_what_a_step_of_the_supernet_costs():
    tree = json.loads((ROOT / "bench/results/xeon-2cores-supernet-step.json").read_text())
    for name, times in tree["pair_ms"].items():
        literal, vector = (tree[f"times_as_fast_as_{form}"][name] for form in ("literal", "mask_vector"))
        peak = f"{tree['memory_bytes'][name]['peak'] / 1e6:.0f}"
        assert row("docs/search.md", name, 5)[1:] == [
            f"{median(times):.0f}",
            spread(literal, 1),
            spread(vector, 1),
            peak,
        ]
    over = tree["supernet_over_discrete"]
    text = (ROOT / "docs/search.md").read_text(encoding="utf-8")
    assert f"takes {over['fp32']:.2f} times that of the discrete" in text
    assert f"network in float32 and {over['bf16']:.2f} times in bfloat16" in text


@pytest.mark.parametrize("path", sorted((ROOT / "bench/results").glob("studies-*.json")), ids=lambda path: path.stem)
def test_studies_of_searches(path):
    """The tables that `bench study` prints of the kept rows."""
    record = read_record(path)
    study = STUDIES.load(record.study)
    text = (ROOT / "docs/reproduction.md").read_text(encoding="utf-8")
    assert study.tables(record.rows, study.recipe).strip() in text
    assert f"`bench/results/{path.name}`" in text


def test_what_a_step_of_fasterseg_keeps_in_memory():
    tree = json.loads((ROOT / "bench/results/xeon-2cores-fasterseg-step.json").read_text(encoding="utf-8"))
    for name, kept in tree["activation_bytes"].items():
        assert row("docs/reproduction.md", name, 3)[1:] == [
            f"{kept[update] / 2**30:.3f}" for update in ("weights", "architecture")
        ]
    found = {name: f"{kept['weights'] / 2**30:.2f}" for name, kept in tree["activation_bytes"].items()}
    text = (ROOT / "docs/search.md").read_text(encoding="utf-8")
    ours, plain = found["inputs mixed, a backward each"], found["outputs mixed, one backward of the sum"]
    assert f"keeps {ours} GiB of maps, against {plain} GiB" in text
    assert f"and {found['inputs mixed, a backward each, checkpointing']} GiB with" in text


@pytest.mark.parametrize(
    "path", sorted((ROOT / "bench/results").glob("*-latency-table-*.json")), ids=lambda path: path.stem
)
def test_how_far_sums_of_operators_miss_whole_networks(path):
    tree = json.loads(path.read_text(encoding="utf-8"))
    found, (space, size) = tree["additivity"], path.stem.rsplit("-", 2)[-2:]
    cells = [
        *(f"`{space}`", size, str(len(tree["entries"]))),
        f"{min(found['measured_ms']):.1f} to {max(found['measured_ms']):.1f} ms",
        f"{found['pearson']:.4f}",
        f"{found['ratio']:.2f} ({found['ratio_low']:.2f} to {found['ratio_high']:.2f})",
    ]
    assert tree["network_input"] == list(map(int, size.split("x")))
    assert found["networks"] == 20
    assert f"| {' | '.join(cells)} |\n" in (ROOT / "docs/search.md").read_text(encoding="utf-8")
