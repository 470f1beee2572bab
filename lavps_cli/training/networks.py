"""Shapes of the networks that are trained, by preset."""

from dataclasses import replace

from lavps_cli.catalog import ArchName, TrainPresetName
from lavps_cli.models import conditional, flow
from lavps_cli.models.flow import FlowConfig
from lavps_cli.models.hdit import HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig
from lavps_cli.models.inference import CHANNELS_IN, CHANNELS_OUT, COND_WIDTH

PATCH = 4
JOINT = 2
"""Feature images of every block of an invfusion network."""


def _level(depth: int, width: int) -> LevelConfig:
    return LevelConfig(depth=depth, width=width, d_ff=3 * width)


PRIORS: dict[TrainPresetName, tuple[LevelConfig, ...]] = {
    "tiny": (_level(1, 64), _level(2, 128)),
    "small": (_level(2, 128), _level(4, 256)),
    "base": (_level(2, 192), _level(2, 384), _level(8, 768)),
}


FLOW_WIDTHS: dict[TrainPresetName, int] = {"tiny": 16, "small": 64, "base": 128}


def prior_config(preset: TrainPresetName, size: int) -> HDiTConfig:
    """Return the shape of a prior for pictures of `size` pixels, and of any size when local."""
    return HDiTConfig(
        levels=PRIORS[preset],
        stem="overlap",
        patch_size=PATCH,
        rope_extent=size // PATCH,
    )


def inference_config(preset: TrainPresetName, arch: ArchName, size: int) -> HDiTConfig:
    """Return the shape of an inference model: the prior's, its last level half as deep."""
    *levels, last = PRIORS[preset]
    return replace(
        prior_config(preset, size),
        levels=(*levels, replace(last, depth=max(last.depth // 2, 1))),
        in_channels=CHANNELS_IN,
        out_channels=CHANNELS_OUT,
        mapping_cond_dim=COND_WIDTH,
        joint=JOINT if arch == "invfusion" else 0,
    )


def conditional_config(preset: TrainPresetName, arch: ArchName, size: int) -> HDiTConfig:
    """Return the shape of a conditional denoiser: the prior's, with the observation beside x_t."""
    return replace(
        prior_config(preset, size),
        in_channels=conditional.CHANNELS_IN,
        out_channels=conditional.CHANNELS_OUT,
        joint=JOINT if arch == "invfusion" else 0,
    )


def flow_config(preset: TrainPresetName, size: int) -> FlowConfig:
    """Return the shape of a conditional flow: a prior's as its backbone, and couplings."""
    backbone = replace(
        prior_config(preset, size), in_channels=flow.CHANNELS_IN, out_channels=flow.CHANNELS_OUT
    )
    return FlowConfig(backbone=backbone, width=FLOW_WIDTHS[preset])
