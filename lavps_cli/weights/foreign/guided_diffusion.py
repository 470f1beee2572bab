"""Checkpoints of guided-diffusion (ADM): OpenAI's, and the FFHQ one that DPS, MGDM and DAPS use.

Such a file is a bare state dict. The shape follows from the tensors; what does not, the size of
the heads, their order and the noise schedule, is that of the published models.
"""

from dataclasses import asdict
from typing import Any

from torch import Tensor

from lavps_cli.errors import WeightsError
from lavps_cli.models.adm import AdmConfig
from lavps_cli.models.discrete import Betas
from lavps_cli.weights.adm import describe_process
from lavps_cli.weights.tensors import Contents, Foreign, tensors_of

_SIZES = {
    (1, 2, 3, 4): 64,
    (1, 1, 2, 3, 4): 128,
    (1, 1, 2, 2, 4, 4): 256,
    (0.5, 1, 1, 2, 2, 4, 4): 512,
}
"""Side of the pictures, by the widths relative to the base."""


def read(contents: Contents) -> Foreign | None:
    """Return the network of a file, None where the file is of another project.

    Raises:
        WeightsError: It is of guided-diffusion, but no prior of known size.
    """
    state = tensors_of(contents.tree)
    if "time_embed.0.weight" not in state or "input_blocks.0.0.weight" not in state:
        return None
    if state["input_blocks.0.0.weight"].shape[1:2] != (3,):
        raise WeightsError(
            f"{contents.path} takes more than a picture in: it is an upsampler, or conditional.",
            "What can be read are priors, such as 256x256_diffusion_uncond.pt.",
        )
    if any(name.endswith(".op.weight") for name in state):
        raise WeightsError(
            f"{contents.path} reduces pictures by convolutions, as improved-diffusion does: its "
            "heads and its steps do not follow from the tensors, and a guess may be wrong.",
            "What can be read are priors of --resblock_updown, as guided-diffusion published them.",
        )
    try:
        return Foreign(_config(state), state)
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise WeightsError(
            f"{contents.path} has not the tensors of a known UNet: {type(error).__name__} {error}",
            "Get the file again, and check its sum.",
        ) from error


def _config(state: dict[str, Tensor]) -> dict[str, Any]:
    count = len({n.split(".")[1] for n in state if n.startswith("input_blocks.")})
    # The first block of the way up that enlarges tells how many are in a level.
    n = next((i for i in range(count) if _enlarges(state, i)), count)
    levels, rest = divmod(count, n + 1)
    if rest or levels < 2:
        raise ValueError(f"{count} blocks do not divide into levels of {n}")
    first = [1 + level * (n + 1) for level in range(levels)]
    widths = [state[f"input_blocks.{i}.0.in_layers.2.weight"].shape[0] for i in first]
    base = state["time_embed.0.weight"].shape[1]
    relative = tuple(width / base for width in widths)
    if relative not in _SIZES:
        raise ValueError(f"widths of {relative} times {base} are of no known size of picture")
    size, outputs = _SIZES[relative], state["out.2.weight"].shape[0]
    classes = len(state["label_emb.weight"]) if "label_emb.weight" in state else 0
    emb = state["input_blocks.1.0.emb_layers.1.weight"].shape[0]
    config = AdmConfig(
        model_channels=base,
        widths=tuple(widths),
        num_res_blocks=n,
        attention=tuple(f"input_blocks.{i}.1.qkv.weight" in state for i in first),
        num_heads=4 if size == 128 else None,
        num_head_channels=64,
        scale_shift=emb == 2 * widths[0],
        new_order=size == 64,
        num_classes=classes,
        out_channels=outputs,
    )
    about: dict[str, Any] = {
        "kind": "denoiser",
        "architecture": "adm",
        "schedule": "vp",
        "image_size": size,
        "local": False,
        "licence": "not stated",
        "trained_on": "not stated",
        "process": describe_process(
            Betas(kind="squaredcos_cap_v2" if size == 64 else "linear"), "epsilon", 1.0
        ),
    }
    if classes:
        about |= {"labels": classes, "no_label": None}
    return about | {"model": asdict(config)}


def _enlarges(state: dict[str, Tensor], i: int) -> bool:
    """Return whether block `i` of the way up ends in an upsampling."""
    place = 2 if f"output_blocks.{i}.1.qkv.weight" in state else 1
    return f"output_blocks.{i}.{place}.in_layers.0.weight" in state
