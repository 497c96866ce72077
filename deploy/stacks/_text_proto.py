"""Text-format protocol buffers: what Triton and Apollo read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Enum:
    """A value that is written without quotes, such as TYPE_UINT8."""

    name: str


@dataclass(frozen=True)
class Message:
    """Fields in the order in which they are written; a name that stands twice is a repeated field."""

    fields: Sequence[tuple[str, Scalar | Enum | Message | Sequence[int]]]

    def text(self, *, comment: Sequence[str] = (), indent: str = "") -> str:
        """The message as text, one field a line."""
        lines = [f"# {line}\n" for line in comment]
        for name, value in self.fields:
            if isinstance(value, Message):
                inner = value.text(indent=indent + "  ")
                lines.append(f"{indent}{name} {{\n{inner}{indent}}}\n")
            else:
                lines.append(f"{indent}{name}: {_written(value)}\n")
        return "".join(lines)


def _written(value: Scalar | Enum | Sequence[int]) -> str:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value)
