import json
from dataclasses import asdict
from pathlib import Path

import pytest

from lavps_cli import catalog
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
    read_curves,
    usable_methods,
)
from lavps_cli.pipeline.model import open_weights
from lavps_cli.pipeline.requests import Compute

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


def test_where_lower_is_better_the_lowest_wins() -> None:
    assert best_point(curves(*THREE, higher=False), "sr", ALL, 1e4)[0].method == "ddrm"


def test_what_cannot_be_used_is_no_candidate() -> None:
    assert best_point(curves(*THREE), "sr", ("dps", "ddrm"), 1e4)[0].method == "dps"


def test_equal_values_go_to_the_cheaper() -> None:
    same = curves(point("dps", 90.0, 25.0), point("lavps", 30.0, 25.0))
    assert best_point(same, "sr", ALL, 1e4)[0].method == "lavps"


@pytest.mark.parametrize("task", catalog.TASKS)
def test_what_came_along_has_a_method_for_every_task(task: str) -> None:
    found = read_curves(BUNDLED)
    assert found is not None
    assert {p.task for p in found.points} >= set(KINDS)
    cheap, _ = best_point(found, task, tuple(catalog.SAMPLERS), 1.0)
    dear, fits = best_point(found, task, tuple(catalog.SAMPLERS), 1e6)
    assert fits
    sign = 1 if found.higher else -1
    assert sign * dear.value >= sign * cheap.value


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
