import json
from dataclasses import asdict
from pathlib import Path

import pytest

from lavps_cli import catalog
from lavps_cli.bench.summary import Row, Statistic
from lavps_cli.catalog import TaskName
from lavps_cli.core.operator import LinearOperator
from lavps_cli.operators.bicubic import BicubicDownsampling
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.kernels import line_kernel
from lavps_cli.operators.super_resolution import SuperResolution
from lavps_cli.pipeline.auto import (
    BUNDLED,
    Curves,
    Point,
    best_point,
    curves_of,
    kind_seen,
    read_curves,
    usable_methods,
)
from lavps_cli.pipeline.benchmark import Benchmark
from lavps_cli.pipeline.contenders import methods_of
from lavps_cli.pipeline.degradation import Degradation
from lavps_cli.pipeline.masks import draw_mask
from lavps_cli.pipeline.model import open_weights
from lavps_cli.pipeline.requests import Compute
from lavps_cli.pipeline.thresholds import Entry

KINDS = ("sr", "deblur", "inpaint", "denoise")


def point(method: str, cost: float, value: float, task: str = "sr") -> Point:
    return Point(task=task, method=method, num_steps=8, evaluations=cost, cost=cost, value=value)


def curves(*points: Point, higher: bool = True) -> Curves:
    return Curves(model="m", metric="psnr", higher=higher, size=64, images=3, points=[*points])


THREE = (point("ddrm", 10.0, 20.0), point("lavps", 30.0, 25.0), point("dps", 300.0, 24.0))
ALL = ("ddrm", "lavps", "dps")


@pytest.mark.parametrize(
    ("cost", "method", "fits"),
    [(1.0, "ddrm", False), (10.0, "ddrm", True), (29.0, "ddrm", True), (1e4, "lavps", True)],
)
def test_the_best_within_a_cost_is_taken_and_else_the_cheapest(
    cost: float, method: str, fits: bool
) -> None:
    found, there = best_point(curves(*THREE), "sr", ALL, cost)
    assert (found.method, there) == (method, fits)


def test_of_those_as_cheap_as_the_cheapest_the_best_is_taken() -> None:
    about = curves(point("aps", 0.8, 15.0), point("conditional", 0.9, 22.0), *THREE)
    found, there = best_point(about, "sr", ("aps", "conditional", *ALL), 0.1)
    assert (found.method, there) == ("conditional", False)


def test_where_lower_is_better_the_lowest_wins() -> None:
    assert best_point(curves(*THREE, higher=False), "sr", ALL, 1e4)[0].method == "ddrm"


def test_what_cannot_be_used_is_no_candidate() -> None:
    assert best_point(curves(*THREE), "sr", ("dps", "ddrm"), 1e4)[0].method == "dps"


def test_equal_values_go_to_the_cheaper() -> None:
    same = curves(point("dps", 90.0, 25.0), point("lavps", 30.0, 25.0))
    assert best_point(same, "sr", ALL, 1e4)[0].method == "lavps"


@pytest.mark.parametrize("task", catalog.TASKS)
def test_what_came_along_has_a_method_for_every_task(task: TaskName) -> None:
    found = read_curves(BUNDLED)
    assert found is not None
    assert {p.task for p in found.points} >= set(KINDS)
    kind = kind_seen(Degradation(task=task))
    cheap, _ = best_point(found, kind, tuple(catalog.SAMPLERS), 1.0)
    dear, fits = best_point(found, kind, tuple(catalog.SAMPLERS), 1e6)
    assert fits
    sign = 1 if found.higher else -1
    assert sign * dear.value >= sign * cheap.value


@pytest.mark.parametrize(
    ("drawn", "kind"),
    [("centre", "inpaint"), ("rectangle", "inpaint"), ("pixels", "inpaint:pixels")],
)
def test_scattered_holes_are_a_kind_of_their_own(drawn: str, kind: str) -> None:
    seen = kind_seen(Degradation(task="inpaint", mask=draw_mask(drawn, 64, 64, 3)))
    assert seen == kind
    holes = curves(point("dps", 9.0, 20.0, "inpaint"), point("mgdm", 9.0, 19.0, "inpaint"))
    assert best_point(holes, seen, ("dps", "mgdm"), 10.0)[0].method == "dps"
    both = curves(*holes.points, point("mgdm", 9.0, 25.0, "inpaint:pixels"))
    chosen = best_point(both, seen, ("dps", "mgdm"), 10.0)[0].method
    assert chosen == ("mgdm" if kind != "inpaint" else "dps")


def entry(task: str, method: str, steps: float, value: float) -> Entry:
    row = Row(
        config="c", method=method, options={"num_steps": steps}, task=task, n=1, failed=0,
        seconds=1.0, seconds_low=1.0, seconds_high=1.0, nfe=steps, nbe=0.0, units=steps,
        acceptance=None, peak_mb=None,
        metrics={"psnr": Statistic(mean=value, sd=None, low=None, high=None, n=1)},
    )  # fmt: skip
    return Entry(task=task, method=method, budget=None, row=row, seen=None)


def test_operators_of_one_kind_count_the_same_and_need_every_method() -> None:
    entries = [
        entry("inpaint:rect", "mgdm", 8.0, 20.0),
        entry("inpaint:centre", "mgdm", 8.0, 10.0),
        entry("inpaint:rect", "dps", 8.0, 30.0),
        entry("inpaint:pixels", "dps", 8.0, 40.0),
    ]
    result = Benchmark(
        output="", environment={}, metrics=[{"name": "psnr", "higher_is_better": True}],
        entries=entries, complete=True, missing=0, failed=[],
    )  # fmt: skip
    found = {(p.task, p.method): p.value for p in curves_of(result).points}
    assert found == {("inpaint", "mgdm"): 15.0, ("inpaint:pixels", "dps"): 40.0}


def test_files_that_are_no_curves_are_none(tmp_path: Path) -> None:
    good = asdict(curves(*THREE))
    path = tmp_path / "c.json"
    path.write_text(json.dumps(good))
    assert read_curves(path) == curves(*THREE)
    for bad in (
        "{",
        "[]",
        json.dumps(good | {"points": []}),
        json.dumps(good | {"format": 9}),
        json.dumps(good | {"points": [asdict(point("magic", 1.0, 1.0))]}),
        json.dumps(good | {"points": [{"task": "sr"}]}),
    ):
        path.write_text(bad)
        assert read_curves(path) is None
    assert read_curves(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    ("A", "there"),
    [
        (SuperResolution(2), True),
        (Blur(line_kernel(3, 0), "circular"), True),
        (Blur(line_kernel(3, 0), "valid"), False),
        (BicubicDownsampling(2), False),
    ],
    ids=["sr", "circular", "valid", "bicubic"],
)
def test_methods_that_need_singular_vectors(
    A: LinearOperator, there: bool, model_folder: Path
) -> None:
    weights = open_weights(Compute(model=str(model_folder), device="cpu"))
    found = usable_methods(weights, A, (16, 24))
    assert ("ddrm" in found) == there
    assert {"lavps", "mgdm", "dps"} <= set(found)
    assert "aps" not in found


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_or_two_are_there_for_little_time_and_more_for_more(kind: TaskName) -> None:
    weights = open_weights(Compute(model="ffhq-64", device="cpu"), "lavps")
    bundled, usable = read_curves(BUNDLED), methods_of(weights)
    assert bundled is not None
    short, there = best_point(bundled, kind, usable, 2.0)
    assert there
    assert short.evaluations <= 2
    long, _ = best_point(bundled, kind, usable, 1e4)
    assert long.value < 0.7 * short.value
    assert catalog.sampler(long.method).trained is None
