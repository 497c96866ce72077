"""What a `.pt2` file says of itself, and whether that runs here; the file is read, nothing in it is executed."""

from __future__ import annotations

import io
import json
import platform
import sys
import zipfile

from searchkit.errors import BackendUnavailableError, DamagedArtifactError

# Under which name the PyTorch that compiled stands in the metadata.
TORCH_KEY = "searchkit.torch"
_MAX_METADATA_BYTES = 1 << 16
_FIX = "build the engine again on this machine"

# What AOTInductor calls an instruction set -> what `torch.cpu.get_capabilities` calls it.
_CAPABILITIES = {"AVX2": "avx2", "AVX512": "avx512_f", "AVX512_VNNI": "avx512_vnni", "AMX_TILE": "amx_tile"}


def metadata_of(data: bytes) -> dict[str, str]:
    """Platform, machine, instruction sets, device and PyTorch of a package.

    Raises:
        DamagedArtifactError: it is no package that AOTInductor wrote.
    """
    found: dict[str, str] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith("_metadata.json") and entry.file_size <= _MAX_METADATA_BYTES:
                    found |= json.loads(archive.read(entry))
    except (zipfile.BadZipFile, ValueError, TypeError, EOFError, NotImplementedError) as error:
        raise _damaged(str(error)) from None
    if "AOTI_DEVICE_KEY" not in found:
        raise _damaged("no metadata")
    return {str(key): str(value) for key, value in found.items()}


def _damaged(reason: str) -> DamagedArtifactError:
    return DamagedArtifactError("not an AOTInductor package", where="engine", got=reason[:200], fix=_FIX)


def require_runnable(metadata: dict[str, str], device: str) -> None:
    """Refuse a package of another machine, device or PyTorch, or for instructions that this CPU lacks.

    Raises:
        BackendUnavailableError: with what it was built for and what is here.
    """
    import torch

    here = {
        "AOTI_PLATFORM": sys.platform,
        "AOTI_MACHINE": platform.machine(),
        "AOTI_DEVICE_KEY": device,
        TORCH_KEY: release(torch.__version__),
    }
    words = ("operating system", "processor", "device", "PyTorch")
    for word, (key, value) in zip(words, here.items(), strict=True):
        built_for = metadata.get(key)
        if built_for != value:
            raise BackendUnavailableError(
                f"the engine was built for another {word}", got=built_for, allowed=value, fix=_FIX
            )
    if device == "cuda":
        _require_gpu(metadata)
        return
    capabilities = torch.cpu.get_capabilities()
    needed = metadata.get("AOTI_CPU_ISA", "").split()
    missing = [isa for isa in needed if isa in _CAPABILITIES and not capabilities.get(_CAPABILITIES[isa])]
    if missing:
        raise BackendUnavailableError(
            "the engine was built for instructions that this CPU lacks", got=", ".join(missing), fix=_FIX
        )


def _require_gpu(metadata: dict[str, str]) -> None:
    """Not run here: there was no GPU."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    built_for = metadata.get("AOTI_COMPUTE_CAPABILITY")
    if built_for != f"{major}{minor}":
        raise BackendUnavailableError(
            "the engine was built for another GPU", got=built_for, allowed=f"{major}{minor}", fix=_FIX
        )


def release(version: str) -> str:
    """A PyTorch version without its build, as `2.13.0` of `2.13.0+cpu`: the library is the same."""
    return version.partition("+")[0]
