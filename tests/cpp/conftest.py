"""The programs that `build.sh` built, and bundles for them. Without a build there is nothing to collect here.

`make test-cpp` builds and then runs these tests; `make test` needs neither a compiler nor ONNX Runtime's headers.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

_BUILD = os.environ.get("SEARCHKIT_CPP_BUILD")
collect_ignore_glob = [] if _BUILD else ["test_*.py"]

KINDS = ("plain", "address", "thread")
# A finding of a sanitizer must not look like a refusal, which is 1.
_SANITIZERS = {
    "ASAN_OPTIONS": "exitcode=99:detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
    # ONNX Runtime is not instrumented: what only it does cannot be judged.
    "TSAN_OPTIONS": "exitcode=99:ignore_noninstrumented_modules=1",
}
_LIMIT_S = 300
_EXAMPLES = ("segment_picture", "stream_frames", "time_frames")


@pytest.fixture(scope="session", autouse=True)
def native_kernels():
    """Compiled, so that Python takes its native paths, to which the C++ runtime's labels must be equal."""
    from deploy.native.library import Native, native

    assert isinstance(native(), Native), native()


@pytest.fixture(params=KINDS)
def kind(request):
    """Each of the builds in turn."""
    return request.param


@pytest.fixture(scope="session")
def build():
    """The folder with the builds."""
    return Path(_BUILD).resolve()


@pytest.fixture(scope="session")
def run(build):
    """`run(kind, program, *arguments, data=b"")`: the finished process; anything but exit status 0 or 1 fails."""

    def start(kind, program, *arguments, data=b"", status=None):
        folder = build / kind if program in _EXAMPLES else build / kind / "tests"
        done = subprocess.run(
            [str(folder / program), *map(str, arguments)],
            input=data,
            capture_output=True,
            env=os.environ | _SANITIZERS,
            timeout=_LIMIT_S,
            check=False,
        )
        said = (done.stdout[-2000:] + done.stderr[-6000:]).decode(errors="replace")
        assert done.returncode in ((0, 1) if status is None else (status,)), f"{program}: {done.returncode}\n{said}"
        return done

    return start


@pytest.fixture(scope="session")
def exported_bundle(tiny_network, tmp_path_factory):
    """`exported_bundle(rule="letterbox")`: the folder of a real bundle of a tiny network, 64x96, exported once."""
    from deploy.deployable import Deployable
    from deploy.export import export
    from deploy.letterbox import ResizeRule
    from deploy.precision.calibration import Calibration
    from searchkit.data.streets import Streets
    from searchkit.sizes import Size

    made = {}

    def make(rule="stretch", io="labels", precision="fp32"):
        key = (rule, io, precision)
        if key not in made:
            folder = tmp_path_factory.mktemp("bundles") / "-".join(key)
            size = Size(64, 96)
            learning = Calibration(Streets(size), method="minmax", pictures=2) if precision == "int8" else None
            model = Deployable(tiny_network(), size, io, precision=precision, calibration=learning)
            export(model, folder, resize=ResizeRule(rule, (10, 200, 90)) if rule == "letterbox" else ResizeRule())
            made[key] = folder
        return made[key]

    return make
