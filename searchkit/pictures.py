"""Reading and writing pictures; everything else in searchkit sees arrays."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from .errors import InputFileError, UsageError
from .files import read_bytes, write_bytes
from .sizes import MAX_SIDE_PX, Size

MAX_PICTURE_BYTES = 256 * 2**20
# Not all that Pillow reads: for some formats (EPS) it starts another program.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")


def read_picture(path: Path) -> np.ndarray:
    """An image file as uint8 RGB, H x W x 3.

    Raises:
        InputFileError: missing, no picture, truncated, or a side over 8192 px.
    """
    return decode_picture(path, lambda picture: np.asarray(picture.convert("RGB")))


def decode_picture(path: Path, decode: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """What `decode` makes of an image file that Pillow has opened, in the mode in which it is stored.

    Raises:
        InputFileError: missing, no picture, truncated, or a side over 8192 px; or raised by `decode`.
    """
    data = read_bytes(path, limit_bytes=MAX_PICTURE_BYTES, what="picture")
    allowed = ", ".join(_FORMATS)
    try:
        return _decoded(data, path, decode)
    except InputFileError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise InputFileError("not a picture, or far too large a one", where=str(path), allowed=allowed) from None
    except Exception as error:
        # Pillow's readers raise what comes along: struct.error, IndexError, SyntaxError ...
        raise InputFileError("damaged picture", where=str(path), got=str(error), allowed=allowed) from None


def _decoded(data: bytes, path: Path, decode: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    with warnings.catch_warnings():
        # Pillow warns of a picture that is refused right after.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            if max(picture.size) > MAX_SIDE_PX:
                raise InputFileError(
                    "picture too large",
                    where=str(path),
                    got=f"{picture.height}x{picture.width}",
                    allowed=f"sides up to {MAX_SIDE_PX} px",
                )
            return decode(picture)


def write_picture(path: Path, picture: np.ndarray) -> None:
    """A uint8 array, H x W x 3 (RGB) or H x W (grey), as a PNG file, whole or not at all.

    Raises:
        UsageError: see `check_output`.
        StorageError: the disk refused.
    """
    check_output(path)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def check_output(path: Path) -> None:
    """Raise `UsageError` unless the name is one that a picture is written under."""
    if path.suffix.lower() != ".png":
        raise UsageError(
            "pictures are written as PNG", where="--output", got=path.name, allowed="a name that ends in .png"
        )


def resize_picture(picture: np.ndarray, size: Size, *, nearest: bool = False) -> np.ndarray:
    """Resize a uint8 picture: bilinear with antialiasing, or nearest neighbour for label maps.

    Bilinearly the width comes first and is rounded to bytes. Left to itself, Pillow takes the height first from version
    13 on where that shrinks more, and a byte then differs by 1: the same picture would be another one elsewhere.
    """
    if picture.shape[:2] == tuple(size):
        return picture
    image = Image.fromarray(picture)
    if nearest:
        return np.asarray(image.resize((size.width, size.height), Image.Resampling.NEAREST))
    if size.width != image.width:
        image = image.resize((size.width, image.height), Image.Resampling.BILINEAR)
    return np.asarray(image.resize((size.width, size.height), Image.Resampling.BILINEAR))
