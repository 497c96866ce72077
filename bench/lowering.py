"""What each rewrite of an exported graph gains: the measured choice of `--lowering auto`, with all its samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deploy.deployable import Deployable
from deploy.lowering.choice import AUTO, PLAIN, Lowered, Lowering, Measured
from deploy.lowering.timing import Quartiles
from searchkit.networks import Network
from searchkit.sizes import Size

from .measurement import Scalar

SCHEMA = 1
CONTRACT = "raw"


@dataclass(frozen=True)
class Lowerings:
    """One network on one backend.

    Attributes:
        network, digest: what was measured.
        backend: NAME or NAME:MODE.
        lowered: the choice; `measured` is None where no rewrite applies.
    """

    network: str
    digest: str
    backend: str
    lowered: Lowered

    def to_tree(self) -> dict[str, Any]:
        """All samples; ratios are derived from them."""
        measured = self.lowered.measured
        return {
            "network": self.network,
            "digest": self.digest,
            "backend": self.backend,
            "applied": list(self.lowered.applied),
            **(_samples(measured) if measured else {"session": None, "steps": [], "whole_ms": None}),
        }


def _samples(measured: Measured) -> dict[str, Any]:
    info = measured.info
    return {
        "session": {"version": info.version, "provider": info.provider, "options": info.options},
        "steps": [{"ms": dict(step.times), "kept": step.kept, "wrong": list(step.wrong)} for step in measured.steps],
        "whole_ms": dict(measured.whole.times) if measured.whole else None,
    }


def measure(
    networks: Sequence[Network], size: Size, lowering: Lowering, progress: Callable[[str], None]
) -> list[Lowerings]:
    """Let each network choose its rewrites, from seeded weights: speed does not depend on them.

    Args:
        lowering: with the backend, its threads and the number of rounds; measures.

    Raises:
        UsageError: a network does not take this size, or names of rewrites were given.
        BackendUnavailableError: the backend cannot run here.
    """
    found = []
    for network in networks:
        progress(f"{network.name} on {lowering.backend}")
        model = Deployable(network, size, CONTRACT, lowering=replace(lowering, tell=progress))
        backend = f"{lowering.backend}:{lowering.mode}" if lowering.mode else lowering.backend
        found.append(Lowerings(network.name, network.digest, backend, model.lowering))
    return found


def tree_of(results: Sequence[Lowerings], machine: dict[str, Scalar], size: Size, lowering: Lowering) -> dict[str, Any]:
    """The whole result as plain JSON values."""
    return {
        "schema": SCHEMA,
        "kind": "lowering, measured",
        "machine": machine,
        "resolution": str(size),
        "io": CONTRACT,
        "threads": lowering.threads,
        "rounds": lowering.rounds,
        "results": [result.to_tree() for result in results],
    }


def alone(tree: dict[str, Any]) -> dict[str, Quartiles]:
    """Of one result as JSON: rewrite -> how many times as fast the plain network is with it and no other."""
    if not tree["steps"]:
        return {}
    times = {name: tuple(values) for name, values in tree["steps"][0]["ms"].items()}
    return {name: Quartiles.of(times[PLAIN], values) for name, values in times.items() if name != PLAIN}


def together(tree: dict[str, Any]) -> Quartiles | None:
    """Of one result as JSON: how many times as fast it is with all that were kept; None where none was."""
    whole = tree["whole_ms"]
    return Quartiles.of(tuple(whole[PLAIN]), tuple(whole[AUTO])) if whole else None
