"""TensorRT and a GPU that are not there, for the tests of the two backends.

`fake_tensorrt` makes a module with the classes, methods, parameters, properties and enum members that were recorded of
the real one, and no others: a name that it does not have is an AttributeError, an argument that it does not take a
TypeError. Its engines compute with ONNX Runtime. `fake_gpu` stands in for `cuda.core` or `pycuda`: device memory is
host memory, so that what a session copies, places and runs is what its output is.
"""

from __future__ import annotations

import ctypes
import importlib.util
import inspect
import json
import sys
from enum import IntEnum
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnxruntime
import pytest

HERE = Path(__file__).parent
DATA = HERE / "data"
SURFACES = {
    "10.4": "tensorrt-10.4.0.json",
    "10.16": "tensorrt-10.16.1.json",
    "11.4": "tensorrt-11.4.0.json",
    "rtx": "tensorrt_rtx-1.7.1.json",
}
_HEADER_BYTES = 64
_RTX_BITS = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
_TYPES = {"tensor(float)": "FLOAT", "tensor(uint8)": "UINT8", "tensor(int32)": "INT32", "tensor(int64)": "INT64"}


def _script(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def api_surface():
    """The script that records surfaces."""
    return _script("api_surface")


@pytest.fixture(scope="session")
def recorded():
    """`recorded("11.4")`: the recorded surface, as a tree."""
    return lambda name: json.loads((DATA / SURFACES[name]).read_text())


def plan_header(tag, version, length, mask=0):
    """The first bytes of a plan, as real ones have them."""
    numbers = [int(part) for part in version.split(".")[:4]]
    head = tag + bytes(4) + (2).to_bytes(4, "little") + bytes(4) + length.to_bytes(8, "little")
    head += bytes([*numbers, *[0] * (4 - len(numbers))]) + tag + mask.to_bytes(4, "little")
    return head.ljust(_HEADER_BYTES, b"\0")


@pytest.fixture
def engine_of():
    """`engine_of(onnx, tag=b"ftrt", version="10.4.0", mask=0)`: an engine that the fake runs."""

    def make(onnx, tag=b"ftrt", version="10.4.0", mask=0):
        return plan_header(tag, version, _HEADER_BYTES + len(onnx), mask) + onnx

    return make


class World:
    """What the fake library does, and what was asked of it.

    Attributes:
        calls: (class, method, arguments) in order.
        parser_errors: (operator, node, description) that the parser finds.
        refusal: why the builder refuses, None if it does not.
        output: changes an engine's output before it is given.
        deserialises: whether engines open.
        validity: what `get_engine_validity` answers.
    """

    def __init__(self):
        self.calls = []
        self.parser_errors = []
        self.refusal = None
        self.output = lambda array: array
        self.deserialises = True
        self.validity = ("VALID", 0)
        self.kernel_blobs = []
        self.timing_fits = True

    def names(self):
        return [f"{kind}.{name}" for kind, name, _ in self.calls]

    def arguments(self, name):
        return [arguments for kind, method, arguments in self.calls if f"{kind}.{method}" == name]


class _Fake:
    """Base of every fake class: only what was recorded can be read, called or set."""

    def __setattr__(self, name, value):
        # Our own subclasses, of ILogger say, may have attributes of their own.
        recorded_class = type(self).__module__ == "fake"
        if recorded_class and not name.startswith("_") and not isinstance(getattr(type(self), name, None), property):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        object.__setattr__(self, name, value)


def fake_module(surface, world):
    module = ModuleType(surface["module"].replace("_bindings", ""))
    module.__spec__ = ModuleSpec(module.__name__, None)
    module.__version__ = surface["version"]
    for name, members in surface["enums"].items():
        if "." not in name:
            setattr(module, name, IntEnum(name, members))
    for name, members in surface["classes"].items():
        setattr(module, name, _fake_class(module, name, members, world))
    module.ILogger.Severity = IntEnum("Severity", surface["enums"]["ILogger.Severity"])
    module.nptype = lambda kind: {"FLOAT": np.float32, "UINT8": np.uint8, "INT32": np.int32, "INT64": np.int64}[
        kind.name
    ]
    module.world = world
    return module


def _fake_class(module, name, members, world):
    body = {"__module__": "fake"}
    for member, kind in members.items():
        body[member] = (
            _property(name, member, kind) if isinstance(kind, str) else _method(module, name, member, kind, world)
        )
    made = type(name, (_Fake,), body)
    if name == "IHostMemory":
        made.__bytes__ = lambda self: self._data
    return made


def _property(kind, name, access):
    def get(self):
        behaviour = READS.get((kind, name))
        return behaviour(self) if behaviour else self.__dict__[f"_{name}"]

    def put(self, value):
        self._world.calls.append((kind, name, value))
        self.__dict__[f"_{name}"] = value

    return property(get, put if access == "read write" else None)


def _method(module, kind, name, overloads, world):
    def call(self, *args, **kwargs):
        bound = next((b for b in (_bound(o, args, kwargs) for o in overloads) if b is not None), None)
        # Classes that only the library makes have no recorded constructor.
        if bound is None and not (name == "__init__" and not overloads):
            raise TypeError(f"{kind}.{name} takes {overloads}, not {args} {kwargs}")
        self.__dict__.setdefault("_world", world)
        self.__dict__.setdefault("_trt", module)
        world.calls.append((kind, name, bound))
        if name == "__init__":
            self.__dict__.update({f"_{key}": value for key, value in (bound or {}).items()})
            return None
        if (kind, name) not in CALLS:
            raise NotImplementedError(f"the fake does not know what {kind}.{name} does")
        return CALLS[kind, name](self, **(bound or {}))

    return call


def _bound(overload, args, kwargs):
    parameters = [
        inspect.Parameter(
            name.rstrip("="),
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=None if name.endswith("=") else inspect.Parameter.empty,
        )
        for name in overload
    ]
    try:
        bound = inspect.Signature(parameters).bind(*args, **kwargs)
    except TypeError:
        return None
    return dict(bound.arguments)


def _made(owner, kind, **state):
    made = object.__new__(getattr(owner._trt, kind))
    made.__dict__.update({"_world": owner._world, "_trt": owner._trt})
    made.__dict__.update({f"_{key}": value for key, value in state.items()})
    return made


def _say(owner, logger, text, severity="ERROR"):
    logger.log(owner._trt.ILogger.Severity.__members__[severity], text)


def _parse(parser, model, path=None):
    if parser._world.parser_errors:
        return False
    parser._network._model = bytes(model)
    return True


def _build(builder, network, config, kernel_text=None):
    world, monitor = builder._world, config.__dict__.get("_progress_monitor")
    if monitor is not None:
        monitor.phase_start("Building engine", None, 2)
        going = monitor.step_complete("Building engine", 0)
        monitor.phase_finish("Building engine")
        if not going:
            _say(builder, builder._logger, "BuildCanceled")
            return None
    if world.refusal:
        _say(builder, builder._logger, world.refusal)
        return None
    rtx = "rtx" in builder._trt.__name__
    mask = sum(1 << _RTX_BITS.index(kind.name) for kind in config.__dict__.get("_targets", {}).values())
    length = _HEADER_BYTES + len(network._model)
    head = plan_header(b"vtrt" if rtx else b"ftrt", builder._trt.__version__, length, mask)
    return _made(builder, "IHostMemory", data=head + network._model)


def _set_target(config, compute_capability, index):
    config.__dict__.setdefault("_targets", {})[index] = compute_capability
    return True


def _deserialise(runtime, serialized_engine):
    if not runtime._world.deserialises:
        _say(runtime, runtime._logger, "the plan is of no use here")
        return None
    session = onnxruntime.InferenceSession(bytes(serialized_engine)[_HEADER_BYTES:], providers=["CPUExecutionProvider"])
    tensors = [("INPUT", t) for t in session.get_inputs()] + [("OUTPUT", t) for t in session.get_outputs()]
    return _made(runtime, "ICudaEngine", session=session, tensors=tensors)


def _tensor(engine, name):
    return next((mode, tensor) for mode, tensor in engine._tensors if tensor.name == name)


def _address(context, name, memory):
    context._addresses[name] = memory
    return True


def _execute(context, stream_handle):
    engine, world = context._engine, context._world
    assert stream_handle, "the default stream slows TensorRT down"
    source = _tensor_array(context, next(t for mode, t in engine._tensors if mode == "INPUT"))
    target = next(t for mode, t in engine._tensors if mode == "OUTPUT")
    found = engine._session.run(None, {engine._tensors[0][1].name: source.copy()})[0]
    np.copyto(_tensor_array(context, target), world.output(found))
    return True


def _tensor_array(context, tensor):
    dtype = context._trt.nptype(context._trt.DataType.__members__[_TYPES[tensor.type]])
    size = int(np.prod(tensor.shape)) * np.dtype(dtype).itemsize
    memory = (ctypes.c_uint8 * size).from_address(context._addresses[tensor.name])
    return np.frombuffer(memory, dtype).reshape(tensor.shape)


def _validity(runtime, buffer):
    assert len(buffer) >= _HEADER_BYTES
    name, reasons = runtime._world.validity
    return runtime._trt.EngineValidity.__members__[name], reasons


def _set_times(config, cache, ignore_mismatch):
    assert not ignore_mismatch
    config.__dict__["_times"] = cache
    return config._world.timing_fits or not cache._data


CALLS = {
    ("Builder", "create_network"): lambda self, flags=0: _made(self, "INetworkDefinition", flags=flags),
    ("Builder", "create_builder_config"): lambda self: _made(self, "IBuilderConfig"),
    ("Builder", "build_serialized_network"): _build,
    ("OnnxParser", "parse"): _parse,
    ("OnnxParser", "get_error"): lambda self, index: _made(self, "ParserError", error=self._world.parser_errors[index]),
    ("ParserError", "node_operator"): lambda self: self._error[0],
    ("ParserError", "node_name"): lambda self: self._error[1],
    ("ParserError", "desc"): lambda self: self._error[2],
    ("IBuilderConfig", "set_compute_capability"): _set_target,
    ("IBuilderConfig", "clear_flag"): lambda self, flag: None,
    ("IBuilderConfig", "set_flag"): lambda self, flag: None,
    ("IBuilderConfig", "set_memory_pool_limit"): lambda self, pool, pool_size: None,
    ("IBuilderConfig", "create_timing_cache"): lambda self, serialized_timing_cache: _made(
        self, "ITimingCache", data=bytes(serialized_timing_cache)
    ),
    ("IBuilderConfig", "set_timing_cache"): _set_times,
    ("IBuilderConfig", "get_timing_cache"): lambda self: self._times,
    ("ITimingCache", "serialize"): lambda self: _made(self, "IHostMemory", data=self._data + b"+"),
    ("IProgressMonitor", "__init__"): None,
    ("Runtime", "get_engine_validity"): _validity,
    ("Runtime", "deserialize_cuda_engine"): _deserialise,
    ("ICudaEngine", "get_tensor_name"): lambda self, index: self._tensors[index][1].name,
    ("ICudaEngine", "get_tensor_mode"): lambda self, name: self._trt.TensorIOMode.__members__[_tensor(self, name)[0]],
    ("ICudaEngine", "get_tensor_shape"): lambda self, name: tuple(_tensor(self, name)[1].shape),
    ("ICudaEngine", "get_tensor_dtype"): lambda self, name: self._trt.DataType.__members__[
        _TYPES[_tensor(self, name)[1].type]
    ],
    ("ICudaEngine", "create_execution_context"): lambda self, strategy=None, runtime_config=None: _made(
        self, "IExecutionContext", engine=self, addresses={}
    ),
    ("ICudaEngine", "create_runtime_config"): lambda self: _made(self, "IRuntimeConfig"),
    ("IRuntimeConfig", "create_runtime_cache"): lambda self: _made(self, "IRuntimeCache"),
    ("IRuntimeConfig", "set_runtime_cache"): lambda self, cache=None: True,
    ("IRuntimeCache", "deserialize"): lambda self, blob: self._world.kernel_blobs.append(bytes(blob)) or True,
    ("IRuntimeCache", "serialize"): lambda self: _made(self, "IHostMemory", data=b"kernels"),
    ("IExecutionContext", "set_tensor_address"): _address,
    ("IExecutionContext", "execute_async_v3"): _execute,
}
READS = {
    ("OnnxParser", "num_errors"): lambda self: len(self._world.parser_errors),
    ("ICudaEngine", "num_io_tensors"): lambda self: len(self._tensors),
}


@pytest.fixture
def fake_tensorrt(monkeypatch, recorded):
    """`fake_tensorrt("11.4")`: from here on that is the installed TensorRT (`"rtx"`: TensorRT-RTX)."""

    def install(name):
        module = fake_module(recorded(name), World())
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return module

    return install


class FakeGpu:
    """Device memory that is host memory, and a count of what was not freed."""

    def __init__(self, name, capability, version):
        self.name, self.capability, self.version = name, capability, version
        self.memory, self.streams, self.contexts = {}, set(), 0

    def take(self, size):
        array = np.full(size, 255, np.uint8)
        self.memory[array.ctypes.data] = array
        return array.ctypes.data

    @property
    def is_clean(self):
        return not self.memory and not self.streams and not self.contexts


def _cuda_core(gpu):
    """`cuda.core` and `cuda.bindings`, as far as `deploy/backends/_cuda.py` needs them."""

    class Buffer:
        def __init__(self, size):
            self.size, self.handle = size, gpu.take(size)

        def copy_to(self, dst, *, stream):
            assert stream.open
            gpu.memory[dst.handle][:] = gpu.memory[self.handle]

        def close(self):
            del gpu.memory[self.handle]

    class Stream:
        def __init__(self):
            self.handle, self.open = id(self), True
            gpu.streams.add(self)

        def sync(self):
            assert self.open

        def close(self):
            self.open = False
            gpu.streams.remove(self)

    class LegacyPinnedMemoryResource:
        def allocate(self, size):
            return Buffer(size)

    class Device:
        def __init__(self, device_id):
            assert device_id == 0
            self.name = gpu.name
            self.compute_capability = SimpleNamespace(major=gpu.capability[0], minor=gpu.capability[1])

        def set_current(self):
            if gpu.version is None:
                raise RuntimeError('"cuda" is an NVIDIA driver library and can only be found via system search.')

        def create_stream(self):
            return Stream()

        def allocate(self, size, *, stream):
            assert stream.open
            return Buffer(size)

    core = ModuleType("cuda.core")
    core.Device, core.LegacyPinnedMemoryResource = Device, LegacyPinnedMemoryResource
    bindings = ModuleType("cuda.bindings")
    bindings.driver = SimpleNamespace(cuDriverGetVersion=lambda: (0, gpu.version))
    return {"cuda.core": core, "cuda.bindings": bindings}


def _pycuda(gpu):
    """`pycuda.driver`, as far as `deploy/backends/_cuda.py` needs it; by its documentation."""

    class Memory:
        def __init__(self, size):
            self.address = gpu.take(size)

        def __int__(self):
            return self.address

        def free(self):
            del gpu.memory[self.address]

    class Context:
        depth = 0

        def push(self):
            Context.depth += 1

        @staticmethod
        def pop():
            Context.depth -= 1
            assert Context.depth >= 0

        def detach(self):
            gpu.contexts -= 1

    class Device:
        def __init__(self, number):
            assert number == 0

        def retain_primary_context(self):
            gpu.contexts += 1
            return Context()

        def compute_capability(self):
            return gpu.capability

        def name(self):
            return gpu.name

    class Stream:
        def __init__(self):
            assert Context.depth
            self.handle = id(self)

        def synchronize(self):
            assert Context.depth, "no context is current"

    def copy(target, source):
        assert Context.depth, "no context is current"
        np.copyto(target, source)

    driver = ModuleType("pycuda.driver")
    driver.Device, driver.Context, driver.Stream, driver.mem_alloc = Device, Context, Stream, Memory
    driver.init = lambda: None
    driver.get_driver_version = lambda: gpu.version
    driver.pagelocked_empty = lambda shape, dtype: np.empty(shape, dtype)
    driver.memcpy_htod_async = lambda dest, src, stream: copy(gpu.memory[int(dest)], src)
    driver.memcpy_dtoh_async = lambda dest, src, stream: copy(dest, gpu.memory[int(src)])
    package = ModuleType("pycuda")
    package.driver = driver
    return {"pycuda": package, "pycuda.driver": driver}


@pytest.fixture
def fake_gpu(monkeypatch, tmp_path):
    """`fake_gpu(library="cuda-core", name="GeForce RTX 2080 Ti", capability=(7, 5), version=13000)`.

    From here on that is the GPU, and the cache folder is a new one. `version=None` is a machine without a driver.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def install(library="cuda-core", name="GeForce RTX 2080 Ti", capability=(7, 5), version=13000):
        gpu = FakeGpu(name, capability, version)
        modules = {"cuda.core": None, "cuda.bindings": None, "pycuda": None, "pycuda.driver": None}
        modules |= _cuda_core(gpu) if library == "cuda-core" else {}
        modules |= _pycuda(gpu) if library == "pycuda" else {}
        for module, value in modules.items():
            monkeypatch.setitem(sys.modules, module, value)
        return gpu

    return install


class Recorded:
    """A model that kept an engine and what it was built from."""

    def __init__(self, model, engine=None, options=None):
        self._model, self._engine, self._options = model, engine, options or {}

    def __getattr__(self, name):
        return getattr(self._model, name)

    def engine(self, backend):
        return self._engine

    def engine_options(self, backend):
        return self._options


@pytest.fixture
def with_engine(model):
    """`with_engine(bytes, options)`: the model, with that engine and that record of it."""
    return lambda engine, options=None: Recorded(model, engine, options)


@pytest.fixture(scope="session")
def model(tiny_network):
    """A network that answers with several classes, as uint8 labels."""
    from deploy.deployable import Deployable
    from searchkit.sizes import Size

    made = Deployable(tiny_network(), Size(64, 96), "labels")
    assert made.onnx, "exported before anything is replaced by a fake"
    return made


@pytest.fixture(scope="session")
def batch(model):
    """A street picture as the model's input."""
    from searchkit.data import streets

    return model.contract.encode(streets.draw(1, 7, model.size).image)
