"""`bench compare`: which cells belong together, what is refused, and when a cell fails, passes or cannot be judged."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.cli import main
from bench.compare import FASTER, PASSES, REGRESSION, SLOWER, UNDECIDED, compare, rules_of
from bench.compare_sources import Source, read, series_of
from bench.compare_table import headline, markdown
from bench.protocol import Timed
from deploy.backends import SessionInfo
from searchkit.errors import InputFileError, UsageError
from searchkit.sizes import Size

from .test_trtexec import TIMES, encoded, trace


def noisy(seed, *, factor=1.0, count=5, runs=20, between=0.01):
    random = np.random.default_rng(seed)
    return [
        list(factor * 10 * np.exp(random.normal(0, between)) * np.exp(random.gamma(1.0, 0.02, runs)))
        for _ in range(count)
    ]


def source(*measurements, path="f.json", **fields):
    return Source(path, "bench", tuple(map(series_of, measurements)), **fields)


def judged(old, new, *rules, **settings):
    return compare(source(old, path="old"), source(new, path="new"), rules_of(rules), **settings)


@pytest.fixture
def saved(tmp_path):
    """Writes measurements as `bench fps --json` does."""

    def save(name, *measurements, **fields):
        tree = {
            "schema": 1,
            "machine": {"cpu": "a CPU"},
            "measurements": [measurement.to_tree() for measurement in measurements],
            "failures": [],
        }
        path = tmp_path / name
        path.write_text(json.dumps(tree | fields))
        return str(path)

    return save


@pytest.mark.parametrize(
    ("factor", "rule", "verdict", "finding"),
    [
        (1.30, "+5%", REGRESSION, SLOWER),
        (1.30, "+50%", PASSES, SLOWER),
        (1.05, "+5%", UNDECIDED, SLOWER),
        (0.80, "+5%", PASSES, FASTER),
        (1.30, "+1ms", REGRESSION, SLOWER),
        (1.30, "+10ms", PASSES, SLOWER),
        (1.30, "+3.1ms", UNDECIDED, SLOWER),
        (0.80, "+0.5ms", PASSES, FASTER),
    ],
)
def test_verdicts(measured, factor, rule, verdict, finding):
    report = judged(measured(rounds=noisy(1)), measured(rounds=noisy(2, factor=factor)), rule)
    (cell,) = report.comparisons
    assert (cell.verdict, cell.finding) == (verdict, finding)
    assert report.failed() == (verdict == REGRESSION)
    assert bool(cell.advice) == (verdict == UNDECIDED)


def test_a_cell_at_the_threshold_says_how_many_rounds_would_decide(measured):
    report = judged(measured(rounds=noisy(1)), measured(rounds=noisy(2, factor=1.05)), "+5%")
    (cell,) = report.comparisons
    assert cell.verdict == UNDECIDED
    assert cell.more_rounds is not None
    assert f"about {cell.more_rounds} more round" in cell.advice
    assert cell.advice in markdown(report)


def test_noise_alone_seldom_fails(measured):
    """Two runs of one network: at a threshold of 0 % one side of a 95 % interval, at 5 % never in these."""
    alarms = {"+0%": 0, "+5%": 0}
    for seed in range(60):
        old, new = measured(rounds=noisy(2 * seed)), measured(rounds=noisy(2 * seed + 1))
        for rule in alarms:
            alarms[rule] += judged(old, new, rule).failed()
    assert alarms["+0%"] <= 5
    assert alarms["+5%"] == 0


def test_the_true_shift_is_found_nearly_always(measured):
    found = sum(
        judged(measured(rounds=noisy(seed)), measured(rounds=noisy(seed + 500, factor=1.12)), "+5%").failed()
        for seed in range(40)
    )
    assert found >= 36


def test_without_a_threshold_nothing_fails(measured):
    report = judged(measured(rounds=noisy(1)), measured(rounds=noisy(2, factor=3)))
    assert report.comparisons[0].verdict is None
    assert not report.failed()
    assert headline(report) == "Compared, no threshold given."


def test_a_rule_of_a_network_goes_before_that_of_all(measured):
    old = source(measured("ssr", noisy(1)), with_digest(measured("erfnet", noisy(2)), "1b"))
    new = source(measured("ssr", noisy(3, factor=1.1)), with_digest(measured("erfnet", noisy(4, factor=1.1)), "1b"))
    report = compare(old, new, rules_of(["+50%", "erfnet=+2%"]))
    assert [(c.new.network, str(c.rule), c.verdict) for c in report.comparisons] == [
        ("ssr", "+50%", PASSES),
        ("erfnet", "+2%", REGRESSION),
    ]


def with_digest(measurement, two):
    return replace(measurement, network=replace(measurement.network, digest=two * 32))


@pytest.mark.parametrize(
    "rule", ["5%", "+5", "-5%", "+nan%", "+5%%", "+ms", "=+5%", "ssr,=+5%", "+1e3%", "", "+5 s", "+inf%"]
)
def test_what_is_no_threshold_is_refused(rule):
    with pytest.raises(UsageError, match="not a threshold"):
        rules_of([rule])


def test_thresholds():
    (rule,) = rules_of(["ssr, fasterseg=+2.5%"])
    assert (rule.networks, rule.limit, rule.is_relative) == (("ssr", "fasterseg"), 1.025, True)
    assert str(rules_of(["+0.5ms"])[0]) == "+0.5 ms"
    for twice in (["+5%", "+6ms"], ["ssr=+5%", "ssr,erfnet=+6%"]):
        with pytest.raises(UsageError, match="two thresholds"):
            rules_of(twice)


def test_a_threshold_for_an_unknown_network_is_refused(measured):
    with pytest.raises(UsageError, match="Did you mean ssr"):
        judged(measured(), measured(), "srr=+5%")


def other_session(measurement, **changes):
    return replace(measurement, session=replace(measurement.session, **changes))


def other_options(measurement, **options):
    return other_session(measurement, options=measurement.session.options | options)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: with_digest(m, "1b"),
        lambda m: replace(m, resolution=Size(256, 512)),
        lambda m: replace(m, io="labels"),
        lambda m: replace(m, timed=Timed(batch=2)),
        lambda m: other_session(m, backend="openvino"),
        lambda m: other_session(m, device="cuda"),
        lambda m: other_options(m, mode="bf16"),
        lambda m: other_options(m, precision="int8"),
    ],
)
def test_what_makes_another_cell(measured, change):
    old, new = measured(rounds=noisy(1)), measured(rounds=noisy(2))
    assert len(judged(old, new).comparisons) == 1
    with pytest.raises(UsageError, match="no cell in common"):
        judged(old, change(new))


def test_a_renamed_network_is_the_same_cell(measured):
    assert len(judged(measured("ssr"), measured("ssr-v2")).comparisons) == 1


def test_missing_cells_are_listed_on_both_sides(measured):
    both = measured("ssr", noisy(1))
    old = source(both, with_digest(measured("erfnet"), "1b"), path="old.json")
    new = source(both, other_options(measured("ssr"), precision="int8"), path="new.json")
    report = compare(old, new)
    assert report.only_old == ("erfnet onnxruntime cpu 512x1024",)
    assert report.only_new == ("ssr onnxruntime int8 cpu 512x1024",)
    assert not report.failed()
    assert report.failed(strict_cells=True)
    assert "only in old.json: erfnet" in markdown(report)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: replace(m, protocol=replace(m.protocol, warmup_ms=7)),
        lambda m: replace(m, protocol=replace(m.protocol, settle_ms=7)),
        lambda m: replace(m, protocol=replace(m.protocol, timed="another thing")),
        lambda m: replace(m, protocol=replace(m.protocol, name="single stream")),
        lambda m: replace(m, protocol=replace(m.protocol, steady=None)),
        lambda m: replace(m, protocol=replace(m.protocol, calibration_runs=100)),
        lambda m: replace(m, timed=Timed(transfers=True)),
        lambda m: replace(m, timed=Timed(cuda_graph=True)),
        lambda m: replace(m, timed=Timed(preprocessing="on the host")),
        lambda m: replace(m, timed=Timed(postprocessing="in the graph")),
        lambda m: replace(m, timed=Timed(streams=2)),
        lambda m: other_options(m, threads="8"),
    ],
)
def test_other_protocols_are_refused_unless_asked_for(measured, change):
    old, new = measured(rounds=noisy(1)), change(measured(rounds=noisy(2)))
    with pytest.raises(UsageError, match="protocols differ") as caught:
        judged(old, new)
    assert "--across protocols" in str(caught.value)
    with pytest.raises(UsageError, match="protocols differ"):
        judged(old, new, across=["machines"])
    report = judged(old, new, across=["protocols"])
    assert "the protocols differ" in report.loud[0]
    assert "**WARNING:**" in markdown(report)


def on(measurement, **fields):
    return replace(measurement, machine=measurement.machine | fields)


@pytest.mark.parametrize(
    "fields", [{"cpu": "another"}, {"cores": 4}, {"governor": "performance"}, {"os": "Windows 11 AMD64"}, {"cpu": None}]
)
def test_other_machines_are_refused_unless_asked_for(measured, fields):
    old, new = on(measured(), os="Linux 6.1 x86_64"), on(measured(), **{"os": "Linux 6.1 x86_64"} | fields)
    with pytest.raises(UsageError, match="machines differ") as caught:
        judged(old, new)
    assert "--across machines" in str(caught.value)
    assert "the machines differ" in judged(old, new, across=["machines"]).loud[0]


@pytest.mark.parametrize("fields", [{"gpu": "H200"}, {"gpu_driver": "580.1"}, {"gpu_power_limit_w": "300"}])
def test_the_gpu_counts_for_cells_on_it_only(measured, fields):
    old, new = on(measured(), gpu="H100", gpu_driver="570.2"), on(measured(), **{"gpu": "H100"} | fields)
    assert not judged(old, new).loud
    with pytest.raises(UsageError, match="machines differ: gpu"):
        judged(other_session(old, device="cuda"), other_session(new, device="cuda"))


def test_both_refusals_are_said_at_once(measured):
    new = on(replace(measured(), timed=Timed(transfers=True)), cores=64)
    with pytest.raises(UsageError, match="--across protocols --across machines"):
        judged(measured(), new)


def test_what_may_differ(measured):
    """Load, memory, kernel and Python; versions of runtimes and the model, which are shown; and how many samples."""
    old = on(measured(rounds=noisy(1)), load_1min=0.1, os="Linux 6.1.0 x86_64", python="3.11.1", memory_gib=8.0)
    new = on(
        measured(rounds=noisy(2, count=9)), load_1min=9.0, os="Linux 6.2.0 x86_64", python="3.12.1", memory_gib=9.0
    )
    new = replace(new, protocol=new.protocol.with_rounds(9), artifact_sha256="ab" * 32)
    report = judged(old, other_session(new, version="2.0.0"))
    assert not report.loud
    assert report.comparisons[0].versions["onnxruntime"] == ("1.2.3", "2.0.0")
    text = markdown(report)
    assert "onnxruntime: 1.2.3 in the old file, 2.0.0 in the new" in text
    assert "ONNX model: f0f0f0f0f0f0 in the old file, abababababab in the new" in text


def test_an_unknown_word_for_across(measured):
    with pytest.raises(UsageError, match="allowed: machines or protocols"):
        judged(measured(), measured(), across=["planets"])


def test_a_cell_that_stands_twice_is_said(measured, saved):
    found = read(saved("a.json", measured(rounds=noisy(1)), measured(rounds=noisy(2))))
    assert len(found.series) == 1
    assert "more than once" in found.remarks[0]


def test_failures_of_a_file_are_told(measured, saved):
    failure = {"network": "erfnet", "backend": "x", "mode": "y", "precision": "fp32", "problem": "no memory"}
    new = read(saved("new.json", measured(rounds=noisy(1)), failures=[failure], complete=False))
    report = compare(source(measured(rounds=noisy(2))), new)
    assert any("erfnet on x was not measured: no memory" in remark for remark in report.remarks)
    assert any("interrupted" in remark for remark in report.remarks)


# The command itself.


def test_exit_codes_and_outputs(measured, saved, tmp_path, capsys):
    old, new = saved("old.json", measured(rounds=noisy(1))), saved("new.json", measured(rounds=noisy(2, factor=1.3)))
    files = ["--json", str(tmp_path / "c.json"), "--markdown", str(tmp_path / "c.md")]
    assert main(["compare", old, new, "--fail-if", "+5%", *files]) == 1
    shown = capsys.readouterr().out
    assert "Regression. 1 cell compared: 1 regression" in shown
    assert "ssr onnxruntime cpu 512x1024" in shown
    tree = json.loads((tmp_path / "c.json").read_text())
    (cell,) = tree["cells"]
    assert (cell["verdict"], cell["threshold"]) == ("regression", "+5%")
    assert cell["ratio"]["low"] > 1.05
    assert (tmp_path / "c.md").read_text().startswith("**Regression.**")
    assert main(["compare", new, old, "--fail-if", "+5%"]) == 0
    assert main(["compare", old, new]) == 0
    assert main(["compare", old, new, "--fail-if", "5"]) == 2
    assert main(["compare", old, new, "--network", "erfnet"]) == 2
    assert main(["compare", old, new, "--json", "-", "--markdown", "-"]) == 2
    assert main(["compare", old, str(tmp_path)]) == 3
    assert main(["compare", old, str(tmp_path / "none.json")]) == 3


def test_strict_cells(measured, saved):
    one, other = measured("ssr", noisy(1)), with_digest(measured("erfnet", noisy(2)), "1b")
    old, new = saved("old.json", one, other), saved("new.json", one)
    assert main(["compare", old, new, "--fail-if", "+5%"]) == 0
    assert main(["compare", old, new, "--fail-if", "+5%", "--strict-cells"]) == 1
    assert main(["compare", old, new, "--network", "ssr", "--strict-cells"]) == 0


def test_results_go_to_standard_output_alone(measured, saved, capsys):
    path = saved("a.json", measured(rounds=noisy(1)))
    assert main(["compare", path, path, "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["cells"][0]["ratio"]["estimate"] == 1
    assert "1 cell compared" in captured.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("nonsense", "damaged"),
        ("{}", "not measurements"),
        ('{"schema": 2, "machine": {}, "measurements": [], "failures": []}', "newer"),
        ('{"schema": 1, "machine": {}, "measurements": [], "failures": []}', "no cell in common"),
        ("[]", "no queries"),
    ],
)
def test_bad_files_are_named(measured, saved, tmp_path, capsys, text, words):
    good, bad = saved("good.json", measured()), tmp_path / "bad.json"
    bad.write_text(text)
    for files in ([good, str(bad)], [str(bad), good]):
        assert main(["compare", *files]) in (2, 3)
        captured = capsys.readouterr()
        assert words in captured.err
        assert "bad.json" in captured.err
        assert "Traceback" not in captured.err


def test_nan_in_a_file_is_refused(measured, saved, capsys):
    tree = json.loads(Path(saved("good.json", measured())).read_text())
    tree["measurements"][0]["rounds_ms"][0][0] = float("nan")
    bad = saved("bad.json", measured(), measurements=tree["measurements"])
    assert main(["compare", bad, bad]) == 3
    assert "NaN" in capsys.readouterr().err


# trtexec's files.


@pytest.fixture
def traced(tmp_path):
    def write(name, times, **settings):
        path = tmp_path / name
        path.write_bytes(encoded(trace(times, **settings)))
        return str(path)

    return write


def test_two_files_of_trtexec_are_compared(traced, capsys):
    random = np.random.default_rng(0)
    times = [2 + abs(random.normal(0, 0.01)) for _ in range(300)]
    old, new = traced("old", times, style="old", endToEndMs=3.0), traced("new", [1.2 * time for time in times])
    assert main(["compare", old, new, "--fail-if", "+5%"]) == 1
    shown = capsys.readouterr().out
    assert "computeMs of trtexec (TensorRT 7 and before)" in shown
    assert "names neither network nor machine" in shown
    assert main(["compare", new, old, "--fail-if", "+5%"]) == 0


def test_latencies_with_and_without_transfers_are_two_protocols(traced, capsys):
    """Which trtexec 11 made the default; kernels alone stay comparable."""
    old, new = traced("old", TIMES * 20), traced("new", TIMES * 20, into=0.0, out=0.0)
    assert main(["compare", old, new]) == 0
    assert main(["compare", old, new, "--column", "latencyMs"]) == 2
    assert "transfers is 'timed' and 'none'" in capsys.readouterr().err
    assert main(["compare", old, new, "--column", "latencyMs", "--across", "protocols"]) == 0
    assert main(["compare", old, new, "--column", "endToEndMs"]) == 2


def test_trtexec_against_bench_needs_to_be_asked_for(traced, measured, saved, capsys):
    one, other = measured("ssr", noisy(1)), with_digest(measured("erfnet", noisy(2)), "1b")
    times = traced("times.json", [10.0, 10.1, 10.2] * 20)
    assert main(["compare", saved("a.json", one), times]) == 2
    assert "--across protocols" in capsys.readouterr().err
    both = saved("b.json", one, other)
    assert main(["compare", both, times, "--across", "protocols"]) == 2
    assert "Name one with --network" in capsys.readouterr().err
    assert main(["compare", both, times, "--across", "protocols", "--network", "ssr"]) == 0
    assert "WARNING: the protocols differ" in capsys.readouterr().out


def test_a_kept_run_equals_itself(capsys):
    """Real files: every cell joins itself, and nothing is a regression."""
    path = Path(__file__).parents[2] / "bench/results/xeon-2cores-backends-512x1024.json"
    report = compare(read(str(path)), read(str(path)), rules_of(["+1%"]))
    assert len(report.comparisons) == 14
    assert {cell.verdict for cell in report.comparisons} <= {PASSES, UNDECIDED}
    assert all(cell.change.ratio.estimate == 1 for cell in report.comparisons)


def test_an_unknown_file_kind_names_the_file(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[[]]")
    with pytest.raises(InputFileError, match="not a query"):
        read(str(path))


def test_session_info_is_what_is_compared(measured):
    """A provider is shown, not part of the cell: two of one backend and device are versions of one thing."""
    info = SessionInfo("onnxruntime", "1.2.3", "OtherProvider", "cpu", {"threads": "2"})
    report = judged(measured(), replace(measured(), session=info))
    assert report.comparisons[0].versions == {"provider": ("CPUExecutionProvider", "OtherProvider")}
