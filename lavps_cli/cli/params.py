"""Options that mean the same everywhere, declared once."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from lavps_cli import catalog
from lavps_cli.errors import UsageError

PROBLEM, SAMPLING, MODEL = "Problem", "Sampling", "Model"
COMPUTE, OUTPUT, TALK = "Compute", "Output", "Talk"

ProgressMode: TypeAlias = Literal["auto", "bar", "plain", "json", "none"]

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT...", help="Pictures; - reads one from stdin.", show_default=False
    ),
]

Task = Annotated[
    catalog.TaskName | None,
    typer.Option(
        "--task",
        help="What is wrong. Implied by --scale, --kernel and --mask.",
        rich_help_panel=PROBLEM,
    ),
]
Scale = Annotated[
    int | None,
    typer.Option(
        "--scale", metavar="2|3|4|8", help="Factor of enlargement; 4 for --task sr.",
        rich_help_panel=PROBLEM, show_default=False,
    ),
]  # fmt: skip
Kernel = Annotated[
    str | None,
    typer.Option(
        "--kernel", metavar="SPEC", rich_help_panel=PROBLEM, show_default=False,
        help="Blur: 21 (shake as `lavps degrade` draws it), 21@35 (straight, degrees), "
        "gaussian:15@2.5, disk:7, box:5, or a file: grey picture, .npy, .npz:name, .txt.",
    ),
]  # fmt: skip
KernelIntensity = Annotated[
    float | None,
    typer.Option(
        "--kernel-intensity", help="Of the drawn shake, 0 to 1.  [default: 0.9]",
        rich_help_panel=PROBLEM, show_default=False,
    ),
]  # fmt: skip
KernelSeed = Annotated[
    int | None,
    typer.Option(
        "--kernel-seed", min=0, help="Which shake is drawn.  [default: 0]",
        rich_help_panel=PROBLEM, show_default=False,
    ),
]  # fmt: skip
Boundary = Annotated[
    catalog.BoundaryName,
    typer.Option(
        "--boundary", help="What lies beyond the border of a blurred picture; auto: as recorded, "
        "else valid for restore (a larger scene) and reflect for degrade.",
        rich_help_panel=PROBLEM,
    ),
]  # fmt: skip
Downsample = Annotated[
    catalog.DownsampleName | None,
    typer.Option(
        "--downsample", help="How the small picture was made.  [default: area]",
        rich_help_panel=PROBLEM, show_default=False,
    ),
]  # fmt: skip
InvertMask = Annotated[
    bool, typer.Option("--invert-mask", help="Black means fill.", rich_help_panel=PROBLEM)
]
ResizeMask = Annotated[
    bool, typer.Option("--resize-mask", help="Scale the mask to fit.", rich_help_panel=PROBLEM)
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, help="Same seed, same picture.", rich_help_panel=SAMPLING)
]
Method = Annotated[
    str,
    typer.Option(
        "--method", metavar="|".join(catalog.SAMPLERS), help="Sampler.", rich_help_panel=SAMPLING
    ),
]
Preset = Annotated[
    catalog.PresetName,
    typer.Option("--preset", help="How many steps.", rich_help_panel=SAMPLING),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--option", "-O", metavar="NAME=VALUE", help="Set one option of the sampler; repeatable.",
        rich_help_panel=SAMPLING, show_default=False,
    ),
]  # fmt: skip
ModelName = Annotated[
    str, typer.Option("--model", metavar="NAME|DIR", help="The prior.", rich_help_panel=MODEL)
]
InferenceName = Annotated[
    str | None,
    typer.Option(
        "--inference", metavar="NAME|DIR|none", rich_help_panel=MODEL, show_default=False,
        help="The inference model.  [default: the one of the prior]",
    ),
]  # fmt: skip
Device = Annotated[
    str,
    typer.Option(
        "--device", metavar="auto|cpu|cuda[:i]|mps|xpu", help="Where to compute.",
        rich_help_panel=COMPUTE,
    ),
]  # fmt: skip
Dtype = Annotated[
    catalog.DtypeName, typer.Option("--dtype", help="Precision.", rich_help_panel=COMPUTE)
]
Tile = Annotated[
    str,
    typer.Option(
        "--tile", metavar="auto|N|0", help="Side of windows; 0 = the whole picture at once.",
        rich_help_panel=COMPUTE,
    ),
]  # fmt: skip
Overlap = Annotated[
    int | None,
    typer.Option(
        "--overlap", min=0, help="Pixels that windows share.  [default: 1/4 of --tile]",
        rich_help_panel=COMPUTE, show_default=False,
    ),
]  # fmt: skip
BatchSize = Annotated[
    str,
    typer.Option(
        "--batch-size", metavar="auto|N", help="Samples drawn together.", rich_help_panel=COMPUTE
    ),
]
Threads = Annotated[
    str, typer.Option("--threads", metavar="auto|N", help="CPU threads.", rich_help_panel=COMPUTE)
]
MaxPixels = Annotated[
    str,
    typer.Option(
        "--max-pixels", metavar="N", help="Refuse larger pictures.", rich_help_panel=COMPUTE
    ),
]
OutputPath = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", metavar="PATH|DIR/|-|TEMPLATE", rich_help_panel=OUTPUT,
        show_default=False,
        help="Where to write; - is stdout. Templates know {dir} {stem} {ext} {task} {seed} "
        "{sample}.",
    ),
]  # fmt: skip
Format = Annotated[
    catalog.FormatName,
    typer.Option("--format", help="auto: by -o, else as the input.", rich_help_panel=OUTPUT),
]
Quality = Annotated[
    int,
    typer.Option("--quality", min=1, max=100, help="Of lossy files.", rich_help_panel=OUTPUT),
]
Existing = Annotated[
    catalog.ExistingName | None,
    typer.Option(
        "--existing", help="What to do about files that are there.  [default: error]",
        rich_help_panel=OUTPUT, show_default=False,
    ),
]  # fmt: skip
Force = Annotated[
    bool,
    typer.Option("--force", "-f", help="Same as --existing overwrite.", rich_help_panel=OUTPUT),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object per result.", rich_help_panel=TALK)
]
Progress = Annotated[
    ProgressMode, typer.Option("--progress", help="On stderr.", rich_help_panel=TALK)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only errors on stderr.", rich_help_panel=TALK)
]
Verbose = Annotated[
    int, typer.Option("--verbose", "-v", count=True, help="Tell more.", rich_help_panel=TALK)
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", "-n", help="Tell what would be done, do nothing.",
                 rich_help_panel=TALK),
]  # fmt: skip
SaveMask = Annotated[
    Path | None,
    typer.Option("--save-mask", metavar="FILE", help="Also write the mask, white = hole.",
                 rich_help_panel=OUTPUT, show_default=False),
]  # fmt: skip


def existing_rule(existing: catalog.ExistingName | None, force: bool) -> catalog.ExistingName:
    """Return what `--existing` and `--force` say together.

    Raises:
        UsageError: They contradict each other.
    """
    if force and existing not in (None, "overwrite"):
        raise UsageError(f"--force contradicts --existing {existing}.", "Give one of them.")
    return "overwrite" if force else existing or "error"
