from typing import get_args

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from lavps_cli.errors import DataError, WeightsError
from lavps_cli.metrics.lpips import _FEATURES, TRUNKS, Lpips, Net

NETS = get_args(Net)
WIDTHS = {
    "alex": (64, 192, 384, 256, 256),
    "vgg": (64, 128, 256, 512, 512),
    "squeeze": (64, 128, 256, 384, 384, 512, 512),
}


def parts(net: Net) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return a random trunk, and random linear layers."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        trunk = {f"features.{k}": v for k, v in _FEATURES[net]().state_dict().items()}
        linear = {
            f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1)
            for i, width in enumerate(WIDTHS[net])
        }
    return trunk, linear


def pair(size: int = 40) -> tuple[Float[Tensor, " b c h w"], Float[Tensor, " b c h w"]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, 3, size, size + 8, generator=generator) * 2 - 1
    return (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(-1, 1), x


@pytest.mark.parametrize("net", NETS)
def test_it_is_that_of_the_lpips_package(net: Net) -> None:
    lpips = pytest.importorskip("lpips", exc_type=Exception)
    theirs = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    state = theirs.state_dict()
    linear = {k: v for k, v in state.items() if k.startswith("lin")}
    trunk = {
        f"features.{key.split('.', 2)[2]}": value
        for key, value in state.items()
        if key.startswith("net.slice")
    }
    xhat, x = pair(64)
    with torch.no_grad():
        expected = theirs(xhat, x).flatten()
    torch.testing.assert_close(Lpips(net, trunk, linear)(xhat, x), expected)


@pytest.mark.parametrize("net", NETS)
def test_a_distance_is_that_of_its_definition(net: Net) -> None:
    """Against the sum over taps written out: unit features, squared difference, weighted mean."""
    trunk, linear = parts(net)
    metric = Lpips(net, trunk, linear)
    xhat, x = pair()
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    found = torch.zeros(2)
    features, level = _FEATURES[net](), 0
    features.load_state_dict({k.removeprefix("features."): v for k, v in trunk.items()})
    a, b = (xhat - shift) / scale, (x - shift) / scale
    with torch.no_grad():
        for i, layer in enumerate(features):
            a, b = layer(a), layer(b)
            if i in TRUNKS[net].taps:
                ua, ub = (f / (f.norm(dim=1, keepdim=True) + 1e-10) for f in (a, b))
                weight = linear[f"lin{level}.model.1.weight"].flatten()
                found += torch.einsum("bchw,c->bhw", (ua - ub) ** 2, weight).mean((1, 2))
                level += 1
    torch.testing.assert_close(metric(xhat, x), found)


def test_laws() -> None:
    metric = Lpips("alex", *parts("alex"))
    xhat, x = pair()
    assert metric(x, x).tolist() == [0.0, 0.0]
    torch.testing.assert_close(metric(xhat, x), metric(x, xhat))
    near, far = metric(x + 0.02, x), metric(x + 0.3, x)
    assert bool((near > 0).all())
    assert bool((near < far).all())
    each = torch.cat([metric(xhat[i : i + 1], x[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(metric(xhat, x), each)


def test_what_it_refuses() -> None:
    trunk, linear = parts("alex")
    with pytest.raises(WeightsError, match="not that of squeeze"):
        Lpips("squeeze", trunk, parts("squeeze")[1])
    with pytest.raises(DataError, match="32x32"):
        Lpips("alex", trunk, linear)(torch.zeros(1, 3, 31, 40), torch.zeros(1, 3, 31, 40))
