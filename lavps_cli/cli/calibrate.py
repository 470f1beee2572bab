"""lavps calibrate-speedup."""

from typing import Annotated

import typer

from lavps_cli import catalog
from lavps_cli.cli import measuring, params
from lavps_cli.cli.engine import ActorGpus, Actors, EngineOption, RayAddress
from lavps_cli.cli.errors import reported
from lavps_cli.cli.output import json_line
from lavps_cli.cli.params import COMPUTE, MOST_USED, OUTPUT, option, unset
from lavps_cli.cli.progress import Terminal

EPILOG = """Examples:

lavps calibrate-speedup --task deblur

lavps calibrate-speedup --task sr --dataset photos/ --grid paper --max-time 8h --html sr.html
"""
TEST = "Test"


@reported
def calibrate_speedup(
    task: Annotated[
        str,
        option(
            MOST_USED,
            "--task",
            metavar="TASK",
            help=f"{', '.join(catalog.BENCHMARKS)}, or a family as `lavps train --operators`.",
        ),
    ] = "deblur",
    dataset: measuring.BenchData = "builtin",
    grid: Annotated[
        str,
        option(
            MOST_USED,
            "--grid",
            metavar="quick|paper|FILE",
            help="Settings that are swept; paper: 96 a method. A file holds a JSON list.",
        ),
    ] = "quick",
    output: measuring.RunFolder = "runs/calibration",
    images: measuring.BenchImages = None,
    validation: Annotated[
        int, option(params.DATA, "--validation", min=2, help="Images that the grid is swept on.")
    ] = 32,
    size: measuring.BenchSize = 128,
    seed: params.Seed = 0,
    metric: Annotated[
        str | None,
        unset(
            TEST,
            "--metric",
            metavar="lpips|psnr|ssim|FILE.py:function",
            help="What may not get worse; lpips, or psnr where that is not to be had.",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        unset(
            TEST, "--margin", min=0, help="By how much it may; lpips 0.003, psnr 0.1, ssim 0.005."
        ),
    ] = None,
    level: Annotated[
        float, option(TEST, "--level", min=1e-6, max=0.5, help="Risk of passing what is worse.")
    ] = 0.05,
    cost: Annotated[
        catalog.CostName,
        option(
            TEST,
            "--cost",
            help="What faster means; evaluations of the networks, where other work disturbs.",
        ),
    ] = "time",
    training_time: Annotated[
        str | None,
        unset(
            TEST, "--training-time", metavar="6.6h", help="Tell after how many images it is paid."
        ),
    ] = None,
    model: params.ModelName = "default",
    inference: params.InferenceName = None,
    label: params.Label = None,
    device: params.Device = "auto",
    dtype: params.Dtype = "auto",
    threads: params.Threads = "auto",
    engine: EngineOption = "local",
    ray_address: RayAddress = None,
    actors: Actors = None,
    actor_gpus: ActorGpus = None,
    batch: Annotated[
        int,
        option(COMPUTE, "--batch-size", min=1, help="Images restored at once, sharing the time."),
    ] = 1,
    compile_networks: params.Compile = "auto",
    offline: params.Offline = False,
    max_time: Annotated[
        str | None,
        unset(COMPUTE, "--max-time", metavar="2h", help="Of the whole; the same command goes on."),
    ] = None,
    save: Annotated[
        bool,
        option(OUTPUT, "--save/--no-save", help="Keep the fronts for `lavps restore --budget`."),
    ] = True,
    plot: Annotated[
        str | None,
        unset(OUTPUT, "--plot", metavar="FILE.png|svg", help="Draw the fronts."),
    ] = None,
    html: measuring.Html = None,
    config: params.Config = None,
    as_json: params.Json = False,
    progress: params.Progress = "auto",
    quiet: params.Quiet = False,
    verbose: params.Verbose = 0,
) -> None:
    """Measure how much faster LAVPS is than MGDM at equal quality on this machine.

    Both fronts of quality against time are swept on validation images. For each point of MGDM's,
    the fastest LAVPS setting that passes a paired test of non-inferiority on the test images is
    found. What the fronts say is kept for `lavps restore --budget`.
    """
    from lavps_cli.pipeline.calibrate import calibrate
    from lavps_cli.pipeline.pages import calibration_page, write_page
    from lavps_cli.pipeline.plots import check_plot, write_plot
    from lavps_cli.pipeline.requests import CalibrationRequest, Compute, Spread
    from lavps_cli.pipeline.tables import matches_table, text_of

    check_plot(plot)
    request = CalibrationRequest(
        output=output,
        task=task,
        dataset=dataset,
        images=images,
        validation=validation,
        size=size,
        metric=metric,
        margin=margin,
        level=level,
        grid=grid,
        cost=cost,
        batch=batch,
        max_time=max_time,
        training_time=training_time,
        spread=Spread(engine=engine, address=ray_address, actors=actors, gpus=actor_gpus),
        compute=Compute(
            model=model,
            inference=inference,
            label=label,
            offline=offline,
            device=device,
            dtype=dtype,
            threads=threads,
            compile=compile_networks,
        ),
        seed=seed,
        save=save,
    )
    with Terminal(progress, quiet=quiet, verbose=verbose) as terminal:
        result = calibrate(request, terminal)
        terminal.clear()
        if plot is not None:
            write_plot(result, plot)
        if html is not None:
            write_page(html, calibration_page(result))
        if as_json:
            json_line(result.told)
        else:
            typer.echo(text_of(matches_table(result)))
        if result.published is not None:
            terminal.note(f"Table 1 of the paper: {result.published}")
        terminal.note(
            f"{result.validation_images} validation and {result.test_images} test images; the "
            f"sweep was spared {1 - 1 / result.saved['factor']:.0%} of its evaluations"
        )
        if result.stored is not None:
            terminal.detail(f"kept in {result.stored}")
        if not result.complete:
            terminal.note(f"--max-time {max_time} was too short; the same command goes on.")
