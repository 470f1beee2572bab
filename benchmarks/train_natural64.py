"""Train weights/natural-64 and weights/natural-64-inference, as bundled.

    python benchmarks/train_natural64.py prior     PHOTOS RUN --hours 1
    python benchmarks/train_natural64.py wider     PHOTOS RUN --hours 0.5
    python benchmarks/train_natural64.py inference PHOTOS RUN --hours 0.9

PHOTOS holds `photo_*` and `sea_*` (landscapes, objects, the sea) and other pictures (snapshots);
each group gives a fixed share of the crops. The second command trains RUN/prior on with larger
crops, the third reads RUN/wider.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from lavps_cli.core.operator import LinearOperator
from lavps_cli.core.schedule import schedule_named
from lavps_cli.core.types import Image
from lavps_cli.data import Crops, load_crops
from lavps_cli.models.hdit import HDiT, HDiTConfig, LevelConfig
from lavps_cli.models.inference import COND_WIDTH, AmortisedInference, InferenceNetwork
from lavps_cli.models.preconditioning import hdit_denoiser
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.denoising import Denoising
from lavps_cli.operators.inpainting import Inpainting, centre_mask, pixel_mask, rectangle_mask
from lavps_cli.operators.kernels import gaussian_kernel, motion_kernel
from lavps_cli.operators.super_resolution import SuperResolution
from lavps_cli.training.amortisation import gain_over_bridge, inference_loss
from lavps_cli.training.contexts import Trajectories
from lavps_cli.training.denoising import denoising_loss
from lavps_cli.training.loop import TrainOptions, fit

SIZE = 64
KERNEL = 31
PRIOR = HDiTConfig(
    levels=(
        LevelConfig(depth=2, width=128, d_ff=384),
        LevelConfig(depth=4, width=256, d_ff=768),
    ),
    stem="overlap",
    rope_extent=16,
)
INFERENCE = HDiTConfig(
    levels=(
        LevelConfig(depth=2, width=128, d_ff=384),
        LevelConfig(depth=2, width=256, d_ff=768),
    ),
    stem="overlap",
    rope_extent=16,
    in_channels=9,
    out_channels=9,
    mapping_cond_dim=COND_WIDTH,
)


def photographs(folder: Path, size: int = SIZE) -> Crops:
    """Two thirds of the crops from the few large photographs, the rest from the snapshots."""
    files = sorted(path for path in folder.iterdir() if path.suffix == ".jpg")
    large = [path for path in files if path.name.startswith(("photo_", "sea_"))]
    others = [path for path in files if path not in set(large)]
    return load_crops([(large, 0.65), (others, 0.35)], size)


class Problems:
    """The operators of the inference model's training, drawn per picture."""

    def __init__(self, crops: Crops, seed: int) -> None:
        self.crops = crops
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def sr4(self, n: int) -> tuple[Image, LinearOperator]:
        return self.crops.draw(n, self.rng), SuperResolution(4)

    def sr2(self, n: int) -> tuple[Image, LinearOperator]:
        return self.crops.draw(n, self.rng), SuperResolution(2)

    def denoise(self, n: int) -> tuple[Image, LinearOperator]:
        return self.crops.draw(n, self.rng), Denoising()

    def deblur(self, n: int) -> tuple[Image, LinearOperator]:
        kernels = torch.stack([self._kernel() for _ in range(n)])
        return self.crops.draw(n, self.rng), Blur(kernels, "circular")

    def inpaint(self, n: int) -> tuple[Image, LinearOperator]:
        masks = torch.stack([self._mask() for _ in range(n)])
        return self.crops.draw(n, self.rng), Inpainting(masks)

    def _kernel(self) -> torch.Tensor:
        size = 2 * int(self.rng.integers(3, 14)) + 1
        if self.rng.random() < 0.8:
            kernel = motion_kernel(size, float(self.rng.random()), self.generator)
        else:
            kernel = gaussian_kernel(size, 0.6 + size / 6 * self.rng.random())
        return torch.nn.functional.pad(kernel, ((KERNEL - size) // 2,) * 4)

    def _mask(self) -> torch.Tensor:
        kind = self.rng.integers(4)
        if kind == 0:
            return centre_mask(SIZE, SIZE)
        if kind == 1:
            return pixel_mask(SIZE, SIZE, self.generator, 0.3, 0.9)
        return rectangle_mask(SIZE, SIZE, self.generator)

    def family(self) -> Iterator[tuple[str, object, float, int]]:
        """Yield name, problem, sigma_y, and how often it is drawn."""
        yield "sr4", self.sr4, 0.05, 3
        yield "sr4", self.sr4, 0.02, 1
        yield "sr2", self.sr2, 0.05, 1
        yield "deblur", self.deblur, 0.05, 3
        yield "deblur", self.deblur, 0.02, 1
        yield "inpaint", self.inpaint, 0.05, 3
        yield "inpaint", self.inpaint, 0.01, 1
        yield "denoise", self.denoise, 0.1, 1


def train_prior(photos: Path, run: Path, seconds: float, batch: int) -> None:
    network, crops = HDiT(PRIOR), photographs(photos)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)

    def loss(_: int) -> tuple[torch.Tensor, dict[str, float]]:
        x = crops.draw(batch, rng)
        return denoising_loss(network, x, generator, autocast=torch.bfloat16)

    fit(network, loss, TrainOptions(num_steps=10**9, max_seconds=seconds), run / "prior")


def widen_prior(photos: Path, run: Path, seconds: float, batch: int) -> None:
    """Train on with crops of twice the side, three times of four."""
    network = trained_prior(run / "prior")
    small, large = photographs(photos), photographs(photos, 2 * SIZE)
    rng, generator = np.random.default_rng(1), torch.Generator().manual_seed(1)

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        x = small.draw(batch, rng) if step % 4 == 0 else large.draw(batch // 4, rng)
        return denoising_loss(network, x, generator, autocast=torch.bfloat16)

    options = TrainOptions(num_steps=10**9, max_seconds=seconds, lr=1e-3, warmup=100)
    fit(network, loss, options, run / "wider")


def trained_prior(folder: Path) -> HDiT:
    prior = HDiT(PRIOR)
    prior.load_state_dict(load_file(folder / "ema.safetensors"))
    return prior


def train_inference(photos: Path, run: Path, seconds: float, batch: int) -> None:
    crops = photographs(photos)
    prior = trained_prior(run / "wider").eval().requires_grad_(False)
    denoiser = hdit_denoiser(prior, schedule_named("flow"), torch.bfloat16)
    network = InferenceNetwork(INFERENCE)
    if (before := run / "inference-before" / "model.safetensors").exists():
        network.load_state_dict(load_file(before))
    model = AmortisedInference(network, denoiser.schedule, torch.bfloat16)
    problems = Problems(crops, 1)
    names, pools, shares = [], [], []
    for name, problem, sigma_y, share in problems.family():
        names.append(f"{name}@{sigma_y}")
        shares.append(share)
        pools.append(
            Trajectories(denoiser, problem, sigma_y=sigma_y, batch=batch,
                         generator=problems.generator)
        )  # fmt: skip
    chances = np.array(shares) / sum(shares)

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        i = problems.rng.choice(len(pools), p=chances)
        numbers: dict[str, float] = {}
        if step % 16 == 0:
            numbers = gain_over_bridge(model.predict, pools[i])
            numbers |= {f"ratio_{names[i]}": numbers["ratio"]}
        value, more = inference_loss(model.predict, pools[i])
        return value, numbers | more | {f"loss_{names[i]}": float(value.detach())}

    options = TrainOptions(num_steps=10**9, max_seconds=seconds, lr=1e-3, warmup=100, ema=0.995)
    fit(network, loss, options, run / "inference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    stages = {"prior": train_prior, "wider": widen_prior, "inference": train_inference}
    parser.add_argument("stage", choices=stages)
    parser.add_argument("photos", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=48)
    given = parser.parse_args()
    stages[given.stage](given.photos, given.run, 3600 * given.hours, given.batch)


if __name__ == "__main__":
    main()
