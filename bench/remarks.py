"""The lines below the table of `bench fps`: how it was timed, and what its words mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .protocol import FASTERSEG, SINGLE_STREAM, Conditions, Protocol, Timed, WarmUp
from .table import Row

_STATE = {
    "governor": "governor {}",
    "cpu_mhz": "{} MHz",
    "cpu_temperature_c": "{} C",
    "gpu_sm_clock_mhz": "GPU {} MHz",
    "gpu_temperature_c": "GPU {} C",
}


def remarks(rows: Sequence[Row], protocol: Protocol) -> list[str]:
    """One line a thing to know."""
    found = [*_timed(rows), *_protocol(rows, protocol), *_warm_up(rows), *_conditions(rows)]
    if any(row.ratio for row in rows):
        found.append(_of_ratio(rows))
    found.append("conv GMACs: multiply-accumulates of convolutions; the papers print them as FLOPs.")
    return [*found, *_memory(rows), *_miou(rows), _weights(rows)]


def _timed(rows: Sequence[Row]) -> Iterator[str]:
    texts: dict[Timed, list[str]] = {}
    for row in rows:
        names = texts.setdefault(row.measurement.timed, [])
        if row.measurement.runtime not in names:
            names.append(row.measurement.runtime)
    for timed, runtimes in texts.items():
        of = f" ({', '.join(runtimes)})" if len(texts) > 1 else ""
        yield f"Timed{of}: {timed.text}."


def _protocol(rows: Sequence[Row], protocol: Protocol) -> Iterator[str]:
    batch = rows[0].measurement.timed.batch
    pictures = "" if batch == 1 else f"{batch} pictures a call x "
    latency = "the median latency" if batch == 1 else "the median latency of a call"
    if protocol.name == FASTERSEG:
        runs = _span([sum(row.measurement.block_runs or ()) for row in rows])
        yield f"FasterSeg's protocol: 10 runs to warm up, then {runs} as one block of six seconds; FPS is 1000 / mean."
        return
    yield f"FPS is {pictures}1000 / p50, {latency}."
    runs = _span([row.statistics.runs for row in rows])
    if protocol.name == SINGLE_STREAM:
        yield from _single_stream(rows, protocol, runs)
        return
    finished = max(len(row.measurement.rounds_ms) for row in rows)
    yield (
        f"Each network ran {runs} times in {finished} rounds in which all take turns; "
        "below 100 runs p99 is nearly the slowest one."
    )


def _single_stream(rows: Sequence[Row], protocol: Protocol, runs: str) -> Iterator[str]:
    results = [
        f"{row.measurement.network.name} {row.single_stream_ms:.4g} ms"
        for row in rows
        if row.single_stream_ms is not None
    ]
    if results:
        yield f"Single stream, 90th percentile by early stopping, of {runs} queries: {', '.join(results)}."
    seconds = protocol.ms_a_round / 1000
    if protocol.is_mlperf_length:
        yield (
            f"Duration ({seconds:.0f} s) and queries are those of MLPerf inference's rules; this is not a submission, "
            "was not reviewed, and must not be called an MLPerf result."
        )
    else:
        yield f"Not MLPerf's protocol: {seconds:.0f} s in place of 600 s."


def _warm_up(rows: Sequence[Row]) -> Iterator[str]:
    ended = [row.measurement.warm_up for row in rows if row.measurement.warm_up]
    if ended:
        span = _span([round(warm_up.ms) for warm_up in ended])
        judged = [warm_up for warm_up in ended if warm_up.steady is not None]
        steady = f"; the rate was steady for {sum(map(_is_steady, judged))} of {len(judged)}" if judged else ""
        yield f"Warm-up: {span} ms{steady}."


def _is_steady(warm_up: WarmUp) -> bool:
    return warm_up.steady is True


def _conditions(rows: Sequence[Row]) -> Iterator[str]:
    conditions = rows[0].measurement.conditions
    if conditions is None:
        return
    said = [_change(conditions, key, words) for key, words in _STATE.items() if key in conditions.after]
    if conditions.others_cores is not None:
        said.append(f"other processes took {conditions.others_cores:.2f} cores")
    if said:
        yield f"Meanwhile: {', '.join(said)}."


def _change(conditions: Conditions, key: str, words: str) -> str:
    before, after = conditions.before.get(key), conditions.after[key]
    return words.format(after if before in (None, after) else f"{before} to {after}")


def _of_ratio(rows: Sequence[Row]) -> str:
    newer = any(row.measurement.warm_up is not None for row in rows)
    spread = "95 % interval by bootstrap over them" if newer else "quartiles"
    return f"time / FasterSeg: median over the rounds, and {spread}; below 1 is faster than FasterSeg."


def _memory(rows: Sequence[Row]) -> Iterator[str]:
    for how in dict.fromkeys(row.measurement.memory.how for row in rows if row.measurement.memory):
        yield f"memory: {how}."


def _miou(rows: Sequence[Row]) -> Iterator[str]:
    if not any(row.measurement.warm_up for row in rows):
        return
    known = {row.measurement.network.name: row.miou for row in rows}
    if any(miou.published for miou in known.values()):
        tested = [name for name, miou in known.items() if miou.published and miou.published.split == "test"]
        of_test = f"; of the test set: {', '.join(tested)}" if tested else ""
        yield (
            "mIoU paper: Cityscapes val as the networks' papers print it, not measured here; "
            f"in brackets at another resolution{of_test}."
        )
    shipped = [
        f"{name} {miou.shipped.percent:.1f} at {miou.shipped.size}" for name, miou in known.items() if miou.shipped
    ]
    if shipped:
        yield f"Weights that come with searchkit, on generated streets, which are no Cityscapes: {', '.join(shipped)}."


def _weights(rows: Sequence[Row]) -> str:
    weights = ", ".join(dict.fromkeys(row.measurement.weights for row in rows))
    return f"Weights: {weights}. Speed does not depend on them."


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"
