"""Model folders: config.json rebuilds the network, model.safetensors fills it, strictly."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lavps_cli.errors import WeightsError
from lavps_cli.models import conditional
from lavps_cli.models.conditional import ConditionalDenoiser
from lavps_cli.models.hdit import HDiT
from lavps_cli.models.inference import (
    CHANNELS_IN,
    CHANNELS_OUT,
    COND_WIDTH,
    AmortisedInference,
    InferenceNetwork,
)
from lavps_cli.weights.architectures import (
    NetworkDenoiser,
    architecture_of,
    label_of,
    schedule_of,
)
from lavps_cli.weights.hdit import network_config

FORMAT = 1
_MAX_CONFIG_BYTES = 1 << 20
_MAX_SIDE = 1 << 13
_DTYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64}
_OTHER = "Its config.json is of another network."


def is_ours(folder: Path) -> bool:
    """Return whether a folder holds a model of lavps, or something that was meant to be one.

    The config.json of other projects has no `format`; one that cannot be read is ours to report.
    """
    path = folder / "config.json"
    if not path.is_file():
        return False
    try:
        return path.stat().st_size > _MAX_CONFIG_BYTES or "format" in json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        return True


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
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read: {error}", "Get the folder again.") from error
    if config.get("format") != FORMAT:
        raise WeightsError(
            f"{path} has format {config.get('format')!r}; this version reads {FORMAT}.",
            "Update lavps, or get the folder again.",
        )
    check_size(config, path)
    return cast(dict[str, Any], config)


def check_size(config: Mapping[str, Any], path: Path) -> None:
    """Check the side of the pictures that a model was made for.

    Raises:
        WeightsError: It is absurd.
    """
    side = config.get("image_size", 64)
    if type(side) is not int or not 0 < side <= _MAX_SIDE:
        raise WeightsError(f"{path}: image_size is {side!r}.", "Get the weights again.")


def check_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    """Check that a file's tensors are those of a network, no more, no less, and of its shapes.

    Their values have to be numbers, too.

    Raises:
        WeightsError: They are not; the message names the first entry that differs.
    """
    for name in sorted(own.keys() | state.keys()):
        if name not in state:
            raise WeightsError(f"{path} lacks {name}.", _OTHER)
        if name not in own:
            raise WeightsError(f"{path} has an unknown entry {name}.", _OTHER)
        if own[name].shape != state[name].shape:
            raise WeightsError(
                f"{path}: {name} has shape {tuple(state[name].shape)}, "
                f"the network needs {tuple(own[name].shape)}.",
                _OTHER,
            )
        if state[name].dtype not in _DTYPES:
            raise WeightsError(f"{path}: {name} is of type {state[name].dtype}.", _OTHER)
        if not state[name].isfinite().all():
            raise WeightsError(
                f"{path}: {name} holds values that are no numbers.", "Get the file again."
            )


def filled(build: Callable[[], nn.Module], folder: Path) -> Any:
    """Return a network with the tensors of a folder; nothing of it is made before they fit."""
    path = folder / "model.safetensors"
    with torch.device("meta"):
        module = build()
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}", "Get the folder again.") from error
    check_state(module.state_dict(), state, path)
    module.to_empty(device="cpu")
    module.load_state_dict({name: value.float() for name, value in state.items()})
    return module.eval().requires_grad_(False)


def expect(folder: Path, kind: str) -> dict[str, Any]:
    """Return config.json of a model of a kind.

    Raises:
        WeightsError: It is of another kind, or cannot be read.
    """
    config = read_config(folder)
    if config.get("kind") != kind:
        raise WeightsError(
            f"{folder} holds a model of kind {config.get('kind')!r}, not {kind!r}.",
            "Pass a prior to --model and what was trained for it to --inference; what knows the "
            "observation to --model, with its own --method.",
        )
    if not isinstance(config.get("model"), dict):
        raise WeightsError(f"{folder / 'config.json'} has no entry model.", "Get the folder again.")
    return config


def load_denoiser(
    folder: Path,
    *,
    device: torch.device,
    autocast: torch.dtype | None = None,
    label: int | None = None,
) -> NetworkDenoiser:
    """Return the prior of a folder.

    Args:
        folder: Of config.json and model.safetensors.
        device: Where the network goes.
        autocast: Precision of its inside, None for float32.
        label: Class of a prior that was trained with labels; None is "no label".

    Raises:
        WeightsError: The folder cannot be used; the message names the entry.
        UsageError: The prior takes no such label.
    """
    config = expect(folder, "denoiser")
    architecture = architecture_of(config)
    label = label_of(config, label)
    network = filled(lambda: architecture.build(config["model"]), folder)
    return architecture.denoiser(network.to(device), config, autocast, label)


def load_conditional(
    folder: Path, *, device: torch.device, autocast: torch.dtype | None = None
) -> ConditionalDenoiser:
    """Return the conditional denoiser of a folder.

    Raises:
        WeightsError: The folder cannot be used; the message names the entry.
    """
    config = expect(folder, "conditional")
    shape = network_config(config["model"])
    channels = (shape.in_channels, shape.out_channels)
    if channels != (conditional.CHANNELS_IN, conditional.CHANNELS_OUT):
        raise WeightsError(
            f"{folder} has {channels[0]} channels in and {channels[1]} out; a conditional denoiser "
            f"has {conditional.CHANNELS_IN} and {conditional.CHANNELS_OUT}.",
            _OTHER,
        )
    network = filled(lambda: HDiT(shape), folder)
    return ConditionalDenoiser(network.to(device), schedule_of(config), autocast)


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
    config = expect(folder, "inference")
    shape = network_config(config["model"])
    if (shape.in_channels, shape.out_channels) != (CHANNELS_IN, CHANNELS_OUT):
        raise WeightsError(
            f"{folder} has {shape.in_channels} channels in and {shape.out_channels} out; an "
            f"inference model has {CHANNELS_IN} and {CHANNELS_OUT}.",
            "It was made by another version of lavps. Go on without it:  --inference none",
        )
    if shape.mapping_cond_dim != COND_WIDTH:
        raise WeightsError(
            f"{folder} has a condition of {shape.mapping_cond_dim} features, not {COND_WIDTH}.",
            _OTHER,
        )
    network = filled(lambda: InferenceNetwork(shape), folder)
    return AmortisedInference(network.to(device), schedule_of(config), autocast, tile, overlap)


def save(
    folder: Path, module: nn.Module, config: dict[str, Any], dtype: torch.dtype = torch.float16
) -> None:
    """Write the folder of a network; parameters are rounded to `dtype`.

    Buffers (frequencies, which enter cosines) are not.
    """
    rounded = {name for name, _ in module.named_parameters()}
    state = {
        name: value.detach().to("cpu", dtype if name in rounded else value.dtype)
        for name, value in module.state_dict().items()
    }
    write_folder(folder, config, state)


def write_folder(folder: Path, config: dict[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write model.safetensors and config.json; each appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / ".model.safetensors.part"
    try:
        save_file(_apart(state), part, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{part}: {error}") from error
    part.replace(folder / "model.safetensors")
    text = json.dumps({"format": FORMAT} | config, indent=2) + "\n"
    part = folder / ".config.json.part"
    part.write_text(text, encoding="utf-8")
    part.replace(folder / "config.json")


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors, of which no two share memory."""
    apart: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, value in state.items():
        own = value.contiguous()
        if own.untyped_storage().data_ptr() in taken:
            own = own.clone()
        taken.add(own.untyped_storage().data_ptr())
        apart[name] = own
    return apart


def digest(folder: Path) -> str:
    """Return the sha256 of model.safetensors, as hexadecimal digits."""
    with (folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
