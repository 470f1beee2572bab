"""What files say about their pixels: read, cleared of what stops being true, and written again."""

import re
from typing import Any

from PIL import ExifTags, PngImagePlugin
from PIL import Image as PillowImage

from lavps_cli.images.picture import RECORD_KEY, Metadata

COMMENT = "Comment"
IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_XMP_KEY = "XML:com.adobe.xmp"
_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>))\d")
_SIZE = re.compile(
    rb"\s(?:exif:Pixel[XY]Dimension|tiff:Image(?:Width|Length))=(?:\"[^\"]*\"|'[^']*')"
    rb"|<(exif:Pixel[XY]Dimension|tiff:Image(?:Width|Length))>[^<]*</\1>"
)
_MAX_TEXT = 1 << 20


def read_metadata(file: PillowImage.Image) -> tuple[Metadata, int, str | None]:
    """Return the metadata of an opened file, its EXIF orientation, and `degrade`'s record.

    Damaged metadata are no reason to refuse a picture; `partial` tells of them.
    """
    exif, partial, orientation = b"", False, 1
    try:
        orientation = int(file.getexif().get(ExifTags.Base.Orientation, 1))
        exif = _clean_exif(file.getexif())
    except Exception:  # Pillow's parsers throw anything.
        partial = True
    dpi = file.info.get("dpi")
    try:
        dpi = (float(dpi[0]), float(dpi[1])) if dpi else None
    except (TypeError, ValueError, ZeroDivisionError, IndexError):
        dpi, partial = None, True
    found, record = _text(file)
    metadata = Metadata(
        exif=exif,
        icc=file.info.get("icc_profile") or b"",
        xmp=_clean_xmp(_xmp(file)),
        dpi=dpi if dpi and min(dpi) > 0 else None,
        text=found,
        partial=partial,
    )
    return metadata, orientation, record


def save_options(metadata: Metadata, format_name: str) -> dict[str, Any]:
    """Return what Pillow's `save` is told about a picture's metadata; not for TIFF."""
    options: dict[str, Any] = {}
    if metadata.exif:
        options["exif"] = metadata.exif
    if metadata.icc:
        options["icc_profile"] = metadata.icc
    if metadata.dpi and format_name in ("png", "jpg"):
        options["dpi"] = metadata.dpi
    if metadata.xmp and format_name != "png":
        options["xmp"] = metadata.xmp
    comment = dict(metadata.text).get(COMMENT)
    if comment and format_name == "jpg":
        options["comment"] = comment.encode()
    return options


def png_text(metadata: Metadata, more: dict[str, str]) -> PngImagePlugin.PngInfo:
    """Return the text chunks of a PNG."""
    chunks = PngImagePlugin.PngInfo()
    for key, value in (*metadata.text, *more.items()):
        chunks.add_text(key, value)
    if metadata.xmp:
        chunks.add_itxt(_XMP_KEY, metadata.xmp.decode("utf-8", "replace"))
    return chunks


def unwritten(metadata: Metadata, format_name: str) -> bool:
    """Return whether a file of that format says less than the metadata do."""
    if format_name == "npy":
        return bool(metadata)
    texts = {"png": {key for key, _ in metadata.text}, "jpg": {COMMENT}}.get(format_name, set())
    no_dpi = bool(metadata.dpi) and format_name not in ("png", "jpg", "tiff")
    return metadata.partial or no_dpi or any(key not in texts for key, _ in metadata.text)


def _clean_exif(exif: PillowImage.Exif) -> bytes:
    """Return the EXIF block without what stops being true: orientation, size, thumbnail."""
    if not exif:
        return b""
    kept = PillowImage.Exif()
    structure = {*range(0x100, 0x120), 0x128, 0x13D, *range(0x140, 0x160), 0x211, 0x212, 0x213}
    structure |= {0x214, 0x2BC, 0x8773}  # XMP and the profile travel on their own.
    for tag, value in exif.items():
        if tag not in IFDS and (tag not in structure or tag in (0x10E, 0x10F, 0x110)):
            kept[tag] = value
    for pointer in IFDS:
        block = exif.get_ifd(pointer)
        for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight):
            block.pop(tag, None)
        if block:
            kept.get_ifd(pointer).update(block)
            kept[pointer] = dict(block)
    return kept.tobytes() if len(kept) else b""


def _xmp(file: PillowImage.Image) -> bytes:
    xmp = file.info.get("xmp") or file.info.get(_XMP_KEY) or b""
    if not xmp and file.format == "TIFF":
        xmp = getattr(file, "tag_v2", {}).get(0x2BC) or b""
    return xmp.encode() if isinstance(xmp, str) else bytes(xmp)


def _clean_xmp(xmp: bytes) -> bytes:
    """Return XMP in which the picture stands upright and has no size."""
    return _SIZE.sub(b"", _ORIENTATION.sub(rb"\g<1>1", xmp))


def _text(file: PillowImage.Image) -> tuple[tuple[tuple[str, str], ...], str | None]:
    """Return the texts of a PNG, or the comment of a JPEG or GIF; and the record apart."""
    if file.format != "PNG":
        comment = file.info.get("comment")
        if not isinstance(comment, bytes) or not comment:
            return (), None
        return ((COMMENT, comment.decode("utf-8", "replace")),), None
    texts = {str(key): str(value) for key, value in getattr(file, "text", {}).items()}
    record = texts.pop(RECORD_KEY, None)
    texts.pop(_XMP_KEY, None)
    kept = {
        key: value for key, value in texts.items() if _is_keyword(key) and len(value) < _MAX_TEXT
    }
    return tuple(kept.items()), record


def _is_keyword(key: str) -> bool:
    return 0 < len(key) < 80 and key.isprintable() and key.isascii()
