import pytest
import torch

from lavps_cli.errors import DataError
from lavps_cli.operators.inpainting import (
    Inpainting,
    centre_mask,
    pixel_mask,
    rectangle_mask,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_missing_pixels_are_exactly_zero_even_below_zero() -> None:
    mask = pixel_mask(16, 16, generator())
    y = Inpainting(mask)(torch.full((3, 16, 16), -0.7))
    assert (y[mask.expand_as(y) == 0] == 0).all()
    assert (y[mask.expand_as(y) == 1] == -0.7).all()


def test_measured_is_the_mask_at_the_shape_of_the_measurement() -> None:
    masks = torch.stack([rectangle_mask(8, 9, generator(i)) for i in range(2)])
    y = torch.zeros(2, 5, 3, 8, 9)
    measured = Inpainting(masks).measured(y)
    assert measured.shape == y.shape
    assert torch.equal(measured[1, 4, 2], masks[1, 0])


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match="mask is 6 x 4 pixels, the picture 6 x 5"):
        Inpainting(torch.ones(1, 4, 6))(torch.zeros(3, 5, 6))


def test_a_mask_of_one_row_does_not_broadcast() -> None:
    with pytest.raises(DataError):
        Inpainting(torch.ones(1, 1, 6))(torch.zeros(3, 5, 6))


def test_centre_mask_removes_a_quarter_of_a_square() -> None:
    mask = centre_mask(64, 64)
    assert mask.shape == (1, 64, 64)
    assert mask.dtype == torch.float32
    assert (mask[:, 16:48, 16:48] == 0).all()
    assert mask.sum() == 64**2 - 32**2


def test_centre_mask_of_an_oblong_removes_a_centred_square() -> None:
    rows, columns = (centre_mask(40, 100)[0] == 0).nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 29, 40, 59)


def test_rectangle_mask_has_one_rectangle_of_the_stated_sides() -> None:
    places = set()
    for seed in range(50):
        mask = rectangle_mask(50, 100, generator(seed))
        rows, columns = (mask[0] == 0).nonzero().unbind(1)
        height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
        assert 20 <= height <= 30
        assert 40 <= width <= 60
        assert (mask == 0).sum() == height * width
        places.add((int(rows.min()), int(columns.min())))
    assert len(places) > 40


def test_rectangle_mask_reaches_every_border() -> None:
    masks = torch.stack([rectangle_mask(10, 10, generator(seed)) for seed in range(100)])
    holes = (masks == 0).any(0)[0]
    assert holes[0].any()
    assert holes[-1].any()
    assert holes[:, 0].any()
    assert holes[:, -1].any()


def test_pixel_mask_drops_the_stated_fraction() -> None:
    dropped = [1 - pixel_mask(200, 200, generator(seed)).mean().item() for seed in range(20)]
    assert min(dropped) > 0.79
    assert max(dropped) < 0.86
    assert max(dropped) - min(dropped) > 0.02


def test_pixel_mask_takes_another_range() -> None:
    assert pixel_mask(300, 300, generator(), 0.5, 0.5).mean().item() == pytest.approx(0.5, abs=0.01)
    assert (pixel_mask(30, 30, generator(), 0, 0) == 1).all()
    assert (pixel_mask(30, 30, generator(), 1, 1) == 0).all()


@pytest.mark.parametrize("draw", [rectangle_mask, pixel_mask])
def test_a_seed_fixes_the_mask(draw) -> None:
    assert torch.equal(draw(32, 48, generator(3)), draw(32, 48, generator(3)))
    assert not torch.equal(draw(32, 48, generator(3)), draw(32, 48, generator(4)))
