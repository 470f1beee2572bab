"""ADM out of config.json, and what is common to networks of discrete times."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, cast

import torch

from lavps_cli.errors import UsageError
from lavps_cli.models.adm import Adm, AdmConfig
from lavps_cli.models.discrete import Betas, DiscreteDenoiser, Prediction
from lavps_cli.weights.damaged import undescribed

_MAX_PARAMETERS, _MAX_BLOCKS = 4_000_000_000, 512


def adm_network(raw: Mapping[str, Any]) -> Adm:
    """Return the network, not filled, from the `model` entry of config.json.

    Raises:
        WeightsError: A name is unknown or a value is of the wrong kind.
    """
    return Adm(adm_config(raw))


def adm_config(raw: Mapping[str, Any]) -> AdmConfig:
    """Return the network's shape.

    Raises:
        WeightsError: A name is unknown or a value is of the wrong kind.
    """
    try:
        values = dict(raw)
        values["widths"] = tuple(values["widths"])
        values["attention"] = tuple(map(bool, values["attention"]))
        for name in ("model_channels", "num_res_blocks", "num_classes", "out_channels"):
            _whole(name, values.get(name, 1))
        for width in values["widths"]:
            _whole("widths", width)
        for name in ("num_heads", "num_head_channels"):
            if values.get(name) is not None:
                _whole(name, values[name])
        levels, n = len(values["widths"]), values["num_res_blocks"]
        if (levels + 1) * (n + 2) > _MAX_BLOCKS:
            raise UsageError(f"{levels} levels of {n} blocks.")
        if sum(20 * width**2 for width in values["widths"]) * (n + 1) > _MAX_PARAMETERS:
            raise UsageError(f"widths are {values['widths']}.")
        return AdmConfig(**values)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, UsageError) as error:
        raise undescribed("a UNet", error) from error


def _whole(name: str, value: Any) -> None:
    if type(value) is not int or not 0 <= value <= 1 << 16:
        raise UsageError(f"{name} is {value!r}.")


def describe_process(betas: Betas, prediction: str, clip: float | None) -> dict[str, Any]:
    """Return the entry `process` of config.json: what the network's steps mean."""
    return {"betas": asdict(betas), "prediction": prediction, "clip": clip}


def discrete_denoiser(
    network: Any, config: Mapping[str, Any], autocast: torch.dtype | None, label: int | None,
    *, schedule: Any, multiple: int,
) -> DiscreteDenoiser:  # fmt: skip
    """Return a network of discrete times as a prior.

    Raises:
        WeightsError: config.json does not tell what its steps mean.
    """
    process = config.get("process")
    try:
        if not isinstance(process, Mapping):
            raise UsageError("there is no entry process.")
        raw = dict(process["betas"])
        raw["trained"] = tuple(raw.get("trained", ()))
        known = {each.name for each in fields(Betas)}
        betas = Betas(**{name: value for name, value in raw.items() if name in known})
        prediction, clip = process["prediction"], process["clip"]
        if prediction not in ("epsilon", "v_prediction", "sample"):
            raise UsageError(f"prediction is {prediction!r}.")
        if clip is not None and not 0 < float(clip) < float("inf"):
            raise UsageError(f"clip is {clip!r}.")
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise undescribed("the process", error) from error
    return DiscreteDenoiser(
        network, schedule, betas.log_ratios(), cast(Prediction, prediction),
        None if clip is None else float(clip), multiple, autocast, label,
    )  # fmt: skip
