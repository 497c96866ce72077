"""What `bench compare` reads: files of `bench fps --json` and of `trtexec --exportTimes`, as cells that can be joined.

Also which fields say that two measurements are of one kind. Two kinds of fields must agree: those of the protocol,
which say what a sample is, and those of the machine. How many samples there are may differ, as that makes intervals
wider or narrower and nothing else; versions of runtimes may differ, as they are what one compares.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from searchkit.errors import UsageError, unknown_name
from searchkit.files import read_bytes

from . import _tree, trtexec
from .measurement import Measurement, Rounds, Scalar
from .result_file import FailedCell, read_results

#: Of the protocol, what says only how many samples there are and how they were asked for.
COUNTS = frozenset({"rounds", "round_ms", "min_runs_per_round", "min_runs", "min_ms"})
#: Of the session's options, what decides how much of the machine is used; the others are settings of the runtime.
SHARES = ("threads",)
#: Of the machine, always, and for cells on another device than the CPU besides.
HOST = ("cpu", "cores", "governor", "os")
DEVICE = ("gpu", "gpu_memory_gib", "gpu_compute_capability", "gpu_driver", "gpu_power_limit_w", "gpu_max_sm_clock_mhz")

_NOT_KNOWN = "not stated"


@dataclass(frozen=True, slots=True)
class Key:
    """What must be the same for two measurements to be of one cell."""

    digest: str
    resolution: str
    io: str
    batch: str
    backend: str
    mode: str
    precision: str
    device: str


@dataclass(frozen=True, slots=True)
class Series:
    """One cell of one file.

    Attributes:
        network: its name; the digest in `key` is what counts.
        protocol, machine: fields that must agree, as text.
        versions: what may differ, and is shown where it does.
    """

    network: str
    key: Key
    rounds_ms: Rounds
    protocol: dict[str, str]
    machine: dict[str, str]
    versions: dict[str, str]
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For people: network, runtime, precision where one is stated, device and resolution."""
        key = self.key
        runtime = key.backend if key.mode in ("", "default") else f"{key.backend}:{key.mode}"
        batch = "" if key.batch in ("", "1") else f"batch {key.batch}"
        parts = (self.network, runtime, key.precision, key.device, key.resolution, batch)
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Source:
    """One file.

    Attributes:
        kind: "bench" or "trtexec".
        remarks: what a reader must know of how it was read.
        complete: False where the run that wrote it was interrupted.
    """

    path: str
    kind: str
    series: tuple[Series, ...]
    failures: tuple[FailedCell, ...] = ()
    remarks: tuple[str, ...] = ()
    complete: bool = True

    def only(self, networks: Sequence[str]) -> Source:
        """The same with these networks alone; all if none is named, or if the file names none."""
        if self.kind == "trtexec":
            return self
        kept = tuple(item for item in self.series if not networks or item.network in networks)
        failures = tuple(item for item in self.failures if not networks or item.network in networks)
        return Source(self.path, self.kind, kept, failures, self.remarks, self.complete)


def read(path: str, column: str = trtexec.COLUMNS[0]) -> Source:
    """A file of either kind.

    Args:
        column: of trtexec's times.

    Raises:
        InputFileError: it is missing, damaged, of a newer schema, or of neither kind.
        UsageError: no such column.
    """
    data = read_bytes(path, limit_bytes=max(trtexec.MAX_BYTES, 256 << 20), what="result file")
    return _of_trtexec(path, data, column) if trtexec.is_trace(data) else _of_bench(path)


def check_networks(names: Sequence[str], sources: Sequence[Source], option: str) -> None:
    """Raise `UsageError` for a network that none of the files has."""
    known = sorted({item.network for source in sources for item in source.series})
    for name in names:
        if name not in known:
            raise unknown_name("network", name, known, where=option)


def differences(old: dict[str, str], new: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Fields that are not the same; one that a side does not state is one."""
    names = [*old, *(name for name in new if name not in old)]
    pairs = {name: (old.get(name, _NOT_KNOWN), new.get(name, _NOT_KNOWN)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _of_bench(path: str) -> Source:
    results = read_results(path)
    found: dict[Key, Series] = {}
    remarks = []
    for item in map(series_of, results.measurements):
        if item.key in found:
            remarks.append(f"{path} has {item.name} more than once; the first is compared")
        found.setdefault(item.key, item)
    if not results.complete:
        remarks.append(f"{path} is of a run that was interrupted")
    return Source(
        path, "bench", tuple(found.values()), results.failures, tuple(dict.fromkeys(remarks)), results.complete
    )


def series_of(measurement: Measurement) -> Series:
    """A cell as it is compared."""
    tree: dict[str, Any] = _tree.encode(measurement)
    session, network = tree["session"], tree["network"]
    options = session["options"]
    protocol = dict(_flat({name: value for name, value in tree["protocol"].items() if name not in COUNTS}))
    protocol |= _flat({"sample": {name: value for name, value in tree["timed"].items() if name != "batch"}})
    protocol |= {name: options[name] for name in SHARES if name in options}
    key = Key(
        digest=network["digest"],
        resolution=tree["resolution"],
        io=tree["io"],
        batch=str(measurement.timed.batch),
        backend=session["backend"],
        mode=options.get("mode", ""),
        precision=options.get("precision", ""),
        device=session["device"],
    )
    fields = HOST if key.device == "cpu" else (*HOST, *DEVICE)
    return Series(
        network=network["name"],
        key=key,
        rounds_ms=measurement.rounds_ms,
        protocol=protocol,
        machine=dict(_machine(measurement.machine, fields)),
        versions=_versions(tree),
        warnings=measurement.warnings,
    )


def _machine(machine: dict[str, Scalar], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        value = machine.get(name)
        if value is None:
            continue
        # A kernel's release changes with every security update; system and processor family do not.
        words = str(value).split()
        yield name, f"{words[0]} {words[-1]}" if name == "os" and len(words) > 2 else str(value)


def _versions(tree: dict[str, Any]) -> dict[str, str]:
    session, machine = tree["session"], tree["machine"]
    options = {
        f"option {name}": value
        for name, value in session["options"].items()
        if name not in (*SHARES, "mode", "precision", "chosen_by_auto")
    }
    software = {name: _text(machine[name]) for name in ("torch", "cuda", "os", "python") if machine.get(name)}
    model = {"ONNX model": tree["artifact_sha256"][:12]} if tree["artifact_sha256"] else {}
    return {session["backend"]: session["version"], "provider": session["provider"], **options, **software, **model}


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Fields of nested objects, by their path; what is null is not stated."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield prefix + name, _text(value)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _of_trtexec(path: str, data: bytes, column: str) -> Source:
    trace = trtexec.parse(data, where=path, column=column)
    remarks = [f"{path}: {column} of trtexec ({trace.style}); it names neither network nor machine"]
    if trace.dropped:
        remarks.append(f"{path}: {trace.dropped} queries in the first {trtexec.WARMUP_MS:g} ms are left out")
    if trace.unknown:
        remarks.append(f"{path}: fields that are not known here were not used: {', '.join(trace.unknown)}")
    transfers = "timed" if trace.transfers else "none"
    protocol = {"timed": f"{column} of trtexec"}
    if column == "latencyMs":
        protocol["transfers"] = transfers
    series = Series(
        network="trtexec",
        key=Key("", "", "", "", "trtexec", "", "", "cuda"),
        rounds_ms=(trace.samples_ms,),
        protocol=protocol,
        machine={},
        versions={"trtexec": trace.style, "transfers": transfers},
    )
    return Source(path, "trtexec", (series,), remarks=tuple(remarks))


def pairs(old: Source, new: Source) -> tuple[list[tuple[Series, Series]], list[Series], list[Series]]:
    """Cells of both files, those of `old` alone and those of `new` alone, each in the order of its file.

    A file of trtexec is one cell that names no network: it belongs to the only cell of the other file.

    Raises:
        UsageError: that other file has more than one cell, or the two have none in common.
    """
    if "trtexec" in (old.kind, new.kind):
        return [(_single(old), _single(new))], [], []
    by_key = {item.key: item for item in new.series}
    common = [(item, by_key[item.key]) for item in old.series if item.key in by_key]
    if not common:
        raise UsageError(
            "the files have no cell in common",
            where=f"{old.path} and {new.path}",
            allowed="the same network, resolution, contract, batch, backend, mode, precision and device in both",
            fix=f"compare `{_some(old)}` with `{_some(new)}`",
        )
    keys = {item.key for item, _ in common}
    left = [item for item in old.series if item.key not in keys]
    right = [item for item in new.series if item.key not in keys]
    return common, left, right


def _single(source: Source) -> Series:
    if len(source.series) != 1:
        raise UsageError(
            "trtexec's times are of one network on one runtime, and this file has more",
            where=os.path.basename(source.path),
            got=f"{len(source.series)} cells",
            fix="name one with --network, or measure that one alone",
        )
    return source.series[0]


def _some(source: Source) -> str:
    names = [item.name for item in source.series]
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "") if names else "nothing"
