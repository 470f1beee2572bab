import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo
from typer.testing import Result

Lavps = Callable[..., Result]
Lines = Callable[[Result], list[dict[str, Any]]]
Listed = Callable[[Path], list[str]]
Bytes = npt.NDArray[np.uint8]

TASKS = [
    ("--scale", "2"),
    ("--scale", "4", "--downsample", "bicubic"),
    ("--scale", "16"),
    ("--kernel", "5", "--kernel-seed", "3"),
    ("--kernel", "gaussian:5@1", "--boundary", "valid"),
    ("--mask", "centre"),
    ("--mask", "rectangle"),
    ("--mask", "pixels"),
    ("--task", "denoise"),
]


def pixels(path: Path) -> Bytes:
    with PillowImage.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("flags", TASKS, ids=str)
def test_restore_needs_no_options_after_degrade(
    lavps: Lavps, restore: Lavps, lines: Lines, photo: Path, flags: tuple[str, ...]
) -> None:
    made = lavps("degrade", photo, *flags, "--noise", "0.04", "--seed", "9")
    assert made.exit_code == 0, made.output
    damaged = photo.with_name("photo.degraded.png")
    assert made.stdout == f"{damaged}\n"
    result = restore(damaged, "--json")
    assert result.exit_code == 0, result.output
    (line,) = lines(result)
    assert line["noise"] == {"sigma": 0.04, "sigma_255": 5.1, "source": "record"}
    assert all("explains" in text for text in line["warnings"])  # A random prior does not.
    expected = {"scale": "sr", "kernel": "deblur", "mask": "inpaint", "task": "denoise"}
    assert line["task"] == expected[flags[0][2:]]
    if "valid" not in flags:
        assert line["size_out"] == [48, 32]
    if line["task"] == "deblur":
        assert line["kernel"]["source"] == "record"
        assert line["boundary"] == ("valid" if "valid" in flags else "reflect")


def test_results_carry_no_record(lavps: Lavps, restore: Lavps, photo: Path) -> None:
    lavps("degrade", photo, "--task", "denoise")
    restore(photo.with_name("photo.degraded.png"))
    with PillowImage.open(photo.with_name("photo.degraded.restored.png")) as image:
        assert "lavps:degradation" not in image.info


def test_the_seed_decides(lavps: Lavps, photo: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        lavps("degrade", photo, "--task", "denoise", "--seed", seed, "-o", tmp_path / f"{name}.png")
    a, b, c = (pixels(tmp_path / f"{name}.png") for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert np.std(a - pixels(photo).astype(float)) == pytest.approx(6.4, rel=0.1)


def test_sidecars_and_masks(
    lavps: Lavps, restore: Lavps, photo: Path, tmp_path: Path, listed: Listed
) -> None:
    out = tmp_path / "out"
    args = ("degrade", photo, "--mask", "rectangle", "--noise", "0", "-o", f"{out}/", "--sidecar")
    result = lavps(*args, "--save-mask", out / "{stem}.mask.png")
    assert result.exit_code == 0, result.output
    assert listed(out) == ["photo.json", "photo.mask.png", "photo.png"]
    with PillowImage.open(out / "photo.png") as image:
        assert json.loads(image.info["lavps:degradation"]) == json.loads(
            (out / "photo.json").read_text()
        )
    known = pixels(out / "photo.mask.png") == 0
    assert np.array_equal(pixels(out / "photo.png")[known], pixels(photo)[known])
    restore(out / "photo.png", "-o", out / "a.png")
    restore(photo, "--mask", out / "photo.mask.png", "--noise", "0.5/255", "-o", out / "b.png")
    assert np.array_equal(pixels(out / "a.png"), pixels(out / "b.png"))


def test_grey_and_transparency(lavps: Lavps, photo: Path, scene: Bytes) -> None:
    image = PillowImage.fromarray(scene[:, :, 0]).convert("LA")
    image.putalpha(PillowImage.fromarray(scene[:, :, 1]))
    image.save(photo.with_name("la.png"))
    assert lavps("degrade", photo.with_name("la.png"), "--scale", "2").exit_code == 0
    with PillowImage.open(photo.with_name("la.degraded.png")) as image:
        assert (image.mode, image.size) == ("LA", (24, 16))


def test_cropping_is_told(lavps: Lavps, photo: Path) -> None:
    result = lavps("degrade", photo, "--scale", "3")
    assert "cropped from 48x32 to 48x30" in result.stderr


def test_a_dry_run_writes_nothing(lavps: Lavps, photo: Path, listed: Listed) -> None:
    result = lavps("degrade", photo, "--scale", "4", "-n", "--sidecar")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "size_out 12x8" in result.stderr
    assert listed(photo.parent) == ["photo.png"]


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ((), 2, "which task?"),
        (("--task", "deblur"), 2, "needs a kernel"),
        (("--task", "inpaint"), 2, "needs a mask"),
        (("--mask", "nothing.png"), 3, "no such file"),
        (("--mask", "centre", "--invert-mask"), 2, "no effect"),
        (("--scale", "2", "--save-mask", "m.png"), 2, "--save-mask is for"),
        (("--scale", "2", "-o", "x.jpg"), 2, "png only"),
        (("--kernel", "33"), 3, "only 48x32"),
        (("--scale", "2", "--noise", "-1"), 2, "--noise -1"),
        (("--scale", "2", "-o", "-", "--sidecar"), 2, "lie beside"),
    ],
    ids=str,
)
def test_errors(
    lavps: Lavps, photo: Path, listed: Listed, flags: tuple[str, ...], code: int, message: str
) -> None:
    result = lavps("degrade", photo, *flags)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert listed(photo.parent) == ["photo.png"]


def test_a_hostile_record_is_ignored_with_a_warning(
    restore: Lavps, photo: Path, scene: Bytes
) -> None:
    chunks = PngInfo()
    chunks.add_text("lavps:degradation", '{"schema":1,"task":"deblur","size":[48,32]}')
    PillowImage.fromarray(scene).save(photo, pnginfo=chunks)
    result = restore(photo, "--task", "denoise")
    assert result.exit_code == 0
    assert "the record of `lavps degrade` is unusable" in result.stderr
    assert restore(photo, "-f").exit_code == 2


def test_a_resized_picture_has_no_record(lavps: Lavps, restore: Lavps, photo: Path) -> None:
    lavps("degrade", photo, "--task", "denoise")
    damaged = photo.with_name("photo.degraded.png")
    with PillowImage.open(damaged) as image:
        chunks = PngInfo()
        chunks.add_text("lavps:degradation", image.info["lavps:degradation"])
        image.resize((24, 16)).save(damaged, pnginfo=chunks)
    result = restore(damaged, "--task", "denoise")
    assert "resized since" in result.stderr
