import torch

from lavps_cli.models.hdit import HDiT, HDiTConfig
from lavps_cli.models.hdit_layers import LevelConfig
from lavps_cli.models.lora import Adapted, Adapter

CONFIG = HDiTConfig(
    levels=(LevelConfig(depth=1, width=16, d_ff=16, d_head=8, window=3),),
    patch_size=2,
    mapping_width=16,
    mapping_d_ff=16,
    mapping_depth=1,
    rope_extent=4,
)
X, NOISE = torch.linspace(-1, 1, 3 * 64).view(1, 3, 8, 8), torch.tensor([0.2])


def base() -> HDiT:
    network = HDiT(CONFIG).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for w in network.parameters():
        w.add_(0.2 * torch.randn(w.shape, generator=generator))
    return network


def test_untrained_it_changes_nothing() -> None:
    network = base()
    same = Adapted(network, Adapter(network, 3).weights(network))
    assert torch.equal(same(X, NOISE), network(X, NOISE))


def test_trained_it_is_a_low_rank_change_of_the_projections_alone() -> None:
    network = base()
    adapter = Adapter(network, 2)
    with torch.no_grad():
        for up in adapter.up.values():
            up.normal_(generator=torch.Generator().manual_seed(1))
    changed = adapter.weights(network)
    assert {name.rsplit(".", 2)[-2] for name in changed} == {"qkv_proj", "out_proj"}
    for name, w in changed.items():
        assert torch.linalg.matrix_rank(w - network.state_dict()[name], atol=1e-4) == 2
    out = Adapted(network, changed)(X, NOISE)
    assert (out - network(X, NOISE)).abs().max() > 1e-3
    merged = HDiT(CONFIG)
    merged.load_state_dict(network.state_dict() | changed)
    assert torch.allclose(out, merged(X, NOISE), atol=1e-6)


def test_gradients_reach_the_adapter_and_not_the_network() -> None:
    network = base()
    adapter = Adapter(network, 2)
    Adapted(network, adapter.weights(network))(X, NOISE).square().sum().backward()
    assert all(up.grad is not None and up.grad.abs().max() > 0 for up in adapter.up.values())
    assert all(w.grad is None for w in network.parameters())
    assert not list(Adapted(network, {}).parameters())
