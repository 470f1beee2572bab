"""lavps restore."""

import typer

from lavps_cli.cli import damage, many, params, posterior
from lavps_cli.cli.engine import ActorGpus, Actors, EngineOption, RayAddress
from lavps_cli.cli.errors import reported
from lavps_cli.cli.output import chosen_output, read_stdin, write_stdout
from lavps_cli.cli.progress import Terminal
from lavps_cli.cli.report import report

EPILOG = """Examples:

lavps restore old.jpg --scale 4

lavps restore input.png --task deblur --kernel 21

cat in.png | lavps restore - --task denoise > out.png

lavps restore photos/ -r -o fixed/ --task denoise
"""


@reported
def restore(
    inputs: params.Inputs = None,
    task: params.Task = None,
    scale: params.Scale = None,
    kernel: params.Kernel = None,
    mask: params.Mask = None,
    blind: params.Blind = False,
    output: params.OutputPath = None,
    noise: damage.Noise = "auto",
    downsample: damage.Downsample = None,
    kernel_intensity: damage.KernelIntensity = None,
    kernel_seed: damage.KernelSeed = None,
    boundary: damage.Boundary = "auto",
    jpeg_quality: damage.JpegQuality = None,
    gain: damage.Gain = None,
    invert_mask: params.InvertMask = False,
    resize_mask: params.ResizeMask = False,
    page: params.Page = None,
    simulate: params.Simulate = False,
    recursive: many.Recursive = False,
    include: many.Include = None,
    exclude: many.Exclude = None,
    limit: many.Limit = None,
    files_from: many.FilesFrom = None,
    null: many.Null = False,
    manifest: many.Manifest = None,
    shard: many.Shard = None,
    fail_fast: many.FailFast = False,
    journal: many.Journal = None,
    preset: params.Preset = "balanced",
    budget: params.Budget = None,
    samples: posterior.Samples = 1,
    mean: posterior.Mean = False,
    uncertainty: posterior.Uncertainty = None,
    intervals: posterior.Intervals = None,
    seed: params.Seed = 0,
    keep_known: params.KeepKnown = True,
    coarse: params.Coarse = True,
    method: params.Method = "lavps",
    settings: params.Settings = None,
    model: params.ModelName = "default",
    inference: params.InferenceName = None,
    label: params.Label = None,
    offline: params.Offline = False,
    device: params.Device = "auto",
    dtype: params.Dtype = "auto",
    compile_networks: params.Compile = "auto",
    tile: params.Tile = "auto",
    overlap: params.Overlap = None,
    gpus: many.Gpus = None,
    engine: EngineOption = "local",
    ray_address: RayAddress = None,
    actors: Actors = None,
    actor_gpus: ActorGpus = None,
    batch_size: params.BatchSize = "auto",
    threads: params.Threads = "auto",
    max_pixels: params.MaxPixels = "200M",
    file_format: params.Format = "auto",
    quality: params.Quality = 95,
    bit_depth: params.BitDepth = "auto",
    metadata: params.KeptMetadata = "keep",
    alpha: params.Alpha = "keep",
    compare: params.Compare = False,
    existing: params.Existing = None,
    force: params.Force = False,
    config: params.Config = None,
    as_json: params.Json = False,
    print0: many.Print0 = False,
    report_file: many.ReportFile = None,
    progress: params.Progress = "auto",
    quiet: params.Quiet = False,
    verbose: params.Verbose = 0,
    dry_run: params.DryRun = False,
) -> None:
    """Repair pictures: enlarge, deblur, fill holes, remove noise."""
    given = inputs or []
    output = chosen_output(given, output, as_json)

    from lavps_cli.pipeline.requests import (
        Compute,
        Output,
        Problem,
        Restoration,
        Sampling,
        Selection,
        Spread,
    )
    from lavps_cli.pipeline.restore import restore_files
    from lavps_cli.pipeline.results import Pipes

    request = Restoration(
        inputs=tuple(given),
        problem=Problem(
            task=task,
            scale=scale,
            downsample=downsample,
            kernel=kernel,
            kernel_intensity=kernel_intensity,
            kernel_seed=kernel_seed,
            blind=blind,
            boundary=boundary,
            jpeg_quality=jpeg_quality,
            gain=gain,
            mask=mask,
            invert_mask=invert_mask,
            resize_mask=resize_mask,
            noise=noise,
        ),
        sampling=Sampling(
            method=method,
            preset=preset,
            budget=budget,
            settings=tuple(settings or ()),
            samples=samples,
            mean=mean,
            uncertainty=uncertainty,
            intervals=intervals,
            seed=seed,
            keep_known=keep_known,
            coarse=coarse,
            simulate=simulate,
        ),
        compute=Compute(
            model=model,
            inference=inference,
            label=label,
            offline=offline,
            device=device,
            dtype=dtype,
            compile=compile_networks,
            tile=tile,
            overlap=overlap,
            batch_size=batch_size,
            threads=threads,
            max_pixels=max_pixels,
        ),
        output=Output(
            output=output,
            format=file_format,
            quality=quality,
            bit_depth=bit_depth,
            metadata=metadata,
            alpha=alpha,
            compare=compare,
            existing=params.existing_rule(existing, force, "resume"),
        ),
        select=Selection(
            recursive=recursive,
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            limit=limit,
            files_from=files_from,
            null=null,
            manifest=manifest,
            shard=shard,
        ),
        journal=journal,
        fail_fast=fail_fast,
        gpus=gpus,
        spread=Spread(engine=engine, address=ray_address, actors=actors, gpus=actor_gpus),
        page=page,
        dry_run=dry_run,
    )
    with Terminal(progress, quiet=quiet, verbose=verbose) as terminal:
        outcomes = restore_files(request, terminal, Pipes(read_stdin, write_stdout))
        raise typer.Exit(
            report(outcomes, terminal, as_json=as_json, print0=print0, document=report_file)
        )
