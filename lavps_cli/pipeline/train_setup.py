"""What a training run is made of, before there are pictures: network, prior, objective."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lavps_cli.catalog import DtypeName
from lavps_cli.core.precision import multiplies_bf16
from lavps_cli.errors import UsageError
from lavps_cli.pipeline.model import compile_network, pick_dtype
from lavps_cli.pipeline.requests import TrainingRequest
from lavps_cli.pipeline.stages import STAGES
from lavps_cli.pipeline.stages.stage import Setup, Stage
from lavps_cli.pipeline.train_settings import parse_sizes
from lavps_cli.training.denoising import PriorObjective
from lavps_cli.training.families import Family, parse_families
from lavps_cli.training.loop import Objective
from lavps_cli.training.networks import prior_config
from lavps_cli.training.processes import rank, world
from lavps_cli.training.rows import Batches, shares
from lavps_cli.weights.checkpoint import load_denoiser
from lavps_cli.weights.index import resolve


def set_up(request: TrainingRequest, device: torch.device) -> Setup:
    """Return what the flags ask for, on the device of this process.

    Raises:
        UsageError: Flags contradict one another.
        WeightsError: Weights are not to be had.
    """
    sizes = parse_sizes(request.resolution, prior_config(request.preset, 64).multiple)
    parts = -(-request.batch_size // (world() * (request.batch_gpu or request.batch_size)))
    if request.batch_size % (world() * parts):
        raise UsageError(
            f"--batch-size {request.batch_size} does not divide over {world()} processes with "
            f"--batch-gpu {request.batch_gpu}.",
            "Choose a multiple of their product.",
        )
    stage = STAGES[request.stage]
    _check(request, stage, sizes)
    autocast = train_dtype(request.dtype, device)
    prior = None
    if stage.takes_prior:
        folder = resolve(request.prior, offline=request.offline)
        prior = load_denoiser(folder, device=device, autocast=autocast, label=request.label)
    if request.stage != "prior":
        parse_families(request.operators, sizes[0])
    with _seeded(request.seed):
        if request.start_from is None:
            network = stage.build(request, sizes[0], prior)
        else:
            network = stage.load(
                request, resolve(request.start_from, offline=request.offline), prior
            )
    network = network.to(device).train().requires_grad_(True)
    backbone = stage.compiled(network)
    divided = world() > 1 and request.parallel == "fsdp"
    pays = device.type == "cuda" and not divided
    if backbone is not None and (request.compile == "on" or (request.compile == "auto" and pays)):
        compile_network(backbone)
        if prior is not None:
            compile_network(prior.network)
    rows = shares(request.batch_size, rank(), world(), parts)
    return Setup(request, sizes, device, autocast, rows, network, prior)


def _check(request: TrainingRequest, stage: Stage, sizes: tuple[int, ...]) -> None:
    """Check that the flags go with the stage.

    Raises:
        UsageError: They do not.
    """
    if len(sizes) > 1 and request.stage != "prior":
        raise UsageError(
            f"--resolution {request.resolution}: only priors are trained at several sizes.",
            f"For example:  --resolution {sizes[0]}",
        )
    if request.arch not in stage.archs:
        raise UsageError(
            f"--arch {request.arch} has no effect on --stage {request.stage}.",
            "Use it with:  --stage inference   or conditional",
        )
    if request.adversarial and request.stage != "latino":
        raise UsageError(
            f"--adversarial has no effect on --stage {request.stage}.",
            "Use it with:  --stage latino",
        )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Have the weights that are drawn inside depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(seed % (1 << 63)).get_state())
        yield


def train_dtype(name: DtypeName, device: torch.device) -> torch.dtype | None:
    """Return the precision inside the networks while training, None for float32.

    Raises:
        UsageError: It is fp16, whose gradients would need scaling.
    """
    if name == "fp16":
        raise UsageError("--dtype fp16 is not for training.", "Choose:  --dtype bf16   or fp32")
    if name == "auto" and device.type == "cpu":
        # Trains 1.5 to 2 times as fast where the processor multiplies bf16 matrices.
        return torch.bfloat16 if multiplies_bf16(device) else None
    return pick_dtype(name, device)


@contextmanager
def objective_of(
    setup: Setup, pictures: dict[int, Batches], num_families: int | None = None
) -> Iterator[Objective]:
    """Give the loss of the stage on pictures, by size; of the first families alone if told.

    Afterwards nothing works ahead for it any more.
    """
    request = setup.request
    families: list[Family] = []
    if request.stage != "prior":
        families = parse_families(request.operators, setup.sizes[0])[:num_families]
    objective = STAGES[request.stage].objective(setup, families, pictures)
    try:
        yield objective
    finally:
        if isinstance(objective, PriorObjective):
            objective.close()
