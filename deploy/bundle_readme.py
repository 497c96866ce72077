"""`README.md` of a bundle: what the folder is and how to use it, for the person who receives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .engine_record import EngineRecord
from .lowering.record import sentence

_TEXT = """\
# {network}

A semantic segmentation network, exported by searchkit {version}: pictures in, a class for every pixel out.

| | |
|---|---|
| network | {network} ({digest}) |
| weights | {weights} |
| model | `model.onnx`, {precision}, ONNX opset {opset} |
{lowering}| input | `{input[name]}`: {input[dtype]} {input[shape]} {input[layout]}, {input[meaning]} |
| output | `{output[name]}`: {output[dtype]} {output[shape]} {output[layout]}, {output[meaning]} |
| mean and standard deviation | {normalisation} |
| classes | {classes}, in `labels.txt`; their colours in `palette.csv` |
{warning}
## Run it

    searchkit run . picture.png -o labels.png --overlay
    searchkit run . folder-of-pictures -o folder-of-label-maps
    searchkit run . drive.mp4 -o drive-labels.mp4 --overlay

or from Python, for a uint8 RGB array of any size:

    import deploy
    segmenter = deploy.load(".")
    labels = segmenter(picture)

{resize}

## Is it whole, and is it the network that it says?

    searchkit verify .

rebuilds the PyTorch network from `network.json` and `weights.safetensors`, compares `model.onnx` with it again, and
runs the picture in `golden.safetensors`. Another runtime is checked with that file alone: feed `input`, compare with
`output` and `labels`. `verification.json` holds the figures of the export. Nothing may be added to this folder: every
file is listed in `manifest.json` with its size and SHA-256, and a folder with a foreign file in it does not open.
{engines}{stacks}"""

_ENGINES = """
## Engines

Engines are code: they are run only with `--trust-engine`, or `deploy.load(".", trust_engines=True)`. Do so only if you
trust whoever gave you this folder. Each is tied to the version that made it.

{rows}
"""

_STACKS = """
## Driving stacks

Each folder below `stacks` holds what one stack needs beside the model. Copy its files and `model.onnx` out of this
folder; some stacks write beside the model.

{rows}
"""

_UNTRAINED = "\n**The weights are not trained: speed is real, the labels mean nothing.**\n"


def readme(
    contract: Mapping[str, Any],
    opset: int,
    version: str,
    engines: Sequence[EngineRecord],
    stacks: Sequence[str],
    lowering: Mapping[str, Any] | None = None,
) -> bytes:
    """The text.

    Args:
        contract: the tree of `contract.json`.
        opset: of the model.
        version: of searchkit.
        engines: those in the bundle.
        stacks: names of the folders below `stacks`.
        lowering: the tree of `lowering.json`; None where there is none.
    """
    weights = contract["weights"]
    return _TEXT.format(
        network=contract["network"]["name"],
        digest=contract["network"]["digest"][:12],
        version=version,
        weights=weights["text"],
        precision=contract["precision"],
        opset=opset,
        lowering=f"| rewrites | {sentence(lowering)} |\n" if lowering else "",
        input=_shown(contract["input"]),
        output=_shown(contract["output"]),
        normalisation=_normalisation(contract["normalisation"]),
        classes=len(contract["classes"]),
        warning="" if weights["trained"] else _UNTRAINED,
        resize=_resize(contract),
        engines=_engines(engines),
        stacks=_STACKS.format(rows="\n".join(f"- `stacks/{name}`" for name in stacks)) if stacks else "",
    ).encode()


def _shown(tensor: Mapping[str, Any]) -> dict[str, Any]:
    return {**tensor, "shape": "x".join(map(str, tensor["shape"]))}


def _normalisation(tree: Mapping[str, Any]) -> str:
    if tree["in_model"]:
        return "inside the model"
    return f"yours to apply: mean {tree['mean']}, standard deviation {tree['std']}, of RGB scaled to [0, 1]"


def _resize(contract: Mapping[str, Any]) -> str:
    size = f"{contract['resolution']['height_px']}x{contract['resolution']['width_px']} (height x width)"
    if contract["resize"]["rule"] == "stretch":
        how = "stretched to it, bilinearly"
    else:
        how = f"scaled to fit, at the top left, the rest filled with {contract['resize']['pad_rgb']}"
    return (
        f"The model takes {size}. Pictures of other sizes are {how}; their labels come back at the picture's own size."
    )


def _engines(engines: Sequence[EngineRecord]) -> str:
    if not engines:
        return ""
    rows = [f"- `{e.file}`: {e.backend} {e.version}, for {', '.join(e.targets)}" for e in engines]
    return _ENGINES.format(rows="\n".join(rows))
