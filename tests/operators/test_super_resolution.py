import pytest
import torch

from lavps_cli.errors import DataError, UsageError
from lavps_cli.operators.super_resolution import SuperResolution


def test_each_value_is_the_mean_of_its_patch() -> None:
    x = torch.rand(2, 3, 6, 9)
    y = SuperResolution(3)(x)
    assert y.shape == (2, 3, 2, 3)
    torch.testing.assert_close(y[1, 2, 1, 0], x[1, 2, 3:6, 0:3].mean())


def test_the_inverse_repeats_each_value() -> None:
    y = torch.rand(3, 2, 5)
    expected = y.repeat_interleave(4, -2).repeat_interleave(4, -1)
    torch.testing.assert_close(SuperResolution(4).pinv(y), expected)


def test_a_picture_that_does_not_divide_is_refused_with_the_size_that_does() -> None:
    with pytest.raises(DataError, match="10 x 8 pixels") as error:
        SuperResolution(4)(torch.zeros(1, 8, 10))
    assert error.value.hint == "Crop it to 8 x 8 pixels."


def test_a_scale_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="scale 0"):
        SuperResolution(0)
