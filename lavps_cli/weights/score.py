"""The entry `process` of networks of score matching, and the denoisers they become."""

from collections.abc import Mapping
from typing import Any

import torch

from lavps_cli.core.schedule import Schedule
from lavps_cli.errors import UsageError
from lavps_cli.models.score import ScoreDenoiser
from lavps_cli.weights.damaged import undescribed


def describe_score(sigma_min: float, sigma_max: float) -> dict[str, Any]:
    """Return the entry `process` of config.json."""
    return {"sigma_min": sigma_min, "sigma_max": sigma_max}


def is_score(config: Mapping[str, Any]) -> bool:
    """Return whether config.json describes a score, not a network of discrete times."""
    process = config.get("process")
    return isinstance(process, Mapping) and "sigma_max" in process


def score_denoiser(
    network: Any, config: Mapping[str, Any], autocast: torch.dtype | None, *,
    schedule: Schedule, multiple: int,
) -> ScoreDenoiser:  # fmt: skip
    """Return a score as a prior.

    Raises:
        WeightsError: config.json does not tell for which noise it was trained.
    """
    process = config["process"]
    try:
        low, high = float(process["sigma_min"]), float(process["sigma_max"])
        return ScoreDenoiser(network, schedule, low, high, multiple, autocast)
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise undescribed("the process", error) from error
