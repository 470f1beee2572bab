"""lavps degrade."""

import typer

from lavps_cli.cli import damage, many, params
from lavps_cli.cli.errors import reported
from lavps_cli.cli.output import chosen_output, read_stdin, write_stdout
from lavps_cli.cli.progress import Terminal
from lavps_cli.cli.report import report

EPILOG = """Examples:

lavps degrade photo.png --task deblur --kernel 21 -o input.png

lavps degrade photo.png --mask centre --noise 0 -o - | lavps restore - -o filled.png
"""


@reported
def degrade(
    inputs: params.Inputs = None,
    task: params.Task = None,
    scale: params.Scale = None,
    kernel: params.Kernel = None,
    mask: params.Holes = None,
    output: params.OutputPath = None,
    noise: damage.AddedNoise = "auto",
    downsample: damage.Downsample = None,
    kernel_intensity: damage.KernelIntensity = None,
    kernel_seed: damage.KernelSeed = None,
    boundary: damage.Boundary = "auto",
    jpeg_quality: damage.DamagingQuality = None,
    gain: damage.Gain = None,
    invert_mask: params.InvertMask = False,
    resize_mask: params.ResizeMask = False,
    page: params.Page = None,
    recursive: many.Recursive = False,
    include: many.Include = None,
    exclude: many.Exclude = None,
    limit: many.Limit = None,
    files_from: many.FilesFrom = None,
    null: many.Null = False,
    fail_fast: many.FailFast = False,
    seed: params.Seed = 0,
    max_pixels: params.MaxPixels = "200M",
    sidecar: params.Sidecar = False,
    save_mask: params.SaveMask = None,
    bit_depth: params.BitDepth = "auto",
    existing: params.ExistingFile = None,
    force: params.Force = False,
    config: params.Config = None,
    as_json: params.Json = False,
    print0: many.Print0 = False,
    quiet: params.Quiet = False,
    verbose: params.Verbose = 0,
    dry_run: params.DryRun = False,
) -> None:
    """Make test inputs: shrink, blur, punch holes, add noise.

    What was done is recorded in the PNG, so that `lavps restore` needs no options. The noise is
    rounded and clipped with the picture.
    """
    given = inputs or []
    output = chosen_output(given, output, as_json)

    from lavps_cli.pipeline.degrade import degrade_files
    from lavps_cli.pipeline.requests import DegradationRequest, Output, Problem, Selection
    from lavps_cli.pipeline.results import Pipes

    request = DegradationRequest(
        inputs=tuple(given),
        problem=Problem(
            task=task,
            scale=scale,
            downsample=downsample,
            kernel=kernel,
            kernel_intensity=kernel_intensity,
            kernel_seed=kernel_seed,
            boundary=boundary,
            jpeg_quality=jpeg_quality,
            gain=gain,
            mask=mask,
            invert_mask=invert_mask,
            resize_mask=resize_mask,
            noise=noise,
        ),
        output=Output(
            output=output,
            bit_depth=bit_depth,
            existing=params.existing_rule(existing, force),
        ),
        select=Selection(
            recursive=recursive,
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            limit=limit,
            files_from=files_from,
            null=null,
        ),
        fail_fast=fail_fast,
        seed=seed,
        sidecar=sidecar,
        save_mask=save_mask,
        max_pixels=max_pixels,
        page=page,
        dry_run=dry_run,
    )
    with Terminal("none", quiet=quiet, verbose=verbose) as terminal:
        outcomes = degrade_files(request, terminal, Pipes(read_stdin, write_stdout))
        raise typer.Exit(report(outcomes, terminal, as_json=as_json, print0=print0))
