"""Which kernels are in use here, for people to read."""

from __future__ import annotations

from .library import Missing, Native, Unbuilt, look

BUILD = "searchkit doctor --build-native"


def status() -> tuple[bool, str]:
    """Whether the native kernels are in use; and a sentence that says which, or why not and what to do.

    Compiles nothing and raises nothing.
    """
    found = look()
    if isinstance(found, Native):
        return True, f"{found.kernels[0]} (of {', '.join(found.names)}), {found.path}"
    if isinstance(found, Unbuilt):
        return False, f"not compiled yet; {BUILD} does it with {found.compiler}, in about ten seconds"
    assert isinstance(found, Missing)
    return False, f"{found.reason}; {found.fix}"
