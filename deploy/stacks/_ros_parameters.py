"""ROS 2 parameter files: the little of YAML that they need, written without a YAML library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

Value = bool | int | float | str | Sequence[int] | Sequence[float] | Sequence[str]
Parameters = Mapping[str, Value]


def parameter_file(nodes: Mapping[str, Parameters], *, comment: Sequence[str]) -> str:
    """`node name: {ros__parameters: ...}` for each node, in the order given; strings quoted, lists in one line.

    Args:
        comment: lines for the head of the file.
    """
    text = "".join(f"# {line}\n" for line in comment)
    for node, parameters in nodes.items():
        text += f"{node}:\n  ros__parameters:\n"
        text += "".join(f"    {key}: {written(value)}\n" for key, value in parameters.items())
    return text


def written(value: Value) -> str:
    """A value as ROS 2 reads it, in parameter files and as a launch argument."""
    if isinstance(value, float):
        # JSON's strings, integers and lists are YAML's; floats with an exponent and no point, such as 1e-05, are not.
        text = repr(value)
        return text if "e" not in text else f"{value:.18f}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(written(item) for item in value) + "]"
    return json.dumps(value)
