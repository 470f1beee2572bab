"""Folders of inference models, of our own design or of the authors'."""

from pathlib import Path
from typing import TypeAlias

import torch

from lavps_cli.errors import WeightsError
from lavps_cli.models.bridge_residual import CHANNELS_IN, CHANNELS_OUT, BridgeResidual
from lavps_cli.models.hdit import HDiT
from lavps_cli.models.inference import AmortisedInference
from lavps_cli.weights.architectures import label_of, schedule_of
from lavps_cli.weights.checkpoint import expect, filled, load_inference
from lavps_cli.weights.hdit import network_config

BRIDGE_RESIDUAL = "bridge-residual"
"""`design` in config.json of a model that the authors' scripts trained."""
Starts: TypeAlias = AmortisedInference | BridgeResidual


def load_starts(
    folder: Path,
    *,
    device: torch.device,
    autocast: torch.dtype | None = None,
    label: int | None = None,
) -> Starts:
    """Return the inference model of a folder.

    Args:
        folder: Of config.json and model.safetensors.
        device: Where the network goes.
        autocast: Precision of its inside, None for float32.
        label: Class, for a model that was trained with labels; None is "no label".

    Raises:
        WeightsError: The folder cannot be used; the message names the entry.
        UsageError: The model takes no such label.
    """
    config = expect(folder, "inference")
    if config.get("design") != BRIDGE_RESIDUAL:
        return load_inference(folder, device=device, autocast=autocast)
    shape = network_config(config["model"])
    wanted = (CHANNELS_IN, CHANNELS_OUT, shape.mapping_width)
    if (shape.in_channels, shape.out_channels, shape.mapping_cond_dim) != wanted:
        raise WeightsError(
            f"{folder / 'config.json'} does not describe an inference model of this design.",
            "Import the file again:  lavps models import",
        )
    label = label_of(config, label) if config.get("labels") else None
    network = filled(lambda: HDiT(shape), folder)
    return BridgeResidual(network.to(device), schedule_of(config), autocast, label)
