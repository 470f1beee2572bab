from dataclasses import replace

import pytest
import torch

from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.schedule import SCHEDULES
from lavps_cli.models.conditional import ConditionalDenoiser, seeing
from lavps_cli.models.hdit import HDiT, HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig
from lavps_cli.models.preconditioning import PreconditionedDenoiser
from lavps_cli.operators.super_resolution import SuperResolution

CONFIG = HDiTConfig(
    levels=(LevelConfig(depth=1, width=16, d_ff=16, d_head=8, window=3),),
    patch_size=2,
    mapping_width=16,
    mapping_d_ff=16,
    mapping_depth=1,
    rope_extent=4,
)
FLOW = SCHEDULES["flow"]


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(config: HDiTConfig) -> HDiT:
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        made = HDiT(config)
        torch.nn.init.normal_(made.patch_out.proj.weight, std=0.1)
    return made


def problem(batch: int) -> Likelihood:
    A = SuperResolution(2)
    return Likelihood(A(random(batch, 3, 16, 16, seed=1)), A, 0.1)


@pytest.mark.parametrize("stem", ["patch", "overlap"])
@pytest.mark.parametrize("joint", [0, 1, 2])
def test_a_network_that_begins_as_a_prior_is_that_prior(stem: str, joint: int) -> None:
    prior = network(replace(CONFIG, stem=stem))  # type: ignore[arg-type]
    for i, (name, weight) in enumerate(prior.named_parameters()):
        if name.endswith("out_proj.weight"):  # Attention that begins at zero would prove nothing.
            weight.data = 0.1 * random(*weight.shape, seed=i)
    xt, t = random(2, 3, 16, 16, seed=2), torch.tensor(0.4, dtype=torch.float64)
    there = PreconditionedDenoiser(prior, FLOW)(xt, t)
    here = ConditionalDenoiser(seeing(prior, joint), FLOW).given(problem(2))(xt, t)
    torch.testing.assert_close(there, here, atol=1e-5, rtol=1e-5)
    assert joint or torch.equal(there, here)  # Two sets of keys round otherwise than one.
    assert not torch.equal(there, xt)


@pytest.mark.parametrize("joint", [0, 1])
def test_the_observation_matters_and_only_ones_own(joint: int) -> None:
    config = replace(CONFIG, in_channels=6, joint=joint)
    denoiser, y = ConditionalDenoiser(network(config), FLOW), problem(2)
    xt, t = random(2, 3, 16, 16, seed=2), torch.tensor(0.4, dtype=torch.float64)
    both = denoiser.given(y)(xt, t)
    alone = denoiser.given(replace(y, y=y.y[:1]))(xt[:1], t)
    assert torch.allclose(both[:1], alone, atol=1e-5)
    other = denoiser.given(replace(y, y=y.y.flip(0)))(xt, t)
    assert (both - other).abs().max() > 1e-3


def test_windows_see_what_lies_in_them() -> None:
    """An untrained network treats each patch by itself: windows with their parts are the whole."""
    made, y = network(replace(CONFIG, in_channels=6)), problem(2)
    xt, t = random(2, 3, 16, 16, seed=2), torch.tensor(0.4, dtype=torch.float64)
    whole = ConditionalDenoiser(made, FLOW).given(y)(xt, t)
    tiled = ConditionalDenoiser(made, FLOW, tile=16, overlap=4).given(y)(xt, t)
    windows = ConditionalDenoiser(made, FLOW, tile=8, overlap=4).given(y)(xt, t)
    assert torch.allclose(whole, tiled, atol=1e-6)
    assert torch.allclose(whole, windows, atol=1e-5)
    other = problem(2)
    other = replace(other, y=-other.y)
    assert not torch.allclose(ConditionalDenoiser(made, FLOW).given(other)(xt, t), whole, atol=1e-3)
