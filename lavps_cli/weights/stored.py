"""Models in a store: fetched once into the cache, and anew when the store has others."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import get_args

from lavps_cli.catalog import WeightsKind
from lavps_cli.errors import WeightsError
from lavps_cli.folders import cache_folder
from lavps_cli.storage.remote import Remote
from lavps_cli.weights.hub import FILES, is_whole

_VERSIONS = "versions.json"
_MOST = 1 << 37
"""Bytes of a model that are fetched."""


def stored(remote: Remote, *, offline: bool = False) -> Path:
    """Return the folder of a model, and put beside it what was trained for it there.

    Only files of known names are fetched, no pickles.

    Args:
        remote: The name that the files lie below.
        offline: Use what lies in the cache.

    Raises:
        WeightsError: There is no model, or it cannot be fetched.
    """
    folder = _folder(remote)
    if offline:
        if is_whole(folder):
            return folder
        raise WeightsError(
            f"weights {remote} are not in the cache, and the network is not to be touched.",
            "Leave out --offline once.",
        )
    try:
        if not _fetched(remote, folder):
            raise WeightsError(
                f"{remote} holds no model that can be read.",
                "That takes config.json and model.safetensors; pickled weights are not fetched.",
            )
        for kind in get_args(WeightsKind):
            beside = remote.with_name(f"{remote.name}-{kind}")
            _fetched(beside, folder.with_name(beside.name))
    except OSError as error:
        raise WeightsError(
            f"weights {error.filename or remote} cannot be had: {error.strerror or error}.",
            "Check the URL and the credentials, or use what was fetched before:  --offline",
        ) from error
    return folder


def _folder(remote: Remote) -> Path:
    where = hashlib.sha256(str(remote.parent).encode()).hexdigest()[:16]
    return cache_folder("stores") / where / remote.name


def _fetched(remote: Remote, folder: Path) -> bool:
    """Have a folder hold what lies below a name; return whether that is a model."""
    below = {each.relative_to(remote).as_posix(): each for each in remote.below()}
    files = {name: below[name] for name in FILES if name in below}
    versions = {name: [f.stat().st_size, f.stat().st_mtime_ns] for name, f in files.items()}
    if sum(size for size, _ in versions.values()) > _MOST:
        raise WeightsError(f"{remote} has more than 128 GiB.", "Is it a model?")
    if is_whole(folder) and _versions(folder) == versions:
        return True
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for name, file in files.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            with file.open() as source, (part / name).open("wb") as target:
                shutil.copyfileobj(source, target, 8 << 20)
        if not is_whole(part):
            return False
        (part / _VERSIONS).write_text(json.dumps(versions))
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
        return True
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _versions(folder: Path) -> object:
    try:
        return json.loads((folder / _VERSIONS).read_text())
    except (OSError, ValueError):
        return None
