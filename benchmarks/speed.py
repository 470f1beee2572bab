"""Where the time of a picture goes, what each change brought, and how far the floor is.

    python benchmarks/speed.py [--threads 1] [--repeats 5] [--preset fast] [--task sr4]
    python benchmarks/speed.py --only batches,sizes

Variants take turns within one run; medians are printed, of seconds by the wall and of the CPU's own
seconds, which other work on the machine disturbs less. `units` are evaluations of the prior,
forward ones and twice the backward ones, and of the inference model. The floor is arithmetic: the
products that the variant's evaluations need, at the rate that this machine reaches on products of
these shapes; of attention only the window is counted.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import straightforward
import torch
from problems import CPU, photographs, problem, psnr
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lavps_cli.core.denoiser import CountedDenoiser
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.noise import Noise
from lavps_cli.core.precision import multiplies_bf16
from lavps_cli.core.types import Image
from lavps_cli.models.tiled import TiledDenoiser
from lavps_cli.pipeline.model import Tiling, Weights, open_weights
from lavps_cli.pipeline.requests import Compute
from lavps_cli.pipeline.sampling import CountedInference, sampler_options
from lavps_cli.samplers.lavps import lavps


@dataclass
class Variant:
    """A way to restore the same picture, and what it took."""

    name: str
    weights: Weights
    first: tuple[str, ...] = ()
    """Parts of the network that are as first written."""
    plain_loop: bool = False
    learning: bool = False
    """Whether weights ask for gradients, as those of a network just loaded do."""
    settings: tuple[str, ...] = ()
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    units: float = 0.0
    x: Image | None = None

    def run(self, likelihood: Likelihood, preset: str, batch: int = 1) -> None:
        model = self.weights.model(Tiling(0, 0))
        options = sampler_options("lavps", preset, self.settings, self.weights.switch_ratio)
        network = model.denoiser.denoiser.network
        shape = (batch, 3, *_size(likelihood))
        counted, guess = CountedDenoiser(model.denoiser, batch), CountedInference(model.inference)
        loop = straightforward.lavps if self.plain_loop else lavps
        y = likelihood.y.expand(batch, *likelihood.y.shape[1:])
        likelihood = Likelihood(y, likelihood.A, likelihood.sigma_y)
        network.requires_grad_(self.learning)
        with straightforward.as_first_written(self.first):
            wall, cpu = time.perf_counter(), time.process_time()
            self.x = loop(
                counted, likelihood, options,
                shape=shape, noise=Noise(range(batch), CPU), inference=guess,
            )  # fmt: skip
            self.cpu.append((time.process_time() - cpu) / batch)
            self.wall.append((time.perf_counter() - wall) / batch)
        network.requires_grad_(False)
        self.units = counted.nfe + 2 * counted.nbe + guess.nfe


def _size(likelihood: Likelihood) -> tuple[int, int]:
    scale = getattr(likelihood.A, "scale", 1)
    h, w = likelihood.y.shape[-2:]
    return h * scale, w * scale


def variants(skip: list[str]) -> list[Variant]:
    """Return the variants, each with one change more than the one before."""
    fp32, bf16 = (open_weights(Compute(device="cpu", dtype=d)) for d in ("fp32", "bf16"))
    network = ("layout", "passes")
    made = {
        "mask": Variant(
            "straightforward: attention under a whole mask", fp32, ("mask", *network), True, True
        ),
        "blocks": Variant("+ attention by blocks", fp32, network, True, True),
        "loop": Variant("+ both starts in one call, x_0 used again", fp32, network, False, True),
        "frozen": Variant("+ weights frozen", fp32, network),
        "layout": Variant("+ tokens in one piece, stem by products", fp32, ("passes",)),
        "passes": Variant("+ gradients written out, attention by tiles", fp32),
        "bf16": Variant("+ bf16, matrices kept in it", bf16),
    }
    if not multiplies_bf16(CPU):
        skip = [*skip, "bf16"]
    return [variant for name, variant in made.items() if name not in skip]


def rates() -> dict[str, float]:
    """Return FLOP a second of the CPU, by precision, in products of the network's shapes."""
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    times: dict[str, list[float]] = {name: [] for name in kinds}
    shapes = ((4096, 128, 384), (4096, 128, 128), (4096, 384, 128), (1024, 256, 768))
    flops = sum(2 * m * k * n for m, k, n in shapes)
    made = {
        name: [(torch.randn(m, k, dtype=kind), torch.randn(k, n, dtype=kind)) for m, k, n in shapes]
        for name, kind in kinds.items()
        if name == "fp32" or multiplies_bf16(CPU)
    }
    for _ in range(40):
        for name, pairs in made.items():
            started = time.process_time()
            for a, b in pairs:
                a @ b
            times[name].append(time.process_time() - started)
    return {name: flops / statistics.median(values) for name, values in times.items() if values}


def needed(weights: Weights, x: Image) -> dict[str, float]:
    """Return the FLOP that one evaluation needs: of the prior, of the inference model."""
    found = {}
    model = weights.model(Tiling(0, 0))
    t = torch.tensor(0.5, dtype=torch.float64)
    assert model.inference is not None
    for name, network, channels in (
        ("prior", model.denoiser.denoiser.network, 3),
        ("inference", model.inference.network.backbone, 9),
    ):
        cond = {} if channels == 3 else {"mapping_cond": torch.zeros(1, 64)}
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            network(x.repeat(1, channels // 3, 1, 1), t.float()[None], **cond)
        counts = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}
        attention = counts.get("aten.bmm", 0)
        level = network.config.levels[0]
        found[name] = sum(counts.values()) - attention * (1 - level.window**2 / 14**2)
    return found


KINDS = {
    "products": ("aten::mm", "aten::addmm", "mkldnn_convolution", "slow_conv", "convolution_back"),
    "attention's products": ("aten::bmm",),
    "softmax and mask": ("softmax", "masked_fill", "bitwise"),
    "GELU": ("gelu",),
    "copies": ("copy_", "cat", "fill_", "aten::clone"),
}


def shares(call: Callable[[], object]) -> str:
    """Return the shares of kinds of work in a call."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        call()
    spent = dict.fromkeys((*KINDS, "the rest"), 0.0)
    for event in seen.key_averages():
        kind = next((k for k, names in KINDS.items() if any(n in event.key for n in names)), None)
        spent[kind or "the rest"] += event.self_cpu_time_total
    total = sum(spent.values())
    return ", ".join(f"{kind} {value / total:.0%}" for kind, value in spent.items())


def changes(given: argparse.Namespace, x: Image) -> None:
    likelihood = problem(given.task, x)
    runs = variants(given.skip.split(","))
    for variant in runs:  # Once without counting.
        variant.run(likelihood, given.preset)
        variant.wall.clear()
        variant.cpu.clear()
    for _ in range(given.repeats):
        for variant in runs:
            variant.run(likelihood, given.preset)
    reference = runs[0]
    assert reference.x is not None
    rate, flops = rates(), needed(reference.weights, x)
    print("| variant | s | CPU s | units | units a CPU s | times | PSNR | greatest difference |")
    print("|---|---|---|---|---|---|---|---|")
    for variant in runs:
        assert variant.x is not None
        wall, cpu = (statistics.median(values) for values in (variant.wall, variant.cpu))
        times = statistics.median(reference.cpu) / cpu
        far = float((variant.x - reference.x).abs().max())
        print(f"| {variant.name} | {wall:.2f} | {cpu:.2f} | {variant.units:.0f} "
              f"| {variant.units / cpu:.2f} | {times:.2f} | {psnr(variant.x, x):.2f} "
              f"| {far:.1e} |", flush=True)  # fmt: skip
    steps = sampler_options("lavps", given.preset, (), 0.0).num_steps - 2
    for name, each in rate.items():
        work = (1 + 2 * steps) * flops["prior"] + steps * flops["inference"]
        print(f"floor, {name}: {each / 1e9:.0f} GFLOP/s, {flops['prior'] / 1e9:.1f} GFLOP a "
              f"forward evaluation, {work / each:.2f} s if every start is accepted")  # fmt: skip
    t = torch.tensor(0.5, dtype=torch.float64)
    for variant in (runs[0], runs[-1]):
        with straightforward.as_first_written(variant.first), torch.no_grad():
            denoiser = variant.weights.model(Tiling(0, 0)).denoiser
            print(f"{variant.name}: {shares(lambda: denoiser(x, t))}")  # noqa: B023


def batches(given: argparse.Namespace, x: Image) -> None:
    likelihood = problem(given.task, x)
    first, last = (variants(["mask"])[i] for i in (0, -1))
    first.plain_loop = False  # It takes one picture at a time.
    for _ in range(max(given.repeats // 2, 1)):
        for variant in (first, last):
            for batch in (1, 2, 4):
                variant.run(likelihood, given.preset, batch)
    for variant in (first, last):
        by_batch = [statistics.median(variant.cpu[i::3]) for i in range(3)]
        print(f"{variant.name}: CPU s a picture with batches of 1, 2, 4: "
              + ", ".join(f"{s:.2f}" for s in by_batch), flush=True)  # fmt: skip


def sizes(given: argparse.Namespace) -> None:
    weights = variants([])[-1].weights
    t = torch.tensor(0.5, dtype=torch.float64)
    print(
        "| side | windows of | CPU s, forward | with backward | us a pixel |\n|---|---|---|---|---|"
    )
    for side in (128, 256, 512, 1024, 2048):
        tiling = weights.tiling(side, side, None, None)
        denoiser = weights.model(tiling).denoiser
        assert isinstance(denoiser, TiledDenoiser)
        x, spent = torch.randn(1, 3, side, side), {False: [], True: []}
        for _ in range(max(2, given.repeats * 256 // side)):
            for backward in (False, True):
                if backward and side > 1024:
                    continue
                started = time.process_time()
                z = x.clone().requires_grad_(backward)
                out = denoiser(z, t)
                if backward:
                    torch.autograd.grad(out.sum(), z)
                spent[backward].append(time.process_time() - started)
        forward, both = (min(values, default=float("nan")) for values in spent.values())
        print(f"| {side} | {tiling.tile or 'the whole'} | {forward:.3f} | {both:.3f} "
              f"| {forward / side**2 * 1e6:.2f} |", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--task", default="sr4")
    parser.add_argument("--skip", default="", help="variants to leave out: mask,blocks,...")
    parser.add_argument("--only", default="changes,batches,sizes")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, "
          f"{given.threads} threads, {given.task}, {given.preset}")  # fmt: skip
    _, x = next(photographs(256))
    if "changes" in given.only:
        changes(given, x)
    if "batches" in given.only:
        batches(given, x)
    if "sizes" in given.only:
        with torch.enable_grad():
            sizes(given)


if __name__ == "__main__":
    main()
