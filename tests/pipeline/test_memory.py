"""What is told of memory before a restoration, and what is done where it does not suffice."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from lavps_cli.errors import DeviceError
from lavps_cli.images.picture import Picture
from lavps_cli.pipeline import available as there
from lavps_cli.pipeline import run
from lavps_cli.pipeline.memory import needed
from lavps_cli.pipeline.model import Tiling, Weights, open_weights
from lavps_cli.pipeline.problem import Observation, observation
from lavps_cli.pipeline.requests import Compute, Problem, Sampling
from lavps_cli.pipeline.run import Posterior, provide, sample_posterior
from lavps_cli.pipeline.sampling import sampler_options

CPU = torch.device("cpu")
TASKS: list[dict[str, Any]] = [
    {"task": "denoise"},
    {"scale": 4},
    {"kernel": "disk:5"},
    {"task": "declip", "gain": 2.0},
    {"task": "denoise", "noise": "poisson:50"},
]
WINDOWS = Tiling(16, 4)


@pytest.fixture(scope="module")
def weights(model_folder: Path) -> Weights:
    return open_weights(Compute(model=str(model_folder), device="cpu", dtype="fp32"))


def seen(side: int, **problem: Any) -> Observation:
    y = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) - 0.5
    return observation(Picture(y), "in", Problem(**{"noise": "0.1"} | problem), None)


def told(
    weights: Weights, what: Observation, tiling: Tiling = WINDOWS, *settings: str, **changes: Any
) -> int:
    """Return the bytes told beside those of the process as it is."""
    method = changes.pop("method", "lavps")
    options = sampler_options(method, "fast", settings, 0.6 if method == "lavps" else None)
    sizes = {"batch": 1, "samples": 1} | changes
    need = needed(what, weights, tiling, method, options, **sizes)
    assert need.certain
    return need.bytes - there.resident(CPU)


@pytest.fixture(autouse=True)
def _at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the process hold the same throughout a test."""
    monkeypatch.setattr("lavps_cli.pipeline.memory.resident", lambda _: 1000)
    monkeypatch.setattr(there, "resident", lambda _: 1000)


@pytest.mark.parametrize("problem", TASKS, ids=str)
def test_more_pixels_take_more_and_windows_make_it_linear(
    weights: Weights, problem: dict[str, Any]
) -> None:
    sides = [320 * n for n in range(2, 12)]
    counts = [told(weights, replace(seen(80, **problem), shape=(side, side))) for side in sides]
    assert counts == sorted(counts)
    # Beyond the size from which blurs solve for one channel at a time.
    large = [(side**2, count) for side, count in zip(sides, counts, strict=True) if side > 1600]
    slopes = [(large[i + 1][1] - large[i][1]) / (large[i + 1][0] - large[i][0]) for i in range(4)]
    assert max(slopes) == pytest.approx(min(slopes), rel=1e-6)


def test_what_is_done_at_once_takes_more(weights: Weights) -> None:
    what, large = seen(200, task="denoise"), seen(400, task="denoise")
    for smaller, larger in [
        (told(weights, what, batch=1, samples=4), told(weights, what, batch=2, samples=4)),
        (told(weights, what, samples=1), told(weights, what, samples=2)),
        (told(weights, large, Tiling(64, 16)), told(weights, large, Tiling(0, 0))),
        (told(weights, what, method="diffpir"), told(weights, what, method="mgdm")),
        (told(weights, what, WINDOWS, "grad_steps_start=0"), told(weights, what)),
        (told(replace(weights, autocast=torch.bfloat16), what), told(weights, what)),
    ]:
        assert smaller < larger


@pytest.mark.parametrize("problem", TASKS, ids=str)
@pytest.mark.parametrize(
    ("method", "tiling", "samples"),
    [("lavps", WINDOWS, 1), ("mgdm", Tiling(0, 0), 1), ("lavps", Tiling(32, 8), 2)],
)
def test_it_is_what_is_taken_or_more(
    weights: Weights, problem: dict[str, Any], method: str, tiling: Tiling, samples: int
) -> None:
    cold = weights if method == "lavps" else replace(weights, inference_folder=None)
    options = sampler_options(method, "fast", ["num_steps=3"], cold.switch_ratio)
    what, sampling = (
        seen(96 // problem.get("scale", 1), **problem),
        Sampling(method=method, samples=samples),
    )
    cold.model(tiling)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        found = sample_posterior(what, cold, tiling, sampling, options, batch=samples)
    assert found.peak_memory > 0
    held = most = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    need = needed(what, cold, tiling, method, options, batch=samples, samples=samples)
    assert most < need.bytes - 1000 < 4 * most


def with_free(
    monkeypatch: pytest.MonkeyPatch, weights: Weights, what: Observation, batch: int, tile: int
) -> None:
    """Let there be as much memory as a batch in such windows takes."""
    options, tiling = sampler_options("lavps", "fast", (), 0.6), Tiling(tile, tile // 4)
    need = needed(what, weights, tiling, "lavps", options, batch=batch, samples=4)
    monkeypatch.setattr(run, "available", lambda _: need.bytes)


def sample(weights: Weights, what: Observation, say: list[str], **changes: Any) -> Posterior:
    options = sampler_options("lavps", "fast", ("num_steps=3",), weights.switch_ratio)
    tiling = changes.pop("tiling", Tiling(0, 0))
    sampling = Sampling(samples=changes.pop("samples", 4))
    return sample_posterior(what, weights, tiling, sampling, options, warn=say.append, **changes)


def test_what_would_not_fit_is_made_smaller_before_it_begins(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    what, options = seen(400, task="denoise"), sampler_options("lavps", "fast", (), 0.6)
    for batch, tile, expected in [(4, 0, (4, 0)), (2, 0, (2, 0)), (1, 256, (1, 256))]:
        with_free(monkeypatch, weights, what, batch, tile)
        found = provide(what, weights, Tiling(0, 0), Sampling(samples=4), options, 4)
        assert (found.batch, found.tiling.tile) == expected
        assert found.fits


def test_windows_for_want_of_memory_are_told(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    what, said = seen(400, task="denoise"), list[str]()
    with_free(monkeypatch, weights, what, 1, 64)

    def begun(*given: Any) -> Posterior:
        raise LookupError(given[2])

    monkeypatch.setattr(run, "_sample", begun)
    with pytest.raises(LookupError, match="tile=64, overlap=16"):
        sample(weights, what, said)
    assert "windows of 64x64" in said[0]


def test_what_never_fits_is_an_error_with_numbers(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "available", lambda _: 2**20)
    with pytest.raises(DeviceError, match=r"200x200 needs about .* 0\.0 GiB are available") as told:
        sample(weights, seen(50, scale=4), [])
    assert "crop" in told.value.hint
    assert "--scale" in told.value.hint
    monkeypatch.setattr(run, "available", lambda _: None)
    assert sample(weights, seen(8, scale=2), [], samples=1).oom_retries == 0


OWN = """
import torch
from lavps_cli.core.schedule import Flow

class Prior:
    schedule = Flow()

    def __call__(self, xt, t):
        if xt.numel() > {most}:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")
        return 0.5 * xt

def prior(device):
    return Prior()
"""


@pytest.mark.parametrize(
    ("most", "batch", "tile"), [(2 * 3 * 150 * 200, 2, 0), (3 * 128 * 128, 1, 128)]
)
def test_a_prior_that_runs_out_of_memory_is_given_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, batch: int, tile: int
) -> None:
    monkeypatch.setattr("lavps_cli.models.tiled.CALL_PIXELS", 1)
    (tmp_path / "own.py").write_text(OWN.format(most=most))
    y = torch.rand(1, 3, 150, 200, generator=torch.Generator().manual_seed(0)) - 0.5
    what = observation(Picture(y), "in", Problem(task="denoise", noise="0.1"), None)
    weights = open_weights(Compute(model=f"{tmp_path / 'own.py'}:prior", device="cpu"))
    said: list[str] = []
    known: dict[tuple[int, int], tuple[int, Tiling]] = {}
    found = sample(weights, what, said, most=known)
    assert (found.tile, found.oom_retries) == (tile, len(said))
    assert all(text.startswith("out of memory; it goes on with") for text in said)
    next_one = sample(weights, what, said, most=known)
    assert (next_one.tile, next_one.oom_retries) == (tile, 0)
    assert len(said) == found.oom_retries
    assert torch.equal(next_one.x, found.x)
    (tmp_path / "own.py").write_text(OWN.format(most=10**9))
    again = open_weights(Compute(model=f"{tmp_path / 'own.py'}:prior", device="cpu"))
    # The prior is of pixels alone: how they are cut and put together changes nothing.
    expected = sample(again, what, [], batch=batch)
    assert float((found.x - expected.x).abs().mean()) < 1e-6


def test_of_an_unknown_prior_too_much_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(OWN.format(most=10**9))
    weights = open_weights(Compute(model=f"{tmp_path / 'own.py'}:prior", device="cpu"))
    monkeypatch.setattr(run, "available", lambda _: 2**20)
    said: list[str] = []
    sample(weights, seen(40, task="denoise"), said, samples=1)
    assert "it may not fit" in said[0]


def groups(root: Path, lines: str, files: dict[str, str]) -> list[int]:
    for name, text in files.items():
        (root / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "fs" / name).write_text(text)
    (root / "own").write_text(lines)
    return there._of_groups(root / "fs", root / "own")


def test_control_groups_leave_what_their_limits_do(tmp_path: Path) -> None:
    of_two = {
        "memory.max": "max",
        "a/memory.max": "1000",
        "a/memory.current": "300",
        "a/memory.stat": "anon 5\ninactive_file 100\n",
        "a/b/memory.max": "700",
        "a/b/memory.current": "200",
    }
    assert sorted(groups(tmp_path / "2", "0::/a/b\n", of_two)) == [500, 800]
    of_one = {"memory/x/memory.limit_in_bytes": "900", "memory/x/memory.usage_in_bytes": "400"}
    assert groups(tmp_path / "1", "4:cpu,memory:/x\n0::/\n3:pids:/x\n", of_one) == [500]
    assert there._of_groups(tmp_path / "none", tmp_path / "none") == []


@pytest.mark.parametrize("part", ["_of_machine", "_of_groups", "_of_limit"])
def test_the_tightest_limit_counts(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Callable[[], Any]] = {
        "_of_machine": lambda: 50_000,
        "_of_groups": lambda: [60_000, 70_000],
        "_of_limit": lambda: None,
    }
    given[part] = (lambda: [9_000, 10**9]) if part == "_of_groups" else (lambda: 9_000)
    for name, call in given.items():
        monkeypatch.setattr(there, name, call)
    assert there.available(CPU) == 10_000
