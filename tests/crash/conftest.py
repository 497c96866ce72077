"""What the tests of killed commands share: a server that forks for each command, so that kills fall into its work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# One process that has imported everything and forks for each command: the kills are to fall into the command's own
# work rather than into seconds of imports. A line in holds arguments, or nothing: then the command is waited for. A
# line out holds the command's process id, or its exit code. Before it is waited for, its id is nobody else's.
SERVER = """
import json, os, sys, torch, torch._dynamo
torch.set_num_threads(1)
from searchkit import cli, console
{warm_up}
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.dup2(2, 1)
            code = console.run(cli.app, json.loads(line))
        finally:
            os._exit(code)
    print(child, flush=True)
    sys.stdin.readline()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Commands:
    """Runs `searchkit` commands, one at a time, and kills them.

    Args:
        warm_up: Python that the server runs first: imports of what the commands need.
        errors: where the commands' output goes.
    """

    def __init__(self, warm_up, errors):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", SERVER.format(warm_up=warm_up)]
        self._server = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, env=environment, text=True)
        assert self._server.stdout.readline() == "ready\n"

    def _told(self, line):
        self._server.stdin.write(line + "\n")
        self._server.stdin.flush()

    def run(self, words, *, killed_after_s=None):
        """The exit code, which is minus SIGKILL for one that was killed."""
        self._told(json.dumps(words))
        process = int(self._server.stdout.readline())
        if killed_after_s is not None:
            time.sleep(killed_after_s)
            os.kill(process, signal.SIGKILL)
        self._told("")
        return int(self._server.stdout.readline())

    def close(self):
        """End the server."""
        self._server.stdin.close()
        self._server.wait(60)


@pytest.fixture
def commands(tmp_path, request):
    """A server that has run the test module's `WARM_UP`; what commands say lies in `errors.txt`."""
    with open(tmp_path / "errors.txt", "w") as errors:
        found = Commands(request.module.WARM_UP, errors)
        yield found
        found.close()
