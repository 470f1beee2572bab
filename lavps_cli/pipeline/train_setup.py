"""What a training run is made of, before there are pictures: network, prior, objective."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from lavps_cli.catalog import DtypeName
from lavps_cli.core.precision import multiplies_bf16
from lavps_cli.core.schedule import SCHEDULES, Schedule
from lavps_cli.errors import UsageError
from lavps_cli.models.conditional import seeing
from lavps_cli.models.hdit import HDiT, HDiTConfig
from lavps_cli.models.inference import AmortisedInference, InferenceNetwork
from lavps_cli.pipeline.model import compile_network, pick_dtype
from lavps_cli.pipeline.requests import TrainingRequest
from lavps_cli.pipeline.train_settings import parse_sizes
from lavps_cli.training.algorithm1 import InferenceObjective
from lavps_cli.training.conditional import ConditionalObjective
from lavps_cli.training.denoising import PriorObjective
from lavps_cli.training.families import parse_families
from lavps_cli.training.loop import Objective
from lavps_cli.training.networks import JOINT, conditional_config, inference_config, prior_config
from lavps_cli.training.problems import Problems
from lavps_cli.training.processes import rank, world
from lavps_cli.training.rows import Batches, Rows, shares
from lavps_cli.weights.architectures import NetworkDenoiser
from lavps_cli.weights.checkpoint import (
    load_conditional,
    load_denoiser,
    load_inference,
    read_config,
)
from lavps_cli.weights.index import resolve


@dataclass(frozen=True, eq=False)
class Setup:
    """Everything that does not depend on the data."""

    request: TrainingRequest
    sizes: tuple[int, ...]
    device: torch.device
    autocast: torch.dtype | None
    rows: list[Rows]
    shape: HDiTConfig
    network: HDiT | InferenceNetwork
    prior: NetworkDenoiser | None
    """The frozen prior of the inference stage."""

    @property
    def schedule(self) -> Schedule:
        return SCHEDULES["flow"] if self.prior is None else self.prior.schedule


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
    if len(sizes) > 1 and request.stage != "prior":
        raise UsageError(
            f"--resolution {request.resolution}: only priors are trained at several sizes.",
            f"For example:  --resolution {sizes[0]}",
        )
    autocast = train_dtype(request.dtype, device)
    prior = None
    if request.stage == "inference":
        folder = resolve(request.prior)
        prior = load_denoiser(folder, device=device, autocast=autocast, label=request.label)
        shape = inference_config(request.preset, request.arch, sizes[0])
    elif request.stage == "conditional":
        shape = conditional_config(request.preset, request.arch, sizes[0])
    else:
        shape = prior_config(request.preset, sizes[0])
    if request.stage != "prior":
        parse_families(request.operators, sizes[0])
    network = _begun_from(request, device)
    if network is None:
        with _seeded(request.seed):
            network = HDiT(shape) if prior is None else InferenceNetwork(shape)
    network = network.to(device).train().requires_grad_(True)
    backbone = network if isinstance(network, HDiT) else network.backbone
    shape = backbone.config
    divided = world() > 1 and request.parallel == "fsdp"
    pays = device.type == "cuda" and not divided
    if request.compile == "on" or (request.compile == "auto" and pays):
        compile_network(backbone)
        if prior is not None:
            compile_network(prior.network)
    rows = shares(request.batch_size, rank(), world(), parts)
    return Setup(request, sizes, device, autocast, rows, shape, network, prior)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Have the weights that are drawn inside depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        yield


def _begun_from(request: TrainingRequest, device: torch.device) -> HDiT | InferenceNetwork | None:
    """Return the network of `--from`, if that is given."""
    if request.start_from is None:
        return None
    folder = resolve(request.start_from)
    if request.stage == "inference":
        return load_inference(folder, device=device).network
    if request.stage == "conditional" and read_config(folder).get("kind") != "denoiser":
        return load_conditional(folder, device=device).network
    network = load_denoiser(folder, device=device).network
    if not isinstance(network, HDiT):
        raise UsageError(
            f"--from {request.start_from}: only HDiT networks are trained.",
            "Begin with nothing, or with an HDiT prior.",
        )
    if request.stage == "prior":
        return network
    with _seeded(request.seed):
        return seeing(network, JOINT if request.arch == "invfusion" else 0)


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


def objective_of(
    setup: Setup, pictures: dict[int, Batches], num_families: int | None = None
) -> Objective:
    """Return the loss of the stage on pictures, by size; of the first families alone if told."""
    request = setup.request
    network, size = setup.network, setup.sizes[0]
    if request.stage == "prior":
        return PriorObjective(
            network, pictures, setup.sizes, setup.rows, request.seed, setup.device,
            setup.autocast,
        )  # fmt: skip
    families = parse_families(request.operators, size)[:num_families]
    problems = Problems(families, pictures[size], request.seed, size, setup.device)
    if isinstance(network, HDiT):
        return ConditionalObjective(network, problems, setup.rows, setup.autocast)
    assert setup.prior is not None
    model = AmortisedInference(network, setup.schedule, setup.autocast)
    return InferenceObjective(model, setup.prior, problems, setup.rows, request.switch_ratio)
