"""Options about several samples of one picture."""

from typing import Annotated

from lavps_cli import catalog
from lavps_cli.cli.params import SAMPLING, option, unset

Samples = Annotated[
    int,
    option(
        SAMPLING,
        "--samples",
        min=1,
        max=catalog.MOST_SAMPLES,
        help="Draws; several files get .s00, .s01, ...",
    ),
]
Mean = Annotated[bool, option(SAMPLING, "--mean", help="Write the mean of the samples instead.")]
Uncertainty = Annotated[
    str | None,
    unset(
        SAMPLING,
        "--uncertainty",
        metavar="FILE.png",
        help="Write the deviation of the samples per pixel, 16 bits, and FILE.map.png: its colours "
        "with a legend. The scale is in --json.",
    ),
]
Intervals = Annotated[
    float | None,
    unset(
        SAMPLING,
        "--intervals",
        metavar="PERCENT",
        help="Also write {stem}.lower and {stem}.upper, between which so many of the draws of each "
        "pixel lie; 90 takes 19 samples.",
    ),
]
