"""What is read of the machine, from files made up by hand, and that nothing makes it raise."""

import os
from pathlib import Path

import pytest

from bench import conditions, machine, memory


@pytest.fixture
def files(monkeypatch, tmp_path):
    """A machine of one's own below a folder."""
    for name, folder in (("_CPU", "cpu"), ("_THERMAL", "thermal"), ("_STAT", "stat")):
        monkeypatch.setattr(conditions, name, tmp_path / folder)
    monkeypatch.setattr(machine, "_GOVERNOR", tmp_path / "cpu/cpu0/cpufreq/scaling_governor")

    def write(path, text):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    return write


def test_what_there_is_is_read(files):
    files("cpu/cpu0/cpufreq/scaling_governor", "performance\n")
    files("cpu/cpu0/cpufreq/scaling_cur_freq", "3400000\n")
    files("cpu/cpu0/thermal_throttle/core_throttle_count", "2\n")
    files("cpu/cpu1/thermal_throttle/core_throttle_count", "3\n")
    files("thermal/thermal_zone0/temp", "41000\n")
    files("thermal/thermal_zone1/temp", "67500\n")
    found = conditions.read(gpu=False)
    del found["load_1min"]
    assert found == {
        "governor": "performance",
        "cpu_mhz": 3400.0,
        "cpu_throttle_count": 5,
        "cpu_temperature_c": 67.5,
    }


def test_what_there_is_not_is_left_out(files, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (_ for _ in ()).throw(OSError))
    monkeypatch.setattr(machine, "gpu_state", lambda: (_ for _ in ()).throw(RuntimeError("the driver is gone")))
    assert conditions.read(gpu=True) == {}
    watch = conditions.Watch(gpu=True)
    watch.start()
    assert watch.done().others_cores is None


def test_what_others_take_is_what_this_process_does_not(files, monkeypatch):
    """Of 100 ticks a second: 3 s of others in 2 s of the clock are 1.5 cores; idle and waiting do not count."""
    ticks = os.sysconf("SC_CLK_TCK")
    times = iter([(10.0, 0.0, 0.0, 0.0, 0.0), (10.5, 0.5, 0.0, 0.0, 0.0)])
    clock = iter([100.0, 102.0])
    monkeypatch.setattr(conditions.os, "times", lambda: next(times))
    monkeypatch.setattr(conditions.time, "monotonic", lambda: next(clock))
    files("stat", f"cpu {10 * ticks} 0 0 500 500 0 0 0 0 0\n")
    watch = conditions.Watch()
    watch.start()
    files("stat", f"cpu {11 * ticks} {ticks} {ticks // 2} 9999 9999 0 {ticks // 2} {ticks} 0 0\n")
    assert watch.done().others_cores == pytest.approx(1.5)


def test_without_a_start_there_is_still_an_end():
    found = conditions.Watch().done()
    assert found.before == found.after
    assert found.others_cores is None


def test_growth_of_memory_is_seen_at_its_peak():
    watch = memory.MemoryWatch(device="cpu", torch_allocates=False)
    watch.start()
    block = bytearray(os.urandom(1 << 20)) * 64
    del block
    found = watch.seen()
    assert found.how in (memory.RSS, memory.RSS_NOW)
    if found.how == memory.RSS:
        assert 60 << 20 < found.peak_bytes < 200 << 20


def test_without_the_kernels_help_the_peak_of_before_is_not_taken_for_growth(monkeypatch):
    monkeypatch.setattr(memory, "_CLEAR", Path("/proc/self/no-such-file/at-all"))
    watch = memory.MemoryWatch(device="cpu", torch_allocates=False)
    watch.start()
    found = watch.seen()
    assert found.how == memory.RSS_NOW
    assert found.peak_bytes < 32 << 20


def test_memory_that_cannot_be_read_is_none(monkeypatch):
    monkeypatch.setattr(memory, "_STATUS", Path("/no/such/file"))
    watch = memory.MemoryWatch(device="cpu", torch_allocates=False)
    watch.start()
    assert watch.seen() is None
    gone = memory.MemoryWatch(device="cuda", torch_allocates=True)
    gone.start()
    assert gone.seen() is None, "there is no such device here"
