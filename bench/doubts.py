"""Why samples should not be trusted yet. `--strict` fails on any of these; the reasons are in `docs/protocol.md`."""

from __future__ import annotations

import time
from collections.abc import Iterator

from .protocol import Conditions, Protocol, Scalar, WarmUp
from .statistics import Samples, median_interval, percentile

MIN_RUNS = 10
MAX_P90_OVER_P50 = 1.2
MAX_DRIFT = 0.10
MIN_TICKS = 100
MAX_HOST_SHARE = 0.10
#: Width of the median's interval. Two runs whose intervals are no wider have medians within 3 % of each other.
MAX_INTERVAL = 0.04
#: Fewer rounds give no interval that says anything.
MIN_ROUNDS = 5
MAX_CLOCK_CHANGE = 0.03
#: Share of the processor's cores.
MAX_OTHERS = 0.10

# Of `clocks_throttle_reasons.active`, in NVML's documentation: power cap, slow-down, brake, and two kinds of heat.
_GPU_SLOWED = {0x4: "its power cap", 0x8: "a slow-down", 0x20: "heat", 0x40: "heat", 0x80: "its power brake"}


def warnings_of(
    rounds_ms: Samples,
    device_rounds_ms: Samples | None = None,
    *,
    timer_resolution_ms: float | None = None,
    protocol: Protocol | None = None,
    warm_up: WarmUp | None = None,
    conditions: Conditions | None = None,
    cores: Scalar = None,
) -> list[str]:
    """Each doubt with what to do next; nothing where nothing speaks against the samples.

    Args:
        device_rounds_ms: where the host is part of what is timed, and should take little of it.
        protocol: what was asked for; with it, rounds that are missing are told, and blocks judged as such.
        cores: of the machine, to judge what other processes took.
    """
    if timer_resolution_ms is None:
        timer_resolution_ms = 1000 * time.get_clock_info("perf_counter").resolution
    return [
        *_of_rounds(rounds_ms, protocol),
        *_of_samples(rounds_ms, timer_resolution_ms, protocol),
        *_of_device(rounds_ms, device_rounds_ms),
        *_of_warm_up(warm_up, protocol),
        *(_of_conditions(conditions, cores) if conditions else ()),
    ]


def _of_rounds(rounds_ms: Samples, protocol: Protocol | None) -> Iterator[str]:
    if protocol is not None and len(rounds_ms) < protocol.rounds:
        yield f"only {len(rounds_ms)} of {protocol.rounds} rounds were finished: measure again"
    medians = [percentile(turn, 50) for turn in rounds_ms]
    drift = max(medians) / min(medians) - 1
    if drift > MAX_DRIFT:
        yield (
            f"rounds are {drift:.0%} apart ({min(medians):.3g} to {max(medians):.3g} ms): "
            "let the machine rest or fix its clocks"
        )
    interval = median_interval(rounds_ms) if len(rounds_ms) >= MIN_ROUNDS else None
    if interval is None:
        return
    median = percentile([sample for turn in rounds_ms for sample in turn], 50)
    width = (interval.high - interval.low) / median
    if width > MAX_INTERVAL:
        limits = f"{interval.low:.3g} to {interval.high:.3g} ms"
        yield f"the median's interval is {width:.1%} wide ({limits}): give more --rounds"


def _of_samples(rounds_ms: Samples, timer_resolution_ms: float, protocol: Protocol | None) -> Iterator[str]:
    samples = [sample for turn in rounds_ms for sample in turn]
    if protocol is not None and protocol.calibration_runs:
        return
    if len(samples) < MIN_RUNS:
        yield f"only {len(samples)} runs: give more --rounds, or leave out --quick"
    spread = percentile(samples, 90) / percentile(samples, 50)
    if spread > MAX_P90_OVER_P50:
        yield f"p90 is {spread:.2f} times p50: close other programs and measure again"
    if min(samples) < MIN_TICKS * timer_resolution_ms:
        yield f"shortest run is under {MIN_TICKS} ticks of the timer: give a larger --resolution"


def _of_device(rounds_ms: Samples, device_rounds_ms: Samples | None) -> Iterator[str]:
    if not device_rounds_ms:
        return
    median, device = (percentile([s for turn in taken for s in turn], 50) for taken in (rounds_ms, device_rounds_ms))
    if median > (1 + MAX_HOST_SHARE) * device:
        yield f"the device works {device:.3g} of {median:.3g} ms, the host takes the rest: use a compiled backend"


def _of_warm_up(warm_up: WarmUp | None, protocol: Protocol | None) -> Iterator[str]:
    if warm_up is None or warm_up.steady is not False or protocol is None or protocol.steady is None:
        return
    limit = protocol.steady.tolerance
    found = f"its last windows {warm_up.change:.0%} apart" if warm_up.change is not None else "too few windows"
    yield (
        f"the rate was never steady in {warm_up.ms:.0f} ms of warm-up ({found}, at most {limit:.0%} allowed): "
        "close other programs and measure again"
    )


def _of_conditions(conditions: Conditions, cores: Scalar) -> Iterator[str]:
    before, after, others = conditions.before, conditions.after, conditions.others_cores
    if others is not None and isinstance(cores, int) and others > MAX_OTHERS * cores:
        yield f"other processes kept {others:.1f} of {cores} cores busy: close them and measure again"
    if before.get("governor") != after.get("governor"):
        yield f"the governor changed from {before.get('governor')} to {after.get('governor')}: fix it and measure again"
    if _number(after, "cpu_throttle_count") > _number(before, "cpu_throttle_count"):
        yield "the processor slowed itself down because of heat: let it cool and measure again"
    first, last = _number(before, "gpu_sm_clock_mhz"), _number(after, "gpu_sm_clock_mhz")
    if first and last and abs(last / first - 1) > MAX_CLOCK_CHANGE:
        yield f"the GPU's clock went from {first:.0f} to {last:.0f} MHz: fix it, or let the GPU rest"
    reasons = int(_number(after, "gpu_throttle_reasons"))
    slowed = dict.fromkeys(words for bit, words in _GPU_SLOWED.items() if reasons & bit)
    if slowed:
        yield f"the GPU slowed itself down because of {' and '.join(slowed)}: let it rest and measure again"


def _number(state: dict[str, Scalar], key: str) -> float:
    value = state.get(key)
    return float(value) if isinstance(value, int | float) else 0.0
