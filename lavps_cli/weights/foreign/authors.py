"""What the authors of LAVPS published, and what their scripts train: HDiT as InvFusion wraps it.

Each block of the network is wrapped once more as `attn`, beside its operator-aware layer. A prior
is the averaged state dict under `ema`, the network in it `unet.`; an inference model is under
`model_state_dict`, `residual_nn.`, with the prior beside it. Shapes follow from the tensors, but
for the kinds of attention, which are the published ones.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lavps_cli.errors import WeightsError
from lavps_cli.weights.tensors import Contents, Foreign, tensors_of

_SIZES = {2: 64, 4: 256}
"""Side of the pictures, by that of the patches."""
_FFHQ256 = (("neighbourhood", 5), ("neighbourhood", 7), ("global", 7), ("global", 7))
_SWITCH_RATIO = 0.45
"""They train up to the 30th of DDPM's 100 steps, where the time of `flow` is 0.55."""
_BLOCK = re.compile(r"((?:down_levels|up_levels)\.\d+\.\d+|mid_level\.\d+)\.(.+)")


def read(contents: Contents) -> Foreign | None:
    """Return the prior or the inference model of a file, None where it is of another project.

    Raises:
        WeightsError: It is of theirs, and neither.
    """
    for key, prefix, model in (
        ("ema", "unet.", _prior),
        ("model_state_dict", "residual_nn.", _inference),
    ):
        table = contents.tree.get(key)
        if not isinstance(table, Mapping) or prefix + "patch_in.proj.weight" not in table:
            continue
        try:
            return model({_ours(n): w for n, w in tensors_of(table, prefix).items()}, contents.path)
        except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
            raise WeightsError(
                f"{contents.path} has not the tensors of an HDiT: {type(error).__name__} {error}",
                "Get the file again, and check its sum.",
            ) from error
    return None


def _ours(name: str) -> str:
    """Return the name of a tensor of their network in ours."""
    match = _BLOCK.fullmatch(name)
    if match is None:
        return name
    block, rest = match.groups()
    if rest.startswith("feature_degradation."):
        return f"{block}.self_attn.{rest}"
    return f"{block}.{rest.removeprefix('attn.')}"


def _prior(state: dict[str, Tensor], path: Path) -> Foreign:
    if any("feature_degradation" in name for name in state):
        raise WeightsError(
            f"{path} holds a conditional model (InvFusion's operator-aware layers).",
            "What can be read are priors:  hdit-ffhq256-unconditional.pt",
        )
    return Foreign({"kind": "denoiser"} | _config(state, 3, 3), state)


def _inference(state: dict[str, Tensor], path: Path) -> Foreign:
    """Return an inference model; the embedding of s takes the place of a further condition."""
    state.pop("time_in_proj_t.weight", None)  # The same tensor as time_in_proj.
    state["mapping_cond_in_proj.weight"] = state.pop("time_in_proj_s.weight")
    config = _config(state, 9, 6)
    config["model"]["mapping_cond_dim"] = config["model"]["mapping_width"]
    about = {
        "kind": "inference",
        "design": "bridge-residual",
        "switch_ratio": _SWITCH_RATIO,
    }
    return Foreign(about | config, state)


def _config(state: dict[str, Tensor], channels_in: int, channels_out: int) -> dict[str, Any]:
    columns = state["patch_in.proj.weight"].shape[1]
    patch = math.isqrt(columns // channels_in)
    if channels_in * patch**2 != columns or patch not in _SIZES:
        raise ValueError(
            f"{columns} values are no patches of 2 or 4 pixels of {channels_in} channels"
        )
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
            "in_channels": channels_in,
            "out_channels": channels_out,
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
    degraded = f"{prefix}0.self_attn.feature_degradation.deg_linear.weight"
    return {
        "depth": 1 + max(found),
        "width": width,
        "d_ff": state[f"{prefix}0.ff.up_proj.weight"].shape[0] // 2,
        "d_head": width // heads,
        "joint": len(state[degraded]) if degraded in state else 0,
    }
