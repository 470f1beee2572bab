"""Unconditional pipelines of diffusers in pixel space: a UNet2DModel and a scheduler that is known.

The library itself builds the network, so that every block it knows can be used; it is an extra.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from lavps_cli.errors import UsageError, WeightsError
from lavps_cli.weights.foreign.schedulers import KNOWN, process_of
from lavps_cli.weights.tensors import Foreign

WEIGHTS = "diffusion_pytorch_model.safetensors"
_MAX_CONFIG_BYTES = 1 << 20
_MAX_SIZE, _MAX_LAYERS = 1 << 16, 512
_CHOOSE = "Priors are unconditional pipelines in pixel space, such as google/ddpm-ema-church-256."


def read(folder: Path) -> Foreign | None:
    """Return the prior of a pipeline's folder, None where it is of another project.

    Raises:
        WeightsError: It is of diffusers, but no prior in pixel space; or the library is missing.
    """
    place = folder / "unet" if (folder / "unet" / "config.json").is_file() else folder
    unet, index = _json(place / "config.json"), _json(folder / "model_index.json")
    if unet is None or "_class_name" not in unet:
        if index is None:
            return None
        raise WeightsError(
            f"{folder} is a pipeline of diffusers without a UNet ({index.get('_class_name')}).",
            _CHOOSE,
        )
    _check_kind(folder, unet, index or {})
    if not (place / WEIGHTS).is_file():
        raise WeightsError(f"{place} lacks {WEIGHTS}.", "Pickled weights (.bin) are never loaded.")
    try:
        process = process_of(_scheduler(folder), unet)
        side = unet.get("sample_size") or 64
        config: dict[str, Any] = {
            "kind": "denoiser",
            "architecture": "diffusers-unet",
            "schedule": "vp",
            "image_size": min(side) if isinstance(side, list) else side,
            "local": False,
            "licence": "not stated",
            "trained_on": "not stated",
            "process": process,
        }
        if unet.get("num_class_embeds"):
            config |= {"labels": int(unet["num_class_embeds"]), "no_label": None}
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise WeightsError(
            f"{folder}: its scheduler cannot be read: {error}", f"Known: {', '.join(KNOWN)}."
        ) from error
    network = _library_network(place, unet)
    known = {k: v for k, v in dict(network.config).items() if not k.startswith("_")}  # type: ignore[arg-type]
    return Foreign(config | {"model": json.loads(json.dumps(known))}, network.state_dict())


def build(raw: Mapping[str, Any]) -> nn.Module:
    """Return the network that the library builds, not filled.

    Raises:
        WeightsError: It cannot, or is not there.
    """
    model = _library()
    try:
        _check_sizes(raw)
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


def _check_kind(folder: Path, unet: Mapping[str, Any], index: Mapping[str, Any]) -> None:
    """Check that it is a prior of pictures, given nothing else."""
    if unet["_class_name"] != "UNet2DModel":
        raise WeightsError(
            f"{folder} holds a {unet['_class_name']}: it is conditional, or works on latents.",
            _CHOOSE,
        )
    # The index, since folders that are not needed may not have been downloaded.
    parts = {name for name, value in index.items() if isinstance(value, list) and any(value)}
    parts |= {name for name in ("vae", "vqvae") if (folder / name).is_dir()}
    if others := parts - {"unet", "scheduler"}:
        raise WeightsError(
            f"{folder} is a pipeline with {', '.join(sorted(others))}: it works on latents, or is "
            "conditional.",
            _CHOOSE,
        )
    if (unet.get("in_channels"), unet.get("out_channels")) not in ((3, 3), (3, 6)):
        raise WeightsError(f"{folder} is not for RGB pictures.", "Choose another prior.")
    if unet.get("class_embed_type") is not None:
        raise WeightsError(
            f"{folder} is conditional (class_embed_type {unet['class_embed_type']!r}).", _CHOOSE
        )


def _library() -> Any:
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise WeightsError(
            "these weights are of diffusers, which is not installed.",
            'Install it:  pip install "lavps[diffusers]"',
        ) from error
    return UNet2DModel


def _library_network(place: Path, unet: Mapping[str, Any]) -> nn.Module:
    """Return the network as the library fills it, which also knows older names of tensors.

    The library draws at random what a file lacks, and leaves out what it does not know; here both
    are errors.
    """
    model = _library()
    try:
        _check_sizes(unet)
        with torch.device("meta"), _quiet():
            needed = sum(w.numel() for w in model.from_config(dict(unet)).state_dict().values())
        with safe_open(place / WEIGHTS, framework="pt") as file:
            held = sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        if needed > 2 * held:
            raise UsageError(f"config.json describes {needed} numbers, the file holds {held}")
        with _quiet():
            network, told = model.from_pretrained(
                place, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False,
                output_loading_info=True,
            )  # fmt: skip
        for kind, words in (
            ("missing_keys", "it lacks"),
            ("unexpected_keys", "it has an unknown entry"),
            ("mismatched_keys", "of another shape than in config.json is"),
        ):
            if told.get(kind):
                raise UsageError(f"{words} {sorted(map(str, told[kind]))[0]}")
    except Exception as error:  # Damaged files make the library raise anything.
        # PyTorch names the tensor in the second line.
        reason = " ".join(map(str.strip, str(error).strip().splitlines()[:2]))
        raise WeightsError(
            f"{place} cannot be read: {reason or type(error).__name__}",
            "Get the folder again.",
        ) from error
    filled: nn.Module = network.eval()
    return filled


def _check_sizes(raw: Mapping[str, Any]) -> None:
    """Check what a network's memory, and the time to describe it, depend on."""
    for name, value in raw.items():
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(each, int | float) and not abs(each) <= _MAX_SIZE:
                raise UsageError(f"{name} is {value!r}.")
    layers, widths = raw.get("layers_per_block", 2), raw.get("block_out_channels", ())
    if type(layers) is not int or layers * len(widths) > _MAX_LAYERS:
        raise UsageError(f"layers_per_block is {layers!r}, at {len(widths)} widths.")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from telling, on stderr, what becomes an error of ours or is none."""
    logger = logging.getLogger("diffusers")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _scheduler(folder: Path) -> dict[str, Any]:
    for place in (folder / "scheduler", folder):
        found = _json(place / "scheduler_config.json")
        if found is not None:
            return found
    raise UsageError("there is no scheduler_config.json.")


def _json(path: Path) -> dict[str, Any] | None:
    """Return a small JSON object, None where there is none."""
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            return None
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
