"""Records which names a TensorRT Python module has, for the fake in `conftest.py`.

    python tests/deploy/tensorrt/api_surface.py MODULE FILE "how the module was obtained"

Names and parameters only, read from the module by introspection; nothing of its code or documentation is kept.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

CLASSES = (
    "Builder",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILogger",
    "INetworkDefinition",
    "IProgressMonitor",
    "IRuntimeCache",
    "IRuntimeConfig",
    "ITimingCache",
    "OnnxParser",
    "ParserError",
    "Runtime",
)
ENUMS = (
    "BuilderFlag",
    "ComputeCapability",
    "CudaGraphStrategy",
    "DataType",
    "DynamicShapesKernelSpecializationStrategy",
    "EngineInvalidityDiagnostics",
    "EngineValidity",
    "HardwareCompatibilityLevel",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "TensorIOMode",
)
# Building layers by hand is nothing that searchkit does.
LEFT_OUT = re.compile(r"^(_|add_|mark_|unmark_|common_)")


def surface(module):
    """What a module offers of `CLASSES` and `ENUMS`.

    A method is a list of its overloads, each a list of parameters, optional ones with `=` behind; a property is
    `read` or `read write`.
    """
    classes = {name: members(getattr(module, name)) for name in CLASSES if hasattr(module, name)}
    enums = {name: enum(getattr(module, name)) for name in ENUMS if hasattr(module, name)}
    enums["ILogger.Severity"] = enum(module.ILogger.Severity)
    return {"module": module.__name__, "version": module.__version__, "classes": classes, "enums": enums}


def enum(kind):
    return {name: int(value) for name, value in kind.__members__.items()}


def members(kind):
    found = {"__init__": overloads(kind.__init__.__doc__ or "", "__init__")}
    for name in dir(kind):
        if LEFT_OUT.match(name) or name == "Severity":
            continue
        value = getattr(kind, name)
        if isinstance(value, property):
            found[name] = "read write" if value.fset else "read"
        elif callable(value):
            found[name] = overloads(value.__doc__ or "", name)
    return found


def overloads(text, name):
    """Parameters from the signatures that pybind11 puts at the head of a docstring."""
    lines = [line.split(". ", 1)[-1] if line[:1].isdigit() else line for line in text.splitlines()]
    signatures = [line for line in lines if line.startswith(f"{name}(") and "*args" not in line]
    return [parameters(signature[len(name) + 1 : signature.rindex(")")]) for signature in signatures]


def parameters(text):
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character in "([{<") - (character in ")]}>")
        if character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    names = [part.strip() for part in parts if part.strip()]
    return [name.split(":")[0].strip() + ("=" if "=" in name else "") for name in names if not name.startswith("self")]


def main(module_name, path, origin):
    tree = {"origin": origin, **surface(importlib.import_module(module_name))}
    Path(path).write_text(json.dumps(tree, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
