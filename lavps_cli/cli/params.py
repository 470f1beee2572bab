"""Options, declared once; those that mean the same everywhere have the same name."""

from typing import Annotated, Any, Literal, TypeAlias

import typer

from lavps_cli import catalog
from lavps_cli.cli import completion
from lavps_cli.cli.configuration import configure
from lavps_cli.errors import UsageError

PROBLEM, SAMPLING, MODEL = "Problem", "Sampling", "Model"
COMPUTE, OUTPUT, TALK = "Compute", "Output", "Talk"
DATA = "Data"
MOST_USED = "Most used"

ProgressMode: TypeAlias = Literal["auto", "bar", "plain", "json", "none"]


def option(panel: str, *names: str, **more: Any) -> Any:
    """Return an option that `--help` shows in a panel."""
    if "min" in more and not more.get("count"):
        more.setdefault("metavar", "N")
    return typer.Option(*names, rich_help_panel=panel, **more)


def unset(panel: str, *names: str, **more: Any) -> Any:
    """Return an option whose default None is told in words, if at all."""
    return option(panel, *names, show_default=False, **more)


Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        help="Pictures, folders or patterns; - reads one from stdin.",
        show_default=False,
    ),
]

Task = Annotated[
    catalog.TaskName | None,
    unset(
        MOST_USED,
        "--task",
        help="Implied by --scale, --kernel, --mask, --jpeg-quality, --gain. "
        + "; ".join(f"{n}: {text}" for n, text in catalog.TASKS.items() if "+" not in n)
        + "; deblur+inpaint, sr+inpaint: where a part is missing, too.",
    ),
]
Scale = Annotated[
    int | None,
    unset(MOST_USED, "--scale", metavar="2-16", help="Enlargement; 4 for --task sr."),
]
Kernel = Annotated[
    str | None,
    unset(
        MOST_USED,
        "--kernel",
        metavar="SPEC",
        help="Blur: 21 (shake as `lavps degrade` draws it), 21@35 (straight, degrees), "
        "gaussian:15@2.5, disk:7, box:5, or a file: grey picture, .npy, .npz:name, .txt.",
    ),
]
Mask = Annotated[
    str | None,
    unset(
        MOST_USED,
        "--mask",
        metavar="FILE|DIR|alpha",
        help="White means fill; of a folder, the file of that stem; alpha: what is transparent.",
    ),
]
Holes = Annotated[
    str | None,
    unset(
        MOST_USED,
        "--mask",
        metavar="centre|rectangle|pixels|FILE",
        help="Which pixels are lost; in a file, the white ones.",
    ),
]
OutputPath = Annotated[
    str | None,
    unset(
        MOST_USED,
        "--output",
        "-o",
        metavar="PATH|DIR/|-|TEMPLATE",
        help="Where to write; - is stdout. Templates know {dir} {tree} {stem} {ext} {task} {seed} "
        "{sample}; {tree} is the folder below the one that was given.",
    ),
]
Blind = Annotated[
    bool,
    option(
        MOST_USED,
        "--blind",
        help="The blur is unknown: estimate it within --kernel N pixels, and write it as "
        "{stem}.kernel.png.",
    ),
]
InvertMask = Annotated[bool, option(PROBLEM, "--invert-mask", help="Black means fill.")]
ResizeMask = Annotated[bool, option(PROBLEM, "--resize-mask", help="Scale the mask to fit.")]
Simulate = Annotated[
    bool,
    option(
        PROBLEM,
        "--simulate",
        help="Inputs are clean: degrade, restore, and score (PSNR and SSIM in --json).",
    ),
]

Preset = Annotated[catalog.PresetName, option(SAMPLING, "--preset", help="How many steps.")]
Seed = Annotated[int, option(SAMPLING, "--seed", min=0, help="Same seed, same picture.")]
KeepKnown = Annotated[
    bool,
    option(
        SAMPLING,
        "--keep-known/--no-keep-known",
        help="Inpainting: known pixels stay bit for bit.",
    ),
]
Coarse = Annotated[
    bool,
    option(
        SAMPLING,
        "--coarse/--no-coarse",
        help="Inpainting: fill large holes in a reduced picture first.",
    ),
]
Method = Annotated[
    str,
    option(
        SAMPLING,
        "--method",
        metavar="|".join(["auto", *catalog.SAMPLERS]),
        help="Sampler; auto: the best one within --budget.",
        autocompletion=completion.methods,
    ),
]
Settings = Annotated[
    list[str] | None,
    unset(
        SAMPLING,
        "--option",
        "-O",
        metavar="NAME=VALUE",
        help="Set an option of the sampler.",
        autocompletion=completion.settings,
    ),
]

ModelName = Annotated[
    str,
    option(
        MODEL,
        "--model",
        metavar="NAME|DIR|FILE|USER/REPO[@REV]|FILE.py:function",
        help="The prior; see `lavps models`. Weights of other projects are converted.",
        autocompletion=completion.models,
    ),
]
InferenceName = Annotated[
    str | None,
    unset(
        MODEL,
        "--inference",
        metavar="NAME|DIR|FILE|USER/REPO[@REV]|none",
        help="The inference model; the one of the prior if not said.",
        autocompletion=completion.inference_models,
    ),
]
Label = Annotated[
    int | None,
    unset(MODEL, "--label", min=0, help="Class, for a prior that knows classes; none if not said."),
]

Device = Annotated[
    str,
    option(
        COMPUTE,
        "--device",
        metavar="auto|cpu|cuda[:i]|mps|xpu",
        help="auto: the fastest present.",
        autocompletion=completion.devices,
    ),
]
Dtype = Annotated[
    catalog.DtypeName, option(COMPUTE, "--dtype", help="auto: bf16 where it is fast, else fp32.")
]
Compile = Annotated[
    catalog.SwitchName,
    option(
        COMPUTE,
        "--compile",
        help="auto: on CUDA networks are recorded, and compiled once they are used long.",
    ),
]
Tile = Annotated[
    str,
    option(COMPUTE, "--tile", metavar="auto|N|0", help="Side of windows; 0: the whole picture."),
]
Overlap = Annotated[
    int | None,
    unset(COMPUTE, "--overlap", min=0, help="What windows share; 1/4 of them if not said."),
]
BatchSize = Annotated[
    str,
    option(
        COMPUTE,
        "--batch-size",
        metavar="auto|N",
        help="Samples, or pictures of one size and operator, drawn together.",
    ),
]
Threads = Annotated[str, option(COMPUTE, "--threads", metavar="auto|N", help="Of the CPU.")]
MaxPixels = Annotated[
    str, option(COMPUTE, "--max-pixels", metavar="N", help="Refuse larger pictures.")
]

Format = Annotated[
    catalog.FormatName,
    option(OUTPUT, "--format", help="auto: as the name says, else as the input."),
]
Quality = Annotated[int, option(OUTPUT, "--quality", min=1, max=100, help="Of lossy files.")]
BitDepth = Annotated[
    catalog.DepthName,
    option(
        OUTPUT,
        "--bit-depth",
        help="Bits per channel; auto: as the input, where the format holds them. To read 16 needs "
        "the extra deep.",
    ),
]
KeptMetadata = Annotated[
    catalog.MetadataName,
    option(OUTPUT, "--metadata", help="EXIF, colour profile, XMP, resolution, texts."),
]
Alpha = Annotated[
    catalog.AlphaName,
    option(
        OUTPUT,
        "--alpha",
        help="Transparency; keep: scaled with the picture, drop: without it, restore: sampled like "
        "a grey picture.",
    ),
]
Page = Annotated[
    int | None,
    unset(
        PROBLEM,
        "--page",
        min=1,
        help="Which picture of a file that holds several; such files are refused if not said.",
    ),
]
Compare = Annotated[
    bool, option(OUTPUT, "--compare", help="Also write {stem}.compare.png: input and results.")
]
Sidecar = Annotated[
    bool,
    option(OUTPUT, "--sidecar", help="Also write the record as {stem}.json beside the PNG."),
]
SaveMask = Annotated[
    str | None,
    unset(OUTPUT, "--save-mask", metavar="FILE", help="Also write the mask; white means lost."),
]
Existing = Annotated[
    catalog.ExistingName | None,
    unset(
        OUTPUT,
        "--existing",
        help="What to do about files that are there; if not said, resume: what the journal says "
        "these settings made of this input is left, anything else refused.",
    ),
]
ExistingFile = Annotated[
    Literal["error", "skip", "overwrite"] | None,
    unset(OUTPUT, "--existing", help="What to do about files that are there; error if not said."),
]
Force = Annotated[bool, option(OUTPUT, "--force", "-f", help="The same as --existing overwrite.")]


Budget = Annotated[
    str | None,
    unset(
        SAMPLING,
        "--budget",
        metavar="5s",
        help="Time of a picture on this device; the best settings that fit, as calibrated by "
        "`lavps calibrate-speedup`, else by a probe.",
    ),
]

Offline = Annotated[bool, option(COMPUTE, "--offline", help="Never touch the network.")]

ConfigFile = Annotated[
    str | None,
    unset(TALK, "--config", metavar="FILE.toml", help="More settings; none: of no file."),
]
Config = Annotated[
    str | None,
    unset(
        TALK,
        "--config",
        metavar="FILE.toml",
        help="Settings, which win over ./lavps.toml and your own file; none: no file at all. See "
        "`lavps config`.",
        is_eager=True,
        callback=configure,
        expose_value=False,
    ),
]

Json = Annotated[bool, option(TALK, "--json", help="One JSON object per line on stdout.")]
Progress = Annotated[
    ProgressMode, option(TALK, "--progress", help="On stderr; auto: a bar on a terminal.")
]
Quiet = Annotated[bool, option(TALK, "--quiet", "-q", help="Only errors on stderr.")]
Verbose = Annotated[
    int,
    option(TALK, "--verbose", "-v", count=True, show_default=False, metavar="", help="Tell more."),
]
DryRun = Annotated[
    bool, option(TALK, "--dry-run", "-n", help="Tell what would be done, and do nothing.")
]


def existing_rule(
    existing: catalog.ExistingName | None, force: bool, default: catalog.ExistingName = "error"
) -> catalog.ExistingName:
    """Return what `--existing` and `--force` say together.

    Args:
        existing: As given.
        force: As given.
        default: Without either.

    Raises:
        UsageError: They contradict each other.
    """
    if force and existing not in (None, "overwrite"):
        raise UsageError(f"--force contradicts --existing {existing}.", "Give one of them.")
    return "overwrite" if force else existing or default
