"""What a device that is not here would do: limits out of data sheets, and predictions with the error that they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from . import pairs
from . import roofline_text as text
from .layers import Layer
from .pairs import Family
from .roofline import Limit, Roof, limit

if TYPE_CHECKING:
    from rich.console import Console

    from searchkit.networks import Network


def elsewhere(
    console: Console,
    networks: Sequence[Network],
    counted: Sequence[tuple[Layer, ...]],
    roofs: Sequence[Roof],
    top: int,
) -> dict[str, Any]:
    """Limits and predictions for devices that are not here; printed and returned."""
    held, families, _ = pairs.hold()
    headings = ("network", "device", *text.LIMIT_HEADINGS, *(f"predicted FPS, {family.name}" for family in families))
    rows, results = [], []
    for network, layers in zip(networks, counted, strict=True):
        for roof in roofs:
            found = limit(layers, roof)
            predictions = [_prediction(found, family) for family in families]
            spans = [f"{text.digits(p['low_fps'])} to {text.digits(p['high_fps'])}" for p in predictions]
            rows.append([network.name, roof.title, *text.limit_cells(found), *spans])
            tree = {"network": network.name, "digest": network.digest, "limit": found.to_tree()}
            results.append(tree | {"predicted": predictions})
    roof = roofs[0]
    console.print(f"Predicted, not measured: batch 1, {roof.precision}, rates of data sheets", soft_wrap=True)
    console.print("\n" + text.columns(headings, rows, left=2) + "\n", markup=False, soft_wrap=True)
    for line in _prediction_remarks(roofs, families):
        console.print(line, markup=False, soft_wrap=True)
    if top and len(rows) == 1:
        shown = text.largest_text(limit(counted[0], roof), top)
        console.print(f"\nThe {top} layers that need most:\n{shown}", markup=False, soft_wrap=True)
    return {"results": results, "published_pairs": [entry.to_tree() for entry in held]}


def _prediction(found: Limit, family: Family) -> dict[str, Any]:
    """The family's share of the limit, and the span of its typical error."""
    fps = found.fps * family.share
    inside = found.roof.precision == "fp32" and found.roof.device in family.devices
    return {
        "family": family.name,
        "fps": fps,
        "low_fps": fps / family.typical_error,
        "high_fps": fps * family.typical_error,
        "worst_error_factor": family.worst_error,
        "inside_what_the_error_was_found_on": inside,
    }


def _prediction_remarks(roofs: Sequence[Roof], families: Sequence[Family]) -> list[str]:

    lines = [text.family_text(family) for family in families]
    known = {device for family in families for device in family.devices}
    outside = [roof.title for roof in roofs if roof.device not in known or roof.precision != "fp32"]
    if outside:
        lines.append(
            text.paragraph(
                f"No published pair is on {', '.join(outside)} in {roofs[0].precision}: the stated error does not "
                "cover these. On fast devices starting the kernels takes longer than the limit says; take these as the "
                "most that could be hoped for."
            )
        )
    return lines


def published(console: Console) -> dict[str, Any]:
    """The published pairs beside their limits."""

    held, families, left_out = pairs.hold()
    console.print("Published FPS (never measured here) beside the limit that is computed for them, fp32:", markup=False)
    console.print("\n" + text.pairs_text(held) + "\n", markup=False, soft_wrap=True)
    for family in families:
        console.print(text.family_text(family), markup=False, soft_wrap=True)
    for line in left_out:
        console.print(text.paragraph(f"Left out: {line}"), markup=False, soft_wrap=True)
    return {
        "published": [entry.to_tree() for entry in held],
        "families": [asdict(family) for family in families],
        "left_out": left_out,
    }
