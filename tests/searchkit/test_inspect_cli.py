"""`searchkit doctor` and `searchkit inspect`, as commands: exit codes, text, JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
from onnx import TensorProto, helper

from deploy import planner
from deploy.backends import BACKENDS
from searchkit.cli import app
from searchkit.console import run


@pytest.fixture
def cli(capsys):
    """`cli(*argv)`: exit code, standard output, standard error."""

    def call(*argv):
        code = run(app, [str(word) for word in argv])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return code, captured.out, captured.err

    return call


def engine(tag, version, mask=0, length=64):
    """A plan's first bytes as real ones have them; with nothing behind, it is a whole one as far as can be told."""
    head = tag + bytes(4) + (2).to_bytes(8, "little") + length.to_bytes(8, "little") + bytes(version)
    return (head + tag + mask.to_bytes(4, "little")).ljust(64, b"\0")


def onnx_model():
    values = [helper.make_tensor_value_info(n, TensorProto.UINT8, [1, 8, 16, 3]) for n in ("image", "labels")]
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["labels"])], "net", values[:1], values[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, producer_name="me")
    helper.set_model_props(made, {"searchkit.network": "ssr"})
    return made.SerializeToString()


RTX = engine(b"vtrt", (1, 7, 1, 116), mask=0b11101)
PLAN = engine(b"ftrt", (10, 4, 0, 26))
WEIGHTS = safetensors.numpy.save({"a": np.zeros((2, 3), np.float32)}, {"digest": "d" * 64})
METADATA = b'{"task": "segment"}'
WRAPPED = len(METADATA).to_bytes(4, "little") + METADATA + PLAN

# File, first line behind its name, and other lines.
KNOWN = {
    "rtx": (RTX, "tensorrt-rtx 1.7.1.116, 64 bytes", ["built for sm75, sm86, sm89, sm120", "advice: on sm75"]),
    "tensorrt": (PLAN, "tensorrt 10.4.0.26, 64 bytes", ["advice: opens with TensorRT 10.4.0.26 and no other build"]),
    "wrapped": (WRAPPED, "ultralytics-wrapped 10.4.0.26, 87 bytes", ["task: segment", "note: 23 bytes of metadata"]),
    "onnx": (onnx_model(), "onnx IR 10, ", ["opset: ai.onnx 18", "input image: uint8 1x8x16x3", "producer: me"]),
    "weights": (WEIGHTS, "safetensors, ", ["tensors: 1", f"digest: {'d' * 64}"]),
    "stranger": (b"hello there", "unknown, 11 bytes", ["advice: not an engine or a model that searchkit knows"]),
}
CUT = {
    "rtx": (engine(b"vtrt", (1, 7, 1, 116), mask=1, length=900), "tensorrt-rtx", "it says 900 bytes and has 64"),
    "onnx": (onnx_model()[:-30], "onnx", "cut short or altered"),
    "weights": (WEIGHTS[:-1], "safetensors", "it says"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_inspect_says_what_a_file_is(name, cli, tmp_path):
    data, first, others = KNOWN[name]
    path = tmp_path / "[red]model"
    path.write_bytes(data)
    code, output, error = cli("inspect", path)
    assert (code, error) == (0, "")
    assert output.startswith(f"{path}: {first}")
    for other in others:
        assert any(line.startswith(other) for line in output.splitlines()), other
    assert "advice: " in output


@pytest.mark.parametrize("name", KNOWN)
def test_inspect_says_the_same_as_json(name, cli, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(KNOWN[name][0])
    code, output, error = cli("inspect", path, "--json", "-")
    assert (code, error) == (0, "")
    tree = json.loads(output)
    assert (tree["schema"], tree["file"], tree["size_bytes"]) == (1, str(path), len(KNOWN[name][0]))
    assert KNOWN[name][1].startswith(tree["runtime"])
    assert tree["damage"] is None
    assert tree["advice"]
    assert tree["targets"] == (["sm75", "sm86", "sm89", "sm120"] if name == "rtx" else [])
    code, shown, _ = cli("inspect", path, "--json", tmp_path / "facts.json")
    assert code == 0
    assert shown.startswith(f"{path}: ")
    assert json.loads((tmp_path / "facts.json").read_text()) == tree


@pytest.mark.parametrize("name", CUT)
def test_a_damaged_file_is_described_and_ends_with_3(name, cli, tmp_path):
    data, runtime, words = CUT[name]
    path = tmp_path / "model"
    path.write_bytes(data)
    code, output, _ = cli("inspect", path)
    assert code == 3
    assert output.startswith(f"{path}: {runtime}")
    assert f"advice: the file is damaged ({words}" in output
    code, output, _ = cli("inspect", path, "--json", "-")
    assert code == 3
    assert json.loads(output)["damage"].startswith(words)


@pytest.mark.parametrize(
    ("data", "words"), [(b"", "the file is empty"), (b"ftrt", "ends before the version"), (RTX[:20], "ends before")]
)
def test_a_file_without_a_header_is_refused(data, words, cli, tmp_path):
    path = tmp_path / "short.engine"
    path.write_bytes(data)
    code, output, error = cli("inspect", path, "--json", tmp_path / "facts.json")
    assert (code, output) == (3, "")
    assert error.startswith(f"error: {path}: ")
    assert words in error
    assert not (tmp_path / "facts.json").exists()


def test_what_is_no_file_is_refused(cli, tmp_path):
    code, output, error = cli("inspect", tmp_path)
    assert (code, output) == (3, "")
    assert "a folder" in error
    assert "searchkit verify FOLDER" in error
    code, output, error = cli("inspect", tmp_path / "none")
    assert (code, output) == (3, "")
    assert f"{tmp_path / 'none'}: model file does not exist" in error
    assert cli("inspect", "/dev/null")[0] == 3


def test_nothing_of_a_stranger_reaches_the_terminal(cli, tmp_path):
    """Names in a file could hide what stands there or clear the screen."""
    text = b'{"a\\u001b[2J": "\\u001b]0;title\\u0007 [bold]x"}'
    path = tmp_path / "model"
    path.write_bytes(len(text).to_bytes(4, "little") + text + PLAN)
    code, output, _ = cli("inspect", path)
    assert code == 0
    assert "\x1b" not in output
    assert "\x07" not in output
    assert "[bold]x" in output


@pytest.mark.parametrize(
    ("target", "first", "lines"),
    [
        (
            "v100",
            "v100: NVIDIA V100, Volta, sm70",
            [
                "recommended: tensorrt",
                "tensorrt: yes, 10.4 at most [",
                "tensorrt-rtx: no, starts at SM 7.5 [",
                "onnxruntime: yes, onnxruntime-gpu 1.26.0 at most",
                "install: pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cu126",
                "install: pip install onnxruntime-gpu==1.26.0 tensorrt-cu12==10.4.0 ",
                "refused by tensorrt: BF16 tensors",
                "warning: measure fp16 against fp32",
            ],
        ),
        (
            "RTX 2080 Ti",
            "rtx2080ti: GeForce RTX 2080 Ti, Turing, sm75",
            [
                "recommended: tensorrt",
                "tensorrt-rtx: slow, ",
                "refused by tensorrt-rtx: FP32 MatMul, Gemm and 3-D convolution",
                "refused by tensorrt, tensorrt-rtx: FP8 tensors",
                "warning: never publish this GPU's FPS from TensorRT-RTX",
            ],
        ),
        ("h200", "h200: NVIDIA H200, Hopper, sm90", ["tensorrt-rtx: no, SM 9.0", "image: nvidia/cuda:13"]),
        ("orin", "orin: Jetson Orin, Ampere (Jetson), sm87", ["warning: pip does not serve it: build the engine on"]),
        ("8.6", "sm86: GPUs of compute capability 8.6, Ampere, sm86", ["tensorrt-rtx: yes, "]),
        ("cpu", "cpu: x86-64 CPU, x86-64, cpu", ["recommended: onnxruntime", "tensorrt: no, engines need a GPU"]),
    ],
)
def test_doctor_says_what_serves_a_gpu(target, first, lines, cli):
    code, output, error = cli("doctor", "--target", target)
    assert (code, error) == (0, "")
    shown = output.splitlines()
    assert shown[0] == first
    for line in lines:
        assert any(found.startswith(line) for found in shown), line
    # Every source that is named is explained.
    named = {key for line in shown if line.endswith("]") for key in line[line.rindex("[") + 1 : -1].split()}
    explained = {line.split()[1].rstrip(":") for line in shown if line.startswith("source ")}
    assert named
    assert named <= explained


def test_nobody_is_sent_to_the_stranger_of_this_name_on_pypi(cli):
    """Another project has the name `searchkit` there."""
    for target in planner.targets():
        _, output, _ = cli("doctor", "--target", target)
        assert "pip install searchkit" not in output


@pytest.mark.parametrize("target", ["v100", "rtx2080ti", "h200", "orin", "sm86"])
def test_doctor_says_the_same_as_json(target, cli, tmp_path):
    code, output, error = cli("doctor", "--target", target, "--json", "-")
    assert (code, error) == (0, "")
    tree = json.loads(output)
    assert tree == json.loads(json.dumps(planner.plan(target).to_tree()))
    assert (tree["target"], tree["recommended"]) == (target, "tensorrt")
    code, output, _ = cli("doctor", "--target", target, "--json", tmp_path / "plan.json")
    assert code == 0
    assert output.startswith(f"{target}: ")
    assert json.loads((tmp_path / "plan.json").read_text()) == tree


@pytest.mark.parametrize("target", ["nonsense", "", "sm76", "rtx2080"])
def test_doctor_does_not_know_a_target(target, cli, tmp_path):
    code, output, error = cli("doctor", "--target", target, "--json", tmp_path / "plan.json")
    assert (code, output) == (2, "")
    assert error.startswith("error: --target: unknown target (got ")
    assert "rtx2080ti" in error
    assert not (tmp_path / "plan.json").exists()


def test_doctor_looks_at_this_machine(cli):
    code, output, error = cli("doctor")
    assert (code, error) == (0, "")
    lines = output.splitlines()
    assert [name for name in BACKENDS.names() if not any(li.startswith(f"backend {name}: ") for li in lines)] == []
    (line,) = (line for line in lines if line.startswith("backend tensorrt-rtx"))
    assert "builds engines here for sm75, sm80, sm86, sm89, sm120" in line
    assert any(line.startswith("onnxruntime  ") for line in lines)


def test_doctor_looks_at_this_machine_as_json(cli):
    code, output, _ = cli("doctor", "--json", "-")
    assert code == 0
    tree = json.loads(output)
    assert tree["schema"] == 1
    assert [backend["name"] for backend in tree["backends"]] == list(BACKENDS.names())
    (state,) = (backend for backend in tree["backends"] if backend["name"] == "tensorrt-rtx")
    assert "sm75" in state["builds"]
    assert tree["problems"] == []


def test_a_doctor_with_a_problem_ends_with_7(cli, monkeypatch):
    monkeypatch.setattr("deploy.doctor._problems", lambda *_: ["it hurts"])
    code, output, _ = cli("doctor")
    assert code == 7
    assert "problem: it hurts" in output
    code, output, _ = cli("doctor", "--json", "-")
    assert code == 7
    assert json.loads(output)["problems"] == ["it hurts"]
