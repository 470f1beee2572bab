"""What `lavps calibrate-speedup` measures with: a bench here, or one in each worker."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

from lavps_cli.errors import UsageError
from lavps_cli.pipeline.bench_data import load_pictures
from lavps_cli.pipeline.contenders import Contender
from lavps_cli.pipeline.kept_pictures import keeper
from lavps_cli.pipeline.measuring import Bench
from lavps_cli.pipeline.metrics import ImageMetric, open_metrics
from lavps_cli.pipeline.model import open_weights, use_threads
from lavps_cli.pipeline.requests import CalibrationRequest
from lavps_cli.pipeline.results import Listener, Said
from lavps_cli.pipeline.sweep import Group, Measured, measure_group
from lavps_cli.pipeline.swept import Means, Site, family_of, opened
from lavps_cli.storage.places import located

METHODS = ("mgdm", "lavps")
_MeasureGroups: TypeAlias = Callable[[Iterable[Group]], Iterator[tuple[Group, Measured]]]


@contextmanager
def opened_bench(
    request: CalibrationRequest, metric: ImageMetric, listener: Listener
) -> Iterator[tuple[Bench, Means, _MeasureGroups | None]]:
    """Open what measures, here or on a cluster; None measures groups here."""

    def open_here(request: CalibrationRequest) -> Site:
        return _site(request, metric, listener)

    with opened(request, open_here, _worker, listener) as (site, means, crew):
        measure = None if crew is None else partial(crew.run, do=_measured)
        yield site.bench, means, measure


def _worker(request: CalibrationRequest) -> Site:
    return _site(request, open_metric(request, Said()), Said())


def _measured(site: Site, group: Group) -> Measured:
    return measure_group(site.bench, family_of(group.family, site.bench), group)


def _site(request: CalibrationRequest, metric: ImageMetric, listener: Listener) -> Site:
    use_threads(request.compute.threads)
    weights = open_weights(request.compute)
    if weights.inference_folder is None:
        raise UsageError(
            f"there is no inference model for {weights.name}: nothing to calibrate.",
            "Train one:  lavps train --prior MODEL --dataset DIR",
        )
    pictures = load_pictures(
        request.dataset, request.size, request.images, listener, validation=request.validation
    )
    bench = Bench(
        weights=weights,
        pictures=pictures,
        metrics=[metric],
        size=request.size,
        seed=request.seed,
        batch=request.batch,
        keep=keeper(located(request.output) / "pictures", pictures.names["test"], every=False),
    )
    return Site(bench, [Contender(method, method, weights) for method in METHODS])


def open_metric(request: CalibrationRequest, listener: Listener) -> ImageMetric:
    """Return the metric that decides; where LPIPS is not to be had unasked, PSNR."""
    wanted = request.metric or "lpips"
    metric = open_metrics([wanted], offline=request.compute.offline)[0]
    if metric.score is None and request.metric is None:
        listener.warn(f"by PSNR, not LPIPS: {metric.reason}")
        metric = open_metrics(["psnr"])[0]
    if metric.score is None:
        raise UsageError(f"--metric {wanted}: {metric.reason}", "Choose:  --metric psnr")
    return metric
