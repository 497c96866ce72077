"""What `searchkit doctor` is told of the native kernels."""

from __future__ import annotations

from pathlib import Path

from deploy.native.library import Missing, Native, Unbuilt
from deploy.native.status import status


def told(monkeypatch, found):
    monkeypatch.setattr("deploy.native.status.look", lambda: found)
    return status()


def test_status(monkeypatch):
    path = Path("/cache/searchkit.so")
    ready = Native(None, ("avx512", "avx2", "plain"), ("avx2", "plain"), path)
    assert told(monkeypatch, ready) == (True, "avx2 (of avx512, avx2, plain), /cache/searchkit.so")
    wanted = "not compiled yet; searchkit doctor --build-native does it with /usr/bin/g++, in about ten seconds"
    assert told(monkeypatch, Unbuilt("/usr/bin/g++", path)) == (False, wanted)
    missing = Missing("there is no C++ compiler", "install g++, or set CXX")
    assert told(monkeypatch, missing) == (False, "there is no C++ compiler; install g++, or set CXX")
