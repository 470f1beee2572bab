"""lavps train."""

import os
import sys
from typing import Annotated, NoReturn

import typer

from lavps_cli import catalog
from lavps_cli.cli import completion, params
from lavps_cli.cli.errors import INTERRUPTED, TERMINATED, reported
from lavps_cli.cli.output import json_line
from lavps_cli.cli.params import COMPUTE, DATA, MOST_USED, OUTPUT, option, unset
from lavps_cli.cli.progress import Terminal
from lavps_cli.errors import UsageError

EPILOG = """Examples:

lavps train --dataset photos/ --stage prior --duration 12h -o runs/prior

lavps train --dataset photos/ --prior runs/prior --operators deblur:9-27@0-1,sr:4 -o runs/mine

torchrun --nproc-per-node 8 -m lavps_cli train --dataset photos/ -o runs/mine
"""

MODEL, LOOP = "Model", "Training"


@reported
def train(
    dataset: Annotated[
        list[str] | None,
        unset(
            MOST_USED,
            "--dataset",
            metavar="SRC",
            help="DIR, 'DIR/*.jpg', data.zip, shards-{000..099}.tar, hf:user/name[:split], or a "
            "known name such as ffhq=DIR; may be repeated.",
            autocompletion=completion.training_data,
        ),
    ] = None,
    stage: Annotated[
        catalog.StageName,
        option(
            MOST_USED,
            "--stage",
            help="prior: the denoiser itself. For a prior: inference, latino, aps. On pairs of "
            "pictures and observations: conditional.",
        ),
    ] = "inference",
    operators: Annotated[
        str | None,
        unset(
            MOST_USED,
            "--operators",
            metavar="LIST",
            help="Families, separated by commas: sr:4, deblur:21@0.9 (one kernel), "
            "deblur:9-27@0-1 (random ones), gaussian:7-27, inpaint:centre|rect|pixels@0.8-0.85, "
            "denoise; 3* before it is a share, +0.05 after it the noise.",
        ),
    ] = None,
    duration: Annotated[
        str,
        option(MOST_USED, "--duration", metavar="200k|8Mi|12h", help="Steps, pictures or time."),
    ] = "20k",
    output: Annotated[
        str | None,
        unset(MOST_USED, "--output", "-o", metavar="DIR", help="Of the run; runs/STAGE if unsaid."),
    ] = None,
    list_datasets: Annotated[
        bool, option(DATA, "--list-datasets", help="Tell the known names, and stop.")
    ] = False,
    resolution: Annotated[
        str, option(DATA, "--resolution", metavar="N[,N...]", help="Sides, which take turns.")
    ] = "64",
    crop: Annotated[
        catalog.CropName,
        option(DATA, "--crop", help="whole: reduced; random: crops at several scales."),
    ] = "auto",
    shares: Annotated[
        str | None,
        unset(DATA, "--shares", metavar="A,B", help="How often each --dataset is drawn."),
    ] = None,
    validation: Annotated[
        str | None,
        unset(
            DATA,
            "--validation",
            metavar="SRC",
            help="Pictures that are not trained on, to measure the loss on; of a known name its "
            "validation split.",
        ),
    ] = None,
    cache: Annotated[
        str | None, unset(DATA, "--cache", metavar="DIR", help="Of the decoded pictures.")
    ] = None,
    preset: Annotated[
        catalog.TrainPresetName, option(MODEL, "--preset", help="Size of the network.")
    ] = "small",
    arch: Annotated[
        catalog.ArchName,
        option(MODEL, "--arch", help="invfusion: layers that apply the operator inside."),
    ] = "palette",
    prior: Annotated[
        str,
        option(
            MODEL,
            "--prior",
            metavar="NAME|DIR",
            help="Of the stages that are for a prior.",
            autocompletion=completion.models,
        ),
    ] = "default",
    label: params.Label = None,
    offline: params.Offline = False,
    start_from: Annotated[
        str | None,
        unset(
            MODEL,
            "--from",
            metavar="NAME|DIR",
            help="Weights to begin with; a prior's, too, for a conditional denoiser.",
        ),
    ] = None,
    switch_ratio: Annotated[
        float,
        option(MODEL, "--switch-ratio", min=0, max=1, help="Learn the times below 1 - this."),
    ] = 0.0,
    adversarial: Annotated[
        float,
        option(
            MODEL,
            "--adversarial",
            min=0,
            metavar="WEIGHT",
            help="Of a critic's opinion, for --stage latino: samples rather than means.",
        ),
    ] = 0.0,
    licence: Annotated[
        str | None,
        unset(MODEL, "--licence", metavar="NAME", help="Of the weights, for their card."),
    ] = None,
    batch_size: Annotated[
        int, option(LOOP, "--batch-size", min=1, help="Pictures a step, of all processes.")
    ] = 48,
    batch_gpu: Annotated[
        int | None,
        unset(LOOP, "--batch-gpu", min=1, help="Pictures at once; the rest is accumulated."),
    ] = None,
    lr: Annotated[
        float | None,
        unset(LOOP, "--lr", metavar="RATE", help="Greatest rate; 2e-3 for priors, 1e-3 else."),
    ] = None,
    warmup: Annotated[int, option(LOOP, "--warmup", min=0, help="Steps.")] = 200,
    weight_decay: Annotated[float, option(LOOP, "--weight-decay", min=0)] = 1e-2,
    ema: Annotated[
        float, option(LOOP, "--ema", min=0, max=1, help="Decay of the averaged weights, a step.")
    ] = 0.998,
    optimizer: Annotated[
        catalog.OptimizerName, option(LOOP, "--optimizer", help="auto: muon.")
    ] = "auto",
    seed: Annotated[int, option(LOOP, "--seed", min=0, help="Of every draw.")] = 0,
    device: params.Device = "auto",
    dtype: Annotated[
        catalog.DtypeName,
        option(COMPUTE, "--dtype", help="auto: bf16 where the hardware has it, else fp32."),
    ] = "auto",
    compile_network: Annotated[
        catalog.SwitchName, option(COMPUTE, "--compile", help="auto: on CUDA.")
    ] = "auto",
    threads: params.Threads = "auto",
    gpus: Annotated[
        str | None,
        unset(COMPUTE, "--gpus", metavar="N|all", help="Start so many processes, as torchrun."),
    ] = None,
    parallel: Annotated[
        catalog.ParallelName,
        option(
            COMPUTE,
            "--parallel",
            help="Of several processes: ddp has the network in each, fsdp a share of it.",
        ),
    ] = "ddp",
    resume: Annotated[
        str,
        option(
            OUTPUT,
            "--resume",
            metavar="auto|never|DIR",
            help="auto: go on with the run there; DIR: with a copy of that one.",
        ),
    ] = "auto",
    save_every: Annotated[int, option(OUTPUT, "--save-every", min=1, help="Steps.")] = 500,
    keep: Annotated[int, option(OUTPUT, "--keep", min=1, help="Checkpoints kept.")] = 3,
    sample_every: Annotated[
        int, option(OUTPUT, "--sample-every", min=0, help="Steps; pictures to look at.")
    ] = 1000,
    eval_every: Annotated[
        int, option(OUTPUT, "--eval-every", min=1, help="Steps; the loss on --validation.")
    ] = 1000,
    log_every: Annotated[int, option(OUTPUT, "--log-every", min=1, help="Steps.")] = 50,
    max_time: Annotated[
        str | None,
        unset(OUTPUT, "--max-time", metavar="2h", help="Stop then; the run can go on later."),
    ] = None,
    push: Annotated[
        str | None,
        unset(OUTPUT, "--push", metavar="USER/REPO", help="Upload it to the Hub when it is done."),
    ] = None,
    public: Annotated[
        bool, option(OUTPUT, "--public", help="Everyone may read what is pushed.")
    ] = False,
    log: Annotated[
        str,
        option(OUTPUT, "--log", metavar="jsonl,tensorboard,wandb,trackio", help="Where to."),
    ] = "jsonl",
    config: params.Config = None,
    as_json: params.Json = False,
    progress: params.Progress = "auto",
    quiet: params.Quiet = False,
    verbose: params.Verbose = 0,
    dry_run: Annotated[
        bool, option(params.TALK, "--dry-run", "-n", help="Time a few steps, and stop.")
    ] = False,
) -> None:
    """Train an inference model, or a prior.

    The same command goes on with a run that was stopped. The averaged weights are in
    OUTPUT/latest, and `lavps restore --model` takes OUTPUT at any moment.
    """
    if list_datasets:
        _list_datasets(as_json)
        return
    if not dataset and not dry_run:
        raise UsageError(
            "there is nothing to learn from.",
            "Give a folder:  --dataset DIR      Known names:  --list-datasets",
        )

    if gpus is not None and "WORLD_SIZE" not in os.environ:
        _start_processes(gpus)

    from lavps_cli.pipeline.requests import TrainingRequest
    from lavps_cli.pipeline.train import train as run
    from lavps_cli.pipeline.train_estimate import Estimate

    usual = TrainingRequest(dataset=(), output="").operators
    request = TrainingRequest(
        dataset=tuple(dataset or ()),
        output=output or f"runs/{stage}",
        stage=stage,
        arch=arch,
        prior=prior,
        label=label,
        offline=offline,
        operators=usual if operators is None else operators,
        switch_ratio=switch_ratio,
        adversarial=adversarial,
        preset=preset,
        resolution=resolution,
        duration=duration,
        shares=shares,
        crop=crop,
        batch_size=batch_size,
        batch_gpu=batch_gpu,
        lr=lr,
        warmup=warmup,
        weight_decay=weight_decay,
        ema=ema,
        optimizer=optimizer,
        dtype=dtype,
        compile=compile_network,
        parallel=parallel,
        device=device,
        threads=threads,
        seed=seed,
        start_from=start_from,
        resume=resume,
        save_every=save_every,
        keep=keep,
        sample_every=sample_every,
        validation=validation,
        eval_every=eval_every,
        log_every=log_every,
        max_time=max_time,
        log=log,
        licence=licence,
        cache=cache,
        push=push,
        public=public,
        dry_run=dry_run,
    )
    with Terminal(progress, quiet=quiet, verbose=verbose) as terminal:
        outcome = run(
            request,
            terminal,
            lambda line: json_line({"type": "log"} | line) if as_json else None,
        )
        terminal.clear()
        if isinstance(outcome, Estimate):
            if as_json:
                json_line(outcome.told)
            else:
                terminal.note(outcome.text)
            return
        if outcome.rank == 0:
            if as_json:
                json_line(outcome.told)
            else:
                typer.echo(outcome.output)
            if outcome.ending != "done":
                terminal.note(f"stopped at step {outcome.step}; the same command goes on.")
    if outcome.ending in _CODES:
        raise typer.Exit(_CODES[outcome.ending])


_CODES = {"interrupted": INTERRUPTED, "terminated": TERMINATED}


def _start_processes(count: str) -> NoReturn:
    """Become torchrun, which starts this command again, once for each process."""
    if count == "all":
        import torch

        count = str(torch.cuda.device_count())
    if not count.isdigit() or int(count) < 1:
        raise UsageError(f"--gpus {count}: expected a number from 1.", "For example:  --gpus 2")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
    os.execv(sys.executable, [sys.executable, *launcher, "-m", "lavps_cli", *sys.argv[1:]])


def _list_datasets(as_json: bool) -> None:
    from lavps_cli.data.known import list_known

    for entry in list_known():
        if as_json:
            json_line({"type": "dataset"} | entry)
        else:
            typer.echo("\t".join(str(value) for value in entry.values()))
