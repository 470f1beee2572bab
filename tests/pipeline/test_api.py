import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lavps_cli as lavps
from lavps_cli.errors import UsageError
from lavps_cli.models.analytic import GaussianPrior

OPTIONS = lavps.LavpsOptions(num_steps=6)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> lavps.Model:
    return lavps.load(str(model_folder), device="cpu", dtype="fp32")


def test_names_resolve_and_are_sorted() -> None:
    assert list(lavps.__all__) == sorted(lavps.__all__)
    for name in lavps.__all__:
        assert getattr(lavps, name) is not None
        assert name in dir(lavps)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lavps.nothing  # noqa: B018


def test_importing_is_cheap() -> None:
    code = "import sys, lavps_cli; lavps_cli.__version__; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "False\n"


@pytest.mark.parametrize(
    ("A", "size"),
    [
        (lavps.SuperResolution(2), (20, 24)),
        (lavps.BicubicDownsampling(2), (20, 24)),
        (lavps.Blur(lavps.box_kernel(3), "valid"), (12, 14)),
        (lavps.Inpainting(lavps.centre_mask(10, 12)), (10, 12)),
        (lavps.Denoising(), (10, 12)),
    ],
)
def test_the_size_follows_from_the_operator(
    model: lavps.Model, A: lavps.Denoising, size: tuple[int, int]
) -> None:
    y = A(torch.zeros(1, 3, *size))
    x = lavps.restore(y, A, sigma_y=0.1, model=model, options=OPTIONS)
    assert x.shape == (1, 3, *size)
    assert x.isfinite().all()


def test_pictures_and_samples_do_not_depend_on_their_batch(model: lavps.Model) -> None:
    y = torch.rand(2, 3, 8, 8) - 0.5
    A = lavps.Denoising()
    both = lavps.restore(y, A, sigma_y=0.2, model=model, options=OPTIONS, seed=3)
    for i in range(2):
        alone = lavps.restore(
            y[i : i + 1], A, sigma_y=0.2, model=model, options=OPTIONS, seed=3, samples=1 + i
        )
        torch.testing.assert_close(alone[:1], both[i : i + 1], atol=1e-4, rtol=0)


def test_ones_own_prior() -> None:
    from lavps_cli.core.schedule import Flow

    prior = GaussianPrior(torch.zeros(3, 4, 4), 0.25, Flow())
    y = torch.full((1, 3, 4, 4), 0.8)
    options = lavps.LavpsOptions(grad_steps_start=5, grad_steps_end=5)
    x = lavps.restore(
        y, lavps.Denoising(), sigma_y=0.05, model=lavps.Model(prior), options=options, samples=20
    )
    assert float(x.mean()) == pytest.approx(0.8, abs=0.1)


def test_arguments_that_do_not_go_together(model: lavps.Model) -> None:
    A = lavps.Denoising()
    with pytest.raises(UsageError, match="2 samples of 2 pictures"):
        lavps.restore(torch.zeros(2, 3, 4, 4), A, sigma_y=0.1, model=model, samples=2)
    with pytest.raises(UsageError, match="positive"):
        lavps.restore(torch.zeros(1, 3, 4, 4), A, sigma_y=0.0, model=model)


def test_tiles_by_request(model_folder: Path) -> None:
    y = torch.zeros(1, 3, 20, 20)
    model = lavps.load(str(model_folder), "cpu", "fp32", inference="none", tile=16)
    assert model.inference is None
    x = lavps.restore(y, lavps.Denoising(), sigma_y=0.1, model=model, options=OPTIONS)
    assert x.shape == y.shape
