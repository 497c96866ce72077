"""AOTInductor: an engine that is built here runs here; one that was built elsewhere is refused with what differs."""

from __future__ import annotations

import io
import json
import platform
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.backends import Available, Engine, Unavailable, aoti
from deploy.backends._aoti_package import metadata_of, require_runnable
from deploy.backends.aoti import BACKEND
from deploy.deployable import Deployable
from searchkit.data import streets
from searchkit.errors import BackendUnavailableError, DamagedArtifactError, UsageError, VerificationError
from searchkit.sizes import Size

SIZE = Size(64, 96)
HERE = {
    "AOTI_PLATFORM": sys.platform,
    "AOTI_MACHINE": platform.machine(),
    "AOTI_DEVICE_KEY": "cpu",
    "AOTI_CPU_ISA": "",
    "searchkit.torch": torch.__version__.partition("+")[0],
}


def package(**changes):
    """A file as AOTInductor packs it, as far as it is read before it is opened."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data/aotinductor/model/x.wrapper_metadata.json", json.dumps(HERE | changes))
        archive.writestr("archive/data/aotinductor/model/x.wrapper.so", b"")
    return file.getvalue()


class Model:
    """A model with an engine and nothing else: whatever else is asked for would be exported or built for nothing."""

    precision = "fp32"

    def __init__(self, engine):
        self._engine = engine

    def engine(self, backend):
        assert backend == "aoti"
        return self._engine


def test_metadata_is_read_without_opening_anything():
    assert metadata_of(package(AOTI_CPU_ISA="AVX2")) == HERE | {"AOTI_CPU_ISA": "AVX2"}
    require_runnable(metadata_of(package()), "cpu")


# Named by hand: an archive holds the time, and test processes that collect a second apart would name another test.
@pytest.mark.parametrize(
    "data",
    [b"", b"no zip", package()[:60], b"PK\x03\x04" + bytes(200)],
    ids=["empty", "no zip", "cut short", "no archive"],
)
def test_damaged_engines_are_refused_before_they_are_opened(data, monkeypatch):
    monkeypatch.setattr(aoti, "_loaded", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(DamagedArtifactError, match="not an AOTInductor package"):
        BACKEND.open(Model(data))


def test_a_zip_of_something_else_is_no_package():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a_metadata.json", "[1, 2]")
    with pytest.raises(DamagedArtifactError, match="not an AOTInductor package"):
        metadata_of(file.getvalue())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"AOTI_PLATFORM": "win32"}, "another operating system (got 'win32'"),
        ({"AOTI_MACHINE": "sparc"}, "another processor (got 'sparc'"),
        ({"AOTI_DEVICE_KEY": "cuda"}, "another device (got 'cuda'; allowed: cpu)"),
        ({"searchkit.torch": "1.0.0"}, "another PyTorch (got '1.0.0'"),
    ],
)
def test_engines_of_another_machine_are_refused(changes, words, monkeypatch):
    monkeypatch.setattr(aoti, "_loaded", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(BackendUnavailableError) as caught:
        BACKEND.open(Model(package(**changes)), device="cpu")
    assert words in str(caught.value)
    assert "Build the engine again on this machine" in str(caught.value)


def test_instructions_that_the_cpu_lacks_are_named(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_f": False, "amx_tile": False})
    require_runnable(metadata_of(package(AOTI_CPU_ISA="AVX2")), "cpu")
    with pytest.raises(BackendUnavailableError, match=r"this CPU lacks .got 'AVX512, AMX_TILE'"):
        require_runnable(metadata_of(package(AOTI_CPU_ISA="AVX512 AMX_TILE")), "cpu")


def test_engines_of_another_gpu_are_refused(monkeypatch):
    """The GPU is a stand-in: there was none."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    engine = metadata_of(package(AOTI_DEVICE_KEY="cuda", AOTI_COMPUTE_CAPABILITY="90"))
    require_runnable(engine, "cuda")
    with pytest.raises(BackendUnavailableError, match=r"another GPU .got '75'; allowed: 90"):
        require_runnable(engine | {"AOTI_COMPUTE_CAPABILITY": "75"}, "cuda")


def test_a_file_that_pytorch_refuses_is_an_error():
    with pytest.raises(BackendUnavailableError, match="PyTorch cannot load the engine"):
        BACKEND.open(Model(package()))


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)


def test_without_a_compiler_nothing_is_built_and_engines_still_run(no_compiler):
    assert isinstance(BACKEND.probe(), Available)
    state = BACKEND.probe_build()
    assert isinstance(state, Unavailable)
    assert "g++ is not on the PATH" in state.reason
    assert "g++" in state.install
    for attempt in (lambda: BACKEND.open(Model(None)), lambda: BACKEND.build(Model(None), ["cpu-avx2"])):
        with pytest.raises(BackendUnavailableError, match=r"cannot build here: there is no C\+\+ compiler"):
            attempt()


@pytest.mark.parametrize(("precision", "call"), [("fp16", "open"), ("int8", "build")])
def test_other_precisions_are_refused(precision, call):
    model = Model(package())
    model.precision = precision
    arguments = [model, ["cpu-avx2"]] if call == "build" else [model]
    with pytest.raises(UsageError, match="aoti does not run models of this precision"):
        getattr(BACKEND, call)(*arguments)


def can_build():
    return isinstance(BACKEND.probe_build(), Available)


def test_targets_are_those_of_this_machine():
    if not can_build():
        return
    (target, *_) = reversed(BACKEND.probe_build().devices)
    assert target == f"cpu-{torch.backends.cpu.get_cpu_capability().lower()}"
    with pytest.raises(UsageError, match=f"unknown target of aoti .got 'sm75'; allowed: .*{target}"):
        BACKEND.build(Model(None), ["sm75"])
    for targets in ([], [target, target]):
        with pytest.raises(UsageError, match="for one target"):
            BACKEND.build(Model(None), targets)


def test_a_network_that_cannot_be_exported_is_refused():
    class Data(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    if not can_build():
        return
    model = Model(None)
    model.module, model.example = Data(), lambda: torch.ones(1, 3, 4, 4)
    with pytest.raises(VerificationError, match="PyTorch cannot compile this network") as caught:
        BACKEND.open(model, device="cpu")
    assert "\n" not in str(caught.value)


def mapped_libraries():
    """The engines' libraries in this process."""
    maps = Path("/proc/self/maps").read_text()
    return set(re.findall(r"\S*/aotinductor_\w+/\S*\.so", maps))


@pytest.fixture(scope="module")
def built(tiny_network):
    """A network from picture to labels and its engine; None twice where nothing can be built."""
    if not can_build():
        return None, None
    model = Deployable(tiny_network(), SIZE, "labels")
    with torch.inference_mode():
        # A reference that was built in inference mode: its tensors cannot be exported as they are.
        model.module  # noqa: B018
    (target, *_) = reversed(BACKEND.probe_build().devices)
    return model, BACKEND.build(model, [target])


@pytest.mark.slow
def test_an_engine_says_what_it_is(built):
    _, engine = built
    if engine is None:
        return
    assert isinstance(engine, Engine)
    assert (engine.backend, engine.suffix, engine.version) == ("aoti", ".pt2", torch.__version__)
    assert engine.targets == BACKEND.probe_build().devices[-1:]
    assert engine.seconds > 0
    assert engine.options["AOTI_DEVICE_KEY"] == "cpu"
    assert engine.options["searchkit.torch"] == HERE["searchkit.torch"]
    assert metadata_of(engine.data)["AOTI_MACHINE"] == platform.machine()


@pytest.mark.slow
def test_an_engine_gives_pytorchs_labels_on_any_number_of_threads(built, monkeypatch, no_compiler):
    model, engine = built
    if engine is None:
        return
    monkeypatch.setattr(Deployable, "engine", lambda self, backend: engine.data)
    picture = model.contract.encode(streets.draw(0, 0, SIZE).image)
    with torch.inference_mode():
        wanted = model.module(torch.from_numpy(picture)).numpy()
    before = mapped_libraries()
    for threads in (1, 2, None):
        with BACKEND.open(model, device="cpu", threads=threads) as session:
            found = session.run(picture)
            info = session.info
        assert found.dtype == np.uint8
        assert (found == wanted).mean() > 0.99
        assert info.options["threads"] == str(threads or torch.get_num_threads())
        assert info.options["precision"] == "fp32"
    assert len(mapped_libraries() - before) <= 1, "one copy, however often it is opened"
    assert mapped_libraries()
