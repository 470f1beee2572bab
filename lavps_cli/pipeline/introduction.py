"""What a run says before it begins."""

import torch

from lavps_cli import catalog
from lavps_cli.pipeline.model import Weights, warn_of_slow_bf16
from lavps_cli.pipeline.requests import Restoration
from lavps_cli.pipeline.results import Listener


def introduce(request: Restoration, weights: Weights, listener: Listener) -> None:
    """Tell which weights work where, and what is missing."""
    takes = catalog.sampler(request.sampling.method).inference
    if takes and weights.inference_folder is None and request.compute.inference != "none":
        instead = "running as mgdm" if takes == "inference" else "running untrained"
        listener.warn(f"there is no {takes} model for {weights.name}; {instead}.")
    threads = f", {torch.get_num_threads()} threads" if weights.device.type == "cpu" else ""
    listener.note(f"{weights.name} on {weights.device}, {weights.dtype}{threads}")
    warn_of_slow_bf16(weights.autocast, weights.device, listener)
