import math

import numpy as np
import pytest
import torch
from jaxtyping import Float
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from lavps_cli.errors import DataError
from lavps_cli.metrics.psnr import psnr
from lavps_cli.metrics.ssim import ssim


def pair(c: int, h: int, w: int) -> tuple[Float[Tensor, " b c h w"], Float[Tensor, " b c h w"]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, c, h, w, generator=generator).cumsum(-1)
    x = 2 * x / x.max() - 1
    return (x + 0.1 * torch.randn(x.shape, generator=generator)).clamp(-1, 1), x


@pytest.mark.parametrize("shape", [(3, 20, 31), (1, 11, 11), (3, 12, 40)])
def test_ssim_is_that_of_scikit_image(shape: tuple[int, int, int]) -> None:
    xhat, x = pair(*shape)
    for i, value in enumerate(ssim(xhat, x)):
        a, b = (((p[i].double() + 1) / 2).permute(1, 2, 0).numpy() for p in (xhat, x))
        expected = structural_similarity(
            a,
            b,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            channel_axis=2,
        )
        assert float(value) == pytest.approx(expected, abs=1e-6)


def test_psnr_is_that_of_scikit_image() -> None:
    xhat, x = pair(3, 9, 10)
    for i, value in enumerate(psnr(xhat, x)):
        a, b = (np.asarray(p[i].double()) for p in (xhat, x))
        assert float(value) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=2))


def test_equal_pictures() -> None:
    _, x = pair(3, 16, 16)
    assert torch.equal(ssim(x, x), torch.ones(2, dtype=torch.float64))
    assert all(value == math.inf for value in psnr(x, x).tolist())


def test_ssim_says_what_it_needs() -> None:
    _, x = pair(3, 10, 16)
    with pytest.raises(DataError, match="11x11"):
        ssim(x, x)
