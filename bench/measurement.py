"""One network measured on one backend of one machine: the raw samples and all that they depend on.

Only samples are stored. Percentiles, FPS and ratios are derived from them each time, so that no two figures of one
measurement can disagree, and another definition can be applied to an old measurement.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from deploy.backends import SessionInfo
from searchkit.errors import InputFileError
from searchkit.sizes import Size

from . import _tree
from ._tree import absent
from .doubts import warnings_of
from .protocol import Conditions, Memory, Protocol, Scalar, Timed, WarmUp
from .statistics import Interval, Ratio, Statistics, median_interval, percentile, ratio_of_rounds

__all__ = [
    "SCHEMA",
    "Measurement",
    "NetworkFacts",
    "Protocol",
    "Ratio",
    "Rounds",
    "Scalar",
    "Statistics",
    "latency_ratio",
    "percentile",
    "warnings_of",
]

SCHEMA = 1

Rounds = tuple[tuple[float, ...], ...]

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What was measured: name, digest, and its size at the measured resolution.

    Attributes:
        conv_macs: multiply-accumulates of convolutions and matrix products, counted where PyTorch dispatches them.
    """

    name: str
    digest: str
    classes: int
    params: int
    conv_macs: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """Samples of one network, and what they were taken on.

    Attributes:
        weights: where they came from; speed does not depend on them.
        io: the tensor contract, which decides what work is in the graph.
        session: backend, version, provider, device and options that were in use.
        artifact_sha256: of the ONNX model that ran; None where the backend runs the PyTorch network itself.
        rounds_ms: wall-clock samples, a tuple a round, in the order they were taken.
        device_rounds_ms: the same runs by the device's own clock, where it has one.
        machine: as `machine.describe`.
        warnings: as `warnings_of`.
        timed: what one sample covers.
        block_runs: runs whose mean each sample is, one number a round; None where a sample is one run.
        warm_up: how it ended; None in measurements older than its record.
        memory: at most in use; None where it could not be seen.
        conditions: of the machine around the rounds; None in measurements older than its record.
    """

    network: NetworkFacts
    weights: str
    resolution: Size
    io: str
    session: SessionInfo
    artifact_sha256: str | None
    protocol: Protocol
    rounds_ms: Rounds
    device_rounds_ms: Rounds | None
    machine: dict[str, Scalar]
    warnings: tuple[str, ...]
    timed: Timed = field(default=Timed(), metadata=absent(Timed()))
    block_runs: tuple[int, ...] | None = field(default=None, metadata=absent(None))
    warm_up: WarmUp | None = field(default=None, metadata=absent(None))
    memory: Memory | None = field(default=None, metadata=absent(None))
    conditions: Conditions | None = field(default=None, metadata=absent(None))

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """All samples, in the order they were taken."""
        return tuple(sample for turn in self.rounds_ms for sample in turn)

    @property
    def mode(self) -> str | None:
        """Of the backend; None in measurements older than modes."""
        return self.session.options.get("mode")

    @property
    def precision(self) -> str | None:
        """What was computed in; None in measurements older than precisions."""
        return self.session.options.get("precision")

    @property
    def runtime(self) -> str:
        """Backend and mode, such as `openvino:bf16`; the backend alone where its mode is `default` or not known."""
        backend, mode = self.session.backend, self.mode
        return backend if mode in (None, "default") else f"{backend}:{mode}"

    @property
    def statistics(self) -> Statistics:
        return Statistics.of(self.samples_ms, self.timed.batch)

    @property
    def interval(self) -> Interval | None:
        """Of the median latency in ms, by bootstrap over the rounds; None where there is one round only."""
        return median_interval(self.rounds_ms)

    def to_tree(self) -> dict[str, Any]:
        """Plain JSON values; statistics are not among them."""
        return {"schema": SCHEMA} | _tree.encode(self)

    @classmethod
    def from_tree(cls, tree: Any, *, where: str = "measurement") -> Measurement:
        """What `to_tree` gave.

        Raises:
            InputFileError: another schema; a field missing, unknown, of the wrong type or out of range.
        """
        if not isinstance(tree, dict):
            raise InputFileError("not a measurement", where=where, got=type(tree).__name__, allowed="an object")
        if type(tree.get("schema")) is not int or tree["schema"] != SCHEMA:
            raise InputFileError(
                "unknown schema",
                where=f"{where}.schema",
                got=tree.get("schema", "none"),
                allowed=str(SCHEMA),
                fix="read it with the version that wrote it, or measure again",
            )
        fields = {key: value for key, value in tree.items() if key != "schema"}
        measurement: Measurement = _tree.decode(cls, fields, where)
        _check(measurement, where)
        return measurement


def latency_ratio(one: Measurement, other: Measurement) -> Ratio:
    """Latency of `one` over that of `other`, round by round, as both took their turns in the same rounds.

    Where a run was cut short, over the rounds that both finished.

    Raises:
        ValueError: they had different numbers of rounds to do, so no two rounds belong together.
    """
    if one.protocol.rounds != other.protocol.rounds:
        raise ValueError(f"rounds do not pair: {one.protocol.rounds} and {other.protocol.rounds}")
    return ratio_of_rounds(one.rounds_ms, other.rounds_ms)


def _check(measurement: Measurement, where: str) -> None:
    """What types do not say: samples are there, positive and paired; digests are digests."""
    rounds, device = measurement.rounds_ms, measurement.device_rounds_ms
    if not rounds or not all(rounds):
        raise InputFileError("no samples", where=f"{where}.rounds_ms", allowed="one or more in each round")
    for name, value in (("rounds_ms", rounds), ("device_rounds_ms", device or ())):
        worst = min((sample for turn in value for sample in turn), default=1.0)
        if worst <= 0:
            raise InputFileError("not a duration", where=f"{where}.{name}", got=worst, allowed="above 0 ms")
    if device is not None and [len(turn) for turn in device] != [len(turn) for turn in rounds]:
        raise InputFileError(
            "samples do not pair", where=f"{where}.device_rounds_ms", allowed="as many a round as in rounds_ms"
        )
    if measurement.timed.batch < 1:
        raise InputFileError(
            "not a batch", where=f"{where}.timed.batch", got=measurement.timed.batch, allowed="1 or more"
        )
    if measurement.protocol.rounds < len(rounds):
        allowed = f"at most {measurement.protocol.rounds}, as in protocol.rounds"
        raise InputFileError("more rounds than asked for", where=f"{where}.rounds_ms", got=len(rounds), allowed=allowed)
    digests = (("network.digest", measurement.network.digest), ("artifact_sha256", measurement.artifact_sha256))
    for name, digest in digests:
        if digest is not None and not _SHA256.fullmatch(digest):
            raise InputFileError("not a SHA-256", where=f"{where}.{name}", got=digest, allowed="64 hex digits")
