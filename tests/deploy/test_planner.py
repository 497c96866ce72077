"""The table of targets: every fact has a source, names are found, refusals are found in models."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy._graph_rules import RULES
from deploy.backends import BACKENDS
from deploy.planner import PRECISIONS, RUNTIMES, check_export, plan, targets, targets_markdown
from searchkit.errors import InputFileError, UsageError

ROOT = Path(__file__).resolve().parents[2]
TABLE = tomllib.loads((ROOT / "deploy" / "targets.toml").read_text())
ASKED_FOR = ["v100", "rtx2080ti", "gtx1080ti", "titanxp", "rtx3090", "rtx4090", "a100", "h100", "h200", "orin", "cpu"]
F, U8 = TensorProto.FLOAT, TensorProto.UINT8


def cited(tree):
    if isinstance(tree, dict):
        return {k for key, value in tree.items() for k in (value.split() if key == "source" else cited(value))}
    return {key for value in tree for key in cited(value)} if isinstance(tree, list) else set()


def facts(tree, path=()):
    """Every table that states something, with its path."""
    if isinstance(tree, dict):
        if set(tree) & {"verdict", "text", "why", "title"}:
            yield path, tree
        for key, value in tree.items():
            yield from facts(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from facts(value, (*path, index))


def test_every_fact_has_a_source_and_every_source_a_fact():
    rest = {key: value for key, value in TABLE.items() if key != "sources"}
    assert cited(rest) == set(TABLE["sources"])
    stated = list(facts(rest))
    assert len(stated) > 80
    assert not [path for path, fact in stated if not fact.get("source")]
    for entry in TABLE["targets"].values():
        assert "precisions" not in entry or entry["precisions"]["source"]


def test_the_table_holds_known_words_only():
    for sm, entry in TABLE["targets"].items():
        assert entry["line"] in TABLE["lines"]
        assert entry["recommended"] in RUNTIMES
        for name in RUNTIMES:
            assert entry.get(name, {"verdict": "no"})["verdict"] in {"yes", "slow", "no", "unlisted"}, sm
        known = {key: value for key, value in entry.get("precisions", {}).items() if key != "source"}
        assert set(known) <= set(PRECISIONS)
        assert set(known.values()) <= {"tensor cores", "yes", "no"}
    for entry in (*TABLE["refusals"], *TABLE["cautions"]):
        assert set(entry["runtimes"]) <= set(RUNTIMES)
        assert set(entry.get("targets", [])) <= set(TABLE["targets"])
    assert {entry["check"] for entry in TABLE["refusals"]} == set(RULES)
    assert {entry["sm"] for entry in TABLE["names"].values()} <= set(TABLE["targets"])


def test_its_runtimes_are_backends():
    assert set(RUNTIMES) - {"torch"} <= set(BACKENDS.names())


@pytest.mark.parametrize("name", targets())
def test_every_target_has_a_plan(name):
    planned = plan(name)
    assert planned.target == name
    assert planned.supports(planned.recommended).verdict == "yes"
    assert planned.sources
    tree = json.loads(json.dumps(planned.to_tree()))
    assert tree["schema"] == 1
    assert all(isinstance(line, str) and line for line in planned.lines())
    for item in (*planned.support, *planned.refused, *planned.warnings):
        assert set(item.source.split()) <= set(planned.sources)


def test_what_was_asked_for_is_there():
    assert set(ASKED_FOR) <= set(targets())
    assert {"sm61", "sm70", "sm75", "sm80", "sm86", "sm89", "sm90", "sm120"} <= set(targets())


@pytest.mark.parametrize(
    ("spelling", "name", "sm"),
    [
        ("V100", "v100", "sm70"),
        ("RTX 2080 Ti", "rtx2080ti", "sm75"),
        ("rtx-2080_ti", "rtx2080ti", "sm75"),
        ("sm75", "sm75", "sm75"),
        ("SM_75", "sm75", "sm75"),
        ("7.5", "sm75", "sm75"),
        ("12.0", "sm120", "sm120"),
        ("h200", "h200", "sm90"),
        ("cpu", "cpu", "cpu"),
    ],
)
def test_names_are_found_however_they_are_spelt(spelling, name, sm):
    planned = plan(spelling)
    assert (planned.target, planned.sm) == (name, sm)


@pytest.mark.parametrize("spelling", ["", "rtx2080", "sm76", "gpu", "sm", "7.6", "\0", "../v100"])
def test_an_unknown_target_names_the_nearest(spelling):
    with pytest.raises(UsageError, match="unknown target") as caught:
        plan(spelling)
    assert caught.value.exit_code == 2
    assert "rtx2080ti" in str(caught.value)


def test_the_v100_gets_the_last_versions_that_serve_it():
    planned = plan("v100")
    assert planned.recommended == "tensorrt"
    assert planned.packages["tensorrt"] == "tensorrt-cu12==10.4.0"
    assert planned.packages["onnxruntime"] == "onnxruntime-gpu==1.26.0"
    assert planned.pip[0].endswith("/whl/cu126")
    assert planned.supports("tensorrt-rtx").verdict == "no"
    assert planned.precisions == {
        "fp32": "yes",
        "fp16": "tensor cores",
        "int8": "yes",
        "bf16": "no",
        "fp8": "no",
    }
    assert any("fp16 was slower" in warning.text for warning in planned.warnings)


def test_the_2080_ti_is_never_timed_with_tensorrt_rtx():
    planned = plan("rtx2080ti")
    assert planned.recommended == "tensorrt"
    assert planned.supports("tensorrt-rtx").verdict == "slow"
    assert "tensorrt-rtx" not in planned.packages
    assert any("never publish this GPU's FPS from TensorRT-RTX" in warning.text for warning in planned.warnings)
    assert planned.packages["tensorrt"].startswith("tensorrt-cu13==11.")
    assert {r.check for r in planned.refused} >= {"fp32-gemm", "bf16", "fp8"}


def test_newer_gpus_refuse_less():
    assert {"bf16", "fp32-gemm"} & {r.check for r in plan("rtx4090").refused} == set()
    assert "fp8" in {r.check for r in plan("rtx3090").refused}
    assert "fp8" not in {r.check for r in plan("rtx4090").refused}
    assert "tensorrt-rtx" in plan("rtx4090").packages
    assert plan("h200").supports("tensorrt-rtx").verdict == "no"
    assert plan("cpu").refused == ()


def test_the_versions_are_those_of_the_constraints():
    constraints = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    packages = plan("rtx4090").packages
    named = dict(p.split("==") for value in packages.values() for p in value.split())
    assert len(named) >= 6
    for name, version in named.items():
        assert constraints.get(name, version) == version, name
    assert {"torch", "onnxruntime-gpu", "tensorrt-rtx", "cuda-core", "cuda-bindings"} <= set(constraints) & set(named)


def test_a_dependency_is_named_exactly():
    for name in targets():
        for value in plan(name).packages.values():
            assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", package) for package in value.split()), name


def test_the_document_shows_this_table():
    assert targets_markdown() in (ROOT / "docs" / "engines.md").read_text()


# What is refused, found in a model.


def onnx_of(*nodes, x=(F, [1, 4, 8, 8]), y=(F, [1, 4, 8, 8]), constants=None, opset=18):
    values = [helper.make_tensor_value_info(n, *spec) for n, spec in (("x", x), ("y", y))]
    initialisers = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "g", values[:1], values[1:], initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10).SerializeToString()


node = helper.make_node
WEIGHT = {"w": np.ones((8, 8), np.float32)}
HALF_WEIGHT = {"w": np.ones((8, 8), np.float16)}
QUANTISED = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])]
FLAT, HALF = (F, [4, 8]), (TensorProto.FLOAT16, [4, 8])
OFFENDERS = {
    "fp32-gemm": onnx_of(node("MatMul", ["x", "w"], ["y"], name="mm"), x=FLAT, y=FLAT, constants=WEIGHT),
    "bf16": onnx_of(
        node("Cast", ["x"], ["b"], to=TensorProto.BFLOAT16), node("Cast", ["b"], ["y"], to=F), x=FLAT, y=FLAT
    ),
    "fp8": onnx_of(
        node("Cast", ["x"], ["b"], to=TensorProto.FLOAT8E4M3FN), node("Cast", ["b"], ["y"], to=F), x=FLAT, y=FLAT,
        opset=19,
    ),
    "antialias-resize": onnx_of(
        node("Resize", ["x", "", "s"], ["y"], mode="linear", antialias=1, name="up"),
        constants={"s": np.array([1, 1, 1, 1], np.float32)},
    ),
    "uint8-operators": onnx_of(
        node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), node("Cast", ["t"], ["y"], to=F), x=(U8, [1, 8, 8, 4])
    ),
    "zero-points": onnx_of(*QUANTISED, constants={"s": np.float32(0.1), "z": np.int8(3)}),
    "int32-bias": onnx_of(
        node("DequantizeLinear", ["b", "s"], ["d"]), node("Add", ["x", "d"], ["y"]),
        constants={"b": np.array([7], np.int32), "s": np.float32(0.1)},
    ),
    "dynamic-shapes": onnx_of(node("Relu", ["x"], ["y"]), x=(F, ["n", 4, 8, 8]), y=(F, ["n", 4, 8, 8])),
}  # fmt: skip
WHERE = {"fp32-gemm": ("rtx2080ti", "tensorrt-rtx"), "bf16": ("rtx2080ti", None), "fp8": ("rtx3090", None)}


@pytest.mark.parametrize("check", RULES)
def test_each_refusal_is_found_and_no_other(check):
    target, runtime = WHERE.get(check, ("rtx4090", None))
    (problem,) = check_export(target, "labels", "fp32", OFFENDERS[check], runtime=runtime)
    refusal = next(r for r in plan(target).refused if r.check == check)
    assert refusal.what in problem
    assert refusal.why in problem
    assert target in problem
    assert "labels" in problem


@pytest.mark.parametrize(
    ("name", "model"),
    {
        "half precision product": onnx_of(node("MatMul", ["x", "w"], ["y"]), x=HALF, y=HALF, constants=HALF_WEIGHT),
        "1x1 convolution": onnx_of(node("Conv", ["x", "k"], ["y"]), constants={"k": np.ones((4, 4, 1, 1), np.float32)}),
        "symmetric": onnx_of(*QUANTISED, constants={"s": np.float32(0.1), "z": np.int8(0)}),
        "no zero-point": onnx_of(
            node("QuantizeLinear", ["x", "s"], ["q"]),
            node("DequantizeLinear", ["q", "s"], ["y"]),
            constants={"s": np.float32(0.1)},
        ),
        "uint8 cast first": onnx_of(
            node("Cast", ["x"], ["f"], to=F), node("Transpose", ["f"], ["y"], perm=[0, 3, 1, 2]), x=(U8, [1, 8, 8, 4])
        ),
        "plain resize": onnx_of(
            node("Resize", ["x", "", "s"], ["y"], mode="linear"), constants={"s": np.array([1, 1, 1, 1], np.float32)}
        ),
    }.items(),
)
def test_what_is_allowed_is_not_refused(name, model):
    assert check_export("rtx2080ti", "raw", "fp32", model, runtime="tensorrt-rtx") == [], name


def test_a_3d_convolution_counts_as_a_matrix_product():
    model = onnx_of(
        node("Conv", ["x", "k"], ["y"], name="volume"),
        x=(F, [1, 2, 4, 8, 8]),
        y=(F, [1, 2, 4, 8, 8]),
        constants={"k": np.ones((2, 2, 1, 1, 1), np.float32)},
    )
    (problem,) = check_export("sm75", "raw", "fp32", model, runtime="tensorrt-rtx")
    assert "Conv 'volume'" in problem


def test_a_zero_point_that_is_a_node_is_found():
    constant = helper.make_node("Constant", [], ["z"], value=numpy_helper.from_array(np.int8(3), "z"))
    model = onnx_of(constant, *QUANTISED, constants={"s": np.float32(0.1)})
    assert len(check_export("rtx4090", "raw", "int8", model)) == 1


def test_shipped_networks_are_taken_everywhere(exported):
    for io in ("labels", "raw"):
        model = exported("ssr-baseline1", io)
        for target in ("v100", "rtx4090"):
            assert check_export(target, io, "fp32", model.onnx) == [], (target, io)
        assert check_export("rtx2080ti", io, "fp32", model.onnx, runtime="tensorrt_rtx") == []


def test_a_runtime_that_does_not_serve_the_target():
    model = OFFENDERS["antialias-resize"]
    assert check_export("v100", "raw", "fp32", model, runtime="tensorrt-rtx") == [
        "tensorrt-rtx does not serve v100: starts at SM 7.5"
    ]
    assert check_export("cpu", "raw", "fp32", model) == []
    assert check_export("gtx1080ti", "raw", "fp32", model) == []


def test_a_precision_that_the_gpu_does_not_have():
    assert check_export("v100", "raw", "bf16", OFFENDERS["antialias-resize"])[0] == (
        "tensorrt on v100 does not compute in bf16"
    )


def test_an_opset_beyond_the_parser():
    model = onnx_of(node("Relu", ["x"], ["y"]), opset=21)
    assert check_export("v100", "raw", "fp32", model) == ["tensorrt on v100 reads ONNX opset 20 at most, this is 21"]
    assert check_export("rtx2080ti", "raw", "fp32", model) == []


def test_an_unknown_runtime():
    with pytest.raises(UsageError, match="unknown runtime"):
        check_export("v100", "raw", "fp32", b"", runtime="tvm")


@pytest.mark.parametrize("data", [b"\x00\xff" * 100, b"no model", b"\x08"])
def test_what_is_no_model(data):
    with pytest.raises(InputFileError, match="not an ONNX model"):
        check_export("v100", "raw", "fp32", data)
