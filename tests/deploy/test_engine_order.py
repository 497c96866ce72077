"""From the words of a command to compilers and devices."""

from __future__ import annotations

import pytest

from deploy import engine_order
from deploy.backends import BACKENDS, Available, Backend, Compiler, Unavailable
from deploy.engine_order import EngineOrder, known_targets, order_engines
from searchkit.errors import BackendUnavailableError, UsageError


class Fake(Compiler):
    """A compiler for the devices that it is given."""

    def __init__(self, name, *devices):
        self.name, self.state = name, Available("1.0", devices)

    def probe(self):
        return self.state

    def probe_build(self):
        return self.state

    def open(self, model, *, device=None, threads=None, mode=None):
        raise AssertionError

    def build(self, model, targets):
        raise AssertionError


class Plain(Backend):
    """Runs the model itself."""

    name = "plain"

    def probe(self):
        return Available("1.0", ("cpu",))

    def open(self, model, *, device=None, threads=None, mode=None):
        raise AssertionError


@pytest.fixture
def known(monkeypatch):
    """Backends: one of many GPUs, one of the CPU alone, one without engines, one that is not installed."""
    found = {
        "gpus": Fake("gpus", "sm75", "sm86", "sm120"),
        "cpu": Fake("cpu", "cpu-avx2"),
        "plain": Plain(),
        "missing": Fake("missing"),
        "nothing": Fake("nothing"),
    }
    found["missing"].state = Unavailable("it is not installed", "pip install it")

    class Registry:
        def load(self, name):
            return found[name]

        def names(self):
            return list(found)

    monkeypatch.setattr(engine_order, "BACKENDS", Registry())
    return found


def test_nothing_is_ordered_where_nothing_is_wanted(known):
    assert order_engines([], []) == []
    assert order_engines([], ["sm75", "anything"]) == [], "a target alone is a question to the planner"


def test_devices_are_given_as_a_compiler_calls_them_or_as_the_planner_does(known):
    assert order_engines(["gpus"], ["sm86", "rtx2080ti", "sm75"]) == [EngineOrder(known["gpus"], ("sm86", "sm75"))]


def test_each_compiler_takes_its_own(known):
    orders = order_engines(["cpu", "gpus"], ["sm75", "cpu-avx2"])
    assert orders == [EngineOrder(known["cpu"], ("cpu-avx2",)), EngineOrder(known["gpus"], ("sm75",))]


def test_the_only_device_need_not_be_named(known):
    assert order_engines(["cpu"], []) == [EngineOrder(known["cpu"], ("cpu-avx2",))]


@pytest.mark.parametrize(
    ("backends", "targets", "says"),
    [
        (["gpus"], [], r"gpus builds for the devices that it is told .*sm75, sm86, sm120.*Add --target sm75"),
        (["nothing"], [], r"allowed: none here"),
        (["cpu", "gpus"], ["sm75"], r"cpu builds for the devices that it is told"),
        (["gpus"], ["v100"], r"--target: no engine can be built for this target .*'v100'.*gpus: sm75, sm86, sm120"),
        (["gpus"], ["sm75", "sm999"], r"--target: no engine can be built for this target \(got 'sm999'"),
        (["gpus", "gpus"], ["sm75"], "one engine a backend"),
        (["plain"], ["sm75"], r"backend plain runs the ONNX model itself .*allowed: gpus, cpu, missing, nothing"),
    ],
)
def test_what_cannot_be_ordered(known, backends, targets, says):
    with pytest.raises(UsageError, match=says):
        order_engines(backends, targets)


def test_a_compiler_that_is_not_installed(known):
    with pytest.raises(BackendUnavailableError, match=r"missing cannot build engines here.*Pip install it") as caught:
        order_engines(["missing"], ["sm75"])
    assert caught.value.exit_code == 7


def test_an_unknown_backend():
    with pytest.raises(UsageError, match="unknown backend"):
        order_engines(["nonsense"], [])


def test_targets_are_named_as_the_planner_names_them(known):
    orders = order_engines(["cpu", "gpus"], ["cpu-avx2", "rtx2080ti"])
    assert known_targets(["rtx2080ti", "cpu-avx2", "rtx2080ti", "v100"], orders) == ["rtx2080ti", "v100"]
    with pytest.raises(UsageError, match="nonsense"):
        known_targets(["nonsense"], orders)
    with pytest.raises(UsageError, match="cpu-avx2"):
        known_targets(["cpu-avx2"], [])


def test_the_real_compiler_that_needs_no_gpu():
    (order,) = order_engines(["tensorrt-rtx"], ["rtx2080ti", "sm86"])
    assert order == EngineOrder(BACKENDS.load("tensorrt-rtx"), ("sm75", "sm86"))
