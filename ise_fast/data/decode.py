"""One way from an image file to upright 8-bit RGB, whether it lies in a folder or in an archive.

What is read: every raster format that Pillow knows here, the first frame of files with several. Of transparent images
the colours count, not the transparency. Refused before anything large is made: what is no regular file (a pipe would
be waited for), members of archives that inflate beyond measure, and more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
"""

from __future__ import annotations

import os
import stat
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .archive import archive_of, open_member
from .base import DatasetError

if TYPE_CHECKING:
    from PIL import Image

# Ghostscript and Windows metafiles run programs of a kind; some Pillow can name but not decode; icons and textures hold
# another image, of any size, inside.
NOT_DECODED = frozenset(
    {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "PDF", "ICO", "ICNS", "CUR", "IPTC", "BLP", "FTEX"}
)
WIDE_GREY = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
KINDS = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}


def read_image(path: Path) -> Image.Image:
    """Any image of a data set as RGB, also from inside a zip archive.

    Raises:
        DatasetError: if it is missing or cannot be decoded; the message names it.
    """
    from PIL import Image, ImageOps

    try:
        with _open(path) as file, Image.open(file, formats=formats()) as image:
            _check_pixels(image)
            ImageOps.exif_transpose(image, in_place=True)  # photographs of a telephone held upright
            return _as_rgb(image)
    except MemoryError:
        raise  # says nothing about the image
    # Broken files make Pillow raise many things: OSError, SyntaxError (PNG), ValueError, DecompressionBombError.
    except Exception as error:
        raise DatasetError(f"image {path} cannot be read: {_reason(error)}") from error


def read_pixels(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """One image as [3, h, w] uint8, resized (bicubic, antialiased) to (height, width)."""
    from PIL import Image

    image = read_image(path)
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1)


@cache
def formats() -> tuple[str, ...]:
    """What `read_image` tries to decode: all that Pillow and its plugins know, less `NOT_DECODED`."""
    from PIL import Image

    Image.init()
    return tuple(name for name in Image.ID if name not in NOT_DECODED)


@cache
def suffixes() -> frozenset[str]:
    """The endings of file names of these formats, in small letters."""
    from PIL import Image

    decoded = {*formats(), "MPO"}  # several JPEG images in a file; JPEG's decoder reads it
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in decoded)


def _open(path: Path) -> IO[bytes]:
    archive = archive_of(path)
    if archive is not None:
        return open_member(archive, path)
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):  # opening a pipe would wait for who writes it
        kind = next((name for is_kind, name in KINDS.items() if is_kind(mode)), "a device")
        raise DatasetError(f"expected a file, got {kind}")
    return path.open("rb")


def _check_pixels(image: Image.Image) -> None:
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS  # above it Pillow warns, and raises only above twice as many
    pixels = image.width * image.height
    if limit is not None and pixels > limit:
        found = f"{image.width} x {image.height} pixels are more than {limit}"
        raise DatasetError(f"{found}; make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it")


def _as_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode in WIDE_GREY or image.mode == "F":
        values = np.asarray(image)
        return Image.fromarray(_from_floats(values) if image.mode == "F" else _from_wide_grey(values)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")  # the same colours, without a warning of Pillow
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_wide_grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Up to 16 bits of grey as 8, keeping what can be told apart.

    A picture that uses a quarter of the 16 bits or more is scaled by their range. Sensors of 10 to 14 bits, and thermal
    ones, use a small part: theirs is stretched, but no step of theirs becomes more than one of ours.
    """
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 0xFFFF:
        raise DatasetError(f"expected grey values from 0 to 65535, got {low} to {high}; convert it to 8 or 16 bits")
    if high <= 0xFF:
        return values.astype(np.uint8)
    grey = np.arange(0x10000)
    if not (values % 0x101).any():  # 8 bits, written twice
        table = grey >> 8
    elif low == high or high - low >= 1 << 14:
        table = (grey * 0xFF + 0x7FFF) // 0xFFFF
    else:
        table = (grey - low) * 0xFF // max(high - low, 0xFF)
    scaled = np.empty(values.shape, dtype=np.uint8)
    for row, line in enumerate(values):  # an index of the whole image would take eight times its memory
        scaled[row] = table[line]
    return scaled


def _from_floats(values: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 255:  # NaN fails too
        raise DatasetError(f"expected float values from 0 to 1 or 0 to 255, got {low:g} to {high:g}; convert it")
    return np.asarray(np.rint(values * 255 if high <= 1 else values), dtype=np.uint8)


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "no image format that can be decoded"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
