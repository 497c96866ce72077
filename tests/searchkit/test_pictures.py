"""Pictures in and out, and what is said of a file that is none."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from searchkit import pictures
from searchkit.data import streets
from searchkit.errors import InputFileError, StorageError, UsageError
from searchkit.pictures import read_picture, resize_picture, write_picture
from searchkit.sizes import Size


@pytest.fixture
def picture():
    return streets.draw(0, 0, Size(48, 64)).image


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format=kind, **options)
    return buffer.getvalue()


def refusal(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputFileError) as caught:
            read_picture(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert " at 0x" not in message, "the same file gives the same message"
    return message


def test_round_trip(tmp_path, picture):
    write_picture(tmp_path / "p.png", picture)
    found = read_picture(tmp_path / "p.png")
    assert np.array_equal(found, picture)
    assert found.dtype == np.uint8
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]
    write_picture(tmp_path / "q.PNG", picture)
    assert (tmp_path / "q.PNG").read_bytes() == (tmp_path / "p.png").read_bytes()


def test_a_grey_picture_is_read_as_three_equal_channels(tmp_path, picture):
    write_picture(tmp_path / "g.png", picture[..., 0])
    assert np.array_equal(read_picture(tmp_path / "g.png"), np.repeat(picture[..., :1], 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "JPEG", "WEBP"])
def test_formats(tmp_path, picture, kind):
    path = tmp_path / "picture-of-any-name"
    path.write_bytes(encoded(picture, kind))
    found = read_picture(path)
    assert found.shape == picture.shape
    if kind not in ("JPEG", "WEBP"):
        assert np.array_equal(found, picture)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_modes(tmp_path, mode):
    path = tmp_path / "p.tiff"
    Image.new(mode, (5, 4)).save(path)
    assert read_picture(path).shape == (4, 5, 3)


def test_a_missing_picture(tmp_path):
    assert "picture does not exist" in refusal(tmp_path / "missing.png")
    assert "picture is a folder" in refusal(tmp_path)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"{}", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_no_picture(tmp_path, data):
    (tmp_path / "p.png").write_bytes(data)
    assert "not a picture" in refusal(tmp_path / "p.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "PPM", "WEBP"])
def test_a_truncated_picture(tmp_path, picture, kind):
    data = encoded(picture, kind)
    path = tmp_path / "p"
    for share in (0.3, 0.5, 0.9):
        path.write_bytes(data[: int(share * len(data))])
        refusal(path)


def header(width, height):
    """A PNG of one pixel whose header claims another size."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0\0\0\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("width", "height", "says"),
    [
        (8193, 1, "picture too large (got '1x8193'; allowed: sides up to 8192 px)"),
        (1, 8193, "picture too large (got '8193x1'"),
        (20_000, 5_000, "picture too large (got '5000x20000'"),
        (60_000, 60_000, "far too large"),
        (2**31 - 1, 2**31 - 1, "far too large"),
        (0, 5, ""),
        (8192, 8192, "damaged picture"),
    ],
)
def test_a_header_that_claims_too_much(tmp_path, width, height, says):
    (tmp_path / "p.png").write_bytes(header(width, height))
    assert says in refusal(tmp_path / "p.png")


def test_a_file_that_is_too_long(tmp_path, monkeypatch, picture):
    write_picture(tmp_path / "p.png", picture)
    monkeypatch.setattr(pictures, "MAX_PICTURE_BYTES", 100)
    assert "picture is too large" in refusal(tmp_path / "p.png")


def test_no_other_program_is_started(tmp_path, monkeypatch):
    """Pillow hands EPS files to Ghostscript."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "p.eps").write_text(text)
    assert "not a picture" in refusal(tmp_path / "p.eps")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM"])
@pytest.mark.filterwarnings("ignore")
def test_damage_is_read_or_refused_and_nothing_else(tmp_path, picture, kind):
    data, rng = encoded(picture, kind), random.Random(0)
    path = tmp_path / "p"
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(min(len(damaged), rng.choice((64, 10**9))))] = rng.randrange(256)
        path.write_bytes(damaged)
        with suppress(InputFileError):
            assert read_picture(path).ndim == 3


@pytest.mark.parametrize("name", ["p.jpg", "p", "p.png.txt", "png"])
def test_only_png_is_written(tmp_path, picture, name):
    with pytest.raises(UsageError, match=r"allowed: a name that ends in \.png"):
        write_picture(tmp_path / name, picture)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path, picture):
    with pytest.raises(StorageError, match="the folder does not exist"):
        write_picture(tmp_path / "missing" / "p.png", picture)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_leaves_the_old_picture(tmp_path, picture, monkeypatch):
    write_picture(tmp_path / "p.png", picture)
    before = (tmp_path / "p.png").read_bytes()

    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_picture(tmp_path / "p.png", 255 - picture)
    assert (tmp_path / "p.png").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]


def test_resize(picture):
    assert resize_picture(picture, Size(48, 64)) is picture
    assert resize_picture(picture, Size(20, 70)).shape == (20, 70, 3)
    flat = np.full((8, 8, 3), 77, np.uint8)
    assert np.array_equal(resize_picture(flat, Size(3, 5)), np.full((3, 5, 3), 77, np.uint8))


def test_resize_of_labels_makes_no_new_labels():
    labels = np.kron(np.array([[3, 200], [9, 0]], np.uint8), np.ones((4, 4), np.uint8))
    small = resize_picture(labels, Size(2, 2), nearest=True)
    assert small.tolist() == [[3, 200], [9, 0]]
    assert set(np.unique(resize_picture(labels, Size(13, 7), nearest=True))) == {0, 3, 9, 200}


def test_antialiasing_averages():
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::2] = 200
    small = resize_picture(stripes, Size(8, 2))
    assert abs(small.astype(int) - 100).max() <= 10


@pytest.mark.parametrize(("source", "target"), [((200, 90), (64, 29)), ((90, 200), (29, 64)), ((90, 20), (9, 40))])
def test_the_width_is_resized_first_whatever_shrinks_more(source, target):
    """Pillow 13 chooses the order by the sizes, earlier versions do not: a byte would differ between machines."""
    picture = np.random.default_rng(0).integers(0, 256, (*source, 3), np.uint8)
    narrow = Image.fromarray(picture).resize((target[1], source[0]), Image.Resampling.BILINEAR)
    wanted = np.asarray(narrow.resize((target[1], target[0]), Image.Resampling.BILINEAR))
    assert np.array_equal(resize_picture(picture, Size(*target)), wanted)
