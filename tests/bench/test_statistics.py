import math

import numpy as np
import pytest

from lavps_cli.bench.noninferiority import bootstrap, mean_interval, noninferiority
from lavps_cli.bench.pareto import pareto_front
from lavps_cli.bench.racing import LEAST, survivors
from lavps_cli.bench.speedup import compare, unmatched
from lavps_cli.bench.summary import difference, summarise
from tests.bench.test_records import CONFIG, record


def test_noninferiority_by_hand() -> None:
    """Worked on paper: gains -0.01, 0.01, 0.02, 0; mean 0.005, s = sqrt(5e-4 / 3) = 0.01291."""
    reference, candidate = [0.10, 0.20, 0.30, 0.40], [0.11, 0.19, 0.28, 0.40]
    found = noninferiority(reference, candidate, margin=0.01, level=0.05)
    assert found.statistic == pytest.approx((0.005 + 0.01) / (0.0129099 / 2), rel=1e-4)
    assert found.critical == pytest.approx(2.3534, abs=1e-4)  # t of 3 degrees of freedom.
    assert found.n == 4
    assert not found.passed
    assert noninferiority(reference, candidate, margin=0.02).passed


def test_noninferiority_has_the_level_it_states() -> None:
    """At the edge, exactly as bad as the margin, one in twenty passes."""
    rng = np.random.default_rng(0)
    passed = [
        noninferiority([0.0] * 12, rng.normal(0.003, 0.01, 12).tolist(), margin=0.003).passed
        for _ in range(4000)
    ]
    assert np.mean(passed) == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 4000))


def test_noninferiority_without_spread_or_images() -> None:
    assert noninferiority([1, 1], [1, 1], margin=0.1).passed
    assert not noninferiority([1, 1], [2, 2], margin=0.1).passed
    assert not noninferiority([1], [0], margin=0.1).passed


def test_pareto_front_of_hand_made_points() -> None:
    points = [(1, 5), (2, 3), (3, 3), (2, 4), (4, 1), (5, 1), (1, 5), (6, 0.5)]
    assert pareto_front(points) == [0, 1, 4, 7]
    assert pareto_front([]) == []


def test_nothing_on_a_front_is_dominated_and_everything_else_is() -> None:
    rng = np.random.default_rng(1)
    points = [tuple(map(float, row)) for row in rng.integers(0, 12, (60, 2))]
    front = pareto_front(points)
    for i, (cost, loss) in enumerate(points):
        rivals = [points[j] for j in front if j != i]
        beaten = any(c <= cost and v <= loss for c, v in rivals)
        assert beaten == (i not in front)


def test_bootstrap_intervals_cover() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        sample = rng.normal(1.0, 2.0, 40)
        low, high = bootstrap(lambda i, s=sample: float(s[i].mean()), 40, draws=300)
        hits += low <= 1.0 <= high
    assert 0.87 <= hits / 200 <= 0.99
    assert mean_interval([1.0, 1.0, 1.0]) == (1.0, 1.0)


def test_racing_never_drops_the_front_and_drops_what_is_clearly_worse() -> None:
    """Thirty images, forty configurations, noise shared by image as real pictures share it."""
    rng = np.random.default_rng(3)
    dropped = 0
    for _ in range(20):
        seconds = {f"c{i}": float(s) for i, s in enumerate(rng.uniform(1, 20, 40))}
        truth = {n: 1 / s + float(rng.uniform(0, 0.3)) for n, s in seconds.items()}
        hard = rng.normal(0, 0.3, 32)
        losses = {n: list(v + hard + rng.normal(0, 0.02, 32)) for n, v in truth.items()}
        alive = list(losses)
        for images in range(LEAST, 33):
            alive = survivors({n: losses[n][:images] for n in alive}, seconds)
        names = list(losses)

        def front(among: list[str], s: dict = seconds, v: dict = losses) -> set[str]:
            points = [(s[n], float(np.mean(v[n]))) for n in among]
            return {among[i] for i in pareto_front(points)}

        assert front(alive) == front(names)
        dropped += len(names) - len(alive)
    assert dropped > 20 * 20


def test_racing_waits_for_images() -> None:
    assert survivors({"a": [0.0] * 3, "b": [9.0] * 3}, {"a": 1, "b": 2}) == ["a", "b"]


def test_speedup_of_records() -> None:
    slow = [record(f"{i}#{i}", seconds=4.0, nfe=40, metrics={"psnr": 20.0 + i}) for i in range(6)]
    fast = [record(f"{i}#{i}", seconds=1.0, nfe=8, metrics={"psnr": 20.01 + i}) for i in range(6)]
    match = compare(slow, fast, "psnr", sign=-1, margin=0.1, level=0.05)
    assert match is not None
    assert (match.speedup, match.low, match.high) == (4.0, 4.0, 4.0)
    assert match.predicted == 5.0
    assert match.break_even(300.0) == 100.0
    assert compare(fast, slow, "psnr", sign=1, margin=0.001, level=0.05) is not None
    assert compare(slow, fast, "psnr", sign=1, margin=0.001, level=0.05) is None
    assert unmatched(slow, "psnr").speedup is None
    assert unmatched(slow, "psnr").break_even(1.0) is None


def test_rows_of_records() -> None:
    several = [
        record("a#1", seconds=1.0, nfe=10, nbe=2, offered=4, accepted=1, metrics={"psnr": 20.0}),
        record("b#2", seconds=3.0, nfe=12, nbe=2, offered=4, accepted=3, metrics={"psnr": 24.0}),
        record("c#3", error="it diverged"),
    ]
    row = summarise(several, ["psnr", "lpips"])
    assert (row.n, row.failed, row.seconds, row.units, row.acceptance) == (2, 1, 2.0, 15.0, 0.5)
    assert row.config == CONFIG.digest
    psnr = row.metrics["psnr"]
    assert (psnr.mean, psnr.n) == (22.0, 2)
    assert psnr.sd == pytest.approx(math.sqrt(8))
    assert row.metrics["lpips"].mean is None
    assert row.metrics["lpips"].reason


def test_differences_pair_images() -> None:
    old = [record("a#1", metrics={"lpips": 0.5}), record("b#2", metrics={"lpips": 0.4})]
    new = [record("b#2", metrics={"lpips": 0.3}), record("c#3", metrics={"lpips": 0.0})]
    found = difference(old, new, "lpips", higher=False)
    assert (found.n, found.gain) == (1, pytest.approx(0.1))
    assert difference([], new, "lpips", higher=False).n == 0
