"""One measurement: an image is damaged, restored and scored."""

import platform
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from lavps_cli import __version__, catalog
from lavps_cli.bench.records import Config, Record, Split, described
from lavps_cli.bench.runner import Cell
from lavps_cli.bench.uncertainty import calibration_error, coverage
from lavps_cli.core.likelihood import Likelihood, is_measured, observe
from lavps_cli.core.noise import Noise
from lavps_cli.core.types import Image, Measurement
from lavps_cli.errors import DeviceError, LavpsError
from lavps_cli.operators.per_picture import joined, of_rows
from lavps_cli.pipeline import available
from lavps_cli.pipeline.bench_data import TestPictures
from lavps_cli.pipeline.metrics import ImageMetric
from lavps_cli.pipeline.model import Model, Tiling, Weights
from lavps_cli.pipeline.sampling import Snapshot, draw
from lavps_cli.pipeline.seeds import derive_seed
from lavps_cli.training.families import Family
from lavps_cli.weights.hub import name_of

Keep = Callable[[Record, Measurement, Image, Image], None]
"""Takes a record with what was seen, what was restored, and the clean picture."""


@dataclass(frozen=True)
class Where:
    """What computes: times are compared only where all of it is equal."""

    device: str
    dtype: str
    threads: int
    """Of the CPU, 0 where another device computes."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Bench:
    """Everything that all measurements of a run share."""

    weights: Weights
    pictures: TestPictures
    metrics: Sequence[ImageMetric]
    size: int
    seed: int
    coverage: int = 0
    """Further samples of each image, for the coverage of intervals; none if 0."""
    batch: int = 1
    """Images that are restored at once."""
    keep: Keep = field(default=lambda record, seen, xhat, x: None)
    elsewhere: Where | None = None
    """What computes, where it is not this process."""

    @property
    def where(self) -> Where:
        return self.elsewhere or where_of(self.weights)

    def model(self) -> Model:
        return self.weights.model(Tiling(0, 0))

    def config(self, method: str, options: Any, family: Family) -> Config:
        """Return what decides the results of a method with its options on a family."""
        weights, warm = self.weights, catalog.sampler(method).inference is not None
        inference = weights.inference_folder if warm else None
        return Config(
            method=method,
            options={name: getattr(options, name) for name in options.__dataclass_fields__},
            model=f"{weights.name}@{weights.digest[:8]}",
            inference=None
            if inference is None
            else f"{name_of(inference)}@{(weights.inference_digest or '')[:8]}",
            task=family.name,
            sigma_y=family.sigma_y,
            size=self.size,
            **asdict(self.where),
            coverage=self.coverage,
            batch=self.batch,
        )

    def cell(self, method: str, options: Any, family: Family) -> Cell:
        """Return a configuration and what measures it."""
        config = self.config(method, options, family)

        def measure(places: Sequence[int], split: Split) -> list[Record]:
            return self.measure_part(config, options, family, places, split)[0]

        return Cell(config, measure, method, options)

    def problem(
        self, family: Family, places: Sequence[int], split: Split
    ) -> tuple[Image, Likelihood]:
        """Return clean pictures and their observations; both depend on the seed alone."""
        device = self.weights.device
        x = torch.cat([self.pictures.pixels[split][place] for place in places]).to(device)
        operators, seeds = [], []
        for place in places:
            image = self.pictures.names[split][place]
            generator = torch.Generator()
            generator.manual_seed(derive_seed(self.seed, "operator", family.name, image))
            operators.append(family.draw(1, self.size, generator))
            seeds.append(derive_seed(self.seed, "observation", image))
        A = of_rows(joined(operators), slice(None), device)
        return x, observe(A, x, family.sigma_y, Noise(seeds, device))

    def measure_part(
        self,
        config: Config,
        options: Any,
        family: Family,
        places: Sequence[int],
        split: Split,
        *,
        begun: Snapshot | None = None,
        keep: Collection[int] = (),
    ) -> tuple[list[Record], dict[int, Snapshot]]:
        """Restore pictures, or the rest of them; return their records, and snapshots on the way.

        A failure is a record, too.

        Raises:
            DeviceError: The device has no more memory: a result here would not be like the others.
        """
        images = [self.pictures.names[split][place] for place in places]
        common = described(config) | {
            "split": split,
            "seed": self.seed,
            "lavps": __version__,
            "torch": str(torch.__version__),
        }
        x, likelihood = self.problem(family, places, split)
        device = self.weights.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            drawn = draw(
                self.model(), likelihood, options, method=config.method,
                shape=tuple(x.shape[1:]),
                seeds=[derive_seed(self.seed, "sample", image) for image in images],
                begun=begun, keep=keep,
            )  # fmt: skip
        except DeviceError:
            raise
        except LavpsError as error:
            return [Record(**common, image=image, error=error.message) for image in images], {}
        xhat = drawn.x.clamp(-1, 1)
        most = peak(device)
        off = likelihood.A(xhat) - likelihood.y
        measured = is_measured(likelihood.A, off)
        rms = ((off * measured).square().flatten(1).sum(1) / measured.flatten(1).sum(1)).sqrt()
        records = []
        for i, image in enumerate(images):
            row = slice(i, i + 1)
            scores = {metric.name: metric.measure(xhat[row], x[row]) for metric in self.metrics}
            record = Record(
                **common,
                image=image,
                seconds=drawn.seconds / len(images),
                nfe=drawn.nfe,
                nbe=drawn.nbe,
                offered=drawn.offered,
                accepted=drawn.accepted[i],
                peak_mb=most,
                residual=float(rms[i]) / likelihood.sigma_y,
                metrics={name: value for name, (value, _) in scores.items()}
                | self._uncertainty(config, options, family, places[i], split),
                reasons={name: reason for name, (_, reason) in scores.items() if reason},
            )
            self.keep(record, likelihood.y[row], xhat[row], x[row])
            records.append(record)
        return records, drawn.snapshots

    def _uncertainty(
        self, config: Config, options: Any, family: Family, place: int, split: Split
    ) -> dict[str, float | None]:
        """Return how well intervals of several samples cover the picture, where it is unknown."""
        if not self.coverage:
            return {}
        x, likelihood = self.problem(family, [place], split)
        image = self.pictures.names[split][place]
        seeds = [derive_seed(self.seed, "sample", image, i) for i in range(self.coverage)]
        model = self.model()
        parts = [
            draw(
                model, likelihood, options, method=config.method, shape=tuple(x.shape[1:]),
                seeds=[seed],
            ).x
            for seed in seeds
        ]  # fmt: skip
        samples = torch.cat(parts)
        free = samples.std(0) > 0
        return {
            "coverage90": coverage(samples[:, free], x[0][free]),
            "calibration": calibration_error(samples[:, free], x[0][free]),
        }


def where_of(weights: Weights) -> Where:
    """Return what computes with weights."""
    return Where(device_name(weights.device), weights.dtype, threads_of(weights))


def threads_of(weights: Weights) -> int:
    """Return the threads of the CPU, 0 where another device computes."""
    return torch.get_num_threads() if weights.device.type == "cpu" else 0


def peak(device: torch.device) -> float | None:
    """Return the most memory in MB: of a CUDA device since `rest`, else of this process."""
    return round(available.peak(device) / 1e6, 1)


def device_name(device: torch.device) -> str:
    """Return what kind of device it is, so that times are compared only where they may be."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type == "xpu":
        return str(torch.xpu.get_device_name(device))
    return f"cpu: {_cpu()}" if device.type == "cpu" else device.type


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def environment(weights: Weights, where: Where) -> dict[str, Any]:
    """Return what the numbers of a run depend on."""
    return {
        "lavps": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "device": where.device,
        "dtype": where.dtype,
        "threads": where.threads or None,
        "model": weights.name,
        "inference": None
        if weights.inference_folder is None
        else name_of(weights.inference_folder),
    }
