"""Times of layers: what the runtimes say, matched only by what they say, and set beside the limit."""

from __future__ import annotations

import csv
import functools
import io
import json
from datetime import timedelta
from types import SimpleNamespace

import onnx
import pytest
from onnx import TensorProto, helper

from bench import layer_times, peaks
from bench.cli import main
from bench.layer_times import LayerTimes, Row, join, times_of
from bench.layers import Layer, layers_of
from bench.profilers import Profiled, Step, summed
from bench.profilers import openvino as openvino_profiler
from bench.profilers import tensorrt as tensorrt_profiler
from bench.profilers.onnxruntime import matches
from bench.roofline import Roof, limit
from deploy.deployable import Deployable
from searchkit.errors import UsageError
from searchkit.networks import resolve
from searchkit.sizes import Size

ROOF = Roof("toy", "Toy", "fp32", 1e9, 1e9, "by hand")
A = Layer("a", "Conv", ("a", "relu"), 4_000_000, 0, 0, 1)
B = Layer("b", "Conv", ("b",), 1_000_000, 0, 0, 1)
C = Layer("c", "Resize", ("c",), 0, 0, 0, 2_000_000)


def graph(*nodes: tuple[str, str, list[str], list[str]]) -> onnx.GraphProto:
    """Nodes as (name, operator, inputs, outputs)."""
    made = [helper.make_node(operator, inputs, outputs, name=name) for name, operator, inputs, outputs in nodes]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    return helper.make_graph(made, "toy", [value], [value])


def made_up(*steps: Step, whole_ms: float = 10.0, summed_ms: float = 9.5) -> LayerTimes:
    bounds = limit([A, B, C], ROOF)
    rows, unmatched = join(steps, bounds.bounds)
    profiled = Profiled("toy", "1", "default", "cpu", whole_ms, summed_ms, 5, steps)
    return LayerTimes("net", "00", "64x128", "logits", profiled, bounds, tuple(rows), tuple(unmatched))


def test_a_layer_belongs_to_the_step_that_has_its_anchor():
    times = made_up(
        Step("one", "Conv", 6, ("a", "relu", "b")), Step("two", "Reorder", 1, ()), Step("three", "R", 2, ("c",))
    )
    assert [[bound.layer.name for bound in row.layers] for row in times.rows] == [["a", "b"], [], ["c"]]
    first, second, third = times.rows
    assert (first.macs, first.limit_ms, first.lost_ms, first.attained) == (5_000_000, 5, 1, 5 / 6)
    assert (second.limit_ms, second.lost_ms, second.attained, second.bound_by) == (0, 1, None, "")
    assert (third.attained, third.bound_by) == (1, "memory")
    assert times.unmatched == ()


def test_a_step_without_an_anchor_has_no_layer_and_a_layer_without_a_step_is_said():
    times = made_up(Step("one", "Relu", 6, ("relu",)), Step("two", "Conv", 1, ("b",)))
    assert times.rows[0].layers == ()
    assert [bound.layer.name for bound in times.unmatched] == ["a", "c"]
    assert "2 layers (6 ms of the limit) are not said to be in any step: a, c." in times.remarks()


def test_a_layer_is_counted_once():
    times = made_up(Step("one", "Conv", 6, ("a",)), Step("two", "Conv", 6, ("a", "b", "c")))
    assert sum(row.limit_ms for row in times.rows) == times.limit.ms


def test_the_furthest_from_the_limit_come_first():
    times = made_up(Step("one", "Conv", 4.5, ("a",)), Step("two", "Reorder", 2, ()), Step("three", "Conv", 1.1, ("b",)))
    assert [row.step.name for row in times.furthest(2)] == ["two", "one"]


def test_the_sum_of_the_steps_is_held_against_the_whole_run():
    step = Step("one", "Conv", 9.5, ("a", "b", "c"))
    assert made_up(step).remarks() == ["All steps of a run take 9.5 of 10 ms: 95% of the profiled run."]
    apart = made_up(step, summed_ms=7.0).remarks()
    assert "70% of the profiled run" in apart[0]
    assert apart[1].startswith("The rest is the runtime's own work")
    assert apart[2].startswith("! The medians of the steps add up to 9.5 ms")


def test_a_run_is_the_sum_of_its_steps():
    assert summed([[1.0, 2.0, 9.0], [1.0, 5.0, 1.0]]) == 7


def test_onnxruntime_nodes_are_matched_by_name_tensor_and_what_the_name_was_made_of():
    exported = graph(
        *(("conv1", "Conv", ["x"], ["c1"]), ("relu1", "Relu", ["c1"], ["r1"])),
        *(("conv2", "Conv", ["r1"], ["c2"]), ("add", "Add", ["c2", "r1"], ["s"])),
        ("slice", "Slice", ["s"], ["y"]),
    )
    optimised = graph(
        *(("r1_nchwc", "Conv", ["x"], ["t1"]), ("reorder", "ReorderOutput", ["t1"], ["r1"])),
        *(("fused", "Conv", ["r1"], ["s"]), ("slice", "Slice", ["s"], ["other"])),
    )
    assert matches(exported, optimised) == {
        "r1_nchwc": ("conv1", "relu1"),
        "fused": ("conv2", "add"),
        "slice": ("slice",),
    }


def test_what_two_nodes_may_have_swallowed_is_given_to_neither():
    exported = graph(("scale", "Mul", ["x"], ["m"]), ("one", "Conv", ["m"], ["a"]), ("two", "Conv", ["m"], ["b"]))
    optimised = graph(("one", "Conv", ["x"], ["a"]), ("two", "Conv", ["x"], ["b"]))
    assert matches(exported, optimised) == {"one": ("one",), "two": ("two",)}


@functools.cache
def model() -> Deployable:
    return Deployable(resolve("fast-scnn"), Size(64, 128), "logits")


@pytest.mark.parametrize(("backend", "mode"), [("onnxruntime", "default"), ("openvino", "fp32"), ("pytorch", "eager")])
def test_every_profiler_accounts_for_every_convolution(backend, mode):
    times = times_of(model(), backend, ROOF, mode=mode, threads=1, runs=3)
    assert times.profiled.runs == 3
    assert all(row.step.ms >= 0 for row in times.rows)
    assert min(times.profiled.summed_ms, times.profiled.whole_ms) > 0
    pools = 2 if backend == "pytorch" else 0
    convolutions = [bound.layer.name for bound in times.unmatched if bound.layer.operator == "Conv"]
    # In PyTorch the adaptive pools are functional; they are exported as two convolutions.
    assert len(convolutions) == pools
    if backend != "pytorch":
        assert times.unmatched == ()
    matched = sum(row.limit_ms for row in times.rows) + sum(bound.limit_ms for bound in times.unmatched)
    assert matched == pytest.approx(times.limit.ms)


def test_no_profiler_leaves_its_setting_behind():
    from deploy.backends.openvino import shared_core

    times_of(model(), "openvino", ROOF, mode="fp32", threads=1, runs=1)
    assert shared_core().get_property("CPU", "PERF_COUNT") is False


class FakeContext:
    """Tells its profiler of two layers at each run, as an execution context does."""

    profiler: object = None

    def run(self) -> None:
        self.profiler.report_layer_time("conv1 + relu1", 2.0)
        self.profiler.report_layer_time("Reformatting CopyNode", 0.5)


class FakeSession:
    def __init__(self) -> None:
        self._context = FakeContext()

    def execute(self) -> None:
        self._context.run()

    def synchronize(self) -> None:
        pass


class FakeTensorRT:
    class IProfiler:
        def __init__(self) -> None:
            pass


def test_tensorrt_layers_are_recorded_without_the_warm_up():
    whole, times = tensorrt_profiler.run(FakeSession(), FakeTensorRT, 4)
    assert len(whole) == 4
    assert times == {"conv1 + relu1": [2.0] * 4, "Reformatting CopyNode": [0.5] * 4}


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("conv1 + relu1", ("conv1", "relu1")),
        ("PWN(PWN(relu1), add)", ("relu1", "add")),
        ("Reformatting CopyNode for Input Tensor 0 to conv10", ()),
        ("conv1", ("conv1",)),
    ],
)
def test_tensorrt_names_are_matched_whole(name, nodes):
    assert tensorrt_profiler.nodes_in(name, ["conv1", "relu1", "add"]) == nodes


def test_a_mode_that_cannot_be_profiled_is_refused():
    for backend, mode in (("onnxruntime", "label_head"), ("pytorch", "compiled"), ("openvino", "label_head")):
        with pytest.raises(UsageError, match="--backend"):
            times_of(model(), backend, ROOF, mode=mode, threads=1, runs=1)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(peaks, "QUICK_SIZES", (64,))
    monkeypatch.setattr(peaks, "QUICK_COPY_BYTES", (1 << 16,))


def test_the_command_writes_json_and_csv(small, tmp_path, capsys):
    target, table = tmp_path / "layers.json", tmp_path / "layers.csv"
    where = ["--resolution", "64x128", "--threads", "1", "--runs", "2"]
    assert main(["profile", "fast-scnn", "--layers", *where, "--json", str(target), "--csv", str(table)]) == 0
    text = capsys.readouterr().out
    assert "times by the profiler of onnxruntime:default" in text
    assert "of the profiled run" in text
    tree = json.loads(target.read_text())
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert len(rows) == len(tree["rows"])
    assert [float(row["ms"]) for row in rows] == [row["ms"] for row in tree["rows"]]
    layers = layers_of(model().onnx)
    assert sum(int(row["macs"]) for row in rows) == sum(layer.macs for layer in layers)
    assert sum(int(row["bytes"]) for row in rows) == sum(layer.bytes for layer in layers)
    assert tree["limit"]["device"] == "here"
    assert tree["machine"]["cores"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--backend", "openvino"], 2, "--backend belongs to --layers"),
        (["--runs", "3"], 2, "--runs belongs to --layers"),
        (["--layers", "--backend", "aoti"], 2, "no profiler for this backend"),
        (["--layers", "--backend", "onnxruntime:fast"], 2, "unknown mode"),
        (["--layers", "--json", "-", "--csv", "-"], 2, "only one result"),
        (["--layers", "--csv", "/nowhere/x.csv"], 4, "/nowhere"),
        (["--layers", "--io", "logit"], 2, "logits"),
    ],
)
def test_bad_calls_are_explained(arguments, code, words, capsys):
    assert main(["profile", "fast-scnn", "--resolution", "64x128", *arguments]) == code
    assert words in capsys.readouterr().err


def test_a_row_that_took_no_time_has_no_share():
    assert Row(Step("s", "Conv", 0.0, ("a",)), limit([A], ROOF).bounds).attained is None


def test_names_of_backends_are_those_with_a_profiler():
    for name in layer_times.BACKENDS:
        assert callable(layer_times.profiler_of(name))


class FakeRequest:
    """A step that ran only once, as a reordering of constants does."""

    def __init__(self) -> None:
        self.runs = 0

    def get_profiling_info(self) -> list[object]:
        self.runs += 1
        names = ["conv", "once"] if self.runs == 1 else ["conv"]
        took = timedelta(milliseconds=2)
        return [SimpleNamespace(node_name=n, node_type="Conv", status="Status.EXECUTED", real_time=took) for n in names]


def test_a_step_that_openvino_did_not_run_each_time_counts_as_nothing_then():
    session = SimpleNamespace(execute=lambda: None, _request=FakeRequest())
    whole, times, _ = openvino_profiler._run(session, 3)
    assert (len(whole), times) == (3, {"conv": [2.0] * 3, "once": [2.0, 0.0, 0.0]})
