"""Several samples as files: intervals, deviation, and known pixels that stay as they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from typer.testing import Result

Lavps = Callable[..., Result]
Lines = Callable[[Result], list[dict[str, Any]]]


def pixels(path: Path) -> Any:
    """Return what a file holds."""
    if path.suffix == ".npy":
        return np.load(path)
    with PillowImage.open(path) as image:
        return np.asarray(image).astype(float)


@pytest.mark.parametrize("kind", ["rgb.png", "grey.png", "alpha.png", "photo.webp", "floats.npy"])
def test_known_pixels_are_exact_in_all_that_is_written(
    restore: Lavps, lines: Lines, scene: Any, tmp_path: Path, kind: str
) -> None:
    """The mean of equal floats need not be that float."""
    source = tmp_path / kind
    if kind == "floats.npy":
        np.save(source, (scene / 255 * 2 - 1 + 1e-3 / 7).astype(np.float32))
    else:
        array = scene[:, :, 0] if kind == "grey.png" else scene
        if kind == "alpha.png":
            array = np.concatenate([scene, np.full_like(scene[:, :, :1], 200)], axis=2)
        PillowImage.fromarray(array).save(source, lossless=True)
    hole = np.zeros(scene.shape[:2], np.uint8)
    hole[8:16, 8:20] = 255
    PillowImage.fromarray(hole).save(tmp_path / "mask.png")
    spread = tmp_path / "spread.png"
    flags = ("--samples", "3", "--mean", "--intervals", "50", "--uncertainty", spread, "--json")
    result = restore(
        source, "--mask", tmp_path / "mask.png", *flags, "-o", f"{tmp_path}/out/", "-O", "lr=0.1"
    )
    assert result.exit_code == 0, result.output
    (line,) = lines(result)
    known = hole == 0
    assert (pixels(spread)[known] == 0).all()
    assert (pixels(spread)[~known] > 0).any()
    assert Path(line["uncertainty"]["map"]).is_file()
    if kind == "photo.webp":  # Lossy: known pixels are exact before the encoder alone.
        return
    before = pixels(source)
    lower, mean, upper = (
        pixels(Path(name))
        for name in (line["intervals"]["lower"], line["output"], line["intervals"]["upper"])
    )
    for written in (lower, mean, upper):
        # Floats pass through [0, 1] on their way to a file; levels come back bit for bit.
        off = abs(written[known] - before[known]).max()
        assert off == 0 if kind != "floats.npy" else off < 1e-7
    assert (lower <= mean).all()
    assert (mean <= upper).all()
    assert (lower[~known] < upper[~known]).any()


def test_batches_have_intervals_each_with_their_depth(
    restore: Lavps, lines: Lines, photo: Path, scene: Any, tmp_path: Path
) -> None:
    pytest.importorskip("imagecodecs")
    tifffile = pytest.importorskip("tifffile")
    deep = photo.with_name("deep.tiff")
    tifffile.imwrite(deep, scene.astype(np.uint16) * 257)
    flags = ("--task", "denoise", "--noise", "0.2", "--samples", "3", "--intervals", "40", "--json")
    result = restore(photo, deep, *flags, "-o", f"{tmp_path}/out/", "--uncertainty",
                     f"{tmp_path}/out/{{stem}}.std.png")  # fmt: skip
    assert result.exit_code == 0, result.output
    found = {line["input"]: line["intervals"] for line in lines(result)}
    assert [Path(name).name for name in found[str(deep)].values() if isinstance(name, str)] == [
        "deep.lower.tiff",
        "deep.upper.tiff",
    ]
    for source, about in found.items():
        ends = [tifffile.imread(about[end]) if source == str(deep) else pixels(Path(about[end]))
                for end in ("lower", "upper")]  # fmt: skip
        top = 65535 if source == str(deep) else 255
        assert ends[0].dtype == (np.uint16 if source == str(deep) else float)
        width = (ends[1].astype(float) - ends[0]).mean() * 2 / top
        assert width == pytest.approx(about["mean_width"], abs=0.01)
    for name in ("photo.std.png", "photo.std.map.png", "deep.std.png", "deep.std.map.png"):
        assert (tmp_path / "out" / name).is_file()


def test_too_few_samples_are_refused_before_the_work(restore: Lavps, photo: Path) -> None:
    result = restore(photo, "--task", "denoise", "--samples", "8", "--intervals", "90")
    assert result.exit_code == 2
    assert "--intervals 90 takes 19 samples, and --samples is 8." in result.output
    assert "--samples 19" in result.output
    assert "--intervals 77" in result.output
    assert not photo.with_name("photo.lower.png").exists()
