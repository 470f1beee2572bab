"""Where pictures come from: the same files give the same pictures, whatever holds them."""

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from lavps_cli.data import sources
from lavps_cli.data.known import KNOWN
from lavps_cli.data.sources import open_source
from lavps_cli.data.store import prepare
from lavps_cli.errors import LavpsError, UsageError, WeightsError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(6):
        pixels = rng.integers(0, 255, (16, 16, 3), np.uint8)
        PillowImage.fromarray(pixels).save(folder / ("sub" if i > 3 else "") / f"p{i}.png")
    return folder


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_folders_archives_and_shards_give_the_same_pictures(photos: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in files(photos):
            archive.write(path, path.relative_to(photos))
    for shard in range(2):
        with tarfile.open(tmp_path / f"shard-{shard:03d}.tar", "w") as tar:
            for path in files(photos)[3 * shard : 3 * shard + 3]:
                tar.add(path, str(path.relative_to(photos)))
    texts = (photos, tmp_path / "data.zip", tmp_path / "shard-{000..001}.tar")
    batches = [
        prepare([open_source(str(text))], size=16, crop="whole", cache=tmp_path / "c").batch(
            0, 6, 0
        )
        for text in texts
    ]
    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], batches[2])


def test_a_pattern_chooses_files(photos: Path) -> None:
    names = [name for name, _ in open_source(str(photos / "p[12].png")).files()]
    assert names == ["p1.png", "p2.png"]
    everywhere = [name for name, _ in open_source(str(photos / "**" / "p*.png")).files()]
    assert len(everywhere) == 6


def test_the_order_is_natural(tmp_path: Path) -> None:
    for i in (10, 9, 1):
        (tmp_path / f"p{i}.png").write_bytes(b"")
    names = [name for name, _ in open_source(str(tmp_path)).files()]
    assert names == ["p1.png", "p9.png", "p10.png"]


def test_names_in_archives_are_no_paths(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "a" / "bad.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        tar.add(photos / "p0.png", "../../escaped.png")
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert [name for name, _ in open_source(str(path)).files()] == ["../../escaped.png"]
    assert not (tmp_path.parent / "escaped.png").exists()
    assert not (tmp_path / "escaped.png").exists()


def test_a_member_that_is_too_large_is_not_read(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.write(photos / "p0.png", "p0.png")
    monkeypatch.setattr(sources, "MAX_BYTES", 10)
    for text in (tmp_path / "data.zip", photos):
        assert all(content == b"" for _, content in open_source(str(text)).files())


def test_a_damaged_archive_is_told(tmp_path: Path) -> None:
    for name in ("data.zip", "data.tar"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(WeightsError, match=name):
            list(open_source(str(tmp_path / name)).files())


@pytest.mark.parametrize(
    ("text", "said", "code"),
    [
        ("no-such-folder", "no such folder", 5),
        ("no-such-{0..3}.tar", "no-such-0.tar", 5),
        ("ffhq", "ffhq=DIR", 5),
        ("ffqh=somewhere", "ffhq", 2),
        ("hf:user/name", "hf-data", 5),
    ],
)
def test_what_is_not_there_is_told(
    text: str, said: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAVPS_DATA", raising=False)
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(LavpsError) as error:
        open_source(text)
    assert said in error.value.message + error.value.hint
    assert error.value.exit_code == code
    assert isinstance(error.value, UsageError | WeightsError)


def faces(folder: Path) -> list[str]:
    folder.mkdir()
    numbers = [0, 17, 3999, 4000, 4031, 4032, 4100, 4399, 4400]
    for number in numbers:
        (folder / f"{number:05d}.jpg").write_bytes(b"")
    return [f"{number:05d}.jpg" for number in numbers]


def test_known_names_are_found_and_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = faces(tmp_path / "ffhq128")
    monkeypatch.setenv("LAVPS_DATA", str(tmp_path))
    found = {
        split: [name for name, _ in open_source("ffhq-4500", split).files()]
        for split in ("train", "validation", "test")
    }
    assert found == {"train": names[:3], "validation": names[3:5], "test": names[6:8]}
    given = open_source(f"ffhq-4500={tmp_path / 'ffhq128'}")
    assert [name for name, _ in given.files()] == found["train"]
    assert given.crop == "whole"
    assert "NC" in (given.licence or "")


@pytest.mark.parametrize("name", KNOWN)
def test_splits_share_no_picture(name: str) -> None:
    names = [f"{i:05d}.png" for i in range(70000)]
    if name == "imagenet":
        names = [f"{p}/n{c:03d}/{i}.JPEG" for p in ("train", "val") for c in range(500)
                 for i in range(5)]  # fmt: skip
    splits = [set(select(names)) for select in KNOWN[name].splits.values()]
    assert all(splits)
    assert sum(map(len, splits)) == len(set.union(*splits))
