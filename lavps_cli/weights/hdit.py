"""HDiT out of the entry `model` of config.json, and back."""

from dataclasses import asdict, fields
from typing import Any, get_args

from lavps_cli.errors import UsageError
from lavps_cli.models.attention import AttentionKind
from lavps_cli.models.hdit import HDiT, HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig
from lavps_cli.weights.damaged import undescribed

_MAX_PARAMETERS, _MAX_LAYERS, _MAX_LEVELS, _MAX_MULTIPLE = 4_000_000_000, 1024, 12, 4096
_MOST = {"window": 64}
_MAYBE_ZERO = {"depth", "joint", "mapping_depth", "mapping_cond_dim", "num_classes"}
_OPTIONAL = {"joint", "rope_extent"}
_CHOICES = {"attention": get_args(AttentionKind), "stem": ("patch", "overlap")}


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
        _check(raw, HDiTConfig)
        for level in raw["levels"]:
            _check(level, LevelConfig)
        levels = tuple(LevelConfig(**level) for level in raw["levels"])
        config = HDiTConfig(**{**raw, "levels": levels})
        _check_size(config)
    except (KeyError, TypeError, AttributeError, UsageError) as error:
        raise undescribed("a network", error) from error
    return config


def _check(raw: dict[str, Any], cls: type[HDiTConfig | LevelConfig]) -> None:
    """Check the kinds and ranges of values before anything is computed with them."""
    for name in sorted(raw.keys() & {field.name for field in fields(cls)} - {"levels"}):
        value = raw[name]
        if name in _CHOICES:
            if value not in _CHOICES[name]:
                raise UsageError(f"{name} is {value!r}.")
        elif value is not None or name not in _OPTIONAL:
            least = 0 if name in _MAYBE_ZERO else 1
            if type(value) is not int or not least <= value <= _MOST.get(name, 1 << 16):
                raise UsageError(f"{name} is {value!r}.")


def _check_size(config: HDiTConfig) -> None:
    """Check that nothing absurd would be built, or be asked of a picture."""
    layers = config.mapping_depth + sum(level.depth for level in config.levels)
    if layers > _MAX_LAYERS or len(config.levels) > _MAX_LEVELS:
        raise UsageError(f"the network would have {layers} layers in {len(config.levels)} levels.")
    if config.multiple > _MAX_MULTIPLE:
        raise UsageError(f"sides of pictures would be multiples of {config.multiple}.")
    size = sum(4 * level.depth * level.width * (level.width + level.d_ff)
               for level in config.levels)  # fmt: skip
    size += sum(
        6 * level.depth * level.width * config.joint_of(level) * (config.patch_size * 2**i) ** 2
        for i, level in enumerate(config.levels)
    )
    mapping = config.num_classes + 3 * config.mapping_depth * config.mapping_d_ff
    size += config.mapping_width * mapping
    if size > _MAX_PARAMETERS:
        raise UsageError(f"the network would have about {size} parameters.")


def describe(config: HDiTConfig) -> dict[str, Any]:
    """Return the `model` entry of config.json."""
    return asdict(config)
