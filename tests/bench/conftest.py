"""Measurements made up by hand, so that no test of what is derived from them has to measure."""

import pytest

from bench.measurement import Measurement, NetworkFacts, Protocol, warnings_of
from deploy import deployable
from deploy.backends import SessionInfo
from searchkit.sizes import Size
from searchkit.weights import Weights

STEADY = ((10.0, 11.0, 12.0, 10.0, 11.0), (10.0, 11.0, 12.0, 10.0, 11.0))


@pytest.fixture
def measured():
    def make(name="ssr", rounds=STEADY, backend="onnxruntime", device="cpu", device_rounds=None, **options):
        rounds = tuple(tuple(turn) for turn in rounds)
        return Measurement(
            network=NetworkFacts(name, "0a" * 32, 19, 1_022_559, 10_898_106_912),
            weights="untrained",
            resolution=Size(512, 1024),
            io="logits",
            session=SessionInfo(backend, "1.2.3", "CPUExecutionProvider", device, {"threads": "2", **options}),
            artifact_sha256="f0" * 32,
            protocol=Protocol(),
            rounds_ms=rounds,
            device_rounds_ms=device_rounds,
            machine={"cpu": "a CPU", "cores": 2, "memory_gib": 23.5, "governor": None},
            warnings=tuple(warnings_of(rounds, device_rounds)),
        )

    return make


@pytest.fixture
def brief(monkeypatch):
    """`--quick` of two runs and weights that take no time to draw, for tests of the way through, not of figures."""
    none = {"warmup_ms": 0, "round_ms": 0, "settle_ms": 0, "steady": None, "min_runs": 0, "min_ms": 0}
    short = Protocol(min_warmup_runs=1, rounds=2, min_runs_per_round=1, **none)
    monkeypatch.setattr(Protocol, "quick", lambda: short)
    monkeypatch.setattr(deployable, "seed_weights", lambda *_args, **_kwargs: Weights(False, "untrained"))
