import pytest
import torch

from lavps_cli.core.operator import LinearOperator
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.filtered import FilteredDownsampling
from lavps_cli.operators.kernels import box_kernel
from lavps_cli.operators.masked import Masked
from lavps_cli.operators.super_resolution import SuperResolution

BLUR = Blur(box_kernel(5), "reflect")
MASK = (torch.rand(2, 1, 12, 14, generator=torch.Generator().manual_seed(1)) < 0.6).float()


@pytest.mark.parametrize(
    "A",
    [Masked(BLUR, MASK), Masked(SuperResolution(2), MASK), FilteredDownsampling(BLUR, 2)],
    ids=["masked-blur", "masked-sr", "filtered"],
)
def test_channel_by_channel_iterations_solve_for_the_same(
    monkeypatch: pytest.MonkeyPatch, A: LinearOperator
) -> None:
    y = torch.randn(2, 3, 12, 14, generator=torch.Generator().manual_seed(0))
    ridge = torch.tensor([0.1, 0.5]).view(2, 1, 1, 1)
    together = A.ridge(y, ridge)
    monkeypatch.setattr("lavps_cli.core.solving._CHANNELS_TOGETHER", {"cpu": 0})
    assert torch.equal(A.ridge(y, ridge), together)
