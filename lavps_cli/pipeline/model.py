"""Weights, devices and precisions: from names to models that take pictures of any size."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lavps_cli import catalog
from lavps_cli.core.denoiser import Denoiser
from lavps_cli.core.precision import multiplies_bf16
from lavps_cli.core.variational import InferenceModel
from lavps_cli.errors import DeviceError, UsageError, WeightsError
from lavps_cli.models.hdit import layers, lower
from lavps_cli.models.replayed import replay
from lavps_cli.models.tiled import TiledDenoiser
from lavps_cli.models.trained import Trained
from lavps_cli.options import parse_count
from lavps_cli.pipeline.own_code import is_own
from lavps_cli.pipeline.priors import FolderPrior, Prior, own_prior
from lavps_cli.pipeline.requests import Compute
from lavps_cli.pipeline.results import Listener
from lavps_cli.samplers.latino import Plan
from lavps_cli.weights.amortised import load_chain
from lavps_cli.weights.architectures import NetworkDenoiser
from lavps_cli.weights.checkpoint import digest, read_config
from lavps_cli.weights.index import beside_of, resolve
from lavps_cli.weights.starts import Starts, load_starts

WHOLE_PIXELS = 2**19
"""A local network takes pictures up to this size at once."""
LOCAL_TILE, LOCAL_OVERLAP = 512, 64
COMPILE_PIXELS = 1 << 32
"""On GPUs a network is compiled for a size once it has seen so many pixels of it, which are 65 536
evaluations of 256x256. On an H200 that takes 65 to 105 s, and as many again pay it back."""

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, eq=False)
class Model:
    """A prior, and what was trained for it; or a network that knows the observation."""

    denoiser: Denoiser | Trained
    inference: InferenceModel | None = None
    plan: Plan | None = None
    """Of an unfolded chain; the denoiser is adapted to it."""
    switch_ratio: float | None = None
    """r_switch of the inference model's training."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    any_scale: bool = False
    """Whether a reduced picture is to the prior a picture like any other."""


@dataclass(frozen=True)
class Tiling:
    """Side of the windows, 0 for the whole picture, and what neighbours share."""

    tile: int
    overlap: int


@dataclass(frozen=True, eq=False)
class Weights:
    """A prior and an inference model on a device; the networks are read when first needed."""

    prior: Prior
    inference_folder: Path | None
    device: torch.device
    autocast: torch.dtype | None
    compile_after: int | None = None
    """Pixels that a network has seen in inputs of one size before it is compiled for them; 0
    compiles at once. On CUDA devices its evaluations are recorded, too. None does neither."""

    @property
    def name(self) -> str:
        return self.prior.name

    @property
    def config(self) -> dict[str, Any]:
        return self.prior.config

    @property
    def any_scale(self) -> bool:
        """Whether a reduced picture is to the prior a picture like any other."""
        return bool(self.config.get("local"))

    @cached_property
    def inference_config(self) -> dict[str, Any]:
        """What is known of the inference model, nothing without one."""
        return read_config(self.inference_folder) if self.inference_folder is not None else {}

    @property
    def switch_ratio(self) -> float | None:
        """r_switch of the inference model's training, None without one."""
        value = self.inference_config.get("switch_ratio")
        return float(value) if isinstance(value, int | float) else None

    @property
    def digest(self) -> str:
        return self.prior.digest

    @cached_property
    def inference_digest(self) -> str | None:
        return digest(self.inference_folder) if self.inference_folder is not None else None

    @property
    def dtype(self) -> str:
        return next(name for name, value in _DTYPES.items() if value == self.autocast)

    @property
    def _unfolded(self) -> bool:
        """Whether what was trained for the prior adapts it to a chain."""
        return self.inference_config.get("kind") == "latino"

    @cached_property
    def _denoiser(self) -> Denoiser | Trained:
        return self._chain[0]

    @cached_property
    def _chain(self) -> tuple[Denoiser | Trained, Plan | None]:
        """Return what samples, and the plan of an unfolded chain if there is one."""
        denoiser, plan = self.prior.open(self.device, self.autocast), None
        if self.inference_folder is not None and self._unfolded:
            denoiser, plan = load_chain(self.inference_folder, denoiser)
        if self.autocast is not None and isinstance(denoiser, NetworkDenoiser):
            lower(denoiser.network, self.autocast)
        if isinstance(denoiser, NetworkDenoiser | Trained):
            self._hasten(denoiser.network)
        return denoiser, plan

    @cached_property
    def _inference(self) -> Starts | None:
        denoiser = self._denoiser
        if self.inference_folder is None or self._unfolded or isinstance(denoiser, Trained):
            return None
        label = self.prior.label if isinstance(self.prior, FolderPrior) else None
        model = load_starts(
            self.inference_folder, device=self.device, autocast=self.autocast, label=label
        )
        if model.schedule != denoiser.schedule:
            raise WeightsError(
                f"{self.inference_folder} was trained for another noise schedule.",
                "Pass the one of this prior, or:  --inference none",
            )
        if self.autocast is not None:
            lower(model.backbone, self.autocast)
        self._hasten(model.backbone)
        return model

    def _hasten(self, network: nn.Module) -> None:
        if self.device.type == "cuda" and self.compile_after is not None:
            replay(network, layers(network), self.compile_after)
        elif self.compile_after == 0:
            compile_network(network)

    def tiling(self, height: int, width: int, tile: int | None, overlap: int | None) -> Tiling:
        """Return how a picture of that size is cut; None chooses."""
        size = self.config.get("image_size", 64)
        if tile is None:
            small = height * width <= WHOLE_PIXELS
            tile = (0 if small else LOCAL_TILE) if self.any_scale else size
        if overlap is None:
            overlap = LOCAL_OVERLAP if tile == LOCAL_TILE else tile // 4
        return Tiling(tile, overlap)

    def model(self, tiling: Tiling) -> Model:
        """Return the networks for pictures of any size."""
        tile, overlap = tiling.tile, tiling.overlap
        denoiser = self._denoiser
        if isinstance(denoiser, Trained):
            return Model(denoiser.tiled(tile, overlap), device=self.device)
        prior = TiledDenoiser(denoiser, tile, overlap, getattr(denoiser, "multiple", 1))
        inference = self._inference
        if inference is not None:
            inference = inference.tiled(tile, overlap)
        return Model(
            prior, inference, self._chain[1], self.switch_ratio, self.device, self.any_scale
        )


def open_weights(compute: Compute, method: str = "lavps") -> Weights:
    """Return the weights that flags name for a method, on the device that they name.

    Raises:
        UsageError: A flag has no effect or an impossible value.
        WeightsError: There are no such weights.
        DeviceError: There is no such device.
    """
    entry = catalog.sampler(method)
    prior = _prior(compute, entry.trained)
    inference: Path | None = None
    if entry.inference is None and compute.inference not in (None, "none"):
        raise UsageError(
            "--inference has no effect on this method.", "Use it with:  --method lavps"
        )
    if entry.inference is not None and compute.inference != "none":
        if compute.inference is not None:
            inference = resolve(compute.inference, offline=compute.offline)
        elif isinstance(prior, FolderPrior):
            inference = beside_of(prior.folder, entry.inference)
    device = pick_device(compute.device)
    after = {"on": 0, "off": None, "auto": COMPILE_PIXELS if device.type == "cuda" else None}
    dtype = pick_dtype(compute.dtype, device)
    return Weights(prior, inference, device, dtype, after[compute.compile])


def _prior(compute: Compute, trained: catalog.WeightsKind | None) -> Prior:
    """Return the prior, or what a method samples with in its place and lies beside it."""
    if not is_own(compute.model):
        folder = resolve(compute.model, offline=compute.offline)
        if trained is not None and read_config(folder).get("kind") == "denoiser":
            folder = beside_of(folder, trained) or folder
        return FolderPrior(folder, compute.label)
    if compute.label is not None:
        raise UsageError("--label has no effect on a prior of one's own.", "Leave it out.")
    return own_prior(compute.model)


def compile_network(network: nn.Module) -> None:
    """Have a network compiled when it is first called with pictures of some number and size."""
    network.compile(dynamic=False)


def use_threads(text: str) -> None:
    """Set the number of CPU threads, unless it is `auto`."""
    count = parse_count("--threads", text, 1)
    if count is not None:
        torch.set_num_threads(count)


def pick_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is the fastest kind that is present.

    Raises:
        UsageError: It is no name of a device.
        DeviceError: It is not there.
    """
    present = devices()
    if name == "auto":
        return torch.device(present[0])
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda", "mps", "xpu"):
        raise UsageError(
            f"--device {name}: there is no such kind.", "Choose from: cpu, cuda, mps, xpu"
        )
    if name in present or (name == kind and any(d.startswith(kind) for d in present)):
        return torch.device(name)
    if any(d.startswith(kind) for d in present):
        raise DeviceError(
            f"--device {name}: there are only {', '.join(present)}.", "Choose one of them."
        )
    raise DeviceError(
        f"--device {name}: this PyTorch ({torch.__version__}) has no {kind.upper()} support, or "
        "the machine no such device.",
        "Use the CPU:  --device cpu      GPU build:  https://pytorch.org/get-started",
    )


def devices() -> list[str]:
    """Return the names of all devices, fastest kind first."""
    names: list[str] = []
    if torch.cuda.is_available():
        names += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        names += [f"xpu:{i}" for i in range(torch.xpu.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def pick_dtype(name: str, device: torch.device) -> torch.dtype | None:
    """Return the precision of the networks' inside, None for float32."""
    if name != "auto":
        return _DTYPES[name]
    return torch.bfloat16 if has_fast_bf16(device) else None


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether bfloat16 is at least 1.5 times as fast as float32 there.

    Of CPUs, those that multiply it: 1.9 times, on one core with AVX512_BF16
    (`benchmarks/speed.py`). What the CPU says of itself decides, not a trial, which might end
    otherwise the next time: the same command gives the same picture.
    """
    return device.type in ("cpu", "cuda", "xpu") and multiplies_bf16(device)


def warn_of_slow_bf16(
    autocast: torch.dtype | None, device: torch.device, listener: Listener
) -> None:
    """Warn where bfloat16 was asked for of a device that imitates it."""
    if autocast == torch.bfloat16 and not multiplies_bf16(device):
        listener.warn(
            f"this {device.type} has no bfloat16 instructions; --dtype fp32 is far faster here."
        )
