"""The plugin of TensorRT, compiled against the declarations beside this file: driven as TensorRT would, its kernel run
on the CPU; and loaded by TensorRT-RTX, whose registry and parser are TensorRT's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from deploy.native.library import SOURCES, find_compiler
from deploy.native.onnx_operator import DOMAIN, OPERATOR
from deploy.native.tensorrt_plugin import with_plugin

HERE = Path(__file__).parent
PLUGIN = SOURCES / "tensorrt_plugin"
# Stand-ins for the headers of TensorRT and CUDA, and for the launch of a kernel.
DECLARED = ["-I", HERE / "tensorrt_declarations", "-I", HERE / "cuda_declarations", "-I", SOURCES, "-I", PLUGIN]
FLAGS = ["-std=c++17", "-g", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Werror", *DECLARED]
ON_CPU = ["-Wno-unknown-pragmas", "-include", HERE / "cuda_on_cpu.h", "-x", "c++", PLUGIN / "launch.cu", "-x", "none"]

LOAD = """
import sys
import numpy as np
import tensorrt_rtx as trt
logger = trt.Logger(trt.Logger.VERBOSE)
registry = trt.get_plugin_registry()
assert registry.load_library(sys.argv[1]) is not None
creator = registry.get_creator("LabelHead", "1", "searchkit")
def create(**attributes):
    fields = [trt.PluginField(n, np.array([v], np.int32), trt.PluginFieldType.INT32) for n, v in attributes.items()]
    return creator.create_plugin("head", trt.PluginFieldCollection(fields), trt.TensorRTPhase.BUILD)
"""


def graph(kind="linear"):
    """What an exported network ends in."""
    nodes = [
        helper.make_node("Relu", ["image"], ["logits"]),
        helper.make_node("Resize", ["logits", "", "", "sizes"], ["full"], mode=kind),
        helper.make_node("ArgMax", ["full"], ["index"], axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], ["labels"], to=TensorProto.UINT8),
    ]
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 7, 5, 9])
    known = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 7, 5, 9])
    wanted = helper.make_tensor_value_info("labels", TensorProto.UINT8, [1, 40, 71])
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [4], [1, 7, 40, 71])
    whole = helper.make_graph(nodes, "head", [given], [wanted], [sizes], value_info=[known])
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def built(target, *arguments):
    subprocess.run([find_compiler(), *FLAGS, *arguments, "-o", target], check=True)
    return target


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The plugin as TensorRT loads it, but for the kernel, which runs on the CPU."""
    return built(tmp_path_factory.mktemp("plugin") / "plugin.so", "-O1", "-shared", PLUGIN / "plugin.cpp", *ON_CPU)


@pytest.mark.slow
def test_as_tensorrt_would(tmp_path):
    """Under the sanitizers: creator, attributes, shapes, formats, labels, serialisation, clones."""
    sanitizers = ["-O1", "-pthread", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [HERE / "tensorrt_plugin_check.cpp", PLUGIN / "plugin.cpp", SOURCES / "label_head.cpp"]
    program = built(tmp_path / "check", *sanitizers, *sources, *ON_CPU)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "passed\n", "")


def test_only_what_tensorrt_looks_for_is_exported(library):
    listed = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    functions = {line.split()[-1] for line in listed.splitlines() if " T " in line}
    assert functions == {"getCreators", "setLoggerFinder"}


def in_rtx(library, code, *arguments):
    """In a process of its own: a plugin stays registered as long as the process lives."""
    command = [sys.executable, "-c", LOAD + code, library, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_tensorrt_rtx_finds_the_plugin_and_creates_it(library):
    code = """
print([(field.name, str(field.type)) for field in creator.field_names])
print((creator.name, creator.plugin_version, creator.plugin_namespace))
for attributes in ((40, 71, 1), (0, 71, 1), (40, 32769, 0), (40, 71, 2)):
    made = create(**dict(zip(("height", "width", "align_corners"), attributes)))
    print(type(made).__name__)
"""
    done = in_rtx(library, code)
    assert done.returncode == 0, done.stderr
    kind = "PluginFieldType.INT32"
    assert done.stdout.splitlines()[-6:] == [
        str([("height", kind), ("width", kind), ("align_corners", kind)]),
        str(("LabelHead", "1", "searchkit")),
        "IPluginV3",
        *["NoneType"] * 3,
    ]


def test_the_parser_creates_the_plugin_from_the_graph(library, tmp_path):
    """And gives it its attributes: without them it would not be made. TensorRT-RTX then ends the process, as it does
    for any plugin in a network, so that nothing behind is tried."""
    model = with_plugin(graph())
    code = """
network = trt.Builder(logger).create_network(0)
trt.OnnxParser(network, logger).parse(open(sys.argv[2], "rb").read())
"""
    path = tmp_path / "model.onnx"
    path.write_bytes(model)
    said = in_rtx(library, code, path).stdout
    assert "Searching for plugin: LabelHead, plugin_version: 1, plugin_namespace: searchkit" in said
    assert "Successfully created plugin: LabelHead" in said
    broken = onnx.load_from_string(model)
    head = next(node for node in broken.graph.node if node.op_type == OPERATOR)
    next(a for a in head.attribute if a.name == "height").i = 0
    path.write_bytes(broken.SerializeToString())
    assert "Successfully created plugin" not in in_rtx(library, code, path).stdout


def test_the_graph_for_tensorrt():
    model = onnx.load_from_string(with_plugin(graph()))
    head, cast = model.graph.node[-2:]
    attributes = {a.name: helper.get_attribute_value(a) for a in head.attribute}
    assert (head.op_type, head.domain) == (OPERATOR, DOMAIN)
    assert attributes == {
        "height": 40,
        "width": 71,
        "align_corners": 0,
        "plugin_namespace": b"searchkit",
        "plugin_version": b"1",
    }
    assert (cast.op_type, list(cast.input), list(cast.output)) == ("Cast", list(head.output), ["labels"])
    assert helper.get_attribute_value(cast.attribute[0]) == TensorProto.UINT8
    onnx.checker.check_model(model)


def test_other_graphs_are_left_alone():
    assert with_plugin(graph("nearest")) is None


@pytest.mark.skipif(shutil.which("cmake") is None, reason="make test needs no cmake; make test-cpp does")
def test_where_there_are_no_headers_a_line_says_so(tmp_path):
    command = ["cmake", "-S", PLUGIN, "-B", tmp_path, "-DTENSORRT_INCLUDE_DIR=TENSORRT_INCLUDE_DIR-NOTFOUND"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "The TensorRT plugin is not built: there is no NvInfer.h here" in done.stdout
