import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lavps_cli.core.likelihood import Likelihood
from lavps_cli.core.schedule import SCHEDULES
from lavps_cli.models.amortised import AmortisedSampler, coverage
from lavps_cli.models.conditional import estimate
from lavps_cli.models.flow import CHANNELS_IN, CHANNELS_OUT, Condition, FlowConfig, FlowNetwork
from lavps_cli.models.hdit import HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig
from lavps_cli.operators.inpainting import Inpainting

CONFIG = FlowConfig(
    backbone=HDiTConfig(
        levels=(LevelConfig(depth=1, width=16, d_ff=16, d_head=8, window=3),),
        patch_size=2,
        mapping_width=16,
        mapping_d_ff=16,
        mapping_depth=1,
        rope_extent=4,
        in_channels=CHANNELS_IN,
        out_channels=CHANNELS_OUT,
    ),
    levels=2,
    depth=2,
    width=8,
)
FLOW, T = SCHEDULES["flow"], torch.tensor(1.0, dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network() -> FlowNetwork:
    """A flow none of whose weights is zero."""
    made = FlowNetwork(CONFIG).eval().requires_grad_(False)
    for i, w in enumerate(made.parameters()):
        w.copy_(0.2 * random(*w.shape, seed=i) + (w.ndim == 1))
    return made


def conditioned(network: FlowNetwork, rows: int, size: int) -> Condition:
    """A condition in double precision."""
    pictures = (0.3 * random(rows, 3, size, size, seed=50 + i) for i in range(2))
    found = network.condition(*pictures, torch.full((rows,), -0.5))
    return Condition(found.mean.double(), found.log_scale.double(), found.features.double())


def test_it_is_invertible_with_the_determinant_it_tells(network: FlowNetwork) -> None:
    made = FlowNetwork(CONFIG).double()
    made.load_state_dict(network.state_dict())
    condition = conditioned(network, 3, 8)
    z = random(3, 3, 8, 8, seed=9).double()
    x, log_det = made(z, condition)
    back, inverse_log_det = made.inverse(x, condition)
    assert torch.allclose(back, z, atol=1e-9)
    assert torch.allclose(log_det, -inverse_log_det, atol=1e-9)
    assert (x - condition.mean - condition.log_scale.exp() * z).abs().max() > 0.1


def test_the_determinant_is_that_of_the_jacobian(network: FlowNetwork) -> None:
    made = FlowNetwork(CONFIG).double()
    made.load_state_dict(network.state_dict())
    condition, z = conditioned(network, 1, 4), random(1, 3, 4, 4, seed=9).double()
    jacobian = torch.autograd.functional.jacobian(lambda z: made(z, condition)[0].flatten(), z)
    _, exact = torch.linalg.slogdet(jacobian.flatten(1))
    assert math.isclose(made(z, condition)[1].item(), exact.item(), rel_tol=1e-8)
    x = made(z, condition)[0]
    density = made.log_density(x, condition).item()
    assert math.isclose(density, -0.5 * z.square().sum().item() - exact.item(), rel_tol=1e-8)


def test_an_untrained_flow_scatters_around_the_linear_estimate() -> None:
    condition = conditioned(FlowNetwork(CONFIG), 2, 8)
    z = random(2, 3, 8, 8, seed=9).double()
    x, log_det = FlowNetwork(CONFIG).double()(z, condition)
    spread = (x - condition.mean).flatten(1).norm(dim=1) / z.flatten(1).norm(dim=1)
    assert torch.allclose(spread, torch.full((2,), 0.1).double())
    assert torch.allclose(log_det, torch.full((2,), 192 * math.log(0.1)).double())


def problem(rows: int) -> Likelihood:
    A = Inpainting((random(1, 8, 12, seed=3) > 0).float())
    return Likelihood(A(0.3 * random(rows, 3, 8, 12, seed=4)), A, 0.1)


def test_one_observation_is_read_once_for_all_samples(network: FlowNetwork) -> None:
    sampler, z = AmortisedSampler(network, FLOW), random(5, 3, 8, 12, seed=5)
    one = problem(1)
    calls = []
    handle = network.backbone.register_forward_hook(
        lambda module, args, out: calls.append(len(out))
    )
    together = sampler.given(one)(z, T)
    handle.remove()
    assert calls == [1]
    each = replace(one, y=one.y.repeat(5, 1, 1, 1))
    assert torch.allclose(together, sampler.given(each)(z, T), rtol=1e-3, atol=1e-4)
    assert torch.allclose(together[3:4], sampler.given(one)(z[3:4], T), rtol=1e-3, atol=1e-4)


def test_pictures_of_any_size_whole_and_in_windows(network: FlowNetwork) -> None:
    y = Likelihood(0.3 * random(1, 3, 9, 13, seed=4), Inpainting(torch.ones(1, 9, 13)), 0.1)
    z = random(2, 3, 9, 13, seed=5)
    for tile in (0, 8):
        x = AmortisedSampler(network, FLOW, tile=tile, overlap=tile // 2).given(y)(z, T)
        assert x.shape == z.shape
        assert x.isfinite().all()


def test_coverage_tells_what_is_measured() -> None:
    likelihood = problem(1)
    known = coverage(likelihood, estimate(likelihood))
    mask = likelihood.A(torch.ones(1, 3, 8, 12))
    assert torch.allclose(known, mask * (1 / (1 + 0.1**2 / 0.25)))
