"""A bundle of made-up files, and a picture of what lies in a folder."""

from __future__ import annotations

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
