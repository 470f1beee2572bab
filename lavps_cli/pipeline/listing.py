"""`lavps models`: which weights and samplers there are."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lavps_cli import catalog
from lavps_cli.errors import WeightsError
from lavps_cli.weights.checkpoint import digest, read_config
from lavps_cli.weights.hub import fetched, name_of, parse_reference
from lavps_cli.weights.index import beside_of, bundled, imported, resolve


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """One line of the list of models."""

    name: str
    kind: str
    image_size: int | None
    megabytes: float
    licence: str
    path: str


@dataclass(frozen=True, kw_only=True)
class SamplerSummary:
    """One line of the list of samplers."""

    name: str
    summary: str
    options: dict[str, Any] = field(default_factory=dict)
    """Names and defaults."""


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """A public prior that can be loaded, and is not here."""

    name: str
    """What `--model` or `models import` takes."""
    source: str
    image_size: int
    megabytes: float | None
    licence: str
    about: str


ELSEWHERE = (
    Elsewhere(
        name="google/ddpm-celebahq-256", source="the Hub, diffusers", image_size=256,
        megabytes=455.0, licence="Apache-2.0", about="faces (CelebA-HQ)",
    ),
    Elsewhere(
        name="google/ddpm-ema-celebahq-256", source="the Hub, diffusers", image_size=256,
        megabytes=455.0, licence="Apache-2.0", about="faces (CelebA-HQ), averaged weights",
    ),
    Elsewhere(
        name="google/ddpm-ema-church-256", source="the Hub, diffusers", image_size=256,
        megabytes=455.0, licence="Apache-2.0", about="churches (LSUN), averaged weights",
    ),
    Elsewhere(
        name="hdit-ffhq256-unconditional.pt", source="release of github.com/thomashirtz/lavps",
        image_size=256, megabytes=None, licence="not stated", about="faces (FFHQ)",
    ),
    Elsewhere(
        name="hdit-imagenet256-unconditional.pt", source="release of github.com/thomashirtz/lavps",
        image_size=256, megabytes=None, licence="not stated", about="ImageNet, 1000 classes",
    ),
)  # fmt: skip
"""Priors that are known to exist; what is not known of one is not told."""


def models() -> list[ModelSummary]:
    """Return the models that are known by name."""
    return [_summary(name, folder) for name, folder in (bundled() | imported()).items()]


def _summary(name: str, folder: Path) -> ModelSummary:
    config = read_config(folder)
    size = (folder / "model.safetensors").stat().st_size
    return ModelSummary(
        name=name,
        kind=str(config.get("kind")),
        image_size=config.get("image_size"),
        megabytes=round(size / 1e6, 1),
        licence=str(config.get("licence", "not stated")),
        path=str(folder),
    )


def model_path(name: str) -> str:
    """Return the folder of a model.

    Raises:
        WeightsError: There is none.
    """
    return str(resolve(name))


def model_info(name: str) -> dict[str, Any]:
    """Return everything a model says about itself, its digest and its inference model.

    Raises:
        WeightsError: There is none.
    """
    folder = resolve(name)
    beside = beside_of(folder)
    about = {"name": name_of(folder), "path": str(folder), "sha256": digest(folder)}
    return (
        about
        | {"inference": beside.name if beside is not None else None}
        | {key: value for key, value in read_config(folder).items() if key != "model"}
    )


def samplers() -> list[SamplerSummary]:
    """Return the samplers, with the names and defaults of their options."""
    rows = []
    for name, entry in catalog.SAMPLERS.items():
        cls = catalog.resolve(entry.options)
        options = {option.name: option.default for option in fields(cls)}
        rows.append(SamplerSummary(name=name, summary=entry.summary, options=options))
    return rows


def download(text: str) -> dict[str, Any]:
    """Return where a model of the Hub lies, after asking the Hub for its newest commit.

    Raises:
        WeightsError: It is no repository, or cannot be had.
    """
    reference = parse_reference(text)
    if reference is None:
        raise WeightsError(
            f"{text!r} is no repository of the Hub.", "For example:  google/ddpm-ema-church-256"
        )
    folder = fetched(reference, anew=True)
    return {"name": name_of(folder), "path": str(folder), "revision": folder.name}
