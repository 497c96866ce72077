"""Resize and arg-max, in turns: ONNX Runtime's operators, PyTorch's, and one pass, by call or as an operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from deploy.native.label_head import PLAIN, kernels, label_head
from deploy.native.library import Native, native
from deploy.native.onnx_operator import register, with_label_head
from searchkit.errors import VerificationError
from searchkit.sizes import Size

from .measurement import Scalar
from .turns import ratio, ratios, samples, take_turns

SCHEMA = 1
CLASSES = 19

# From the resolution at which the networks here answer to those at which labels are wanted.
CASES = ((Size(128, 256), Size(512, 1024)), (Size(128, 256), Size(1024, 2048)), (Size(256, 512), Size(1024, 2048)))

BASELINE = "onnxruntime"
OPERATOR = "onnxruntime, LabelHead"

# Labels may differ where two classes are closer than float32 can tell apart: this share of all pixels at most.
_MOST_TIES = 1e-5


@dataclass(frozen=True)
class HeadTimes:
    """Milliseconds of one case: name of the way -> the median of each turn."""

    source: Size
    target: Size
    turns_ms: dict[str, tuple[float, ...]]

    def ratio(self, name: str) -> tuple[float, float, float]:
        """How many times as fast as ONNX Runtime: median, least and greatest of the turns."""
        return ratio(self.turns_ms, BASELINE, name)

    def to_tree(self) -> dict[str, Any]:
        return {
            "classes": CLASSES,
            "logits": str(self.source),
            "labels": str(self.target),
            "turns_ms": samples(self.turns_ms),
            "times_as_fast_as_onnxruntime": ratios(self.turns_ms, BASELINE),
        }


def measure(threads: int, turns: int, runs: int, progress: Callable[[str], None]) -> list[HeadTimes]:
    """All cases; raises `VerificationError` where labels differ by more than ties."""
    found = []
    for source, target in CASES:
        progress(f"{source} to {target}")
        logits = _logits(source)
        ways = _ways(logits, target, threads)
        _check(ways, target)
        found.append(HeadTimes(source, target, take_turns(ways, turns, runs)))
    return found


def tree_of(results: Sequence[HeadTimes], machine: dict[str, Scalar], threads: int) -> dict[str, Any]:
    """The whole result as plain JSON values."""
    return {
        "schema": SCHEMA,
        "kind": "label head, measured",
        "machine": machine,
        "threads": {"onnxruntime": threads, "pytorch": threads, "native": 1, "plain": threads},
        "cases": [result.to_tree() for result in results],
    }


def _logits(source: Size) -> np.ndarray:
    """Smooth ones, as a network's are: noise at an eighth of the resolution, resized."""
    import torch

    coarse = torch.randn(1, CLASSES, source.height // 8, source.width // 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=tuple(source), mode="bilinear")[0].numpy()


def _ways(logits: np.ndarray, target: Size, threads: int) -> dict[str, Callable[[], np.ndarray]]:
    import torch

    torch.set_num_threads(threads)
    model = _model(Size(*logits.shape[1:]), target)
    session = _session(model, threads)
    tensor = torch.from_numpy(logits)[None]

    def pytorch() -> np.ndarray:
        with torch.inference_mode():
            full = torch.nn.functional.interpolate(tensor, size=tuple(target), mode="bilinear")
            return full.argmax(1)[0].to(torch.uint8).numpy()

    ways: dict[str, Callable[[], np.ndarray]] = {
        BASELINE: lambda: session.run(None, {"logits": logits[None]})[0][0],
        "pytorch": pytorch,
    }
    for kernel in kernels():
        name = f"plain {kernel}" if kernel in PLAIN else f"native {kernel}"
        ways[name] = partial(label_head, logits, target, kernel=kernel)
    if threads > 1:
        ways[f"native, {threads} threads"] = lambda: label_head(logits, target, threads=threads)
    if isinstance(native(), Native):
        fused = _session(with_label_head(model) or model, threads)
        ways[OPERATOR] = lambda: fused.run(None, {"logits": logits[None]})[0][0]
    return ways


def _model(source: Size, target: Size) -> bytes:
    """What a network that is exported for labels ends in."""
    import onnx
    from onnx import TensorProto, helper

    sizes = helper.make_tensor("sizes", TensorProto.INT64, [4], [1, CLASSES, *target])
    how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    nodes = [
        helper.make_node("Resize", ["logits", "", "", "sizes"], ["full"], **how),
        helper.make_node("ArgMax", ["full"], ["index"], axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], ["labels"], to=TensorProto.UINT8),
    ]
    given = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES, *source])
    wanted = helper.make_tensor_value_info("labels", TensorProto.UINT8, [1, *target])
    graph = helper.make_graph(nodes, "head", [given], [wanted], [sizes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _session(model: bytes, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if isinstance(native(), Native):
        register(options)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _check(ways: dict[str, Callable[[], np.ndarray]], target: Size) -> None:
    wanted = ways["pytorch"]()
    for name, way in ways.items():
        different = int((way() != wanted).sum())
        if different > _MOST_TIES * target.height * target.width:
            raise VerificationError(f"{name} gives other labels at {different} pixels", where="label head")
