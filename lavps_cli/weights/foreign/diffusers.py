"""Unconditional pipelines of diffusers in pixel space: a UNet2DModel and a DDPM-like scheduler.

The library itself builds the network, so that every block it knows can be used; it is an extra.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from lavps_cli.errors import UsageError, WeightsError
from lavps_cli.models.discrete import Betas
from lavps_cli.weights.adm import describe_process
from lavps_cli.weights.tensors import Foreign

WEIGHTS = "diffusion_pytorch_model.safetensors"
SCHEDULERS = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler")
_KINDS = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "squaredcos_cap_v2": "squaredcos_cap_v2",
}
_MAX_CONFIG_BYTES = 1 << 20


def read(folder: Path) -> Foreign | None:
    """Return the prior of a pipeline's folder, None where it is of another project.

    Raises:
        WeightsError: It is of diffusers, but no prior in pixel space; or the library is missing.
    """
    place = folder / "unet" if (folder / "unet" / "config.json").is_file() else folder
    unet = _json(place / "config.json")
    if unet is None or "_class_name" not in unet:
        index = _json(folder / "model_index.json")
        if index is None:
            return None
        raise WeightsError(
            f"{folder} is a pipeline of diffusers without a UNet ({index.get('_class_name')}).",
            "Priors are unconditional pipelines in pixel space, such as DDPMPipeline.",
        )
    if unet["_class_name"] != "UNet2DModel":
        raise WeightsError(
            f"{folder} holds a {unet['_class_name']}: it is conditional, or works on latents.",
            "Priors are unconditional pipelines in pixel space, with a UNet2DModel.",
        )
    if (folder / "vae").is_dir() or (folder / "vqvae").is_dir():
        raise WeightsError(
            f"{folder} works on latents.", "Priors work on pixels, such as google/ddpm-church-256."
        )
    if not (place / WEIGHTS).is_file():
        raise WeightsError(f"{place} lacks {WEIGHTS}.", "Pickled weights (.bin) are never loaded.")
    if (unet.get("in_channels"), unet.get("out_channels")) not in ((3, 3), (3, 6)):
        raise WeightsError(f"{folder} is not for RGB pictures.", "Choose another prior.")
    try:
        process = _process(folder, unet)
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise WeightsError(
            f"{folder}: its scheduler cannot be read: {error}",
            f"Known: {', '.join(SCHEDULERS)}.",
        ) from error
    network = _library_network(place)
    classes = int(unet.get("num_class_embeds") or 0)
    side = unet.get("sample_size")
    config: dict[str, Any] = {
        "kind": "denoiser",
        "architecture": "diffusers-unet",
        "schedule": "vp",
        "image_size": side if isinstance(side, int) else min(side or [64]),
        "local": False,
        "licence": "not stated",
        "trained_on": "not stated",
        "process": process,
    }
    if classes:
        config |= {"labels": classes, "no_label": None}
    known = {k: v for k, v in dict(network.config).items() if not k.startswith("_")}  # type: ignore[arg-type]
    return Foreign(config | {"model": json.loads(json.dumps(known))}, network.state_dict())


def build(raw: Mapping[str, Any]) -> nn.Module:
    """Return the network that the library builds, not filled.

    Raises:
        WeightsError: It cannot, or is not there.
    """
    model = _library()
    try:
        network: nn.Module = model(**raw)
    except Exception as error:  # Whatever a wrong configuration makes the library raise.
        raise WeightsError(
            f"config.json does not describe a UNet2DModel: {error}",
            "The folder may be damaged, or made with another version of diffusers.",
        ) from error
    return network


def multiple_of(network: nn.Module) -> int:
    """Return what heights and widths must be multiples of."""
    return int(2 ** (len(network.config["block_out_channels"]) - 1))  # type: ignore[index]


def _library() -> Any:
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise WeightsError(
            "these weights are of diffusers, which is not installed.",
            'Install it:  pip install "lavps[diffusers]"',
        ) from error
    return UNet2DModel


def _library_network(place: Path) -> nn.Module:
    model = _library()
    try:
        network: nn.Module = model.from_pretrained(
            place, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
        )
    except Exception as error:  # Damaged files make the library raise anything.
        told = str(error).strip().splitlines()
        raise WeightsError(
            f"{place} cannot be read: {told[0] if told else type(error).__name__}",
            "Get the folder again.",
        ) from error
    return network.eval()


def _process(folder: Path, unet: Mapping[str, Any]) -> dict[str, Any]:
    found = None
    for place in (folder / "scheduler", folder):
        found = found or _json(place / "scheduler_config.json")
    if found is None:
        raise UsageError("there is no scheduler_config.json.")
    if found.get("_class_name") not in SCHEDULERS:
        raise UsageError(f"{found.get('_class_name')} is not of discrete times.")
    if found.get("rescale_betas_zero_snr"):
        raise UsageError("rescale_betas_zero_snr is not supported.")
    trained = found.get("trained_betas")
    kind = "trained" if trained else _KINDS.get(str(found.get("beta_schedule", "linear")))
    if kind is None:
        raise UsageError(f"beta_schedule is {found.get('beta_schedule')!r}.")
    betas = Betas(
        kind=kind,  # type: ignore[arg-type]
        start=float(found.get("beta_start", 1e-4)),
        end=float(found.get("beta_end", 0.02)),
        count=len(trained) if trained else int(found.get("num_train_timesteps", 1000)),
        trained=tuple(map(float, trained or ())),
    )
    prediction = str(found.get("prediction_type", "epsilon"))
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise UsageError(f"prediction_type is {prediction!r}.")
    clips = bool(found.get("clip_sample", found["_class_name"] in SCHEDULERS[:2]))
    clip = float(found.get("clip_sample_range", 1.0)) if clips else None
    return describe_process(betas, prediction, clip)


def _json(path: Path) -> dict[str, Any] | None:
    """Return a small JSON object, None where there is none."""
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            return None
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
