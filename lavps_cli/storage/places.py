"""Texts of the command line to paths and objects.

A URL says where bytes lie and nothing else: no chained protocols, no credentials, no code.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from lavps_cli.errors import UsageError
from lavps_cli.storage.names import checked
from lavps_cli.storage.remote import Remote

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub", "memory": "fsspec"}
"""What opens each kind of URL; `file://` is a path by another name."""

Place: TypeAlias = Path | Remote


def is_url(text: str) -> bool:
    """Return whether a text is meant as a URL."""
    return re.match(r"[a-z][a-z0-9+.:-]*://", text) is not None


def located(text: str) -> Place:
    """Return the path or the object that a text names.

    Raises:
        UsageError: It is a URL that is not to be had here.
    """
    if not is_url(text):
        return Path(text)
    scheme, _, key = text.partition("://")
    if scheme == "file":
        if not key.startswith("/"):
            raise UsageError(f"{text}: another machine's files.", "Three slashes:  file:///DIR")
        return Path(key)
    if scheme not in PACKAGES:
        known = ", ".join(f"{name}://" for name in (*PACKAGES, "file"))
        raise UsageError(f"{text}: there is no storage {scheme}://.", f"Choose from: {known}")
    if scheme in ("s3", "gs") and re.match(r"[^/]*[:@]", key):
        raise UsageError(
            f"a {scheme}:// URL takes no credentials.",
            f"Give them as {PACKAGES[scheme]} takes them.",
        )
    remote = Remote(scheme, checked(key.strip("/"), text))
    _importable(scheme)
    return remote


def _importable(scheme: str) -> None:
    package = PACKAGES[scheme]
    missing = [name for name in ("fsspec", package) if find_spec(name) is None]
    if missing:
        names = " ".join(missing)
        raise UsageError(f"{scheme}:// needs {names}.", f"Install it:  pip install {names}")
