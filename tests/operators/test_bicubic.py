import numpy as np
import pytest
import torch
from PIL import Image

from lavps_cli.errors import DataError, UsageError
from lavps_cli.operators.bicubic import BicubicDownsampling


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_it_equals_pillow(scale: int) -> None:
    x = torch.rand(1, 40 // 8 * scale, 9 * scale, generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray(x[0].numpy()).resize((9, 5), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(picture))
    torch.testing.assert_close(BicubicDownsampling(scale)(x)[0], expected, rtol=0, atol=2e-6)


def test_a_constant_stays_constant() -> None:
    y = BicubicDownsampling(4)(torch.full((1, 16, 8), 0.3, dtype=torch.float64))
    torch.testing.assert_close(y, torch.full((1, 4, 2), 0.3, dtype=torch.float64))


def test_a_picture_that_does_not_divide_is_refused_with_the_size_that_does() -> None:
    with pytest.raises(DataError, match="10 x 8 pixels") as error:
        BicubicDownsampling(4)(torch.zeros(1, 8, 10))
    assert error.value.hint == "Crop it to 8 x 8 pixels."


def test_a_scale_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="scale -2"):
        BicubicDownsampling(-2)
