"""The GPU, its memory and a stream, by cuda-core or, where only that is installed, by pycuda.

Both work in the device's primary context, the one that PyTorch uses, so that they can share a process. Written against
the documented interfaces of cuda-core 1.2 and pycuda 2026.1; not run here on a GPU.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from searchkit.errors import BackendUnavailableError

INSTALL = "install NVIDIA's driver, then pip install cuda-core cuda-bindings"


@dataclass(frozen=True)
class Gpu:
    """The GPU that engines are built for and run on: the first that CUDA shows.

    Attributes:
        sm: compute capability, such as `sm75`.
        driver: the newest CUDA version that the driver serves, such as `13.0`.
        library: `cuda-core` or `pycuda`.
    """

    name: str
    sm: str
    driver: str
    library: str


class CudaStream(ABC):
    """One stream and the memory of one session. Not safe to use from two threads at once."""

    @property
    @abstractmethod
    def handle(self) -> int:
        """The stream, as a `cudaStream_t`."""

    @abstractmethod
    def current(self) -> Any:
        """A context manager in which the calling thread uses the device's primary context."""

    @abstractmethod
    def allocate(self, size_bytes: int) -> int:
        """Device memory; returns its address."""

    @abstractmethod
    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy a C-contiguous array to memory that `allocate` gave, and wait for it."""

    @abstractmethod
    def download(self, address: int, array: np.ndarray) -> None:
        """Fill a C-contiguous array from memory that `allocate` gave, behind all that was started on the stream."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for all that was started on the stream."""

    @abstractmethod
    def close(self) -> None:
        """Free the memory and the stream; may be called twice."""


class CudaCoreStream(CudaStream):
    """By `cuda.core`: device memory from the stream's pool, page-locked host memory for the copies."""

    def __init__(self) -> None:
        from cuda.core import LegacyPinnedMemoryResource

        self._buffers: dict[int, tuple[Any, Any]] = {}
        self._host = LegacyPinnedMemoryResource()
        with self.current():
            self._stream: Any = self._device().create_stream()

    @staticmethod
    def _device() -> Any:
        """`cuda.core` has an object of its own for the device in each thread."""
        from cuda.core import Device

        return Device(0)

    @property
    def handle(self) -> int:
        return int(self._stream.handle)

    @contextmanager
    def current(self) -> Iterator[None]:
        self._device().set_current()
        yield

    def allocate(self, size_bytes: int) -> int:
        with self.current():
            buffer = self._device().allocate(size_bytes, stream=self._stream)
            self._stream.sync()
            self._buffers[int(buffer.handle)] = (buffer, self._host.allocate(size_bytes))
        return int(buffer.handle)

    def upload(self, address: int, array: np.ndarray) -> None:
        buffer, host = self._buffers[address]
        np.copyto(_host_view(host, array.nbytes), array.reshape(-1).view(np.uint8))
        with self.current():
            host.copy_to(buffer, stream=self._stream)
            self._stream.sync()

    def download(self, address: int, array: np.ndarray) -> None:
        buffer, host = self._buffers[address]
        with self.current():
            buffer.copy_to(host, stream=self._stream)
            self._stream.sync()
        np.copyto(array.reshape(-1).view(np.uint8), _host_view(host, array.nbytes))

    def synchronize(self) -> None:
        with self.current():
            self._stream.sync()

    def close(self) -> None:
        if self._stream is None:
            return
        with self.current():
            while self._buffers:
                for buffer in self._buffers.popitem()[1]:
                    buffer.close()
            self._stream.close()
        self._stream = None


class PyCudaStream(CudaStream):
    """By `pycuda`: the primary context is retained, and current only inside a call."""

    def __init__(self) -> None:
        import pycuda.driver

        self._driver = pycuda.driver
        self._driver.init()
        self._context: Any = self._driver.Device(0).retain_primary_context()
        self._memory: dict[int, tuple[Any, Any]] = {}
        with self.current():
            self._stream = self._driver.Stream()

    @property
    def handle(self) -> int:
        return int(self._stream.handle)

    @contextmanager
    def current(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            self._driver.Context.pop()

    def allocate(self, size_bytes: int) -> int:
        with self.current():
            memory = self._driver.mem_alloc(size_bytes)
            self._memory[int(memory)] = (memory, self._driver.pagelocked_empty(size_bytes, np.uint8))
        return int(memory)

    def upload(self, address: int, array: np.ndarray) -> None:
        memory, host = self._memory[address]
        np.copyto(host[: array.nbytes], array.reshape(-1).view(np.uint8))
        with self.current():
            self._driver.memcpy_htod_async(memory, host, self._stream)
            self._stream.synchronize()

    def download(self, address: int, array: np.ndarray) -> None:
        memory, host = self._memory[address]
        with self.current():
            self._driver.memcpy_dtoh_async(host, memory, self._stream)
            self._stream.synchronize()
        np.copyto(array.reshape(-1).view(np.uint8), host[: array.nbytes])

    def synchronize(self) -> None:
        with self.current():
            self._stream.synchronize()

    def close(self) -> None:
        if self._context is None:
            return
        with self.current():
            while self._memory:
                self._memory.popitem()[1][0].free()
            del self._stream
        self._context.detach()
        self._context = None


def _host_view(buffer: Any, size_bytes: int) -> np.ndarray:
    """Page-locked memory as an array; the buffer must outlive it."""
    view: np.ndarray = np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(int(buffer.handle)))
    return view


def find_gpu() -> Gpu | str:
    """The GPU, or why there is none that can be used; raises nothing."""
    reasons = []
    for library, look in (("cuda-core", _by_cuda_core), ("pycuda", _by_pycuda)):
        try:
            return look()
        except ImportError as error:
            reasons.append(f"{library} cannot be imported ({error})")
        # Each library has exception types of its own; whatever it is, it is the reason.
        except Exception as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            driverless = "driver" in reason.lower() or "libcuda" in reason.lower()
            return f"no CUDA driver: {reason}" if driverless else f"{library} finds no GPU: {reason}"
    return "; ".join(reasons)


def require_gpu() -> Gpu:
    """The GPU.

    Raises:
        BackendUnavailableError: there is none that can be used.
    """
    found = find_gpu()
    if isinstance(found, str):
        raise BackendUnavailableError(found, fix=INSTALL)
    return found


def open_stream(gpu: Gpu) -> CudaStream:
    """A stream on that GPU, by the library that found it.

    Raises:
        BackendUnavailableError: it cannot be made.
    """
    try:
        return CudaCoreStream() if gpu.library == "cuda-core" else PyCudaStream()
    except Exception as error:
        raise BackendUnavailableError(
            f"{gpu.library} cannot open the GPU: {str(error).partition(chr(10))[0]}", fix=INSTALL
        ) from error


def _by_cuda_core() -> Gpu:
    from cuda.bindings import driver
    from cuda.core import Device

    device = Device(0)
    device.set_current()
    status, version = driver.cuDriverGetVersion()
    if int(status) != 0:
        raise RuntimeError(f"the CUDA driver does not tell its version ({status})")
    capability = device.compute_capability
    return Gpu(device.name, f"sm{capability.major}{capability.minor}", _cuda_version(version), "cuda-core")


def _by_pycuda() -> Gpu:
    import pycuda.driver

    pycuda.driver.init()
    device = pycuda.driver.Device(0)
    major, minor = device.compute_capability()
    return Gpu(device.name(), f"sm{major}{minor}", _cuda_version(pycuda.driver.get_driver_version()), "pycuda")


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
