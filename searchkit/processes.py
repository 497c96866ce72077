"""Other processes of this machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

_CLOCKS_DIFFER_S = 1.0


def can_have_made(process: int, path: Path) -> bool:
    """Whether a living process is old enough to have made a file or folder; numbers of processes are used again.

    True where nobody knows: without Linux's /proc, say.
    """
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            # Field 22 of proc(5); the second, a name in brackets, may hold anything.
            started_ticks = int(file.read().rpartition(b")")[2].split()[19])
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")
        return age_s + _CLOCKS_DIFFER_S >= time.time() - os.lstat(path).st_ctime
    except (OSError, ValueError, IndexError, AttributeError):
        return True
