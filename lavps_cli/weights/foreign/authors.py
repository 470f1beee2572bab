"""The priors that the authors of LAVPS published: HDiT inside InvFusion's preconditioning.

A file holds the averaged state dict under `ema`; the network is `unet.`, each of its blocks wrapped
once more as `attn`. The shape follows from the tensors but for the kind of attention, which is the
published one.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lavps_cli.errors import WeightsError
from lavps_cli.weights.tensors import Contents, Foreign, tensors_of

_PREFIX = "unet."
_SIZES = {2: 64, 4: 256}
"""Side of the pictures, by that of the patches."""
_FFHQ256 = (("neighbourhood", 5), ("neighbourhood", 7), ("global", 7), ("global", 7))


def read(contents: Contents) -> Foreign | None:
    """Return the prior of a file, None where the file is of another project.

    Raises:
        WeightsError: It is of theirs, and no prior.
    """
    table = contents.tree.get("ema")
    if not isinstance(table, Mapping) or not any(
        str(name).startswith(_PREFIX + "patch_in.") for name in table
    ):
        return None
    state = {name.replace(".attn.", ".", 1): w for name, w in tensors_of(table, _PREFIX).items()}
    if any("feature_degradation" in name for name in state):
        raise WeightsError(
            f"{contents.path} holds a conditional model (InvFusion's operator-aware layers).",
            "What can be read are priors:  hdit-ffhq256-unconditional.pt",
        )
    try:
        return Foreign(_config(state), state)
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise WeightsError(
            f"{contents.path} has not the tensors of an HDiT: {type(error).__name__} {error}",
            "Get the file again, and check its sum.",
        ) from error


def _config(state: dict[str, Tensor]) -> dict[str, Any]:
    columns = state["patch_in.proj.weight"].shape[1]
    patch = math.isqrt(columns // 3)
    if 3 * patch**2 != columns or patch not in _SIZES:
        raise ValueError(f"patches of {columns} values are no RGB patches of 2 or 4 pixels")
    numbers = {int(n.split(".")[1]) for n in state if n.startswith("down_levels.")}
    outer = len(numbers)
    if numbers != set(range(outer)):
        raise ValueError("levels are missing")
    names = [f"down_levels.{i}." for i in range(outer)] + ["mid_level."]
    levels = [_level(state, name) for name in names]
    kinds = (("neighbourhood", 7),) * (len(levels) - 1) + (("global", 7),)
    if len(levels) == len(_FFHQ256):
        kinds = _FFHQ256
    for level, (kind, window) in zip(levels, kinds, strict=True):
        level |= {"attention": kind, "window": window}
    mapping = "mapping.blocks."
    depth = 1 + max((int(n.split(".")[2]) for n in state if n.startswith(mapping)), default=-1)
    classes = len(state["class_emb.weight"]) if "class_emb.weight" in state else 0
    about: dict[str, Any] = {
        "kind": "denoiser",
        "schedule": "vp",
        "image_size": _SIZES[patch],
        "local": False,
        "licence": "not stated",
        "trained_on": "not stated",
    }
    if classes:
        about |= {"labels": classes - 1, "no_label": classes - 1}
    return about | {
        "model": {
            "levels": levels,
            "patch_size": patch,
            "stem": "patch",
            "mapping_depth": depth,
            "mapping_width": len(state["time_in_proj.weight"]),
            "mapping_d_ff": state[f"{mapping}0.up_proj.weight"].shape[0] // 2,
            "num_classes": classes,
        }
    }


def _level(state: dict[str, Tensor], prefix: str) -> dict[str, Any]:
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    found = [int(match[1]) for name in state if (match := pattern.match(name))]
    width = state[f"{prefix}0.self_attn.qkv_proj.weight"].shape[1]
    heads = len(state[f"{prefix}0.self_attn.scale"])
    return {
        "depth": 1 + max(found),
        "width": width,
        "d_ff": state[f"{prefix}0.ff.up_proj.weight"].shape[0] // 2,
        "d_head": width // heads,
    }
