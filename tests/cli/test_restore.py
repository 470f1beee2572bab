from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags
from PIL import Image as PillowImage
from typer.testing import Result

Lavps = Callable[..., Result]
Lines = Callable[[Result], list[dict[str, Any]]]
Listed = Callable[[Path], list[str]]
Bytes = npt.NDArray[np.uint8]


def pixels(path: Path | str) -> Bytes:
    with PillowImage.open(path) as image:
        return np.asarray(image)


def test_a_picture_lands_beside_its_input(restore: Lavps, photo: Path, listed: Listed) -> None:
    result = restore(photo, "--task", "denoise")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{photo.parent}/photo.restored.png\n"
    assert listed(photo.parent) == ["photo.png", "photo.restored.png"]
    assert pixels(photo.parent / "photo.restored.png").shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("flags", "size"),
    [
        (("--scale", "2"), (96, 64)),
        (("--scale", "4", "--downsample", "bicubic"), (192, 128)),
        (("--kernel", "5@30"), (48, 32)),
        (("--kernel", "disk:5", "--boundary", "reflect"), (48, 32)),
        (("--task", "denoise", "--noise", "6.4/255"), (48, 32)),
    ],
)
def test_sizes(
    restore: Lavps, lines: Lines, photo: Path, flags: tuple[str, ...], size: tuple[int, int]
) -> None:
    result = restore(photo, *flags, "--json")
    assert result.exit_code == 0, result.output
    (line,) = lines(result)
    assert line["size_in"] == [48, 32]
    assert line["size_out"] == list(size)
    with PillowImage.open(line["output"]) as image:
        assert image.size == size


def test_the_json_line_follows_the_schema(restore: Lavps, lines: Lines, photo: Path) -> None:
    (line,) = lines(restore(photo, "--kernel", "5", "--noise", "0.1", "--json", "--seed", "3"))
    assert list(line)[:6] == ["schema", "type", "status", "input", "output", "task"]
    expected = {
        "schema": 1,
        "type": "result",
        "status": "ok",
        "input": str(photo),
        "task": "deblur",
        "kernel": {"type": "motion", "size": 5, "intensity": 0.9, "seed": 0, "source": "flags"},
        "boundary": "valid",
        "noise": {"sigma": 0.1, "sigma_255": 12.75, "source": "flags"},
        "method": "lavps",
        "model": "tiny",
        "inference": "tiny-inference",
        "steps": 4,
        "seed": 3,
        "sample": 0,
        "device": "cpu",
        "dtype": "fp32",
        "tile": 0,
        "oom_retries": 0,
        "metadata": "none",
        "metrics": None,
    }
    assert {key: line[key] for key in expected} == expected
    assert len(line["model_sha256"]) == len(line["inference_sha256"]) == 64
    assert len(line["settings"]) == 12
    assert line["nfe"] > line["nbe"] > 0
    assert line["safeguard"]["offered"] >= line["safeguard"]["accepted"] >= 0
    assert line["residual"]["expected"] == 0.1
    assert line["seconds"] > 0
    assert "drawn kernel 5" in line["warnings"][0]


def test_the_settings_digest_knows_what_decides_the_pixels(
    restore: Lavps, lines: Lines, photo: Path
) -> None:
    def digest(*flags: str) -> str:
        (line,) = lines(restore(photo, "--task", "denoise", "--json", "-f", *flags))
        return str(line["settings"])

    base = digest()
    assert digest("-q", "--progress", "plain", "--batch-size", "1", "--compare") == base
    as_before = ("-O", "switch_back=0.7", "-O", "settle=0")
    assert digest("--preset", "fast", *as_before) == base  # The rest is as it was.
    for flags in (("--seed", "1"), ("--noise", "0.2"), ("-O", "lr=0.2"), ("--tile", "16")):
        assert digest(*flags) != base


def test_stdout_is_the_result_and_stderr_the_talk(restore: Lavps, photo: Path) -> None:
    loud = restore(photo, "--task", "denoise", "-v")
    assert loud.stdout.count("\n") == 1
    assert "tiny on cpu, fp32" in loud.stderr
    assert "denoise, noise" in loud.stderr
    quiet = restore(photo, "--task", "denoise", "-f", "-q")
    assert quiet.stdout == loud.stdout
    assert quiet.stderr == ""


def test_talk_may_come_before_the_command(lavps: Lavps, model_folder: Path, photo: Path) -> None:
    args = ("restore", photo, "--task", "denoise", "--model", model_folder, "-O", "num_steps=3")
    assert lavps("-q", *args).stderr == ""
    assert "noise" in lavps("-v", *args, "-f").stderr


@pytest.mark.parametrize("mode", ["plain", "json", "bar", "none", "auto"])
def test_progress_stays_on_stderr(restore: Lavps, photo: Path, mode: str) -> None:
    result = restore(photo, "--task", "denoise", "--progress", mode)
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    assert ("step 2/2, 0 s left" in result.stderr) == (mode == "plain")
    assert ('"type": "progress"' in result.stderr) == (mode == "json")


def test_same_seed_same_picture(restore: Lavps, photo: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        flags = ("--task", "denoise", "--noise", "0.3", "--seed", seed)
        restore(photo, *flags, "-o", tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()


def test_samples_mean_and_uncertainty(
    restore: Lavps, lines: Lines, photo: Path, tmp_path: Path
) -> None:
    flags = ("--task", "denoise", "--noise", "0.2", "--samples", "3", "--json")
    out = tmp_path / "out"
    result = restore(photo, *flags, "-o", f"{out}/", "--uncertainty", tmp_path / "std.png")
    assert result.exit_code == 0, result.output
    found = lines(result)
    assert [line["sample"] for line in found] == [0, 1, 2]
    files = [out / f"photo.s0{i}.png" for i in range(3)]
    assert [line["output"] for line in found] == [str(path) for path in files]
    samples = np.stack([pixels(path).astype(float) for path in files]) / 127.5
    spread = np.sqrt(samples.var(0, ddof=1).mean(-1))
    written = pixels(tmp_path / "std.png") * found[0]["uncertainty"]["scale"]
    np.testing.assert_allclose(written, spread, atol=0.02)
    (line,) = lines(restore(photo, *flags, "--mean", "-o", tmp_path / "mean.png"))
    assert line["sample"] is None
    assert line["safeguard"]["offered"] == 3 * found[0]["safeguard"]["offered"]
    mean = pixels(tmp_path / "mean.png")
    np.testing.assert_allclose(mean / 127.5, samples.mean(0), atol=0.02)
    single = restore(photo, *flags[:4], "-o", tmp_path / "one.png")
    assert single.exit_code == 0
    difference = pixels(tmp_path / "one.png").astype(int) - pixels(files[0])
    assert abs(difference).max() <= 1


def test_grey_stays_grey(restore: Lavps, photo: Path, scene: Bytes) -> None:
    grey = photo.with_name("grey.png")
    PillowImage.fromarray(scene[:, :, 0]).save(grey)
    result = restore(grey, "--scale", "2")
    assert result.exit_code == 0, result.output
    with PillowImage.open(photo.with_name("grey.restored.png")) as image:
        assert (image.mode, image.size) == ("L", (96, 64))


@pytest.mark.parametrize("flags", [("--task", "denoise"), ("--scale", "2")])
def test_transparency_is_carried(
    restore: Lavps, photo: Path, scene: Bytes, flags: tuple[str, ...]
) -> None:
    clear = photo.with_name("clear.png")
    image = PillowImage.fromarray(scene).convert("RGBA")
    image.putalpha(PillowImage.fromarray(scene[:, :, 1]))
    image.save(clear)
    assert restore(clear, *flags).exit_code == 0
    alpha = pixels(photo.with_name("clear.restored.png"))[:, :, 3]
    if "--scale" in flags:
        assert alpha.shape == (64, 96)
        assert abs(float(alpha.mean()) - float(scene[:, :, 1].mean())) < 1
    else:
        assert np.array_equal(alpha, scene[:, :, 1])


def test_metadata_survive_and_the_picture_is_upright(
    restore: Lavps, lines: Lines, photo: Path, scene: Bytes
) -> None:
    turned = photo.with_name("turned.jpg")
    tags = PillowImage.Exif()
    tags[ExifTags.Base.Orientation] = 6
    tags[ExifTags.Base.Artist] = "A. Photographer"
    PillowImage.fromarray(scene).save(turned, exif=tags, quality=95)
    (line,) = lines(restore(turned, "--task", "denoise", "--json"))
    assert line["metadata"] == "kept"
    assert line["size_out"] == [32, 48]
    with PillowImage.open(photo.with_name("turned.restored.jpg")) as image:
        assert image.size == (32, 48)
        assert image.getexif()[ExifTags.Base.Artist] == "A. Photographer"
        assert ExifTags.Base.Orientation not in image.getexif()


def mask_file(path: Path, size: tuple[int, int] = (48, 32)) -> Path:
    image = PillowImage.new("L", size)
    image.paste(255, (10, 8, 22, 18))
    image.save(path)
    return path


def test_known_pixels_stay_bit_for_bit(restore: Lavps, photo: Path, tmp_path: Path) -> None:
    mask = mask_file(tmp_path / "m.png")
    out = tmp_path / "out.png"
    assert restore(photo, "--mask", mask, "-o", out).exit_code == 0
    same = (pixels(out) == pixels(photo)).all(2)
    assert same[pixels(mask) == 0].all()
    assert not same[pixels(mask) == 255].all()
    free = ("-f", "--no-keep-known", "--noise", "0.2")
    assert restore(photo, "--mask", mask, "-o", out, *free).exit_code == 0
    assert not (pixels(out) == pixels(photo)).all(2)[pixels(mask) == 0].all()


def test_what_a_hole_held_does_not_matter(restore: Lavps, photo: Path, tmp_path: Path) -> None:
    mask = mask_file(tmp_path / "m.png")
    other = pixels(photo).copy()
    other[pixels(mask) == 255] = (1, 2, 3)
    PillowImage.fromarray(other).save(tmp_path / "other.png")
    for source, out in ((photo, "a.png"), (tmp_path / "other.png", "b.png")):
        assert restore(source, "--mask", mask, "-o", tmp_path / out).exit_code == 0
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_transparency_as_mask_is_filled(restore: Lavps, photo: Path, scene: Bytes) -> None:
    clear = photo.with_name("clear.png")
    image = PillowImage.fromarray(scene).convert("RGBA")
    image.paste((0, 0, 0, 0), (5, 5, 15, 15))
    image.save(clear)
    assert restore(clear, "--mask", "alpha").exit_code == 0
    assert pixels(photo.with_name("clear.restored.png")).shape == (32, 48, 3)


def test_simulation_is_scored(
    restore: Lavps, lines: Lines, photo: Path, tmp_path: Path, scene: Bytes
) -> None:
    out = tmp_path / "out.png"
    result = restore(photo, "--scale", "2", "--simulate", "--json", "-o", out)
    assert result.exit_code == 0, result.output
    (line,) = lines(result)
    assert line["size_out"] == [48, 32]
    assert line["noise"]["source"] == "default"
    error = (pixels(out).astype(float) - scene) / 127.5
    assert line["metrics"]["psnr"] == pytest.approx(10 * np.log10(4 / (error**2).mean()), abs=1e-3)
    assert -1 <= line["metrics"]["ssim"] <= 1


@pytest.mark.parametrize(
    "flags",
    [
        ("--kernel", "5@20"),
        ("--kernel", "5@20", "--boundary", "valid"),
        ("--mask", "rectangle"),
        ("--task", "denoise", "--noise", "0"),
        ("--scale", "3"),
    ],
)
def test_every_task_can_be_simulated(
    restore: Lavps, lines: Lines, photo: Path, flags: tuple[str, ...]
) -> None:
    result = restore(photo, *flags, "--simulate", "--json")
    assert result.exit_code == 0, result.output
    psnr = lines(result)[0]["metrics"]["psnr"]
    assert psnr is None or psnr > 5  # None where nothing is off, as may be without noise.


def test_comparisons(restore: Lavps, photo: Path) -> None:
    assert restore(photo, "--scale", "2", "--samples", "2", "--compare").exit_code == 0
    compare = pixels(photo.with_name("photo.compare.png"))
    assert compare.shape == (64, 3 * 96, 3)
    assert np.array_equal(compare[::2, :96:2], pixels(photo))
    assert np.array_equal(compare[:, 96:192], pixels(photo.with_name("photo.restored.s00.png")))


@pytest.mark.parametrize("name", ["png", "jpg", "webp", "tiff", "avif"])
def test_formats(restore: Lavps, lines: Lines, photo: Path, name: str) -> None:
    (line,) = lines(restore(photo, "--task", "denoise", "--format", name, "--json"))
    with PillowImage.open(line["output"]) as image:
        assert image.format == {"jpg": "JPEG"}.get(name, name.upper())


def test_a_dry_run_writes_nothing(
    restore: Lavps, lines: Lines, photo: Path, tmp_path: Path, listed: Listed
) -> None:
    result = restore(photo, "--scale", "4", "-n", "-o", f"{tmp_path}/new/")
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"{photo} -> {tmp_path}/new/photo.png: size_in 48x32, size_out 192x128" in result.stderr
    flags = ("--scale", "4", "--json", "--inference", "none")
    (plan,) = lines(restore(photo, *flags, "-n"))
    assert (plan["type"], plan["size_out"]) == ("plan", [192, 128])
    (line,) = lines(restore(photo, *flags, "-o", tmp_path / "x.png"))
    assert (plan["nfe"], plan["nbe"]) == (line["nfe"], line["nbe"])
    assert listed(photo.parent) == ["photo.png"]
    assert not (tmp_path / "new").exists()


def test_a_dry_run_counts_the_reduced_picture_of_a_large_hole(
    restore: Lavps, lines: Lines, tmp_path: Path
) -> None:
    PillowImage.new("RGB", (144, 128), (90, 120, 60)).save(tmp_path / "p.png")
    hole = PillowImage.new("L", (144, 128))
    hole.paste(255, (20, 20, 124, 108))
    hole.save(tmp_path / "hole.png")
    flags = (tmp_path / "p.png", "--mask", tmp_path / "hole.png", "--json", "--inference", "none")
    (plan,) = lines(restore(*flags, "-n", "-O", "grad_steps_start=8"))
    (line,) = lines(restore(*flags, "-O", "grad_steps_start=8", "-o", tmp_path / "x.png"))
    assert (plan["nfe"], plan["nbe"]) == (line["nfe"], line["nbe"])
    (without,) = lines(restore(*flags, "-n", "-O", "grad_steps_start=8", "--no-coarse"))
    assert without["nfe"] < plan["nfe"]


def test_methods_and_inference_models(restore: Lavps, lines: Lines, photo: Path) -> None:
    def run(*flags: str) -> dict[str, Any]:
        result = restore(photo, "--task", "denoise", "-f", "--json", *flags)
        assert result.exit_code == 0, result.output
        return lines(result)[0]

    assert run()["inference"] == "tiny-inference"
    assert run("--inference", "none")["inference"] is None
    mgdm = run("--method", "mgdm")
    assert (mgdm["method"], mgdm["safeguard"]["offered"]) == ("mgdm", 0)


def test_without_inference_model_it_says_so(
    lavps: Lavps, photo: Path, model_folder: Path, tmp_path: Path
) -> None:
    import shutil

    alone = tmp_path / "alone"
    shutil.copytree(model_folder, alone)
    args = ("restore", photo, "--task", "denoise", "-O", "num_steps=3", "-f", "--model", alone)
    assert "no inference model for alone; running as mgdm" in lavps(*args).stderr
    assert "mgdm" not in lavps(*args, "--inference", "none").stderr
    assert "mgdm" not in lavps(*args, "--method", "mgdm").stderr


def test_tiles(restore: Lavps, lines: Lines, photo: Path) -> None:
    result = restore(photo, "--task", "denoise", "--tile", "16", "--overlap", "4", "--json")
    assert lines(result)[0]["tile"] == 16


def test_what_is_cut_off_cuts_the_transparency(restore: Lavps, photo: Path, scene: Bytes) -> None:
    clear = photo.with_name("clear.png")
    image = PillowImage.fromarray(scene).convert("RGBA")
    image.putalpha(PillowImage.fromarray(scene[:, :, 1]))
    image.save(clear)
    assert restore(clear, "--scale", "3", "--simulate").exit_code == 0
    alpha = pixels(photo.with_name("clear.restored.png"))[:, :, 3]
    assert np.array_equal(alpha, scene[:30, :, 1])


def test_the_bar_is_gone_before_a_result_is_printed() -> None:
    from lavps_cli.cli.progress import Terminal
    from lavps_cli.pipeline.results import Progress

    step = Progress(input="[in].png", index=1, count=2, done=1, total=2, seconds_left=3970.0)
    with Terminal("bar", quiet=False, verbose=0) as terminal:
        terminal.progress(step)
        assert terminal._bar is not None
        terminal.note("[a note]")
        terminal.clear()
        assert terminal._bar is None
    assert step.text == "[1/2] [in].png: step 1/2, 1 h 06 min left"
    assert replace(step, count=1, seconds_left=61.0).text == "[in].png: step 1/2, 1 min 01 s left"


def test_a_result_that_explains_nothing_is_told(
    restore: Lavps, lines: Lines, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--task", "denoise", "--noise", "0.01", "-f", "--json")
    for residual, told in ((0.5, True), (0.015, False)):
        found = [residual]
        monkeypatch.setattr("lavps_cli.pipeline.runner.residuals", lambda *_, r=found: r)
        result = restore(photo, *flags)
        (line,) = lines(result)
        assert line["residual"]["rmse"] == residual
        assert bool(line["warnings"]) == told
        assert ("explains" in result.stderr) == told
