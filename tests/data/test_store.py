"""Laws of the stored pictures and of their batches."""

import io
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from lavps_cli.data import store
from lavps_cli.data.sources import Source, open_source
from lavps_cli.data.store import Pictures, prepare
from lavps_cli.errors import DataError, OutputError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine pictures, each of one grey level of its own."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(9):
        PillowImage.new("RGB", (40, 32), (20 * i,) * 3).save(folder / f"{i}.png")
    return folder


def whole(source: Source, cache: Path, size: int = 16) -> Pictures:
    return prepare([source], size=size, crop="whole", cache=cache)


def levels(x: torch.Tensor) -> list[int]:
    return [round((float(v) + 1) * 127.5) // 20 for v in x.mean((1, 2, 3))]


def test_every_picture_comes_once_an_epoch_in_another_order(photos: Path, tmp_path: Path) -> None:
    pictures = whole(open_source(str(photos)), tmp_path / "cache")
    epochs = [levels(pictures.batch(9 * i, 9, seed=0)) for i in range(3)]
    assert all(sorted(epoch) == list(range(9)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_a_batch_is_a_function_of_numbers_and_seed(photos: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for path in photos.iterdir():
        PillowImage.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8)).save(path)
    pictures = prepare([open_source(str(photos))], size=16, crop="random", cache=tmp_path / "cache")
    x = pictures.batch(5, 12, seed=1)
    assert torch.equal(x, torch.cat([pictures.batch(5, 3, 1), pictures.batch(8, 9, 1)]))
    assert not torch.equal(x, pictures.batch(5, 12, seed=2))
    assert x.shape == (12, 3, 16, 16)


def test_whole_is_the_mean_over_blocks(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    (tmp_path / "in").mkdir()
    PillowImage.fromarray(pixels).save(tmp_path / "in" / "a.png")
    pictures = whole(open_source(str(tmp_path / "in")), tmp_path / "cache")
    mean = pixels.reshape(16, 2, 16, 2, 3).astype(float).mean((1, 3)) / 127.5 - 1
    found = pictures.batch(0, 1, 0)[0].permute(1, 2, 0).numpy()
    error = min(np.abs(found - mean).max(), np.abs(found[:, ::-1] - mean).max())
    assert error <= 0.51 / 127.5


def test_crops_are_parts_of_every_level(tmp_path: Path) -> None:
    """A picture of rising columns: a crop's slope tells its level, its start its place."""
    ramp = np.repeat(np.arange(128, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    (tmp_path / "in").mkdir()
    PillowImage.fromarray(ramp).save(tmp_path / "in" / "a.png")
    pictures = prepare(
        [open_source(str(tmp_path / "in"))], size=16, crop="random", cache=tmp_path / "cache"
    )
    x = (pictures.batch(0, 200, 0) + 1) * 127.5
    slope = (x[:, 0, 0, -1] - x[:, 0, 0, 0]) / 15
    assert (slope < 0).any()
    assert (slope > 0).any()
    found = {round(2 * math.log2(abs(float(s)))) for s in slope}
    assert found == {0, 1, 2, 3, 4}
    starts = x[slope.abs().round(decimals=1) == 1][:, 0, 0].amin(1)
    assert starts.min() < 15
    assert starts.max() > 95


def test_shares_hold(photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    PillowImage.new("RGB", (20, 20), (255,) * 3).save(other / "white.png")
    sources = [open_source(str(photos)), open_source(str(other))]
    pictures = prepare(sources, size=16, crop="whole", cache=tmp_path / "c", shares=(3.0, 1.0))
    white = (pictures.batch(0, 800, 0).mean((1, 2, 3)) > 0.99).float().mean()
    assert abs(float(white) - 0.25) < 0.06


def test_what_is_no_picture_is_counted_and_never_fatal(photos: Path, tmp_path: Path) -> None:
    whole_file = (photos / "0.png").read_bytes()
    (photos / "cut.png").write_bytes(whole_file[: len(whole_file) // 2])
    (photos / "empty.png").write_bytes(b"")
    (photos / "notes.txt").write_text("no picture")
    PillowImage.new("RGB", (8, 8)).save(photos / "small.png")
    (photos / ".hidden").write_text("not looked at")
    pictures = whole(open_source(str(photos)), tmp_path / "cache")
    assert (len(pictures), pictures.skipped) == (9, 4)


def test_a_bomb_is_passed_over(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PillowImage.new("RGB", (100, 100)).save(photos / "bomb.png")
    monkeypatch.setattr(PillowImage, "MAX_IMAGE_PIXELS", 5000)
    pictures = whole(open_source(str(photos)), tmp_path / "cache")
    assert (len(pictures), pictures.skipped) == (9, 1)


def test_rotation_and_transparency_are_applied(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    picture = PillowImage.new("RGB", (32, 16), (0, 0, 0))
    picture.paste((255, 255, 255), (0, 0, 16, 16))
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    picture.save(folder / "a.png", exif=exif)
    clear = PillowImage.new("RGBA", (16, 16), (255, 0, 0, 0))
    clear.save(folder / "b.png")
    pictures = whole(open_source(str(folder)), tmp_path / "cache")
    x = pictures.batch(0, 2, 0)
    grey = [i for i in range(2) if (x[i] - x[i].mean()).abs().max() < 0.01]
    assert len(grey) == 1
    assert abs(float(x[grey[0]].mean())) < 0.01
    other = x[1 - grey[0]]
    assert (other[:, :8].mean() - other[:, 8:].mean()).abs() > 1.9


def test_the_second_time_nothing_is_decoded(photos: Path, tmp_path: Path) -> None:
    source = open_source(str(photos))
    first = whole(source, tmp_path / "cache")

    def gone() -> Iterator[tuple[str, bytes]]:
        raise AssertionError("decoded again")

    again = whole(replace(source, files=gone), tmp_path / "cache")
    assert torch.equal(first.batch(0, 9, 0), again.batch(0, 9, 0))


def test_other_files_and_sizes_are_decoded_anew(photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert len(whole(open_source(str(photos)), cache)) == 9
    PillowImage.new("RGB", (40, 40)).save(photos / "new.png")
    assert len(whole(open_source(str(photos)), cache)) == 10
    assert whole(open_source(str(photos)), cache, 8).batch(0, 1, 0).shape[-1] == 8


def test_a_damaged_cache_is_made_anew(photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    before = whole(open_source(str(photos)), cache).batch(0, 9, 0)
    (file,) = cache.iterdir()
    content = file.read_bytes()
    for damaged in (content[:1000], content[100:], b""):
        file.unlink()
        file.write_bytes(damaged)
        assert torch.equal(whole(open_source(str(photos)), cache).batch(0, 9, 0), before)


def test_a_full_disk_leaves_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_finish", full)
    with pytest.raises(OutputError, match="No space left") as error:
        whole(open_source(str(photos)), tmp_path / "cache")
    assert "--cache" in error.value.hint
    assert not list((tmp_path / "cache").iterdir())


def test_a_source_without_pictures_is_named(photos: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("nothing")
    sources = [open_source(str(photos)), open_source(str(empty))]
    with pytest.raises(DataError, match="empty holds no usable picture"):
        prepare(sources, size=16, crop="whole", cache=tmp_path / "cache")


def test_large_pictures_are_kept_reduced(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_PIXELS", 800)
    pictures = prepare([open_source(str(photos))], size=16, crop="random", cache=tmp_path / "cache")
    assert (pictures.levels[:, 2] * pictures.levels[:, 3]).max() <= 800
    assert len(pictures) == 9


def encoded(value: int) -> bytes:
    stream = io.BytesIO()
    PillowImage.new("RGB", (16, 16), (value,) * 3).save(stream, "PNG")
    return stream.getvalue()


def test_grey_and_palette_pictures_are_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    PillowImage.new("L", (16, 16), 255).save(folder / "grey.png")
    PillowImage.new("RGB", (16, 16), (255,) * 3).convert("P").save(folder / "palette.gif")
    (folder / "no_suffix").write_bytes(encoded(255))
    pictures = whole(open_source(str(folder)), tmp_path / "cache")
    assert torch.equal(pictures.batch(0, 3, 0), torch.ones(3, 3, 16, 16))
