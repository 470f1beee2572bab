"""Model folders: config.json rebuilds the network, model.safetensors fills it, strictly."""

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import nn

from lavps_cli.core.schedule import Schedule, schedule_named
from lavps_cli.errors import UsageError, WeightsError
from lavps_cli.models.hdit import HDiT, HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig
from lavps_cli.models.inference import (
    CHANNELS_IN,
    CHANNELS_OUT,
    AmortisedInference,
    InferenceNetwork,
)
from lavps_cli.models.preconditioning import PreconditionedDenoiser, hdit_denoiser

FORMAT = 1
_MAX_CONFIG_BYTES = 1 << 20
_MAX_PARAMETERS = 4_000_000_000


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
        size = sum(4 * level.depth * level.width * (level.width + level.d_ff)
                   for level in config.levels)  # fmt: skip
        size += sum(
            6 * level.depth * level.width * config.joint * (config.patch_size * 2**i) ** 2
            for i, level in enumerate(config.levels)
        )
        if size > _MAX_PARAMETERS:
            raise UsageError(f"the network would have about {size} parameters.")
    except (KeyError, TypeError, AttributeError, UsageError) as error:
        raise WeightsError(
            f"config.json does not describe a network: {error}",
            "The folder may be damaged, or made by another version of lavps.",
        ) from error
    return config


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json, checked as far as every model needs it.

    Raises:
        WeightsError: The file is missing, damaged or of another format.
    """
    path = folder / "config.json"
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ValueError("too large")
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}", "Get the folder again.") from error
    if config.get("format") != FORMAT:
        raise WeightsError(
            f"{path} has format {config.get('format')!r}; this version reads {FORMAT}.",
            "Update lavps, or get the folder again.",
        )
    return cast(dict[str, Any], config)


def _fill(module: nn.Module, folder: Path) -> None:
    path = folder / "model.safetensors"
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}", "Get the folder again.") from error
    own = module.state_dict()
    for name in sorted(own.keys() | state.keys()):
        if name not in state:
            raise WeightsError(f"{path} lacks {name}.", "Its config.json is of another network.")
        if name not in own:
            raise WeightsError(
                f"{path} has an unknown entry {name}.", "Its config.json is of another network."
            )
        if own[name].shape != state[name].shape:
            raise WeightsError(
                f"{path}: {name} has shape {tuple(state[name].shape)}, "
                f"the network needs {tuple(own[name].shape)}.",
                "Its config.json is of another network.",
            )
    module.load_state_dict({name: value.float() for name, value in state.items()})
    module.eval().requires_grad_(False)


def _expect(folder: Path, kind: str) -> dict[str, Any]:
    config = read_config(folder)
    if config.get("kind") != kind:
        raise WeightsError(
            f"{folder} holds a model of kind {config.get('kind')!r}, not {kind!r}.",
            "Pass a prior to --model and an inference model to --inference.",
        )
    return config


def _schedule(config: dict[str, Any]) -> Schedule:
    try:
        return schedule_named(str(config.get("schedule")))
    except UsageError as error:
        raise WeightsError(f"config.json: {error.message}", error.hint) from error


def load_denoiser(
    folder: Path, *, device: torch.device, autocast: torch.dtype | None = None
) -> PreconditionedDenoiser:
    """Return the prior of a folder.

    Raises:
        WeightsError: The folder cannot be used; the message names the entry.
    """
    config = _expect(folder, "denoiser")
    with torch.device("meta"):
        network = HDiT(network_config(config["model"]))
    network.to_empty(device="cpu")
    _fill(network, folder)
    return hdit_denoiser(network.to(device), _schedule(config), autocast)


def load_inference(
    folder: Path,
    *,
    device: torch.device,
    autocast: torch.dtype | None = None,
    tile: int = 0,
    overlap: int = 0,
) -> AmortisedInference:
    """Return the inference model of a folder.

    Raises:
        WeightsError: The folder cannot be used; the message names the entry.
    """
    config = _expect(folder, "inference")
    shape = network_config(config["model"])
    if (shape.in_channels, shape.out_channels) != (CHANNELS_IN, CHANNELS_OUT):
        raise WeightsError(
            f"{folder} has {shape.in_channels} channels in and {shape.out_channels} out; an "
            f"inference model has {CHANNELS_IN} and {CHANNELS_OUT}.",
            "It was made by another version of lavps. Go on without it:  --inference none",
        )
    with torch.device("meta"):
        network = InferenceNetwork(shape)
    network.to_empty(device="cpu")
    _fill(network, folder)
    return AmortisedInference(network.to(device), _schedule(config), autocast, tile, overlap)


def save(
    folder: Path, module: nn.Module, config: dict[str, Any], dtype: torch.dtype = torch.float16
) -> None:
    """Write model.safetensors and config.json; each appears whole or not at all.

    Parameters are rounded to `dtype`; buffers (frequencies, which enter cosines) are not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rounded = {name for name, _ in module.named_parameters()}
    state = {
        name: value.detach().to("cpu", dtype if name in rounded else value.dtype).contiguous()
        for name, value in module.state_dict().items()
    }
    part = folder / ".model.safetensors.part"
    part.write_bytes(serialise(state, metadata={"format": "pt"}))
    part.replace(folder / "model.safetensors")
    text = json.dumps({"format": FORMAT} | config, indent=2) + "\n"
    part = folder / ".config.json.part"
    part.write_text(text, encoding="utf-8")
    part.replace(folder / "config.json")


def describe(config: HDiTConfig) -> dict[str, Any]:
    """Return the `model` entry of config.json."""
    return asdict(config)


def digest(folder: Path) -> str:
    """Return the sha256 of model.safetensors, as hexadecimal digits."""
    with (folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
