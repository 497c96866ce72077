"""The manifest of a bundle: which files it may hold, what each is for, and that none has changed.

`manifest.json` lists every other file with its size, SHA-256 and role, and holds the SHA-256 of its own canonical JSON,
so that no bit of a bundle can change unseen.

Schema 1 held four files. Schema 2 adds the weights, so that the export can be proved again anywhere, a golden pair,
engines, and what driving stacks and people need.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from searchkit import __version__, strict_json
from searchkit.errors import DamagedArtifactError
from searchkit.files import sha256_bytes

SCHEMA = 2
MANIFEST = "manifest.json"
MAX_FILES = 64
MAX_BUNDLE_BYTES = 4 * 2**30

# File name -> role.
ROLES = {
    "model.onnx": "the network, verified",
    "network.json": "the genotype, or the baseline's name",
    "weights.safetensors": "the network's weights in float32, from which the export is proved again",
    "contract.json": "input and output tensors, normalisation, resize rule, labels and palette",
    "verification.json": "numbers against the PyTorch network",
    "precision.json": "how the precision was reached",
    "lowering.json": "which rewrites the model has, and the measurement that chose them",
    "golden.safetensors": "one picture, its input tensor, and the output and labels to expect",
    "engines.json": "what made each engine, for which devices, from which model",
    "labels.txt": "names of the classes, one a line",
    "palette.csv": "colours of the classes",
    "README.md": "what this folder is and how to use it",
}
_OPTIONAL = {"precision.json", "lowering.json", "engines.json"}
_REQUIRED = {
    1: {"model.onnx", "network.json", "contract.json", "verification.json"},
    SCHEMA: set(ROLES) - _OPTIONAL,
}
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_-])?"
_PATTERNS = {
    rf"engines/{_PART}": "an engine: code, opened only where its origin is trusted",
    rf"stacks/[a-z0-9-]{{1,32}}(?:/{_PART}){{1,5}}": "a file that a driving stack reads",
}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIX = "export it again"


@dataclass(frozen=True)
class Entry:
    """What a manifest says of one file."""

    bytes: int
    sha256: str


def role_of(name: str) -> str | None:
    """What a file of this name is for; None where no bundle may hold it."""
    if name in ROLES:
        return ROLES[name]
    return next((role for pattern, role in _PATTERNS.items() if re.fullmatch(pattern, name)), None)


def naming_problem(names: Iterable[str], schema: int = SCHEMA) -> str | None:
    """Why these cannot be the files of a bundle; None where they can."""
    found = list(names)
    if missing := sorted(_REQUIRED[schema] - set(found)):
        return f"lacks {missing[0]}"
    if schema == 1 and (surplus := sorted(set(found) - _REQUIRED[1])):
        return f"holds {surplus[0]}"
    if unknown := [name for name in found if role_of(name) is None]:
        return f"holds {unknown[0]}, which no bundle does"
    if len(found) > MAX_FILES:
        return f"holds {len(found)} files, more than {MAX_FILES}"
    # On some file systems two such names are one file; and a file's name may not be a folder's as well.
    folders = {name.rpartition("/")[0].casefold() for name in found}
    folded = sorted(name.casefold() for name in found)
    twins = [name for name, other in itertools.pairwise(folded) if name == other]
    twins += [name for name in folded if any(f == name or f.startswith(f"{name}/") for f in folders)]
    if twins:
        return f"holds {twins[0]} twice"
    return None


def encode(files: Mapping[str, bytes]) -> bytes:
    """The manifest of these files."""
    tree: dict[str, Any] = {
        "schema": SCHEMA,
        "searchkit": __version__,
        "files": {
            name: {"bytes": len(data), "sha256": sha256_bytes(data), "role": role_of(name)}
            for name, data in sorted(files.items())
        },
    }
    tree["sha256"] = sha256_bytes(strict_json.canonical(tree))
    return (json.dumps(tree, indent=2) + "\n").encode()


def decode(tree: Any, *, where: str) -> tuple[int, dict[str, Entry]]:
    """Schema and entries of a manifest that was read as strict JSON.

    Raises:
        DamagedArtifactError: of an unknown schema, not sealed by its own hash, or not the manifest of a bundle.
    """
    version = tree.get("schema") if isinstance(tree, dict) else None
    if type(version) is not int or version not in _REQUIRED:
        raise DamagedArtifactError(
            "unknown manifest schema",
            where=where,
            got=version,
            allowed=" or ".join(map(str, _REQUIRED)),
            fix="upgrade searchkit or export it again",
        )
    expected = tree.pop("sha256", None)
    if expected != sha256_bytes(strict_json.canonical(tree)):
        raise DamagedArtifactError("manifest does not match its own SHA-256", where=where, fix=_FIX)
    listed = tree.get("files")
    if not isinstance(listed, dict) or not all(map(_is_entry, listed.values())):
        raise DamagedArtifactError("not a manifest", where=f"{where}: files", got=listed, fix=_FIX)
    entries = {name: Entry(entry["bytes"], entry["sha256"]) for name, entry in listed.items()}
    if problem := naming_problem(entries, version):
        raise DamagedArtifactError(f"not a manifest: {problem}", where=f"{where}: files", fix=_FIX)
    total = sum(entry.bytes for entry in entries.values())
    if total > MAX_BUNDLE_BYTES:
        raise DamagedArtifactError(
            "bundle is too large", where=where, got=total, allowed=f"at most {MAX_BUNDLE_BYTES} bytes", fix=_FIX
        )
    return version, entries


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and type(entry.get("bytes")) is int
        and entry["bytes"] >= 0
        and isinstance(entry.get("sha256"), str)
        and _SHA256.fullmatch(entry["sha256"]) is not None
    )
