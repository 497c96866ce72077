"""A picture in, labels out: the plain way that everybody writes first, and the ways of a bundle, in turns.

Plain is `torch.onnx.export` of the network with its logits resized to the size of the labels, ONNX Runtime with its
defaults, Pillow and numpy before it, and numpy's arg-max behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from deploy.automatic import AUTO
from deploy.contracts.logits import FullResolution
from deploy.deployable import Deployable
from deploy.export import export
from deploy.onnx import quiet
from deploy.precision.calibration import Calibration
from deploy.segmenter import Segmenter, load
from searchkit.data import open_dataset, streets
from searchkit.errors import VerificationError
from searchkit.networks import Network
from searchkit.normalization import normalise
from searchkit.pictures import resize_picture
from searchkit.sizes import Size
from searchkit.trained import find_weights, shipped_for

from .measurement import Scalar
from .turns import ratio, ratios, samples, take_turns

SCHEMA = 1
PLAIN = "plain"
#: Share of labels that a way must have in common with plain: what the golden picture asks of bf16 and int8.
MIN_AGREEMENT = 0.97

_SHIPPED = "streets"
_PICTURE_INDEX = 3


@dataclass(frozen=True)
class Case:
    """Sizes of the picture, which is that of the labels too, and of the network's input."""

    picture: Size
    input: Size

    @property
    def name(self) -> str:
        return f"{self.picture} through {self.input}"


#: The network's own size, and the papers' protocol: half the resolution in, labels at the picture's own out.
CASES = (Case(Size(512, 1024), Size(512, 1024)), Case(Size(1024, 2048), Size(512, 1024)))

Way = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class PipelineTimes:
    """One network in one case.

    Attributes:
        trained: whether it had the weights that come with searchkit; lower precisions of others prove nothing.
        turns_ms: name of the way -> median milliseconds of a picture, of each turn.
        agreement: name of the way -> share of labels that are those of the plain way.
        says: name of the way -> what it ran on.
    """

    network: str
    trained: bool
    case: Case
    turns_ms: dict[str, tuple[float, ...]]
    agreement: dict[str, float]
    says: dict[str, str]

    def ratio(self, name: str) -> tuple[float, float, float]:
        """How many times as fast as plain: median, least and greatest of the turns."""
        return ratio(self.turns_ms, PLAIN, name)

    @property
    def best(self) -> str:
        """The fastest way whose labels are right."""
        right = [name for name in self.turns_ms if self.agreement[name] >= MIN_AGREEMENT]
        return max(right, key=lambda name: self.ratio(name)[0])

    def to_tree(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "trained": self.trained,
            "picture": str(self.case.picture),
            "input": str(self.case.input),
            "best": self.best,
            "turns_ms": samples(self.turns_ms),
            "times_as_fast_as_plain": ratios(self.turns_ms, PLAIN),
            "label_agreement_with_plain": self.agreement,
            "ran_on": self.says,
        }


def measure(
    networks: Sequence[Network], threads: int, turns: int, runs: int, progress: Callable[[str], None]
) -> Iterator[PipelineTimes]:
    """Network by network, case by case.

    Raises:
        VerificationError: a float32 way gives other labels than the plain one.
    """
    for network in networks:
        with TemporaryDirectory(prefix="searchkit-pipeline-") as folder:
            for size in dict.fromkeys(case.input for case in CASES):
                progress(f"exporting {network.name} at {size}")
                bundles = _bundles(network, size, Path(folder))
                for case in (case for case in CASES if case.input == size):
                    progress(f"timing {network.name}, {case.name}")
                    yield _measure(network, case, bundles, threads, turns, runs)


def tree_of(results: Sequence[PipelineTimes], machine: dict[str, Scalar], threads: int) -> dict[str, Any]:
    """The whole result as plain JSON values."""
    return {
        "schema": SCHEMA,
        "kind": "picture in, labels out, measured",
        "machine": machine,
        "threads": threads,
        "cases": [result.to_tree() for result in results],
    }


def _weights(network: Network) -> Path | None:
    return find_weights(_SHIPPED, network.name) if _SHIPPED in shipped_for(network.name) else None


def _bundles(network: Network, size: Size, folder: Path) -> dict[str, Path]:
    """Contract `labels`, by precision; int8 needs weights that know what they see."""
    weights = _weights(network)
    made = {}
    for precision in ("fp32", "int8") if weights else ("fp32",):
        learning = None
        if precision == "int8":
            # What quantisation costs is measured elsewhere, at the size that the weights were trained on.
            learning = Calibration(open_dataset(_SHIPPED), method="minmax", pictures=8, max_miou_drop=100.0)
        model = Deployable(network, size, "labels", weights=weights, precision=precision, calibration=learning)
        made[precision] = folder / f"{size}-{precision}"
        export(model, made[precision])
    return made


def _measure(
    network: Network, case: Case, bundles: dict[str, Path], threads: int, turns: int, runs: int
) -> PipelineTimes:
    image = streets.draw(0, _PICTURE_INDEX, case.picture).image
    with ExitStack() as stack:
        ways: dict[str, Way] = {PLAIN: _plain(network, case, threads)}
        says = {PLAIN: "torch.onnx.export, onnxruntime with its defaults, Pillow, numpy"}
        for name, segmenter in _segmenters(case, bundles, threads, stack):
            ways[name] = segmenter
            says[name] = f"{segmenter.backend}:{segmenter.mode}"
        wanted = ways[PLAIN](image)
        agreement = {name: float((way(image) == wanted).mean()) for name, way in ways.items()}
        _check(agreement, network)
        timed = {name: _bound(way, image) for name, way in ways.items()}
        times = take_turns(timed, turns, runs)
    return PipelineTimes(network.name, _weights(network) is not None, case, times, agreement, says)


def _bound(way: Way, image: np.ndarray) -> Callable[[], np.ndarray]:
    return lambda: way(image)


def _segmenters(
    case: Case, bundles: dict[str, Path], threads: int, stack: ExitStack
) -> Iterator[tuple[str, Segmenter]]:
    labels_at = "model" if case.picture == case.input else "picture"
    # The graph decides at the model's size only.
    if labels_at == "model":
        yield "graph", stack.enter_context(load(bundles["fp32"], threads=threads, mode="default"))
    headed = load(bundles["fp32"], threads=threads, mode="label_head", labels_at=labels_at)
    yield "label head", stack.enter_context(headed)
    for precision, bundle in bundles.items():
        found = load(bundle, threads=threads, backend=AUTO, labels_at=labels_at)
        yield f"auto, {precision}", stack.enter_context(found)


def _plain(network: Network, case: Case, threads: int) -> Way:
    import onnxruntime
    import torch

    model = Deployable(network, case.input, "raw", weights=_weights(network))
    whole = FullResolution(model.built, case.picture).eval()
    with quiet():
        program = torch.onnx.export(whole, (model.example(),), dynamo=True, verbose=False)
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name

    def run(image: np.ndarray) -> np.ndarray:
        batch = normalise(resize_picture(image, case.input))
        labels: np.ndarray = session.run(None, {name: batch})[0][0].argmax(0).astype(np.uint8)
        return labels

    return run


def _check(agreement: dict[str, float], network: Network) -> None:
    # At the picture's size plain resizes twice, in the network and behind it, and the label head once: labels differ
    # along the edges. That the label head's are right is for its tests.
    for name, least in (("graph", 0.999), ("label head", 0.999 if "graph" in agreement else MIN_AGREEMENT)):
        if name in agreement and not agreement[name] >= least:
            raise VerificationError(f"{name} gives other labels than plain", where=network.name, got=agreement[name])
