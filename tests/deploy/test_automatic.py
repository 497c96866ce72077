"""`--backend auto`: the fastest that gives the right labels, found by opening what is here, and remembered."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

import deploy
from deploy import automatic
from deploy.automatic import Choice, Tried, candidates, choose
from deploy.backends import BACKENDS, Available, Backend, Session, SessionInfo, Unavailable
from deploy.bundle import read_bundle
from deploy.bundled import BundledModel
from deploy.deployable import Deployable
from deploy.export import export
from deploy.golden import golden_of
from searchkit.data import streets
from searchkit.errors import BackendUnavailableError, UsageError
from searchkit.sizes import Size

SIZE = Size(64, 96)


@pytest.fixture(scope="module")
def folder(tiny_network, tmp_path_factory):
    path = tmp_path_factory.mktemp("auto") / "bundle"
    export(Deployable(tiny_network(), SIZE, "labels"), path)
    return path


@pytest.fixture
def model(folder):
    return BundledModel(read_bundle(folder))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Choices are kept here. The native library stays where it is."""
    from deploy.native import library

    place = library.cache_folder()
    monkeypatch.setattr(library, "cache_folder", lambda: place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "searchkit" / "auto"


class Clock:
    """Time passes only where a session says so."""

    now = 0.0


class Pretended(Session):
    """Answers with what it was given, after a while of the pretended clock."""

    def __init__(self, name, answer, seconds):
        self.answer, self.seconds, self.closed = answer, seconds, False
        self._info = SessionInfo(name, "1", "pretended", "cpu", {"precision": "fp32"})

    @property
    def info(self):
        return self._info

    def load(self, batch):
        pass

    def execute(self):
        Clock.now += self.seconds

    def synchronize(self):
        pass

    def output(self):
        return self.answer

    def close(self):
        self.closed = True


class PretendedBackend(Backend):
    def __init__(self, name, make, state=None):
        self.name, self.make, self.sessions = name, make, []
        self.state = state or Available("1", ("cpu",))

    def probe(self):
        return self.state

    def open(self, model, *, device=None, threads=None, mode=None):
        self.sessions.append(self.make())
        return self.sessions[-1]


@pytest.fixture
def pretend(monkeypatch):
    """`pretend(name=session factory, ...)`: these are all the backends there are."""

    def install(**makers):
        backends = {name: PretendedBackend(name, make) for name, make in makers.items()}
        monkeypatch.setattr(automatic, "time", SimpleNamespace(perf_counter=lambda: Clock.now))
        monkeypatch.setattr(automatic, "BACKENDS", SimpleNamespace(names=lambda: list(backends), load=backends.get))
        return backends

    return install


@pytest.fixture
def right(model):
    return golden_of(model).output


def refuse():
    raise RuntimeError("out of order\nand a stack trace")


def test_the_fastest_that_is_right_is_taken(model, right, pretend):
    wrong = (right + 1) % 19
    backends = pretend(
        slow=lambda: Pretended("slow", right, 0.012),
        fast=lambda: Pretended("fast", right, 0.008),
        wrong=lambda: Pretended("wrong", wrong, 0.0005),
        broken=refuse,
    )
    choice = choose(model)
    assert (choice.backend, choice.mode, choice.remembered) == ("fast", "default", False)
    tried = {one.backend: one for one in choice.tried}
    assert [one.backend for one in choice.tried[:2]] == ["fast", "slow"]
    assert tried["fast"].latency_ms == pytest.approx(8)
    assert tried["slow"].latency_ms == pytest.approx(12)
    assert tried["fast"].agreement == 1.0
    assert tried["wrong"].latency_ms is None
    assert "labels agree on" in tried["wrong"].problem
    assert tried["broken"].problem == "out of order"
    for backend in backends.values():
        assert all(session.closed for session in backend.sessions)
    assert choice.text.startswith("fast:default, computes in fp32: ")
    assert "slow:default" in choice.text
    assert "wrong" not in choice.text


def test_what_is_hopeless_is_run_only_to_warm_up(model, right, pretend):
    runs = []

    class Counted(Pretended):
        def execute(self):
            runs.append(1)
            super().execute()

    pretend(fast=lambda: Pretended("fast", right, 0.001), hopeless=lambda: Counted("hopeless", right, 0.05))
    choice = choose(model)
    assert choice.backend == "fast"
    assert len(runs) == 3  # the golden picture and two warm-ups


def test_nothing_right_is_an_error_that_names_all(model, right, pretend):
    pretend(wrong=lambda: Pretended("wrong", (right + 1) % 19, 0.0005), broken=refuse)
    with pytest.raises(BackendUnavailableError, match=r"wrong:default: .*labels agree.*; broken:default: out of order"):
        choose(model)


def test_a_choice_is_remembered_and_checked_again(model, right, pretend, cache):
    backends = pretend(slow=lambda: Pretended("slow", right, 0.01), fast=lambda: Pretended("fast", right, 0.001))
    first = choose(model)
    assert len(list(cache.iterdir())) == 1
    opened = len(backends["slow"].sessions)
    again = choose(model)
    assert again.remembered
    assert again.tried == first.tried
    assert "measured before" in again.text
    assert len(backends["slow"].sessions) == opened
    assert not choose(model, threads=1).remembered
    assert not choose(model, remember=False).remembered
    # What was fastest then is wrong now: everything is measured again.
    backends["fast"].make = lambda: Pretended("fast", (right + 1) % 19, 0.0005)
    found = choose(model)
    assert (found.backend, found.remembered) == ("slow", False)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"backend": "fast", "mode": "default", "tried": []}', "\0"])
def test_a_damaged_memory_is_none(content, model, right, pretend, cache):
    pretend(fast=lambda: Pretended("fast", right, 0.001))
    choose(model)
    (kept,) = cache.iterdir()
    kept.write_text(content)
    assert not choose(model).remembered
    assert json.loads(kept.read_text())["backend"] == "fast"


def test_a_memory_that_cannot_be_written_is_no_error(model, right, pretend, cache):
    pretend(fast=lambda: Pretended("fast", right, 0.001))
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    assert choose(model).backend == "fast"


def test_another_version_of_a_backend_is_measured_anew(model, right, pretend):
    backends = pretend(fast=lambda: Pretended("fast", right, 0.001))
    choose(model)
    assert choose(model).remembered
    backends["fast"].state = Available("2", ("cpu",))
    assert not choose(model).remembered


def test_candidates(model, monkeypatch):
    found = list(candidates(model, None))
    assert {("onnxruntime", "default"), ("onnxruntime", "label_head"), ("openvino", "bf16")} <= set(found)
    assert ("pytorch", "compiled") not in found
    names = {name for name, _ in found}
    assert "aoti" not in names  # compiles for a minute
    assert "tensorrt-rtx" not in names  # the bundle holds no engine
    assert not list(candidates(model, "tpu"))
    monkeypatch.setattr(type(BACKENDS.load("openvino")), "probe", lambda _: Unavailable("gone", "pip"))
    assert "openvino" not in {name for name, _ in candidates(model, None)}


def test_a_precision_that_a_backend_does_not_take_is_left_out(tiny_network):
    model = Deployable(tiny_network(), SIZE, "labels", precision="fp16")
    assert "pytorch" not in {name for name, _ in candidates(model, None)}


def test_a_mode_cannot_be_named_beside_it(folder):
    with pytest.raises(UsageError, match="`auto` chooses the mode"):
        deploy.load(folder, backend="auto", mode="fp32")


def test_a_segmenter_on_whatever_is_fastest(folder):
    picture = streets.draw(7, 3, SIZE).image
    with deploy.load(folder, backend="auto", threads=1) as segmenter, deploy.load(folder, mode="default") as plain:
        assert (segmenter.backend, segmenter.mode) == (segmenter.choice.backend, segmenter.choice.mode)
        assert (segmenter(picture) == plain(picture)).mean() > 0.97
        assert plain.choice is None


def test_a_network_that_is_being_exported(tiny_network):
    """It has no golden picture yet: one is made."""
    assert choose(Deployable(tiny_network(), SIZE, "raw"), threads=1, remember=False).tried[0].agreement > 0.97


def test_the_choice_as_json():
    tree = Choice("onnxruntime", "default", (Tried("onnxruntime", "default", 1.5, agreement=1.0),)).to_tree()
    assert json.loads(json.dumps(tree))["tried"][0]["latency_ms"] == 1.5
