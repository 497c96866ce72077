"""The steps of `make gpu`: what each runs, and how long it may take.

Each is a command in a process of its own. The most important come first, as the last ones are left out when time is
short. Written for an NVIDIA GPU and not run on one; run on a CPU, where every command but those of the GPU alone works.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: The searched networks, and those that they are compared with.
SEARCHED = ("ssr", "ssr-baseline1", "ssr-baseline2", "fasterseg", "fasterseg-teacher")
#: Modes of PyTorch and of the runtimes that may be there; one that is not is named in the result, with its reason.
RUNTIMES = "pytorch:eager,pytorch:channels_last,pytorch:cuda_graph,onnxruntime,onnxruntime:tensorrt,tensorrt"
FEW_RUNTIMES = "pytorch:eager,pytorch:cuda_graph,onnxruntime,onnxruntime:tensorrt"
COMPILED = "pytorch:compiled,aoti"
#: Those that take models in fp16; PyTorch here is float32 alone.
HALF_RUNTIMES = "onnxruntime,onnxruntime:tensorrt,tensorrt"
CPU_RUNTIMES = "pytorch:eager,onnxruntime"

SIZES = ("512x1024", "1024x2048")


@dataclass(frozen=True, slots=True)
class Step:
    """One command.

    Attributes:
        name: also of its files.
        what: in words.
        command: after the interpreter; `{json}` and `{xml}` are paths of its results.
        brief: what is added to `command` where there is less time than `full_s`.
        least_s, full_s, most_s: with less than the first it is not begun, with less than the second it is run in
            brief, and after the last it is ended.
        needs_gpu: it is left out on a CPU.
    """

    name: str
    what: str
    command: tuple[str, ...]
    brief: tuple[str, ...] = ()
    least_s: float = 10
    full_s: float = 30
    most_s: float = 60
    needs_gpu: bool = False


def steps(device: str, sizes: Sequence[str] = SIZES, *, quick: bool = False) -> list[Step]:
    """All steps for a device, `cuda` or `cpu`.

    Args:
        sizes: the smaller and the larger input, as HxW.
        quick: few rounds everywhere, and few networks.
    """
    small, large = sizes
    return [*_searched(device, small, large, quick), *_device(device, small, quick), *_others(device, small, quick)]


def _searched(device: str, small: str, large: str, quick: bool) -> list[Step]:
    """What the tool is about: the searched networks, and the paper's headline."""
    on_gpu = device == "cuda"
    ends = f"--device {device}{_ends(quick)}"
    searched = "ssr fasterseg" if quick else " ".join(SEARCHED)
    where = f"--backend {RUNTIMES if on_gpu else CPU_RUNTIMES} {ends}"
    halves = HALF_RUNTIMES if on_gpu else "onnxruntime"
    on_torch = "pytorch:eager,pytorch:cuda_graph" if on_gpu else "pytorch:eager"
    return [
        _step(
            "headline",
            "SSR against FasterSeg, at the paper's resolutions and at equal ones",
            f"bench headline --resolution {large} --backend {on_torch} {ends}",
            (15, 40, 60),
        ),
        _step(
            f"fps-{small}-searched",
            f"searched networks at {small}",
            f"bench fps {searched} --resolution {small} {where}",
            (20, 80, 110),
        ),
        _step(
            f"fps-{large}-searched",
            f"searched networks at {large}",
            f"bench fps {searched} --resolution {large} {where}",
            (20, 70, 90),
        ),
        _step(
            f"fps-{small}-fp16",
            f"searched networks at {small} in fp16",
            f"bench fps ssr fasterseg --resolution {small} --backend {halves} --precision fp16 {ends}",
            (8, 30, 50),
        ),
    ]


def _device(device: str, small: str, quick: bool) -> list[Step]:
    """What tells of the device itself."""
    # The layers of a network are timed on the CPU alone.
    top = " --top 0" if device == "cuda" else ""
    heads = "bench.label_head_gpu {json}" if device == "cuda" else "bench label-head --turns 1 --runs 1 --json {json}"
    return [
        _step(
            "tests",
            "the tests that need a GPU",
            "pytest -m gpu tests/gpu -q --junitxml {xml}",
            (30, 30, 110),
            brief=(),
            needs_gpu=True,
        ),
        _step("label-head", "resize and arg-max on the device", heads, (8, 8, 40), brief=()),
        _step(
            "roofline",
            "the greatest rates of the device, and what two networks make of them",
            f"bench roofline ssr fasterseg --resolution {small} --backend pytorch:eager{top}{_ends(quick)}",
            (15, 40, 60),
        ),
    ]


def _others(device: str, small: str, quick: bool) -> list[Step]:
    """What may be left out first."""
    networks = "fast-scnn" if quick else " ".join(_baselines())
    few = FEW_RUNTIMES if device == "cuda" else "pytorch:eager"
    ends = f"--device {device}{_ends(quick)}"
    turns = "--turns 1 --runs 1" if quick else "--turns 3 --runs 3"
    return [
        _step(
            f"fps-{small}-baselines",
            f"the networks of other papers at {small}",
            f"bench fps {networks} --resolution {small} --backend {few} {ends}",
            (25, 120, 130),
        ),
        _step(
            "pipeline",
            "a picture in, labels out, on the host's CPU",
            f"bench pipeline ssr {turns} --json {{json}}",
            (10, 10, 45),
            brief=(),
        ),
        _step(
            "fps-compiled",
            f"compiled PyTorch at {small}",
            f"bench fps ssr fasterseg --resolution {small} --backend {COMPILED} {ends}",
            (40, 60, 120),
        ),
    ]


def _ends(quick: bool) -> str:
    return f"{' --quick' if quick else ''} --json {{json}}"


def _step(
    name: str,
    what: str,
    module: str,
    seconds: tuple[float, float, float],
    *,
    brief: tuple[str, ...] = ("--quick",),
    needs_gpu: bool = False,
) -> Step:
    """`module` is what stands after `python -m`; `seconds` are the least, those for all of it, and the most."""
    least, full, most = seconds
    return Step(name, what, ("-m", *module.split()), brief, least, full, most, needs_gpu)


def _baselines() -> tuple[str, ...]:
    from searchkit.baselines import BASELINES

    return tuple(BASELINES.names())
