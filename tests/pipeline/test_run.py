from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lavps_cli import catalog
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.errors import DeviceError, UsageError
from lavps_cli.images.picture import Picture
from lavps_cli.pipeline import run
from lavps_cli.pipeline.model import Tiling, Weights, open_weights
from lavps_cli.pipeline.problem import Observation, observation
from lavps_cli.pipeline.requests import Compute, Problem, Sampling
from lavps_cli.pipeline.run import Posterior, is_out_of_memory, residuals, sample_posterior
from lavps_cli.pipeline.sampling import expected_evaluations, sampler_options
from lavps_cli.pipeline.seeds import derive_seed
from lavps_cli.samplers.lavps import LavpsOptions

WHOLE = Tiling(0, 0)


@pytest.fixture(scope="module")
def weights(model_folder: Path) -> Weights:
    return open_weights(Compute(model=str(model_folder), device="cpu", dtype="fp32"))


def seen(c: int = 3, **problem: Any) -> Observation:
    y = torch.rand(1, c, 10, 12, generator=torch.Generator().manual_seed(0)) - 0.5
    return observation(Picture(y), "in", Problem(noise="0.1", **problem), None)


def sample(weights: Weights, what: Observation, **changes: Any) -> Posterior:
    tiling = changes.pop("tiling", WHOLE)
    options = sampler_options("lavps", "fast", changes.pop("settings", ("num_steps=6",)), 0.6)
    options = changes.pop("options", options)
    sampling = Sampling(
        **{name: changes.pop(name) for name in ("seed", "samples") if name in changes}
    )
    return sample_posterior(what, weights, tiling, sampling, options, **changes)


@pytest.mark.parametrize(
    "problem",
    [{"scale": 2}, {"kernel": "disk:3"}, {"task": "denoise"}],
    ids=str,
)
def test_a_sample_does_not_depend_on_the_others(weights: Weights, problem: dict[str, Any]) -> None:
    what = seen(**problem)
    many = sample(weights, what, samples=3)
    for batch in (1, 2):
        again = sample(weights, what, samples=3, batch=batch)
        torch.testing.assert_close(again.x, many.x, atol=1e-4, rtol=0)
    single = sample(weights, what)
    torch.testing.assert_close(single.x[0], many.x[0], atol=1e-4, rtol=0)
    assert float((many.x[0] - many.x[1]).abs().mean()) > 0.01


def test_the_seed_decides(weights: Weights) -> None:
    what = seen(task="denoise")
    one, two, other = (sample(weights, what, seed=seed).x for seed in (4, 4, 5))
    assert torch.equal(one, two)
    assert not torch.allclose(one, other, atol=0.01)


def test_seeds_of_runs_and_samples_do_not_meet() -> None:
    seeds = {derive_seed(seed, "sample", i) for seed in range(50) for i in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 1 << 63 for seed in seeds)


@pytest.mark.parametrize(
    "settings",
    [
        ("num_steps=7",),
        ("num_steps=5", "num_gibbs=2", "num_denoise=3"),
        ("num_steps=9", "grad_steps_start=0", "grad_steps_end=2"),
    ],
)
def test_evaluations_are_as_expected(weights: Weights, settings: tuple[str, ...]) -> None:
    options = sampler_options("lavps", "fast", settings, 0.6)
    found = sample(weights, seen(task="denoise"), options=options, samples=2)
    nfe, nbe = expected_evaluations("lavps", options, warm=True)
    assert found.offered > 0
    assert all(0 <= count <= found.offered for count in found.accepted)
    assert len(found.nfe) == len(found.nbe) == 2
    if min(found.accepted) == found.offered:
        assert (found.nfe[0], found.nbe[0]) == (nfe, nbe)
    else:
        assert min(found.nfe) >= nfe
        assert min(found.nbe) >= nbe
    cold = replace(weights, inference_folder=None)
    found = sample(cold, seen(task="denoise"), options=options)
    assert (found.nfe[0], found.nbe[0]) == expected_evaluations("lavps", options, warm=False)
    assert (found.accepted, found.offered) == ([0], 0)


def test_three_equal_channels_are_one_measurement(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, given = run.draw, []

    def watched(model: Any, likelihood: Likelihood, *args: Any, **kwargs: Any) -> Any:
        given.append(likelihood)
        return real(model, likelihood, *args, **kwargs)

    monkeypatch.setattr(run, "draw", watched)
    what = seen(1, task="denoise")
    found = sample(weights, what)
    assert found.x.shape == (1, 3, 10, 12)
    x = torch.rand(1, 1, 10, 12)
    expected = Likelihood(what.y, what.A, what.sigma_y).log_prob(x)
    torch.testing.assert_close(given[0].log_prob(x.expand(-1, 3, -1, -1)), expected)


def test_the_residual_counts_what_is_measured(weights: Weights, tmp_path: Path) -> None:
    from PIL import Image as PillowImage

    image = PillowImage.new("L", (12, 10))
    image.paste(255, (0, 0, 6, 10))
    image.save(tmp_path / "m.png")
    what = seen(mask=str(tmp_path / "m.png"))
    found = sample(weights, what)
    mask = what.degradation.mask
    assert mask is not None
    known = mask.values.bool().expand(3, -1, -1)
    difference = (found.x - what.y)[0][known]
    expected = float(difference.square().mean()) ** 0.5
    assert residuals(what, found.x) == pytest.approx([expected], rel=1e-4)


def test_progress_ends_at_the_total(weights: Weights) -> None:
    told: list[tuple[int, int]] = []
    sample(weights, seen(task="denoise"), samples=3, batch=2, on_step=lambda *a: told.append(a))
    assert [done for done, _ in told] == list(range(1, 9))
    assert {total for _, total in told} == {8}


def test_memory_runs_out_and_smaller_is_tried(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tried = run.draw, []

    def tight(*args: Any, **kwargs: Any) -> Any:
        tried.append(len(kwargs["seeds"]))
        if len(kwargs["seeds"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(*args, **kwargs)

    expected = sample(weights, seen(task="denoise"), samples=4)
    monkeypatch.setattr(run, "draw", tight)
    found = sample(weights, seen(task="denoise"), samples=4)
    assert found.oom_retries == 2
    assert tried == [4, 2, 1, 1, 1, 1]
    torch.testing.assert_close(found.x, expected.x, atol=1e-4, rtol=0)


def test_memory_that_never_suffices(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = []

    def never(model: Any, *args: Any, **kwargs: Any) -> Any:
        tiles.append(model.denoiser.tile)
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(run, "draw", never)
    what = observation(Picture(torch.zeros(1, 3, 200, 150)), "in", Problem(task="denoise"), None)
    with pytest.raises(DeviceError, match="out of memory at 64x64 tiles on cpu"):
        sample(weights, what)
    assert tiles == [0, 128, 64]


def test_other_errors_are_not_memory(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(run, "draw", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        sample(weights, seen(task="denoise"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory"))


def test_options_come_from_preset_weights_and_texts() -> None:
    fast, best = (catalog.PRESETS[name] for name in ("fast", "best"))
    assert sampler_options("lavps", "fast", (), None) == LavpsOptions(**fast.cold)
    warm = sampler_options("lavps", "best", (), 0.7)
    assert warm == LavpsOptions(**best.warm | {"switch_ratio": 0.7, "switch_back": 1.0})
    early = sampler_options("lavps", "best", (), 0.0)
    assert early == LavpsOptions(**best.warm)
    assert early.switch_back < 1
    assert sampler_options("lavps", "best", ("num_steps=5",), 0.7).num_steps == 5
    assert sampler_options("lavps", "best", (), 0.7).switch_ratio == 0.7
    assert sampler_options("lavps", "best", ("switch_ratio=0.9",), 0.7).switch_ratio == 0.9
    assert sampler_options("mgdm", "best", ("switch_ratio=0.1",), None).switch_ratio == 0.1
    with pytest.raises(UsageError, match=r"was trained for 0\.7"):
        sampler_options("lavps", "best", ("switch_ratio=0.6",), 0.7)
    with pytest.raises(UsageError, match="num_steps is 2"):
        sampler_options("lavps", "best", ("num_steps=2",), None)
