"""Names: which may be followed, which are hidden, and their order."""

import re
from pathlib import PurePath

from lavps_cli.errors import UsageError

_LONGEST = 1024


def checked(key: str, text: str) -> str:
    """Return a name that may be followed.

    Raises:
        UsageError: It may not.
    """
    wrong = fault(key)
    if wrong is not None:
        raise UsageError(f"{text}: {wrong}.", "Copy the object to a plain name.")
    return key


def fault(key: str) -> str | None:
    """Return why a name is not followed: to a file system it would mean another place."""
    if len(key.encode(errors="surrogateescape")) > _LONGEST:
        return f"its name has more than {_LONGEST} bytes"
    if any(part in ("", ".", "..") for part in key.split("/")):
        return "its name has a part that is empty or dots"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in key):
        return "its name has control characters"
    return None


def is_hidden(tree: PurePath) -> bool:
    """Return whether a file, told by its path below a folder, or a folder above it is hidden."""
    return any(part.startswith(".") for part in tree.parts)


def natural(text: str) -> tuple[list[tuple[int, int | str]], str]:
    """Return a key that sorts `a2` before `a10`."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts], text
