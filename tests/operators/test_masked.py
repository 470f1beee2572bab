import pytest
import torch

from lavps_cli.core.operator import LinearOperator
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.kernels import box_kernel
from lavps_cli.operators.masked import Masked
from lavps_cli.operators.super_resolution import SuperResolution


@pytest.mark.parametrize(
    "inner", [Blur(box_kernel(5), "reflect"), SuperResolution(2)], ids=["blur", "sr"]
)
def test_channel_by_channel_it_solves_for_the_same(
    monkeypatch: pytest.MonkeyPatch, inner: LinearOperator
) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(2, 3, 12, 14, generator=generator)
    A = Masked(inner, (torch.rand(2, 1, 12, 14, generator=generator) < 0.6).float())
    ridge = torch.tensor([0.1, 0.5]).view(2, 1, 1, 1)
    together = A.ridge(y, ridge)
    monkeypatch.setattr("lavps_cli.operators.masked._CHANNELS_TOGETHER", {"cpu": 0})
    assert torch.equal(A.ridge(y, ridge), together)
