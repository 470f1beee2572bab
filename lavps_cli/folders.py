"""Where things are kept: what came along, what can be made again, and what cannot."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return the folder of one kind of things that can be made again, below $XDG_CACHE_HOME."""
    return _home("XDG_CACHE_HOME", ".cache") / name


def data_folder(name: str) -> Path:
    """Return the folder of one kind of things that the user asked to keep, below $XDG_DATA_HOME."""
    return _home("XDG_DATA_HOME", ".local/share") / name


def bundled_models() -> Path:
    """Return the folder of the bundled weights: of the wheel, or of a source checkout."""
    package = Path(__file__).parent
    packaged = package / "_weights"
    return packaged if packaged.is_dir() else package.parent / "weights"


def models_in(folder: Path) -> dict[str, Path]:
    """Return the folders below one that hold a model, by name."""
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/config.json"))}


def config_folder() -> Path:
    """Return the folder of the user's own settings, below $XDG_CONFIG_HOME."""
    return _home("XDG_CONFIG_HOME", ".config")


def _home(variable: str, otherwise: str) -> Path:
    base = os.environ.get(variable)
    return (Path(base) if base else Path.home() / otherwise) / "lavps"
