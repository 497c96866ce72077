"""Stands for the program `ffmpeg` in tests: same options, a toy container, and faults on demand.

A toy video is a line `TOY height width rate pixels [fault]` and then the frames. It checks what it is asked for, so
that a wrong option fails here as it would there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

BYTES = {"rgb24": 3, "gray": 1}


def main(arguments: list[str]) -> int:
    """Decode to, or encode from, a pipe."""
    assert arguments[:4] == ["-hide_banner", "-nostdin", "-loglevel", "error"], arguments
    source = arguments[arguments.index("-i") + 1]
    return encode(arguments) if source == "pipe:0" else decode(arguments, source.removeprefix("file:"))


def decode(arguments: list[str], path: str) -> int:
    """A toy video as frames, or as the header that tells its size."""
    assert arguments[arguments.index("-protocol_whitelist") + 1] == "file"
    assert arguments[-1] == "pipe:1"
    try:
        header, _, frames = Path(path).read_bytes().partition(b"\n")
    except OSError as error:
        return fail(f"{path}: {error.strerror}")
    words = header.decode(errors="replace").split()
    if words[:1] != ["TOY"]:
        return fail("Invalid data found when processing input")
    height, width, rate, _pixels, *faults = words[1:]
    if "yuv4mpegpipe" in arguments:
        assert arguments[arguments.index("-frames:v") + 1] == "1"
        write(f"YUV4MPEG2 W{width} H{height} F{rate.replace('/', ':')} Ip A1:1 C420jpeg\nFRAME\n".encode() + frames)
        return 0
    assert arguments[arguments.index("-pix_fmt") + 1] == "rgb24"
    if "noisy" in faults:
        # More than a pipe holds: whoever does not listen waits for ever.
        sys.stderr.write("a remark\n" * 20_000)
    write(frames)
    return fail("error while decoding") if "damaged" in faults else 0


def encode(arguments: list[str]) -> int:
    """Frames as a toy video."""
    inputs = arguments[: arguments.index("-i")]
    width, height = inputs[inputs.index("-video_size") + 1].split("x")
    pixels, rate = inputs[inputs.index("-pix_fmt") + 1], inputs[inputs.index("-framerate") + 1]
    frame = int(height) * int(width) * BYTES[pixels]
    assert ("ffv1" in arguments) == (pixels == "gray"), "label maps are written without loss"
    name = arguments[-1].removeprefix("file:")
    with open(name, "wb") as file:
        file.write(f"TOY {height} {width} {rate} {pixels}\n".encode())
        while data := sys.stdin.buffer.read(frame):
            assert len(data) == frame, "a part of a frame"
            file.write(data)
            if os.environ.get("FAKE_FFMPEG") == "full":
                return fail("No space left on device")
    return fail("Conversion failed!") if os.environ.get("FAKE_FFMPEG") == "late" else 0


def write(data: bytes) -> None:
    """Until the reader has gone, as ffmpeg does."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(1)


def fail(message: str) -> int:
    """As ffmpeg says why."""
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
