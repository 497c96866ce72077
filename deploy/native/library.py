"""The compiled library: built from the sources beside this file when it is first wanted, and kept in the user's cache.

Installing never compiles anything, so it never fails for want of a compiler. The file's name holds a hash of the
sources, the compiler and the flags: a library of other sources, or of another compiler, is never loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from searchkit.errors import StorageError
from searchkit.files import read_bytes, write_bytes

SOURCES = Path(__file__).parent
#: What the compiler is given, and what that includes.
UNITS = ("label_head.cpp", "label_head_op.cpp", "preprocess.cpp")
INCLUDED = (
    "label_head.h",
    "label_head_kernel.inc",
    "onnxruntime_abi.h",
    "parts.h",
    "preprocess.h",
    "preprocess_kernel.inc",
)
FILES = (*UNITS, *INCLUDED)
ABI = 1

_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden")
_COMPILERS = ("g++", "clang++", "c++")
_LIMIT_S = 300
_MAX_BYTES = 64 * 2**20
# Set to 1, or to anything else, to use the plain forms.
_SWITCH = "SEARCHKIT_NO_NATIVE"


@dataclass(frozen=True)
class Missing:
    """There is no native library here: why, and what to do."""

    reason: str
    fix: str


@dataclass(frozen=True)
class Unbuilt:
    """There is a compiler, and no library at `path` yet; it is compiled when first wanted."""

    compiler: str
    path: Path


@dataclass(frozen=True)
class Native:
    """A loaded library.

    Attributes:
        handle: whose functions have their argument types.
        names: of all kernels in it, best first.
        kernels: those that this processor runs.
        path: of the file.
    """

    handle: ctypes.CDLL
    names: tuple[str, ...]
    kernels: tuple[str, ...]
    path: Path


@cache
def native() -> Native | Missing:
    """The library; compiled if it is not in the cache, which takes a few seconds. Raises nothing."""
    found = look()
    if not isinstance(found, Unbuilt):
        return found
    problem = build(found.compiler, found.path)
    return Missing(problem, "set CXX to another compiler, or go on without") if problem else _loaded(found.path)


def look() -> Native | Missing | Unbuilt:
    """As `native`, but compiles nothing. Raises nothing."""
    if os.environ.get(_SWITCH):
        return Missing(f"{_SWITCH} is set", f"unset {_SWITCH}")
    compiler = find_compiler()
    if compiler is None:
        return Missing("there is no C++ compiler", "install g++, or set CXX")
    path = cache_folder() / f"searchkit-{_key(compiler)}.so"
    return _loaded(path) if path.exists() else Unbuilt(compiler, path)


def ready() -> bool:
    """Whether the library is here and loads, without compiling anything. Raises nothing."""
    return isinstance(look(), Native)


def find_compiler() -> str | None:
    """The path of a C++ compiler: that of CXX, or the first of the usual names; None where there is none."""
    named = os.environ.get("CXX")
    if named:
        return shutil.which(named)
    return next((found for name in _COMPILERS if (found := shutil.which(name))), None)


def cache_folder() -> Path:
    """Where libraries are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "searchkit" / "native"


def build(compiler: str, path: Path) -> str | None:
    """Compile the library into `path`; returns what went wrong, or None. What is at `path` is whole at any time."""
    with TemporaryDirectory(prefix="searchkit-native-") as folder:
        made = Path(folder) / "library.so"
        command = [compiler, *_FLAGS, "-o", str(made), *(str(SOURCES / unit) for unit in UNITS)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"the compiler did not run: {error}"
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
            return f"the compiler failed: {lines[0] if lines else f'exit code {done.returncode}'}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, read_bytes(made, limit_bytes=_MAX_BYTES, what="library"))
        except (OSError, StorageError) as error:
            return f"the library cannot be kept: {error}"
    return None


def _key(compiler: str) -> str:
    """16 digits of a hash of all that decides the library."""
    digest = hashlib.sha256()
    for name in FILES:
        digest.update((SOURCES / name).read_bytes())
    for text in (*_FLAGS, platform.machine(), compiler, _version(compiler)):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]


@cache
def _version(compiler: str) -> str:
    """What a compiler says of itself; asked once a process, as each segmenter looks for the library."""
    try:
        done = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _loaded(path: Path) -> Native | Missing:
    fix = f"delete {path}"
    try:
        handle = ctypes.CDLL(str(path))
        handle.sk_label_head_abi.restype = ctypes.c_int
        found = handle.sk_label_head_abi()
    except (OSError, AttributeError) as error:
        return Missing(f"the library cannot be loaded: {error}", fix)
    if found != ABI:
        return Missing(f"the library has interface {found}, not {ABI}", fix)
    handle.sk_isa_name.restype = ctypes.c_char_p
    handle.sk_status_text.restype = ctypes.c_char_p
    handle.sk_isa_name.argtypes = handle.sk_isa_runs.argtypes = handle.sk_status_text.argtypes = [ctypes.c_int]
    names: list[str] = []
    while (name := handle.sk_isa_name(len(names))) is not None:
        names.append(name.decode())
    return Native(handle, tuple(names), tuple(n for i, n in enumerate(names) if handle.sk_isa_runs(i)), path)
