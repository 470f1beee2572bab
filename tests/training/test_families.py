import pytest
import torch

from lavps_cli.errors import UsageError
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.inpainting import Inpainting
from lavps_cli.operators.per_picture import of_rows
from lavps_cli.operators.super_resolution import SuperResolution
from lavps_cli.training.families import parse_families
from lavps_cli.training.rows import Rows, generator_of

ALL = (
    "2*sr:4,sr:2-4,deblur:21@0.9,3*deblur:9-27@0-1,gaussian:7-27,inpaint:centre,inpaint:rect+0.01,"
    "inpaint:pixels@0.8-0.85,denoise+0.1"
)


def test_names_shares_and_noise_are_those_of_the_text() -> None:
    families = parse_families(ALL, 64)
    assert [f.name for f in families] == ALL.split(",")
    assert [f.share for f in families] == [2, 1, 1, 3, 1, 1, 1, 1, 1]
    assert [f.sigma_y for f in families] == [0.05] * 6 + [0.01, 0.05, 0.1]


def test_operators_take_pictures_and_depend_on_the_generator_alone() -> None:
    x = torch.randn(3, 3, 64, 64, generator=generator_of(0))
    for i, family in enumerate(parse_families(ALL, 64)):
        first, again, other = (family.draw(3, 64, generator_of(seed, i))(x) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        fixed = family.name in ("2*sr:4", "deblur:21@0.9", "inpaint:centre", "denoise+0.1")
        if family.name != "sr:2-4":
            assert torch.equal(first, other) == fixed, family.name


def test_one_kernel_is_that_of_degrade() -> None:
    from lavps_cli.operators.kernels import motion_kernel

    (family,) = parse_families("deblur:21@0.9", 64)
    A = family.draw(2, 64, generator_of(3))
    assert isinstance(A, Blur)
    expected = motion_kernel(21, 0.9, torch.Generator().manual_seed(0))
    assert torch.equal(A.kernel, expected)


def test_scales_divide_the_picture() -> None:
    (family,) = parse_families("sr:2-4", 64)
    scales = {family.draw(1, 64, generator_of(i)).scale for i in range(30)}  # type: ignore[attr-defined]
    assert scales == {2, 4}


def test_missing_pixels_have_the_share_that_is_asked() -> None:
    (family,) = parse_families("inpaint:pixels@0.9-0.92", 64)
    A = family.draw(20, 64, generator_of(0))
    assert isinstance(A, Inpainting)
    missing = 1 - A.mask.mean((1, 2, 3))
    assert ((missing > 0.88) & (missing < 0.94)).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("debur:21", "no such kind"),
        ("deblur:20", "odd"),
        ("deblur:71", "exceed"),
        ("deblur:9-7", "downwards"),
        ("deblur:9@1.2", "between 0 and 1"),
        ("sr:3", "divides"),
        ("inpaint:left", "centre"),
        ("inpaint:rect@0.2", "only pixels"),
        ("denoise:3", "denoise"),
        ("0*sr:4", "positive"),
        ("sr:4,,", "grammar"),
        ("sr:x", "could not convert"),
    ],
)
def test_mistakes_are_told_with_the_grammar(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        parse_families(text, 64)
    assert "sr:4" in error.value.hint


def test_rows_of_an_operator_are_those_of_the_pictures() -> None:
    x = torch.randn(6, 3, 64, 64, generator=generator_of(0))
    rows = Rows(2, 3, 6)
    for family in parse_families("sr:4,deblur:21@0.9,deblur:9-27@0-1,inpaint:rect,denoise", 64):
        A = family.draw(6, 64, generator_of(5))
        own = of_rows(A, rows.slice, torch.device("cpu"))
        assert torch.allclose(own(x[rows.slice]), A(x)[rows.slice], atol=1e-6)
        if isinstance(A, SuperResolution):
            assert own is A
