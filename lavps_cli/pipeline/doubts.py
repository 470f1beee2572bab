"""Warnings about results: what a user would want to look at before trusting one."""

from lavps_cli.images.picture import Picture
from lavps_cli.pipeline.paths import Targets
from lavps_cli.pipeline.problem import Observation

POOR, POOR_LEAST = 3.0, 0.02
"""A residual is poor from so many noise levels on, and from this much in any case."""


def poor_fit(name: str, seen: Observation, residual: float) -> list[str]:
    """Return a warning where the result, degraded again, is far from what was observed."""
    if residual < max(POOR * seen.sigma_y, POOR_LEAST):
        return []
    suspect = {"deblur": "--kernel", "sr": "--downsample", "inpaint": "--mask", "declip": "--gain"}
    what = suspect.get(seen.degradation.base, "--noise")
    text = (
        f"the result explains {name} poorly: residual {residual * 127.5:.1f}/255 at noise "
        f"{seen.sigma_y * 127.5:.1f}/255. Check {what}, or take more steps with --preset best."
    )
    return [text]


def cut_depth(name: str, picture: Picture, targets: Targets) -> list[str]:
    """Return a warning where the result has fewer bits than the input."""
    if targets.depth >= picture.depth:
        return []
    return [f"{name} has {picture.depth} bits per channel, the {targets.format} {targets.depth}."]
