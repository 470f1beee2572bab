"""HDiT out of the entry `model` of config.json, and back."""

from dataclasses import asdict, fields
from typing import Any

from lavps_cli.errors import UsageError, WeightsError
from lavps_cli.models.hdit import HDiT, HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig

_MAX_PARAMETERS, _MAX_LAYERS = 4_000_000_000, 1024


def hdit_network(raw: dict[str, Any]) -> HDiT:
    """Return the network, not filled.

    Raises:
        WeightsError: A name is unknown or a value is of the wrong kind.
    """
    return HDiT(network_config(raw))


def network_config(raw: dict[str, Any]) -> HDiTConfig:
    """Return the network's shape from the `model` entry of config.json.

    Raises:
        WeightsError: A name is unknown or a value is of the wrong kind.
    """
    try:
        values = dict(raw)
        values["levels"] = tuple(LevelConfig(**level) for level in raw["levels"])
        config = HDiTConfig(**values)
        parts: tuple[HDiTConfig | LevelConfig, ...] = (config, *config.levels)
        for part in parts:
            for entry in fields(part):
                value = getattr(part, entry.name)
                if isinstance(value, bool | float) or (
                    isinstance(value, int) and not 0 <= value <= 1 << 16
                ):
                    raise UsageError(f"{entry.name} is {value!r}.")
        layers = config.mapping_depth + sum(level.depth for level in config.levels)
        if layers > _MAX_LAYERS:
            raise UsageError(f"the network would have {layers} layers.")
        size = sum(4 * level.depth * level.width * (level.width + level.d_ff)
                   for level in config.levels)  # fmt: skip
        size += sum(
            6 * level.depth * level.width * config.joint * (config.patch_size * 2**i) ** 2
            for i, level in enumerate(config.levels)
        )
        size += 3 * config.mapping_depth * config.mapping_width * config.mapping_d_ff
        if size > _MAX_PARAMETERS:
            raise UsageError(f"the network would have about {size} parameters.")
    except (KeyError, TypeError, AttributeError, UsageError) as error:
        raise WeightsError(
            f"config.json does not describe a network: {error}",
            "The folder may be damaged, or made by another version of lavps.",
        ) from error
    return config


def describe(config: HDiTConfig) -> dict[str, Any]:
    """Return the `model` entry of config.json."""
    return asdict(config)
