"""What a file is by its first bytes, whatever it is called."""

from pathlib import Path

_STARTS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"GIF87a",
    b"GIF89a",
    b"\0\0\0\x0cjP  ",
    b"\xff\x4f\xff\x51",
    b"\x93NUMPY",
)
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_BRANDS = (b"avif", b"avis", *HEIF_BRANDS)
_HEAD = 32


def is_picture(path: Path) -> bool:
    """Return whether a file begins like a picture of a kind that is read here.

    What cannot be opened counts as one, so that it is reported and not passed over.
    """
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(_HEAD)
    except OSError:
        return True
    return begins_like_picture(head)


def begins_like_picture(head: bytes) -> bool:
    """Return whether these are the first bytes of a picture."""
    if head.startswith(_STARTS):
        return True
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:12] in _BRANDS or any(brand in head[16:] for brand in _BRANDS)
    if head[:2] == b"BM":
        return len(head) >= 26 and head[6:10] == bytes(4)
    return head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace()
