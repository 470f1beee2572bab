"""Which weights are known by name, and where they lie."""

from pathlib import Path

from lavps_cli.catalog import WeightsKind
from lavps_cli.errors import WeightsError
from lavps_cli.folders import bundled_models, data_folder, models_in
from lavps_cli.storage.places import located
from lavps_cli.storage.remote import Remote
from lavps_cli.weights.checkpoint import is_ours
from lavps_cli.weights.convert import converted, is_foreign
from lavps_cli.weights.hub import fetched, parse_reference
from lavps_cli.weights.stored import stored

DEFAULT = "natural-64"


def bundled() -> dict[str, Path]:
    """Return the bundled models by name."""
    return models_in(bundled_models())


def imported() -> dict[str, Path]:
    """Return the models that the user imported, by name."""
    return models_in(imports_folder())


def imports_folder() -> Path:
    """Return where imported models are kept."""
    return data_folder("models")


def resolve(name_or_path: str, *, offline: bool = False) -> Path:
    """Return the folder of a model given by name, path, URL, or `user/repo[@revision]` of the Hub.

    Weights of another project are converted, once.

    Args:
        name_or_path: A name or a path comes before a repository of the same spelling.
        offline: Whether the Hub and stores are only looked for in the cache.

    Raises:
        WeightsError: There is no such model.
        UsageError: It is a URL that is not to be had here.
    """
    name = DEFAULT if name_or_path == "default" else name_or_path
    models = imported() | bundled()
    if name in models:
        return models[name]
    path = located(name_or_path)
    if isinstance(path, Remote):
        folder = stored(path, offline=offline)
        return folder if is_ours(folder) else converted(folder)
    if is_ours(path):
        return path
    if is_ours(path / "latest"):  # A training run, at its newest checkpoint.
        return path / "latest"
    if is_foreign(path):
        return converted(path)
    reference = None if path.exists() else parse_reference(name_or_path)
    if reference is not None:
        folder = fetched(reference, offline=offline)
        return folder if is_ours(folder) else converted(folder)
    known = ", ".join(models) or "none"
    if path.exists():
        raise WeightsError(
            f"{name_or_path} is not a model folder: it has no config.json.",
            f"Known models: {known}",
        )
    raise WeightsError(
        f"there are no weights {name_or_path!r}.",
        f"Give a folder, a repository of the Hub (user/repo), or one of: {known}",
    )


def beside_of(folder: Path, kind: WeightsKind = "inference") -> Path | None:
    """Return what was trained for a prior and lies beside it, if there is such a thing."""
    beside = folder.with_name(f"{folder.name}-{kind}")
    return beside if (beside / "config.json").is_file() else None
