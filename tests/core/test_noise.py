import torch

from lavps_cli.core.noise import Noise

CPU = torch.device("cpu")


def test_each_row_depends_on_its_own_seed_only() -> None:
    together, shuffled, alone = Noise([5, 6, 7], CPU), Noise([7, 5], CPU), Noise([6], CPU)
    for shape in ((3, 4, 4), (1, 2, 2)):
        a, b, c = together.normal(shape), shuffled.normal(shape), alone.normal(shape)
        assert torch.equal(a[0], b[1])
        assert torch.equal(a[2], b[0])
        assert torch.equal(a[1], c[0])


def test_seeds_and_draws_differ_from_one_another() -> None:
    noise = Noise([0, 1], CPU)
    first, second = noise.normal((1, 4, 4)), noise.normal((1, 4, 4))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


def test_draws_have_the_shape_and_type_asked_for() -> None:
    noise = Noise([0, 1], CPU)
    assert len(noise) == 2
    for dtype in (torch.float32, torch.float64):
        x = torch.empty(2, 3, 4, 5, dtype=dtype)
        assert noise.normal_like(x).shape == x.shape
        assert noise.normal_like(x).dtype == dtype
    assert noise.normal((1, 2, 3)).dtype == torch.float32


def test_draws_are_standard_normal() -> None:
    w = Noise([11], CPU).normal((1, 200, 200), torch.float64).flatten()
    deviation = len(w) ** -0.5
    assert w.mean().abs() < 5 * deviation
    assert (w.var() - 1).abs() < 5 * 2**0.5 * deviation
    assert (w.pow(4).mean() - 3).abs() < 5 * 96**0.5 * deviation


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    Noise([3], CPU).normal((1, 2, 2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_some_rows_draw_and_the_others_do_not_move() -> None:
    shape = torch.empty(3, 1, 2, 2)
    noise, twin = Noise([1, 2, 3], CPU), Noise([1, 2, 3], CPU)
    rows = [True, False, True]
    first, whole = noise.some_like(shape, rows), twin.normal_like(shape)
    assert torch.equal(first[rows], whole[rows])
    assert not first[1].any()
    assert torch.equal(noise.normal_like(shape)[1], whole[1])
