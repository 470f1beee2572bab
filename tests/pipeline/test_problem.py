from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lavps_cli.catalog import TaskName
from lavps_cli.core.likelihood import Likelihood
from lavps_cli.errors import DataError, UsageError
from lavps_cli.images.picture import Picture, quantised
from lavps_cli.images.reading import load_picture
from lavps_cli.operators.bicubic import BicubicDownsampling
from lavps_cli.operators.blur import Blur
from lavps_cli.operators.super_resolution import SuperResolution
from lavps_cli.pipeline.damage import Degraded, degrade_picture
from lavps_cli.pipeline.degradation import check_problem, implied_task
from lavps_cli.pipeline.noise_level import FLOOR
from lavps_cli.pipeline.problem import observation
from lavps_cli.pipeline.record import Record, from_text, to_text
from lavps_cli.pipeline.requests import Problem


def picture(h: int = 16, w: int = 24, c: int = 3) -> Picture:
    generator = torch.Generator().manual_seed(0)
    return Picture(quantised(torch.rand(1, c, h, w, generator=generator) - 0.5))


def read_back(made: Degraded) -> tuple[Picture, Record]:
    y = quantised(made.observation.y)
    return Picture(y), from_text(to_text(made.record), made.record.size)


@pytest.mark.parametrize(
    ("problem", "task"),
    [
        (Problem(), None),
        (Problem(scale=2), "sr"),
        (Problem(kernel="5"), "deblur"),
        (Problem(mask="m.png"), "inpaint"),
        (Problem(task="denoise"), "denoise"),
        (Problem(kernel="5", mask="m.png"), "deblur+inpaint"),
        (Problem(scale=2, mask="m.png"), "sr+inpaint"),
        (Problem(task="sr+inpaint", mask="m.png"), "sr+inpaint"),
        (Problem(jpeg_quality=20), "jpeg"),
        (Problem(gain=2.0), "declip"),
        (Problem(task="sr", scale=2), "sr"),
    ],
)
def test_flags_imply_tasks(problem: Problem, task: TaskName | None) -> None:
    assert implied_task(problem) == task


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"scale": 2, "kernel": "5"}, "different tasks"),
        ({"task": "denoise", "scale": 2}, "--scale has no effect on --task denoise"),
        ({"task": "sr", "boundary": "valid"}, "--boundary has no effect"),
        ({"kernel_seed": 3}, "need a size"),
        ({"kernel": "disk:7", "kernel_intensity": 0.3}, "for a drawn kernel"),
        ({"invert_mask": True}, "need a mask"),
        ({"scale": 17}, "--scale 17"),
        ({"noise": "loud"}, "--noise loud"),
        ({"noise": "poisson:0"}, "how many photons"),
        ({"gain": 1.0}, "nothing would be clipped"),
        ({"gain": 17.0}, "leaves nothing"),
        ({"gain": 2.0, "noise": "poisson:50"}, "takes no shot noise"),
        ({"jpeg_quality": 0}, "--jpeg-quality 0"),
        ({"task": "jpeg", "noise": "0.1"}, "--noise has no effect"),
        ({"jpeg_quality": 5, "mask": "m.png"}, "different tasks"),
        ({"scale": 2, "kernel": "5", "mask": "m.png"}, "different tasks"),
        ({"blind": True, "kernel": "5", "mask": "m.png"}, "--blind has no effect"),
        ({"scale": 2, "downsample": "21"}, "expected area, bicubic, or a filter"),
        ({"scale": 2, "downsample": "cubic"}, "expected area, bicubic, or a filter"),
        ({"kernel": "20"}, "odd"),
    ],
)
def test_flags_that_make_no_sense(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_problem(Problem(**flags))


@pytest.mark.parametrize(
    "problem",
    [
        Problem(scale=4, downsample="bicubic"),
        Problem(scale=7),
        Problem(kernel="7", kernel_seed=2),
        Problem(kernel="7", kernel_seed=2, boundary="valid"),
        Problem(mask="rectangle"),
        Problem(task="denoise"),
        Problem(task="colorize"),
        Problem(gain=3.0),
        Problem(scale=2, downsample="gaussian:5@1"),
        Problem(scale=2, mask="pixels"),
        Problem(kernel="5@20", mask="rectangle", boundary="valid"),
    ],
    ids=str,
)
def test_a_record_says_everything(problem: Problem) -> None:
    made = degrade_picture(picture(), "in", replace(problem, noise="0.05"), 3)
    damaged, record = read_back(made)
    seen = observation(damaged, "in", Problem(), record)
    assert seen.sigma_y == 0.05
    assert seen.noise_source == "record"
    assert seen.degradation.task == made.record.task
    assert seen.shape == made.clean.shape[-2:]
    assert seen.visible_size == made.observation.visible_size
    x = torch.rand(1, 3, *seen.shape)
    torch.testing.assert_close(seen.A(x), made.observation.A(x))
    torch.testing.assert_close(seen.y, quantised(made.observation.y), atol=1 / 127, rtol=0)


def test_the_noise_is_that_of_the_seed_alone() -> None:
    one, two = (
        degrade_picture(picture(), "in", Problem(task="denoise", noise="0.1"), seed).observation.y
        for seed in (0, 1)
    )
    again = degrade_picture(picture(), "in", Problem(task="denoise", noise="0.1"), 0).observation.y
    assert torch.equal(one, again)
    assert not torch.equal(one, two)
    assert float((one - picture().pixels).std()) == pytest.approx(0.1, rel=0.1)


def test_no_noise_is_possible_to_add_but_not_to_assume() -> None:
    made = degrade_picture(picture(), "in", Problem(task="denoise", noise="0"), 0)
    assert torch.equal(made.observation.y, picture().pixels)
    damaged, record = read_back(made)
    assert observation(damaged, "in", Problem(), record).sigma_y == FLOOR
    with pytest.raises(UsageError, match="positive noise level"):
        observation(damaged, "in", Problem(noise="0"), record)


def test_flags_win_over_the_record() -> None:
    made = degrade_picture(picture(), "in", Problem(scale=4, downsample="bicubic"), 0)
    damaged, record = read_back(made)
    seen = observation(damaged, "in", Problem(scale=2, downsample="area", noise="0.2"), record)
    assert SuperResolution(2) == seen.A or isinstance(seen.A, SuperResolution)
    assert (seen.shape, seen.sigma_y, seen.noise_source) == ((8, 12), 0.2, "flags")
    assert isinstance(observation(damaged, "in", Problem(), record).A, BicubicDownsampling)


def test_a_record_of_another_task_tells_only_its_noise() -> None:
    made = degrade_picture(picture(), "in", Problem(scale=4, noise="0.3"), 0)
    damaged, record = read_back(made)
    seen = observation(damaged, "in", Problem(task="denoise"), record)
    assert seen.sigma_y == pytest.approx(0.3)
    assert "was made by `lavps degrade --task sr`" in seen.warnings[0]
    with pytest.raises(UsageError, match="--invert-mask"):
        observation(damaged, "in", Problem(invert_mask=True), record)


def test_without_record_or_flags_there_is_a_hint() -> None:
    with pytest.raises(UsageError) as caught:
        observation(picture(), "in.png", Problem(), None)
    assert caught.value.message == "in.png: which task? It carries no record of `lavps degrade`."
    for task in ("deblur", "inpaint"):
        with pytest.raises(UsageError, match="needs"):
            observation(picture(), "in.png", Problem(task=task), None)


def test_a_photograph_is_cut_from_a_larger_scene() -> None:
    seen = observation(picture(), "in", Problem(kernel="7@0"), None)
    assert isinstance(seen.A, Blur)
    assert seen.shape == (16 + 6, 24 + 6)
    x = torch.rand(1, 3, *seen.shape)
    assert seen.A(x).shape == seen.y.shape
    assert seen.seen(x).shape == seen.y.shape
    assert seen.visible_size == (16, 24)
    torch.testing.assert_close(seen.seen(x), x[..., 3:-3, 3:-3])
    kept = observation(picture(), "in", Problem(kernel="7@0", boundary="reflect"), None)
    assert kept.shape == (16, 24)


def test_kernels_that_are_not_square(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", np.ones((3, 7)))
    seen = observation(picture(), "in", Problem(kernel=str(tmp_path / "k.npy")), None)
    assert seen.shape == (16 + 2, 24 + 6)
    assert seen.seen(torch.zeros(1, 3, *seen.shape)).shape[-2:] == (16, 24)


def test_simulated_valid_blur_shows_less_than_the_scene() -> None:
    made = degrade_picture(picture(), "in", Problem(kernel="7@0", boundary="valid"), 0)
    assert made.observation.y.shape[-2:] == (10, 18)
    assert made.observation.seen(made.clean).shape == made.observation.y.shape


def test_kernels_larger_than_the_picture() -> None:
    problem = Problem(kernel="17")
    for call in (
        lambda: observation(picture(), "in.png", problem, None),
        lambda: degrade_picture(picture(), "in.png", problem, 0),
    ):
        with pytest.raises(DataError, match=r"17x17 but in.png is only 24x16"):
            call()


def test_an_assumed_kernel_is_told() -> None:
    seen = observation(picture(), "in.png", Problem(kernel="5"), None)
    assert "drawn kernel 5 (intensity 0.9, seed 0)" in seen.warnings[0]
    assert not observation(picture(), "in.png", Problem(kernel="disk:5"), None).warnings
    made = degrade_picture(picture(), "in", Problem(kernel="5", kernel_seed=1), 0)
    damaged, record = read_back(made)
    same = observation(damaged, "in", Problem(kernel="5", kernel_seed=1), record)
    assert not same.warnings
    other = observation(damaged, "in", Problem(kernel="5"), record)
    assert "records another kernel" in other.warnings[0]


def test_jpegs_are_warned_about() -> None:
    source = replace(picture(), format="jpg")
    assert "JPEG" in observation(source, "in.jpg", Problem(kernel="disk:5"), None).warnings[0]


def test_pictures_are_cropped_to_what_shrinks() -> None:
    made = degrade_picture(picture(18, 27), "in", Problem(scale=4), 0)
    assert made.clean.shape[-2:] == (16, 24)
    assert made.notes == ("in was cropped from 27x18 to 24x16.",)
    with pytest.raises(DataError, match="too small to shrink by 8"):
        degrade_picture(picture(7, 30), "in", Problem(scale=8), 0)


def test_lost_pixels_are_exactly_zero_without_noise() -> None:
    made = degrade_picture(picture(), "in", Problem(mask="centre", noise="0.2"), 0)
    mask = made.observation.degradation.mask
    assert mask is not None
    lost = made.observation.y[:, :, mask.values[0] == 0]
    assert torch.equal(lost, torch.zeros_like(lost))


def test_estimated_noise_is_told() -> None:
    x = Picture(quantised(torch.linspace(-0.5, 0.5, 64).expand(1, 3, 64, 64)))
    y = replace(x, pixels=x.pixels + 0.05 * torch.randn(x.pixels.shape))
    seen = observation(y, "in", Problem(task="denoise"), None)
    assert seen.noise_source == "estimated"
    assert seen.sigma_y == pytest.approx(0.05, rel=0.2)
    assert seen.about_noise["sigma_255"] == pytest.approx(127.5 * seen.sigma_y, abs=1e-3)


def test_shot_noise_is_recorded() -> None:
    made = degrade_picture(picture(), "in", Problem(task="denoise", noise="poisson:30"), 3)
    damaged, record = read_back(made)
    seen = observation(damaged, "in", Problem(), record)
    assert (seen.peak, seen.noise_source) == (30, "record")
    assert seen.about_noise["peak"] == 30
    assert seen.sigma_y == pytest.approx(made.observation.sigma_y, rel=0.05)
    assert observation(damaged, "in", Problem(noise="0.1"), record).peak is None


def test_grey_pictures_weigh_as_one_measurement() -> None:
    x = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(1)).mean(1, keepdim=True)
    for noise in ("0.1", "poisson:40"):
        seen = observation(picture(c=1), "in", Problem(task="denoise", noise=noise), None)
        one = Likelihood(seen.y, seen.A, seen.sigma_y, seen.peak)
        both = seen.likelihood(seen.y)
        change = both.log_prob(x.expand(-1, 3, -1, -1)) - both.log_prob(
            0.9 * x.expand(-1, 3, -1, -1)
        )
        torch.testing.assert_close(change, one.log_prob(x) - one.log_prob(0.9 * x))


def test_colours_are_sought_from_brightness_alone() -> None:
    grey = observation(picture(c=1), "in", Problem(task="colorize"), None)
    assert grey.y.shape[1] == 1
    assert not grey.is_grey
    assert not grey.warnings
    coloured = observation(picture(), "in", Problem(task="colorize"), None)
    assert "only its brightness" in coloured.warnings[0]
    with pytest.raises(DataError, match="no colours to take"):
        degrade_picture(picture(c=1), "in", Problem(task="colorize"), 0)


def test_compression_is_told_by_the_file_or_by_its_quality() -> None:
    made = degrade_picture(picture(), "in", Problem(jpeg_quality=40), 0)
    assert made.jpeg is not None
    file = load_picture(made.jpeg, "in")
    seen = observation(file, "in", Problem(task="jpeg"), None)
    assert torch.equal(seen.y, made.observation.y)
    assert (seen.shape, seen.visible_size, seen.noise_source) == ((16, 32), (16, 24), "tables")
    told = observation(file, "in", Problem(jpeg_quality=90), None)
    assert torch.equal(told.y, seen.y)
    assert "its own tables" in told.warnings[0]
    with pytest.raises(UsageError, match="not a JPEG"):
        observation(picture(), "in", Problem(task="jpeg"), None)


def test_explained_pictures_could_have_been_compressed_to_the_file() -> None:
    seen = degrade_picture(picture(), "in", Problem(jpeg_quality=40), 0).observation
    x = seen.explained(torch.zeros(2, 3, *seen.shape))
    assert ((seen.A(x) - seen.y).abs() <= seen.sigma_y * 3**0.5 * (1 + 1e-4)).all()
    other = observation(picture(), "in", Problem(task="denoise"), None)
    assert torch.equal(other.explained(x), x)
