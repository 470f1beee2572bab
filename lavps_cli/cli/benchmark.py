"""lavps benchmark."""

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

lavps benchmark --budget 35s

lavps benchmark --tasks deblur,inpaint:rect --dataset photos/ --size 256 --max-time 1h

lavps benchmark --tasks sr --fail-under sr.psnr=24 --json

lavps benchmark --curve 400 --methods lavps,mgdm,dps,diffpir --plot quality.svg
"""
MISSED = 8


@reported
def benchmark(
    budgets: Annotated[
        list[str] | None,
        unset(
            MOST_USED,
            "--budget",
            metavar="35s",
            help="Time of an image; the best settings that fit are chosen by validation. May be "
            "repeated. Unsaid: the settings of --preset.",
        ),
    ] = None,
    tasks: Annotated[
        str,
        option(
            MOST_USED,
            "--tasks",
            metavar="LIST",
            help=f"{', '.join(catalog.BENCHMARKS)}, or families as `lavps train --operators`.",
        ),
    ] = "sr,deblur,inpaint",
    ood: Annotated[
        str,
        option(
            MOST_USED,
            "--ood",
            metavar="auto|none|LIST",
            help="Operators out of distribution; auto: those that belong to the tasks.",
        ),
    ] = "auto",
    dataset: measuring.BenchData = "builtin",
    output: measuring.RunFolder = "runs/benchmark",
    images: measuring.BenchImages = None,
    size: measuring.BenchSize = 128,
    methods: Annotated[
        str,
        option(
            params.SAMPLING,
            "--methods",
            metavar="all|METHOD[=MODEL],...",
            help=f"Of {', '.join(catalog.SAMPLERS)}; a model if it is another than --model.",
        ),
    ] = "lavps,mgdm",
    preset: params.Preset = "balanced",
    settings: params.Settings = None,
    curve: Annotated[
        int | None,
        unset(
            params.SAMPLING,
            "--curve",
            min=1,
            metavar="EVALUATIONS",
            help="Measure every method at all its numbers of steps that take at most so many.",
        ),
    ] = None,
    coverage: Annotated[
        int,
        option(
            params.SAMPLING,
            "--coverage",
            min=0,
            max=catalog.MOST_SAMPLES,
            metavar="N",
            help="Draw N more samples, at least 19, and tell how often intervals of 90 % hold the "
            "truth, pixel by pixel.",
        ),
    ] = 0,
    seed: params.Seed = 0,
    metrics: measuring.Metrics = "psnr,ssim,lpips",
    own_metrics: measuring.OwnMetrics = None,
    model: params.ModelName = "default",
    inference: params.InferenceName = None,
    label: params.Label = None,
    device: params.Device = "auto",
    dtype: params.Dtype = "auto",
    compile_networks: params.Compile = "auto",
    threads: params.Threads = "auto",
    engine: EngineOption = "local",
    ray_address: RayAddress = None,
    actors: Actors = None,
    actor_gpus: ActorGpus = None,
    offline: params.Offline = False,
    max_time: Annotated[
        str,
        option(
            COMPUTE,
            "--max-time",
            metavar="10m",
            help="Of the whole; every cell gets at least one image. The same command goes on.",
        ),
    ] = "10m",
    save_pictures: Annotated[
        bool, option(OUTPUT, "--save-pictures", help="Of all test images, not of the first three.")
    ] = False,
    html: measuring.Html = None,
    plot: Annotated[
        str | None,
        unset(
            OUTPUT,
            "--plot",
            metavar="FILE.png|svg",
            help="Draw every metric against the evaluations of the network, task by task.",
        ),
    ] = None,
    save: Annotated[
        bool,
        option(
            OUTPUT,
            "--save/--no-save",
            help="Keep the curves of --curve for `lavps restore --method auto`.",
        ),
    ] = True,
    compare: Annotated[
        str | None,
        unset(OUTPUT, "--compare", metavar="DIR", help="Tell what is better than in that run."),
    ] = None,
    fail_under: Annotated[
        list[str] | None,
        unset(
            OUTPUT,
            "--fail-under",
            metavar="[METHOD:]TASK.METRIC=VALUE",
            help="Exit with 8 where a mean is worse; may be repeated.",
        ),
    ] = None,
    config: params.Config = None,
    as_json: params.Json = False,
    progress: params.Progress = "auto",
    quiet: params.Quiet = False,
    verbose: params.Verbose = 0,
) -> None:
    """Compare methods at equal time, in and out of distribution.

    Methods take turns image by image; the time is that of the sampler alone. Every image is a line
    of OUTPUT/records.jsonl, and what is there is not measured again.
    """
    from lavps_cli.pipeline.auto import keep_curves
    from lavps_cli.pipeline.benchmark import benchmark as run
    from lavps_cli.pipeline.curves import write_curves
    from lavps_cli.pipeline.pages import benchmark_page, write_page
    from lavps_cli.pipeline.plots import check_plot
    from lavps_cli.pipeline.requests import BenchmarkRequest, Compute, Spread
    from lavps_cli.pipeline.tables import benchmark_table, metric_lines, text_of

    check_plot(plot)
    request = BenchmarkRequest(
        output=output,
        budgets=tuple(budgets or ()),
        tasks=tasks,
        ood=ood,
        dataset=dataset,
        images=images,
        size=size,
        methods=methods,
        metrics=metrics,
        own_metrics=tuple(own_metrics or ()),
        preset=preset,
        settings=tuple(settings or ()),
        curve=curve,
        coverage=coverage,
        spread=Spread(engine=engine, address=ray_address, actors=actors, gpus=actor_gpus),
        compute=Compute(
            model=model,
            inference=inference,
            label=label,
            offline=offline,
            device=device,
            dtype=dtype,
            compile=compile_networks,
            threads=threads,
        ),
        seed=seed,
        max_time=max_time,
        save_pictures=save_pictures,
        compare=compare,
        fail_under=tuple(fail_under or ()),
    )
    with Terminal(progress, quiet=quiet, verbose=verbose) as terminal:
        result = run(request, terminal)
        terminal.clear()
        if html is not None:
            write_page(html, benchmark_page(result))
        if plot is not None:
            write_curves(result, plot)
        if curve is not None and save:
            terminal.detail(f"kept in {keep_curves(result)}")
        if as_json:
            json_line(result.told)
        else:
            typer.echo(text_of(benchmark_table(result)))
            for line in metric_lines(result.metrics):
                terminal.note(line)
        if not result.complete:
            terminal.note(
                f"{result.missing} measurements did not fit into --max-time {max_time}; "
                "the same command goes on."
            )
        for text in result.failed:
            terminal.error(f"missed: {text}")
    raise typer.Exit(MISSED if result.failed else 0)
