"""Peak rates: the best of interleaved runs, honest about what does not run here. No rate itself is asserted."""

from __future__ import annotations

import itertools

import pytest
import torch

from bench import peaks
from bench.peaks import Peaks, Rate, measure
from searchkit.errors import BackendUnavailableError, UsageError


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(peaks, "QUICK_SIZES", (16, 32))
    monkeypatch.setattr(peaks, "QUICK_COPY_BYTES", (1 << 12, 1 << 13))


class Clock:
    """Takes the given seconds for each run, and then starts over."""

    def __init__(self, *seconds: float) -> None:
        self._seconds, self._now, self._starts = itertools.cycle(seconds), 0.0, True

    def __call__(self) -> float:
        if not self._starts:
            self._now += next(self._seconds)
        self._starts = not self._starts
        return self._now


def test_measures_every_precision_that_runs_here_and_copies(small):
    found = measure(("fp32", "bf16", "int8", "tf32"), quick=True)
    assert {(rate.what, rate.size) for rate in found.rates} >= {("fp32", 16), ("fp32", 32), ("copy", 1 << 12)}
    assert all(rate.per_s > 0 and rate.runs == peaks.QUICK_ROUNDS for rate in found.rates)
    assert found.missing["tf32"] == "tf32 is a precision of GPUs"
    assert found.bytes_per_s > 0


def test_work_is_counted_in_multiply_accumulates_and_in_bytes_read_and_written(small):
    found = measure(("fp32",), quick=True, clock=Clock(0.5))
    rates = {(rate.what, rate.size): rate.per_s for rate in found.rates}
    assert rates["fp32", 32] == pytest.approx(32**3 / 0.5)
    assert rates["copy", 1 << 13] == pytest.approx(2 * (1 << 13) / 0.5)


def test_the_fastest_run_counts(small, monkeypatch):
    monkeypatch.setattr(peaks, "QUICK_SIZES", (16,))
    monkeypatch.setattr(peaks, "QUICK_COPY_BYTES", (1 << 12,))
    # The first run of the product is not among those that count; then product and copy take turns.
    found = measure(("fp32",), quick=True, clock=Clock(0.9, *(0.4, 0.8), *(0.2, 0.7), *(0.3, 0.6), *(0.5, 0.9)))
    assert found.macs_per_s("fp32") == pytest.approx(16**3 / 0.2)
    assert found.bytes_per_s == pytest.approx(2 * (1 << 12) / 0.6)


def test_an_emulated_precision_has_no_rate(small):
    found = measure(("bf16",), quick=True, clock=Clock(5.0))
    assert "it is emulated" in found.missing["bf16"]
    with pytest.raises(UsageError, match="it is emulated"):
        found.macs_per_s("bf16")


def test_the_best_size_is_taken():
    rates = (Rate("fp32", 16, 5.0, 1), Rate("fp32", 32, 7.0, 1), Rate("copy", 8, 3.0, 1), Rate("copy", 9, 2.0, 1))
    found = Peaks("cpu", 1, rates, {})
    assert (found.macs_per_s("fp32"), found.bytes_per_s) == (7.0, 3.0)
    with pytest.raises(UsageError, match="was not asked for"):
        found.macs_per_s("fp16")
    assert found.to_tree()["rates"][0] == {"what": "fp32", "size": 16, "per_s": 5.0, "runs": 1}


def test_the_number_of_threads_is_stated_and_given_back(small):
    before = torch.get_num_threads()
    assert measure(("fp32",), threads=2, quick=True).threads == 2
    assert torch.get_num_threads() == before


def test_an_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="unknown precision"):
        measure(("fp12",))


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks what happens without a GPU")
def test_without_a_gpu_cuda_is_refused():
    with pytest.raises(BackendUnavailableError, match="no CUDA device"):
        measure(("fp32",), device="cuda")
