"""The test programs in C++ under each sanitizer, the examples, and the CMake package."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest

from searchkit.data import streets
from searchkit.sizes import Size


def test_units(run, kind):
    assert re.search(rb"\d{3,} checks, 0 failures", run(kind, "unit", status=0).stdout)


def test_random_changes_are_refused_or_read(run, exported_bundle):
    done = run("address", "fuzz", exported_bundle(), 4000, status=0)
    refused = [int(count) for count in re.findall(rb"(\d+) refused", done.stdout)]
    assert len(refused) == 3
    assert min(refused) > 400


@pytest.mark.parametrize(("kind", "label_head"), [("plain", 1), ("address", 1), ("thread", 1), ("pure", 0)])
def test_c_interface(run, exported_bundle, kind, label_head):
    assert b"0 failures" in run(kind, "c_interface", exported_bundle(), label_head, status=0).stdout


def test_threads(run, kind, exported_bundle):
    found = run(kind, "threads", exported_bundle(), status=0).stdout
    assert found == b"0 differences, 0 surprises, works on: 1\n"


@pytest.mark.parametrize("rule", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [(64, 96), (100, 120), (32, 48)], ids=str)
def test_no_heap_allocation_after_the_first_frame(run, exported_bundle, rule, size):
    found = run("plain", "allocations", exported_bundle(rule), *size, status=0).stdout.decode()
    first, later, control, runs = map(int, re.findall(r"\d+", found))
    assert later == 0
    # That the counter counts: a vector, and the tables and tensors of first frames.
    assert control == 1
    assert first > 0
    assert runs == 26


def test_providers_that_are_not_there(run, exported_bundle):
    left_out = run("plain", "open_bundle", exported_bundle(), 1, status=1).stdout
    assert left_out.startswith(b"unsupported: ")
    assert b"SEARCHKIT_TENSORRT" in left_out
    # Built with the option, over a library without the provider.
    assert run("address", "open_bundle", exported_bundle(), 1, status=1).stdout.startswith(b"runtime: ONNX Runtime ")
    assert run("plain", "open_bundle", exported_bundle(), 5, status=1).stdout.startswith(b"usage: no such provider")


def test_example_that_segments_a_picture(run, kind, exported_bundle, tmp_path):
    from PIL import Image

    from deploy.segmenter import load

    image = streets.draw(0, 1, Size(50, 60)).image
    Image.fromarray(image).save(tmp_path / "in.ppm")
    done = run(kind, "segment_picture", exported_bundle(), tmp_path / "in.ppm", tmp_path / "out.ppm", 1, status=0)
    assert b"mean nothing" in done.stderr
    shares = [float(line.split()[0]) for line in done.stdout.splitlines()]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    with load(exported_bundle(), threads=1) as segmenter:
        expected = segmenter.colour(segmenter(image))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.ppm")), expected)


@pytest.mark.parametrize("data", [b"", b"P6", b"P5 2 2 255\n" + b"0" * 12, b"P6 2 2 255\n0", b"P6 9999999999 2 255\n"])
def test_example_refuses_what_is_no_picture(run, exported_bundle, tmp_path, data):
    (tmp_path / "in.ppm").write_bytes(data)
    done = run("address", "segment_picture", exported_bundle(), tmp_path / "in.ppm", tmp_path / "out.ppm", status=1)
    assert b"in.ppm" in done.stderr
    assert not (tmp_path / "out.ppm").exists()


def test_example_that_streams(run, kind, exported_bundle):
    frames = np.random.default_rng(0).integers(0, 256, (4, 50, 60, 3), np.uint8).tobytes()
    arguments = (exported_bundle(), 50, 60, "--warm-up", 1, "--threads", 1)
    found = run(kind, "stream_frames", *arguments, data=frames, status=0).stdout.decode()
    assert found.startswith("3 frames of 50x60, model 64x96")
    assert re.findall(r"^(\w+) +p50", found, re.MULTILINE) == ["frame", "fit", "session", "restore"]
    cut = run(kind, "stream_frames", *arguments, data=frames[:-1], status=1)
    assert b"ends inside a frame" in cut.stderr
    plain = ("--plain-graph", 1)
    assert b"9 frames" in run(kind, "stream_frames", *arguments, "--noise", 10, *plain, status=0).stdout


@pytest.mark.parametrize("how", ["native", "plain"])
def test_example_that_takes_turns(run, exported_bundle, how):
    frame = np.zeros((50, 60, 3), np.uint8).tobytes()
    arguments = (exported_bundle(), 50, 60, 1, how)
    found = run("address", "time_frames", *arguments, data=frame + b"2\n3\n", status=0).stdout.decode()
    records = [[int(word) for word in line.split()] for line in found.splitlines()]
    assert len(records) == 5
    assert all(min(parts) > 0 and sum(parts) <= call for call, *parts in records)
    for refused in (frame[:-1], frame + b"0\n", frame + b"-1\n"):
        assert b"error" in run("address", "time_frames", *arguments, data=refused, status=1).stderr


@pytest.mark.parametrize("program", ["label_head_fuzz", "preprocess_fuzz"])
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_random_input_to_the_kernels(run, program, sanitizer):
    """With threads of their own, which the thread sanitizer can follow."""
    assert re.match(rb"300 cases", run(sanitizer, program, 300, status=0).stdout)


def test_what_the_library_exports(build):
    """The C interface and nothing of what it is made of, such as the kernels' own."""
    command = ["nm", "-D", "--defined-only", str(build / "plain" / "libsearchkit_runtime.so")]
    names = re.findall(r" T (\w+)$", subprocess.run(command, capture_output=True, text=True).stdout, re.MULTILINE)
    assert len(names) > 10
    assert all(name.startswith("skr_") for name in names)


def test_package(build, exported_bundle, tmp_path, request):
    """Another project finds what was installed, links it and runs."""
    consumer = request.path.parent / "consumer"
    cache = (build / "plain" / "CMakeCache.txt").read_text()
    settings = re.findall(r"^(ONNXRUNTIME_(?:LIBRARY|INCLUDE_DIR)):\w+=(.+)$", cache, re.MULTILINE)
    options = [f"-D{name}={value}" for name, value in settings]
    options.append(f"-DCMAKE_PREFIX_PATH={build / 'plain' / 'installed'}")
    for command in (
        ["cmake", "-S", str(consumer), "-B", str(tmp_path), *options],
        ["cmake", "--build", str(tmp_path)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([tmp_path / "consumer", exported_bundle()], capture_output=True, text=True, check=False)
    assert done.stdout == "64x96, 5 classes\n", done.stderr
