"""Options of the commands that measure."""

from typing import Annotated

from lavps_cli.cli import completion
from lavps_cli.cli.params import DATA, MOST_USED, OUTPUT, option, unset

Metrics = Annotated[
    str,
    option(
        MOST_USED,
        "--metrics",
        metavar="LIST",
        help="psnr, ssim, lpips, lpips:vgg|squeeze, lpips:alex@TRUNK.pth, cmmd.",
        autocompletion=completion.metrics,
    ),
]
OwnMetrics = Annotated[
    list[str] | None,
    unset(
        MOST_USED,
        "--metric",
        metavar="FILE.py:function",
        help="One's own: takes restored and clean pictures in [-1, 1], (b, 3, h, w), and returns a "
        "value each; lower is better unless function.higher_is_better. May be repeated.",
    ),
]
BenchData = Annotated[
    str,
    option(
        MOST_USED,
        "--dataset",
        metavar="builtin|SRC",
        help="As `lavps train --dataset`; builtin: a dozen pictures that come with lavps.",
        autocompletion=completion.benchmark_data,
    ),
]
BenchImages = Annotated[
    int | None, unset(DATA, "--images", min=1, help="Test images at most; all if not said.")
]
BenchSize = Annotated[
    int, option(DATA, "--size", min=16, help="Side of the middle squares, reduced to it.")
]
RunFolder = Annotated[
    str, option(MOST_USED, "--output", "-o", metavar="DIR", help="Of the records.")
]
Html = Annotated[
    str | None, unset(OUTPUT, "--html", metavar="FILE", help="Write one page with everything.")
]
