"""Files <-> pictures in [-1, 1]: orientation, alpha, metadata, safe decoding, atomic writes."""

import io
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import ExifTags, ImageFile, ImageOps, PngImagePlugin, UnidentifiedImageError, features
from PIL import Image as PillowImage
from torch import Tensor

from lavps_cli.core.types import Image
from lavps_cli.errors import DataError, OutputError, UsageError

RECORD_KEY = "lavps:degradation"
MAX_PIXELS = 200_000_000
MAX_MATRIX_PIXELS = 1 << 22

Plane = Float[Tensor, " h w"]


@dataclass(frozen=True)
class FileFormat:
    """How one kind of file is written."""

    pillow: str
    suffixes: tuple[str, ...]
    alpha: bool


FORMATS: dict[str, FileFormat] = {
    "png": FileFormat("PNG", (".png",), True),
    "jpg": FileFormat("JPEG", (".jpg", ".jpeg"), False),
    "webp": FileFormat("WEBP", (".webp",), True),
    "tiff": FileFormat("TIFF", (".tif", ".tiff"), True),
    "avif": FileFormat("AVIF", (".avif",), True),
}


@dataclass(frozen=True)
class Metadata:
    """What a file says about its pixels, kept as bytes."""

    exif: bytes = b""
    icc: bytes = b""
    dpi: tuple[float, float] | None = None

    def __bool__(self) -> bool:
        return bool(self.exif or self.icc or self.dpi)


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded file."""

    pixels: Image
    """(1, c, h, w) in [-1, 1]; c is 1 for grey, else 3."""
    alpha: Float[Tensor, "1 1 h w"] | None = None
    """In [0, 1]."""
    format: str = "png"
    """The name in `FORMATS`, or `png` where the file's own format is not written."""
    metadata: Metadata = field(default_factory=Metadata)
    record: str | None = None
    """What `lavps degrade` left in the file: text from outside, not yet checked."""

    @property
    def grey(self) -> bool:
        return self.pixels.shape[1] == 1

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[-1], self.pixels.shape[-2]


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
        orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
        exif = _clean_exif(file)
        record = getattr(file, "text", {}).get(RECORD_KEY) if file.format == "PNG" else None
        icc = file.info.get("icc_profile") or b""
        dpi = file.info.get("dpi")
        own = "JPEG" if file.format == "MPO" else file.format
        if file.mode in ("CMYK", "LAB", "YCCK"):
            icc = b""  # It describes values that the picture no longer has.
        file = ImageOps.exif_transpose(file) if orientation != 1 else file
        pixels, alpha = _decoded(file)
    format_name = next((key for key, value in FORMATS.items() if value.pillow == own), "png")
    if not is_writable(format_name):
        format_name = "png"
    dpi = (float(dpi[0]), float(dpi[1])) if dpi else None
    return Picture(pixels, alpha, format_name, Metadata(exif, icc, dpi), record)


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
        if isinstance(source, bytes) and not source:
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


def to_bytes(x: Float[Tensor, "1 c h w"]) -> npt.NDArray[np.uint8]:
    """Return the 8-bit values of a picture in [-1, 1], (h, w, c)."""
    levels = ((x[0].detach().cpu().float() + 1) * 127.5).round().clamp(0, 255)
    return levels.permute(1, 2, 0).to(torch.uint8).contiguous().numpy()


def quantised(x: Image) -> Image:
    """Return a picture as 8-bit files can hold it."""
    return ((x + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1


def format_of(path: Path) -> str:
    """Return the format that a file name asks for.

    Raises:
        UsageError: It asks for none that is written here.
    """
    for name, entry in FORMATS.items():
        if path.suffix.lower() in entry.suffixes:
            return name
    raise UsageError(
        f"{path}: no picture format is called {path.suffix or 'that'!r}.",
        f"End the name in one of: {', '.join(e.suffixes[0] for e in FORMATS.values())}",
    )


def is_writable(format_name: str) -> bool:
    """Return whether this Pillow can write a format."""
    return format_name not in ("webp", "avif") or bool(features.check(format_name))


def check_format(format_name: str, *, alpha: bool) -> None:
    """Check that a format can be written, with transparency where there is some.

    Raises:
        OutputError: It cannot.
    """
    if not is_writable(format_name):
        raise OutputError(f"this Pillow cannot write {format_name}.", "Choose:  --format png")
    if alpha and not FORMATS[format_name].alpha:
        raise OutputError(
            f"{format_name} cannot hold transparency.", "Choose:  --format png   or webp"
        )


def encode(
    picture: Picture, format_name: str, quality: int = 95, text: Mapping[str, str] | None = None
) -> bytes:
    """Return the file of a picture, with its metadata; `text` goes into PNG only.

    Raises:
        OutputError: The format cannot hold it.
    """
    entry = FORMATS[format_name]
    check_format(format_name, alpha=picture.alpha is not None)
    planes = to_bytes(picture.pixels)
    if picture.alpha is not None:
        planes = np.concatenate([planes, to_bytes(picture.alpha * 2 - 1)], axis=2)
    image = PillowImage.fromarray(planes[:, :, 0] if planes.shape[2] == 1 else planes)
    if planes.shape[2] == 2:
        image = PillowImage.merge(
            "LA", [PillowImage.fromarray(np.ascontiguousarray(planes[:, :, i])) for i in (0, 1)]
        )
    options = _save_options(picture.metadata, format_name, quality)
    if format_name == "png" and text:
        chunks = PngImagePlugin.PngInfo()
        for key, value in text.items():
            chunks.add_text(key, value)
        options["pnginfo"] = chunks
    stream = io.BytesIO()
    try:
        image.save(stream, entry.pillow, **options)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"the result cannot be written as {format_name}: {error}", "Choose:  --format png"
        ) from error
    return stream.getvalue()


def _save_options(metadata: Metadata, format_name: str, quality: int) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if metadata.exif:
        options["exif"] = metadata.exif
    if metadata.icc:
        options["icc_profile"] = metadata.icc
    if metadata.dpi and format_name in ("png", "jpg", "tiff"):
        options["dpi"] = metadata.dpi
    if format_name in ("jpg", "webp", "avif"):
        options["quality"] = quality
    if format_name in ("jpg", "avif"):
        options["subsampling"] = "4:4:4"
    if format_name == "tiff":
        options["compression"] = "tiff_adobe_deflate"
    return options


def encode_deep(values: Plane) -> bytes:
    """Return a grey PNG of 16 bits; `values` are in [0, 1]."""
    levels = (values.cpu().double() * 65535).round().clamp(0, 65535).numpy().astype(np.uint16)
    stream = io.BytesIO()
    PillowImage.fromarray(levels).save(stream, "PNG")
    return stream.getvalue()


def check_target(path: Path) -> None:
    """Check, before the work, that a file can be written.

    Raises:
        OutputError: It cannot.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder.", f"Write into it:  -o {path}/")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"{folder}: there is no such folder.", f"Make it:  mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder} may not be written to.", "Choose another place:  -o DIR/")


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, through `.{name}.part` beside it.

    Raises:
        OutputError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path} cannot be written: {reason}.", "Choose:  -o DIR/") from error


# Files end early more often than decoders admit: an error, never half a picture.
ImageFile.LOAD_TRUNCATED_IMAGES = False
