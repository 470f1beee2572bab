import math

import pytest
import torch
from torch import Tensor

from lavps_cli.errors import UsageError
from lavps_cli.models.hdit import HDiT, HDiTConfig, lower
from lavps_cli.models.hdit_layers import (
    AdaRMSNorm,
    AxialRoPE,
    FourierFeatures,
    LevelConfig,
    RMSNorm,
    TokenMerge,
    TokenSplit,
    TokenSplitWithoutSkip,
)

KINDS = ("global", "neighbourhood", "shifted_window")
each_kind = pytest.mark.parametrize("kind", KINDS)
each_stem = pytest.mark.parametrize("stem", ["patch", "overlap"])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def config(kind: str = "neighbourhood", depth: int = 1, **changes: object) -> HDiTConfig:
    levels = tuple(
        LevelConfig(depth=depth, width=w, d_ff=2 * w, d_head=8, attention=kind, window=3)
        for w in (16, 24)
    )
    settings = {"levels": levels, "patch_size": 2, "mapping_width": 16, "mapping_d_ff": 32}
    return HDiTConfig(**(settings | changes))


def awake(config: HDiTConfig) -> HDiT:
    """A float64 network none of whose weights is zero."""
    network = HDiT(config).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, x in network.state_dict().items():
            if not name.endswith("freqs"):
                w = torch.randn(x.shape, generator=generator, dtype=x.dtype)
                x.copy_(1 + 0.1 * w if x.ndim == 1 else w * x.shape[-1] ** -0.5)
    return network


@each_stem
@each_kind
def test_untrained_network_returns_zero(kind: str, stem: str) -> None:
    network = HDiT(config(kind, depth=2, stem=stem))
    out = network(random(2, 3, 12, 8).float(), torch.tensor([0.1, -0.4]))
    assert torch.equal(out, torch.zeros(2, 3, 12, 8))


@each_stem
@each_kind
@pytest.mark.parametrize(("h", "w"), [(4, 4), (8, 20), (28, 12)])
def test_every_size_that_is_a_multiple_comes_back(kind: str, stem: str, h: int, w: int) -> None:
    network = awake(config(kind, depth=2, stem=stem, in_channels=5, out_channels=2))
    assert network.config.multiple == 4
    out = network(random(2, 5, h, w), random(2))
    assert out.shape == (2, 2, h, w)
    assert out.isfinite().all()
    assert (out.std((2, 3)) > 0).all()


@each_kind
def test_images_of_a_batch_do_not_meet(kind: str) -> None:
    network, x, noise = awake(config(kind, depth=2)), random(3, 3, 8, 12), random(3, seed=1)
    together = network(x, noise)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], network(x[i : i + 1], noise[i : i + 1]))


@each_stem
@each_kind
def test_every_parameter_has_a_gradient(kind: str, stem: str) -> None:
    network = awake(config(kind, depth=2, stem=stem, mapping_cond_dim=4, num_classes=3))
    x = random(1, 3, 12, 8).requires_grad_()
    out = network(x, random(1), random(1, 4, seed=1), torch.tensor([2]))
    out.square().sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).all()
    for name, parameter in network.named_parameters():
        # The features of the augmentation, of which there is none, are constant: sin 0 = 0.
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


def test_gradient_is_that_of_finite_differences() -> None:
    network = awake(config(depth=2, mapping_cond_dim=4))
    x, noise, cond = random(1, 3, 4, 8), random(1, seed=1), random(1, 4, seed=2)
    inputs = [y.requires_grad_() for y in (x, noise, cond)]
    direction = [random(*y.shape, seed=3 + i) for i, y in enumerate(inputs)]
    weight = random(*x.shape, seed=7)

    def along(step: float) -> Tensor:
        moved = [y + step * d for y, d in zip(inputs, direction, strict=True)]
        return (network(*moved) * weight).sum()

    slopes = torch.autograd.grad(along(0.0), inputs)
    slope = sum((g * d).sum() for g, d in zip(slopes, direction, strict=True))
    numerical = (along(1e-5) - along(-1e-5)) / 2e-5
    torch.testing.assert_close(numerical.detach(), slope, rtol=1e-6, atol=1e-8)


def test_output_depends_on_every_condition() -> None:
    network = awake(config(mapping_cond_dim=4, num_classes=3))
    x, noise, cond, label = random(1, 3, 8, 8), random(1), random(1, 4), torch.tensor([1])
    out = network(x, noise, cond, label)
    for changed in (
        network(x, noise + 0.1, cond, label),
        network(x, noise, cond + 0.1, label),
        network(x, noise, cond, label + 1),
    ):
        assert (changed - out).abs().max() > 1e-4


def test_a_further_condition_starts_without_effect() -> None:
    network = HDiT(config(mapping_cond_dim=4))
    assert not network.mapping_cond_in_proj.weight.any()


# How far the border reaches: two tokens of level 1 (8 pixels), one more of level 0 (2) and half a
# patch of the overlapping stem (1), rounded up to a multiple. Positions are float32.
MARGIN = 12
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def interior(x: Tensor) -> Tensor:
    return x[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


@each_stem
def test_local_network_sees_a_part_as_it_sees_the_whole(stem: str) -> None:
    network = awake(config(stem=stem, rope_extent=16))
    assert network.config.is_local
    whole, noise = random(1, 3, 48, 40), random(1, seed=1)
    top, left = 8, 4
    part = whole[..., top : top + 36, left : left + 32]
    expected = network(whole, noise)[..., top : top + 36, left : left + 32]
    torch.testing.assert_close(interior(network(part, noise)), interior(expected), **CLOSE)
    assert not torch.allclose(network(part, noise), expected, **CLOSE)


def test_local_network_moves_with_the_picture() -> None:
    network = awake(config(rope_extent=16))
    x, noise = random(1, 3, 40, 40), random(1, seed=1)
    moved = network(x.roll((4, 8), (2, 3)), noise)
    torch.testing.assert_close(
        moved[..., 4 + MARGIN : -MARGIN, 8 + MARGIN : -MARGIN],
        network(x, noise).roll((4, 8), (2, 3))[..., 4 + MARGIN : -MARGIN, 8 + MARGIN : -MARGIN],
        **CLOSE,
    )


def test_local_network_with_shifted_windows_keeps_them_when_the_picture_grows() -> None:
    network = awake(config("shifted_window", depth=2, rope_extent=16))
    assert network.config.is_local
    whole, noise = random(1, 3, 96, 72), random(1, seed=1)
    part = network(whole[..., :72, :48], noise)
    expected = network(whole, noise)
    torch.testing.assert_close(part[..., :24, :12], expected[..., :24, :12], **CLOSE)
    assert not torch.allclose(part, expected[..., :72, :48], **CLOSE)


@each_kind
def test_a_network_that_is_not_local_says_so_and_is_not(kind: str) -> None:
    settings = config(kind, rope_extent=16 if kind == "global" else None)
    assert not settings.is_local
    network, whole, noise = awake(settings), random(1, 3, 48, 40), random(1, seed=1)
    expected = network(whole, noise)[..., :32, :32]
    part = network(whole[..., :32, :32], noise)
    assert not torch.allclose(interior(part), interior(expected), **CLOSE)


@pytest.mark.parametrize(
    ("width", "d_head", "levels"), [(20, 8, 1), (24, 12, 1), (16, 8, 0)], ids=["width", "d", "none"]
)
def test_impossible_shapes_are_usage_errors(width: int, d_head: int, levels: int) -> None:
    level = LevelConfig(depth=1, width=width, d_ff=8, d_head=d_head)
    with pytest.raises(UsageError):
        HDiTConfig(levels=(level,) * levels)


def expected_names(depths: tuple[int, ...], mapping_depth: int) -> set[str]:
    """The names of k-diffusion's ImageTransformerDenoiserModelV2, conditioned on class and more."""
    layer = [
        "self_attn.norm.linear.weight",
        "self_attn.qkv_proj.weight",
        "self_attn.scale",
        "self_attn.pos_emb.freqs",
        "self_attn.out_proj.weight",
        "ff.norm.linear.weight",
        "ff.up_proj.weight",
        "ff.down_proj.weight",
    ]
    names = {
        "patch_in.proj.weight",
        "time_emb.weight",
        "time_in_proj.weight",
        "aug_emb.weight",
        "aug_in_proj.weight",
        "class_emb.weight",
        "mapping_cond_in_proj.weight",
        "mapping.in_norm.scale",
        "mapping.out_norm.scale",
        "out_norm.scale",
        "patch_out.proj.weight",
    }
    for i in range(mapping_depth):
        for name in ("norm.scale", "up_proj.weight", "down_proj.weight"):
            names.add(f"mapping.blocks.{i}.{name}")
    *outer, middle = depths
    for i, depth in enumerate(outer):
        names |= {f"merges.{i}.proj.weight", f"splits.{i}.proj.weight", f"splits.{i}.fac"}
        for way in ("down", "up"):
            names |= {f"{way}_levels.{i}.{j}.{x}" for j in range(depth) for x in layer}
    return names | {f"mid_level.{j}.{x}" for j in range(middle) for x in layer}


def test_names_and_shapes_are_those_of_k_diffusion() -> None:
    levels = (
        LevelConfig(depth=2, width=16, d_ff=40, d_head=8),
        LevelConfig(depth=1, width=24, d_ff=48, d_head=8),
        LevelConfig(depth=3, width=32, d_ff=56, d_head=16, attention="global"),
    )
    settings = config(levels=levels, patch_size=4, mapping_cond_dim=5, num_classes=7)
    state = HDiT(settings).state_dict()
    assert set(state) == expected_names((2, 1, 3), 2)
    shapes = {
        "patch_in.proj.weight": (16, 3 * 16),
        "patch_out.proj.weight": (3 * 16, 16),
        "time_emb.weight": (8, 1),
        "aug_emb.weight": (8, 9),
        "class_emb.weight": (7, 16),
        "mapping_cond_in_proj.weight": (16, 5),
        "mapping.blocks.0.up_proj.weight": (2 * 32, 16),
        "down_levels.0.0.self_attn.qkv_proj.weight": (3 * 16, 16),
        "down_levels.0.0.self_attn.scale": (2,),
        "down_levels.0.0.self_attn.pos_emb.freqs": (2, 1),
        "mid_level.0.self_attn.pos_emb.freqs": (2, 2),
        "down_levels.0.1.ff.norm.linear.weight": (16, 16),
        "up_levels.1.0.ff.up_proj.weight": (2 * 48, 24),
        "merges.0.proj.weight": (24, 4 * 16),
        "splits.0.proj.weight": (4 * 16, 24),
        "splits.0.fac": (1,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_conditions_that_are_not_there_have_no_weights() -> None:
    names = set(HDiT(config()).state_dict())
    assert not any(name.startswith(("class_emb", "mapping_cond_in_proj")) for name in names)


def test_patches_are_ordered_by_row_column_channel() -> None:
    merge = TokenMerge(3, 12, 2)
    torch.nn.init.eye_(merge.proj.weight)
    x = random(1, 4, 6, 3).float()
    tokens = merge(x)
    for i in range(2):
        for j in range(3):
            patch = x[0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            torch.testing.assert_close(tokens[0, i, j], patch.flatten())
    split = TokenSplitWithoutSkip(12, 3, 2)
    torch.nn.init.eye_(split.proj.weight)
    torch.testing.assert_close(split(tokens), x)


def test_the_way_up_mixes_with_the_skip_by_a_learnt_share() -> None:
    split = TokenSplit(12, 3)
    torch.nn.init.eye_(split.proj.weight)
    up, skip = random(1, 2, 2, 12).float(), random(1, 4, 4, 3, seed=1).float()
    torch.nn.init.constant_(split.fac, 0.0)
    torch.testing.assert_close(split(up, skip), skip)
    torch.nn.init.constant_(split.fac, 1.0)
    torch.testing.assert_close(split(up, skip), TokenSplitWithoutSkip.forward(split, up))


def test_normalisation_gives_unit_mean_square_times_its_scale() -> None:
    x, cond = 5 * random(2, 3, 4, 8), random(2, 6)
    unit = RMSNorm(8).double()(x)
    torch.testing.assert_close(unit.square().mean(-1), torch.ones(2, 3, 4).double())
    adaptive = AdaRMSNorm(8, 6).double()
    torch.testing.assert_close(adaptive(x, cond), unit)
    torch.nn.init.ones_(adaptive.linear.weight)
    torch.testing.assert_close(adaptive(x, cond), unit * (1 + cond.sum(1))[:, None, None, None])


def test_rotary_frequencies_rise_from_pi_to_ten_pi_over_features_and_heads() -> None:
    freqs = AxialRoPE(d_head=32, heads=3).freqs
    assert freqs.shape == (3, 4)
    expected = [math.pi * 10 ** (i / 12) for i in range(12)]
    torch.testing.assert_close(freqs.T.flatten(), torch.tensor(expected))


def test_rotary_angles_are_first_by_row_then_by_column() -> None:
    embedding = AxialRoPE(d_head=16, heads=2).double()
    row, column = 0.3, -0.7
    cos, sin = embedding(torch.tensor([[[row, column]]], dtype=torch.float64))
    angles = torch.cat([row * embedding.freqs, column * embedding.freqs], 1)
    torch.testing.assert_close(cos[0, 0], angles.cos())
    torch.testing.assert_close(sin[0, 0], angles.sin())


@each_kind
def test_lowered_matrices_are_those_that_autocast_makes(kind: str) -> None:
    network = awake(config(kind, depth=2, stem="overlap")).float().requires_grad_(False)
    x, noise = random(1, 3, 8, 12).float(), random(1).float()
    with torch.autocast("cpu", torch.bfloat16):
        before = network(x, noise)
        lower(network, torch.bfloat16)
        assert torch.equal(network(x, noise), before)


def test_the_noise_level_keeps_its_digits_under_autocast() -> None:
    features = FourierFeatures(1, 16)
    noise = torch.tensor([[0.7312], [-1.2345]])
    exact = features(noise)
    with torch.autocast("cpu", torch.bfloat16):
        lower = features(noise)
    torch.testing.assert_close(lower, exact)


def test_under_autocast_the_result_is_float32_and_close() -> None:
    network = awake(config(depth=2)).float()
    x, noise = random(1, 3, 8, 8).float(), random(1, seed=1).float()
    exact = network(x, noise)
    with torch.autocast("cpu", torch.bfloat16):
        lower = network(x, noise)
    assert lower.dtype == torch.float32
    assert (lower - exact).std() < 0.1 * exact.std()
