"""Files to pictures: upright, whole, and refused where something would be lost."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, ImageFile, ImageOps, UnidentifiedImageError
from PIL import Image as PillowImage
from torch import Tensor

from lavps_cli.core.types import Image
from lavps_cli.errors import DataError
from lavps_cli.images.picture import (
    FORMATS,
    MAX_PIXELS,
    RECORD_KEY,
    Metadata,
    Picture,
    Plane,
    is_writable,
)

# Files end early more often than decoders admit: an error, never half a picture.
ImageFile.LOAD_TRUNCATED_IMAGES = False

_TURNS = {
    2: PillowImage.Transpose.FLIP_LEFT_RIGHT,
    3: PillowImage.Transpose.ROTATE_180,
    4: PillowImage.Transpose.FLIP_TOP_BOTTOM,
    5: PillowImage.Transpose.TRANSPOSE,
    6: PillowImage.Transpose.ROTATE_270,
    7: PillowImage.Transpose.TRANSVERSE,
    8: PillowImage.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation."""


def load_picture(source: Path | bytes, name: str, max_pixels: int = MAX_PIXELS) -> Picture:
    """Return the picture of a file, or of its bytes, upright.

    Args:
        source: A path, or the content of a file.
        name: What messages call it.
        max_pixels: The most that are decoded.

    Raises:
        DataError: It is not a picture that can be kept whole: damaged, of 16 bits, of several
            frames, or too large.
    """
    with _opened(source, name, max_pixels) as file:
        _refuse_deep(file, name)
        frames = getattr(file, "n_frames", 1)
        if frames > 1 and file.format != "MPO":
            raise DataError(
                f"{name} holds {frames} pictures, not one.",
                f"Take out the first:  magick '{name}[0]' first.png",
            )
        try:
            orientation, exif, partial = _orientation(file), _clean_exif(file), False
        except Exception:  # Damaged metadata are no reason to refuse a picture.
            orientation, exif, partial = 1, b"", True
        record = getattr(file, "text", {}).get(RECORD_KEY) if file.format == "PNG" else None
        icc = file.info.get("icc_profile") or b""
        dpi = file.info.get("dpi")
        own = "JPEG" if file.format == "MPO" else file.format
        if file.mode in ("CMYK", "LAB", "YCCK"):
            icc = b""  # It describes values that the picture no longer has.
        if orientation in _TURNS:
            file = file.transpose(_TURNS[orientation])
        pixels, alpha = _decoded(file)
    format_name = next((key for key, value in FORMATS.items() if value.pillow == own), "png")
    if not is_writable(format_name):
        format_name = "png"
    dpi = (float(dpi[0]), float(dpi[1])) if dpi else None
    return Picture(pixels, alpha, format_name, Metadata(exif, icc, dpi, partial), record)


def load_matrix(path: Path, *, upright: bool = True) -> Plane:
    """Return the grey values of a picture, of any depth, in their own units.

    Transparent pixels count as black.

    Raises:
        DataError: The file is not such a picture.
    """
    with _opened(path, str(path), MAX_PIXELS) as file:
        file = ImageOps.exif_transpose(file) if upright else file
        if file.mode in ("I;16", "I;16B", "I;16L", "I", "F", "L", "1"):
            values = np.asarray(file)
        else:
            over = file.convert("RGBA")
            black = PillowImage.new("RGBA", over.size, (0, 0, 0, 255))
            values = np.asarray(PillowImage.alpha_composite(black, over).convert("L"))
    return torch.from_numpy(values.astype(np.float64))


@contextmanager
def _opened(source: Path | bytes, name: str, max_pixels: int) -> Iterator[PillowImage.Image]:
    """Open a file and translate whatever its decoder throws, on opening and inside the block."""
    limit = PillowImage.MAX_IMAGE_PIXELS
    PillowImage.MAX_IMAGE_PIXELS = None  # `max_pixels` is checked here, with our message.
    try:
        if isinstance(source, Path) and not source.is_file():
            source = source.read_bytes()  # A pipe by name; or an error that says what it is.
        if (len(source) if isinstance(source, bytes) else source.stat().st_size) == 0:
            raise DataError(f"{name} is empty.", "Check what wrote it.")
        stream = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        with stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PillowImage.open(stream) as file:
                if file.width * file.height > max_pixels:
                    raise DataError(
                        f"{name} has {file.width}x{file.height} pixels, more than "
                        f"--max-pixels {max_pixels}.",
                        f"If you trust it:  --max-pixels {file.width * file.height}",
                    )
                yield file
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{name}: there is no such file.", "Check the path.") from error
    except IsADirectoryError as error:
        raise DataError(f"{name} is a folder.", f"Give its pictures:  {name}/*.png") from error
    except PermissionError as error:
        raise DataError(f"{name} may not be read.", "Check its permissions.") from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name} is not a picture that can be read here.",
            "Readable are PNG, JPEG, WebP, TIFF, AVIF and what else Pillow knows.",
        ) from error
    except Exception as error:  # Decoders throw anything at damaged files.
        raise DataError(f"{name} is damaged: {error}", "Get the file again.") from error
    finally:
        PillowImage.MAX_IMAGE_PIXELS = limit


def _refuse_deep(file: PillowImage.Image, name: str) -> None:
    """Pillow cuts 16 bits per channel to 8 without a word."""
    deep = file.mode.startswith("I") or file.mode == "F"
    if deep or any("16" in str(tile[3]) for tile in getattr(file, "tile", [])):
        bits = 32 if file.mode in ("I", "F") else 16
        raise DataError(
            f"{name} has {bits} bits per channel, and this installation would cut it to 8.",
            f"Accept 8 bits:  magick {name} -depth 8 eight.png",
        )


def _orientation(file: PillowImage.Image) -> int:
    return int(file.getexif().get(ExifTags.Base.Orientation, 1))


def _clean_exif(file: PillowImage.Image) -> bytes:
    """Return the EXIF block without what stops being true: orientation, size, thumbnail."""
    exif = file.getexif()
    if not exif:
        return b""
    kept = PillowImage.Exif()
    structure = range(0x100, 0x120)  # Tags of the TIFF layout, the orientation among them.
    pointers = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
    for tag, value in exif.items():
        if tag not in pointers and (tag not in structure or tag in (0x10E, 0x10F, 0x110)):
            kept[tag] = value
    for pointer in pointers:
        block = exif.get_ifd(pointer)
        for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight):
            block.pop(tag, None)
        if block:
            kept.get_ifd(pointer).update(block)
            kept[pointer] = dict(block)
    return kept.tobytes() if len(kept) else b""


def _decoded(file: PillowImage.Image) -> tuple[Image, Tensor | None]:
    transparent = "A" in file.getbands() or "transparency" in file.info
    grey = file.mode in ("1", "L", "LA", "La")
    file = file.convert(("LA" if grey else "RGBA") if transparent else ("L" if grey else "RGB"))
    values = torch.from_numpy(np.array(file)).view(file.height, file.width, -1)
    planes = values.permute(2, 0, 1)[None].float()
    if not transparent:
        return planes / 127.5 - 1, None
    return planes[:, :-1] / 127.5 - 1, planes[:, -1:] / 255
