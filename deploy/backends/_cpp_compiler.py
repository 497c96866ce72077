"""Whether this machine has the C++ compiler that PyTorch's compilers call."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import lru_cache

INSTALL = "install a C++ compiler with OpenMP, such as g++, or name one in the environment variable CXX"

_PROGRAM = (
    "#include <omp.h>\n#include <vector>\nint threads() { return std::vector<int>(omp_get_max_threads()).size(); }\n"
)
_TIMEOUT_S = 60


def compiler_problem() -> str | None:
    """Why no C++ can be compiled here, in a phrase; None where a small program compiles."""
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    path = shutil.which(name)
    return _problem_of(path) if path else f"there is no C++ compiler: {name} is not on the PATH"


@lru_cache
def _problem_of(path: str) -> str | None:
    """Compiles to assembler on standard output, so that nothing is written."""
    command = [path, "-x", "c++", "-std=c++17", "-fopenmp", "-S", "-o", "-", "-"]
    try:
        done = subprocess.run(command, input=_PROGRAM, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the C++ compiler does not run ({str(error)[:200]})"
    if done.returncode == 0:
        return None
    said = (done.stderr.strip().splitlines() or ["nothing"])[0][:200]
    return f"the C++ compiler cannot compile a small OpenMP program; it says: {said}"
