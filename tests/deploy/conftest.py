"""A bundle of made-up files, a picture of what lies in a folder, and a stand-in for ffmpeg with videos for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from deploy.bundle import ROLES, write_bundle


@pytest.fixture
def files():
    return {name: f"the bytes of {name}".encode() for name in ROLES}


@pytest.fixture
def bundle(tmp_path, files):
    """The folder of a bundle whose files are made up."""
    path = tmp_path / "bundle"
    write_bundle(path, files)
    return path


@pytest.fixture
def snapshot():
    """`snapshot(folder)`: name and content of all that is in it, however deep."""

    def take(folder):
        return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}

    return take


@pytest.fixture
def ffmpeg(tmp_path_factory, monkeypatch):
    """A program `ffmpeg` on PATH that is `fake_ffmpeg.py`."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "ffmpeg"
    fake = Path(__file__).with_name("fake_ffmpeg.py")
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{fake}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@pytest.fixture
def toy(tmp_path):
    """`toy(frames)` is the path of a video that the fake ffmpeg reads."""

    def make(frames, *, rate="25", fault="", name="toy.mp4"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(exist_ok=True)
        height, width = frames.shape[1:3]
        path.write_bytes(f"TOY {height} {width} {rate} rgb24 {fault}\n".encode() + frames.tobytes())
        return path

    return make
