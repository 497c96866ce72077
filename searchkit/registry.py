"""Plug-ins found by their file name, without importing them.

The requirement: adding a data set, a baseline, a space, a backend or a tensor contract is adding one file (a folder,
for a space) and touching nothing else. So the folder is the list. `fast_scnn.py` answers to the name `fast-scnn`; a
name that starts with an underscore is private. Listing imports nothing, so a broken or heavy plug-in never slows or
breaks another.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from .errors import unknown_name

T = TypeVar("T")


@dataclass(frozen=True)
class Registry(Generic[T]):
    """The plug-ins of one kind.

    Args:
        package: the package whose modules are the plug-ins, such as `searchkit.baselines`.
        attribute: what each module must define, such as `BASELINE`.
        noun: what a plug-in is called in messages.
    """

    package: str
    attribute: str
    noun: str

    def names(self) -> list[str]:
        """All names, sorted; hyphens where the file has underscores."""
        modules = pkgutil.iter_modules(self._folders())
        return sorted(m.name.replace("_", "-") for m in modules if not m.name.startswith("_"))

    def load(self, name: str) -> T:
        """Import one plug-in and return what it defines.

        Raises:
            UsageError: no plug-in has that name; the nearest names are listed.
        """
        wanted = name.replace("_", "-")
        if wanted not in self.names():
            raise unknown_name(self.noun, name, self.names())
        module = importlib.import_module(f"{self.package}.{wanted.replace('-', '_')}")
        plugin: Any = getattr(module, self.attribute)
        return plugin

    def summary(self, name: str) -> str:
        """The first line of the plug-in's docstring, read without importing it; empty where the file is no Python."""
        module = name.replace("-", "_")
        for folder in self._folders():
            for path in (Path(folder) / f"{module}.py", Path(folder) / module / "__init__.py"):
                if path.is_file():
                    return _first_line(path)
        return ""

    def folder(self, name: str) -> Path:
        """Of a plug-in that is a folder: where its other files lie; imports nothing.

        Raises:
            UsageError: no plug-in has that name.
        """
        if name.replace("_", "-") not in self.names():
            raise unknown_name(self.noun, name, self.names())
        module = name.replace("-", "_")
        return next(Path(folder) / module for folder in self._folders() if (Path(folder) / module).is_dir())

    def _folders(self) -> list[str]:
        return list(importlib.import_module(self.package).__path__)


def _first_line(path: Path) -> str:
    try:
        docstring = ast.get_docstring(ast.parse(path.read_bytes()))
    except (SyntaxError, ValueError):
        return ""
    return (docstring or "").split("\n", 1)[0]
