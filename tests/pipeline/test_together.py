"""Pictures that are sampled as one batch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lavps_cli.images.picture import Picture
from lavps_cli.pipeline import together
from lavps_cli.pipeline.model import Tiling, Weights, open_weights
from lavps_cli.pipeline.problem import Observation, observation
from lavps_cli.pipeline.requests import Compute, Problem, Sampling
from lavps_cli.pipeline.run import sample_posterior
from lavps_cli.pipeline.sampling import sampler_options
from lavps_cli.pipeline.together import fit_together, group_size, sample_together


def seen(seed: int, side: int = 16, **flags: Any) -> Observation:
    pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return observation(Picture(pixels), "x", Problem(**({"noise": "0.1"} | flags)), None)


@pytest.fixture(scope="module")
def weights(model_folder: Path) -> Weights:
    return open_weights(Compute(model=str(model_folder), device="cpu", dtype="fp32"))


@pytest.mark.parametrize("flags", [{"task": "denoise"}, {"scale": 2}, {"kernel": "disk:3"}])
def test_a_picture_does_not_depend_on_its_batch(weights: Weights, flags: dict[str, Any]) -> None:
    sampling, tiling = Sampling(seed=5), Tiling(0, 0)
    options = sampler_options("lavps", "balanced", ("num_steps=4",), weights.switch_ratio)
    pictures = [seen(i, **flags) for i in range(3)]
    batch = sample_together(pictures, weights, tiling, sampling, options)
    for picture, found in zip(pictures, batch, strict=True):
        assert found is not None
        alone = sample_posterior(picture, weights, tiling, sampling, options)
        assert torch.allclose(found.x, alone.x, atol=1e-4)
        # What it cost may: a batch takes the steps of its neediest.
        assert (found.accepted, found.offered) == (alone.accepted, alone.offered)


def test_only_problems_of_one_kind_go_together() -> None:
    one = seen(0, kernel="disk:3")
    assert fit_together(one, seen(1, kernel="disk:3"))
    for other in (
        seen(1, kernel="disk:5"),
        seen(1, kernel="disk:3", noise="0.2"),
        seen(1, kernel="disk:3", side=20),
        seen(1, kernel="disk:3", boundary="reflect"),
        seen(1, task="denoise"),
        seen(1, scale=2),
    ):
        assert not fit_together(one, other)


def test_how_many(weights: Weights) -> None:
    one, sampling = seen(0, task="denoise"), Sampling()
    assert group_size(one, weights, sampling, None) == 1  # On a CPU only if asked.
    assert group_size(one, weights, sampling, 7) == 7
    assert group_size(one, weights, replace(sampling, samples=2), 7) == 1


def test_a_batch_without_memory_is_halved(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tried = together.draw, list[int]()

    def tight(*args: Any, **kwargs: Any) -> Any:
        tried.append(len(kwargs["seeds"]))
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, **kwargs)

    options = sampler_options("lavps", "balanced", ("num_steps=4",), weights.switch_ratio)
    pictures = [seen(i, task="denoise") for i in range(5)]
    common = (weights, Tiling(0, 0), Sampling(), options)
    expected = sample_together(pictures, *common)
    monkeypatch.setattr(together, "draw", tight)
    said, most = list[str](), dict[tuple[int, int], int]()
    found = sample_together(pictures, *common, warn=said.append, most=most)
    assert tried == [5, 3, 2, 2]
    assert [each is None for each in found] == [False, False, True, False, False]
    assert [each.oom_retries for each in found if each is not None] == [2, 2, 1, 1]
    assert said == [f"out of memory; it goes on with {n} at once." for n in (3, 2)]
    for one, other in zip(found, expected, strict=True):
        assert other is not None
        if one is not None:
            assert torch.allclose(one.x, other.x, atol=1e-4)
    tried.clear()
    again = sample_together(pictures[:4], *common, warn=said.append, most=most)
    assert tried == [2, 2]  # What is known is not tried once more.
    assert len(said) == 2
    for one, other in zip(again, expected, strict=False):
        assert one is not None
        assert other is not None
        assert torch.allclose(one.x, other.x, atol=1e-4)


def test_a_batch_that_would_not_fit_is_halved_before(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "available", lambda _: 0)
    options = sampler_options("lavps", "balanced", ("num_steps=4",), weights.switch_ratio)
    said: list[str] = []
    pictures = [seen(i, task="denoise") for i in range(2)]
    common, most = (weights, Tiling(0, 0), Sampling(), options), dict[tuple[int, int], int]()
    for _ in range(2):
        found = sample_together(pictures, *common, warn=said.append, most=most)
        assert found == [None, None]
    assert "2 pictures at once" in said[0]
    assert len(said) == 1
