"""Options that say how pictures were damaged, beside the most used ones."""

from typing import Annotated

from lavps_cli import catalog
from lavps_cli.cli.params import PROBLEM, option, unset

_LEVELS = (
    "Standard deviation: 0.05 is on the scale from -1 to 1, 6.4/255 in 8-bit levels; poisson:50: "
    "shot noise, white being 50 photons"
)
Noise = Annotated[
    str,
    option(
        PROBLEM,
        "--noise",
        metavar="auto|SIGMA|poisson:N",
        help=f"{_LEVELS}; auto: as recorded, else estimated.",
    ),
]
AddedNoise = Annotated[
    str,
    option(
        PROBLEM,
        "--noise",
        metavar="auto|SIGMA|poisson:N",
        help=f"{_LEVELS}; auto: 0.05, and none before --task jpeg.",
    ),
]
Downsample = Annotated[
    str | None,
    unset(
        PROBLEM,
        "--downsample",
        metavar="area|bicubic|FILTER",
        help="How small pictures are made; area if not said; a filter as --kernel knows them "
        "(gaussian:9@1.6, box:5, a file), of which every r-th pixel is kept.",
    ),
]
KernelIntensity = Annotated[
    float | None,
    unset(
        PROBLEM,
        "--kernel-intensity",
        metavar="0-1",
        help="Of the drawn shake, 0 to 1; 0.9 if not said.",
    ),
]
KernelSeed = Annotated[
    int | None,
    unset(PROBLEM, "--kernel-seed", min=0, help="Which shake is drawn; 0 if not said."),
]
JpegQuality = Annotated[
    int | None,
    unset(
        PROBLEM,
        "--jpeg-quality",
        metavar="1-100",
        help="Of the encoder, for --task jpeg; a JPEG file tells it by itself.",
    ),
]
DamagingQuality = Annotated[
    int | None,
    unset(
        PROBLEM,
        "--jpeg-quality",
        metavar="1-100",
        help="Of the encoder, for --task jpeg; 20 if not said.",
    ),
]
Gain = Annotated[
    float | None,
    unset(
        PROBLEM,
        "--gain",
        metavar="G",
        help="Contrast of what was clipped, about middle grey, for --task declip; 2 if not said.",
    ),
]
Boundary = Annotated[
    catalog.BoundaryName,
    option(
        PROBLEM,
        "--boundary",
        help="What lies beyond the border of a blurred picture; auto: as recorded, else valid (a "
        "larger scene) to restore and reflect to degrade.",
    ),
]
