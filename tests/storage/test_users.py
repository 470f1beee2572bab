"""Models, data sets, records and pictures by URL are those of the disk."""

import json
import tarfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from lavps_cli.bench.records import Book, Config, Record, described, read
from lavps_cli.data.sources import open_source
from lavps_cli.data.store import prepare
from lavps_cli.errors import DataError, OutputError, WeightsError
from lavps_cli.images.reading import load_picture
from lavps_cli.images.writing import write_atomic
from lavps_cli.storage import failures
from lavps_cli.storage.failures import UnreachableError
from lavps_cli.storage.remote import Remote
from lavps_cli.weights.checkpoint import load_denoiser
from lavps_cli.weights.index import beside_of, resolve


def put(folder: Path, remote: Remote) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            (remote / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())


def lost(self: Remote, *args: object) -> bytes:
    raise UnreachableError(103, "the connection was lost", str(self))


def test_a_model_is_fetched_once_with_what_belongs_to_it(
    store: Remote, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(model_folder, store / "tiny")
    put(model_folder.with_name("tiny-inference"), store / "tiny-inference")
    (store / "tiny" / "model.pt").write_bytes(b"a pickle")
    folder = resolve("memory://box/tiny")
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "model.safetensors", "versions.json",
    }  # fmt: skip
    beside = beside_of(folder)
    assert beside is not None
    device = torch.device("cpu")
    there, here = (load_denoiser(each, device=device) for each in (folder, model_folder))
    x, t = torch.zeros(1, 3, 16, 16), torch.tensor(0.5, dtype=torch.float64)
    assert torch.equal(there(x, t), here(x, t))

    monkeypatch.setattr(Remote, "range", lost)
    assert resolve("memory://box/tiny") == folder
    assert resolve("memory://box/tiny", offline=True) == folder
    config = json.loads((store / "tiny" / "config.json").read_bytes())
    (store / "tiny" / "config.json").write_bytes(json.dumps(config | {"licence": "x"}).encode())
    with pytest.raises(WeightsError, match="cannot be had"):
        resolve("memory://box/tiny")
    assert resolve("memory://box/tiny", offline=True) == folder  # What was whole stays whole.
    monkeypatch.undo()
    assert "licence" in (resolve("memory://box/tiny") / "config.json").read_text()


def test_what_is_no_model_is_told(store: Remote, model_folder: Path) -> None:
    (store / "half" / "config.json").write_bytes((model_folder / "config.json").read_bytes())
    for name in ("half", "none"):
        with pytest.raises(WeightsError, match="holds no model"):
            resolve(f"memory://box/{name}")
        with pytest.raises(WeightsError, match="not in the cache"):
            resolve(f"memory://box/{name}", offline=True)


def test_data_sets_by_url_are_those_of_the_disk(store: Remote, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(0, 255, (16, 16, 3), np.uint8)
        PillowImage.fromarray(pixels).save(photos / ("sub" if i > 8 else "") / f"p{i}.png")
    (photos / ".hidden.png").write_bytes((photos / "p0.png").read_bytes())
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for path in sorted(photos.rglob("p*.png"), key=lambda path: int(path.stem[1:])):
            tar.add(path, path.name)
    put(photos, store / "photos")
    (store / "photos.tar").write_bytes((tmp_path / "photos.tar").read_bytes())

    def batch(text: str) -> torch.Tensor:
        source = open_source(text)
        return prepare([source], size=16, crop="whole", cache=tmp_path / "cache").batch(0, 12, 0)

    here = batch(str(photos))
    for text in ("memory://box/photos", "memory://box/photos.tar", "memory://box/photos/**/p*.png"):
        assert torch.equal(batch(text), here), text
    assert torch.equal(batch(f"file://{photos}"), here)
    before = open_source("memory://box/photos").fingerprint
    (store / "photos" / "p3.png").write_bytes((photos / "p4.png").read_bytes())
    assert open_source("memory://box/photos").fingerprint != before
    with pytest.raises(WeightsError):
        open_source("memory://box/none")


CONFIG = Config(
    method="lavps", options={"num_steps": 4}, model="tiny@0", inference=None, task="sr:4",
    sigma_y=0.05, size=16, device="cpu: x", dtype="fp32", threads=1,
)  # fmt: skip


def record(image: str) -> Record:
    return Record(**described(CONFIG), split="test", image=image, seed=0, seconds=1.0)


def test_records_by_url_are_those_of_the_disk(store: Remote, tmp_path: Path) -> None:
    places = (store / "run" / "records.jsonl", tmp_path / "run" / "records.jsonl")
    for place in places:
        Book(place).add(record("a#1"))
        again = Book(place)
        again.add(record("b#2"))
        again.add(record("c#3"))
    there, here = (read([place]) for place in places)
    assert [asdict(each) for each in there] == [asdict(each) for each in here]
    (places[0] / "other.jsonl").write_bytes(b"not json\n{}\n")
    with pytest.raises(DataError, match="no record"):
        read([places[0]])


def test_pictures_by_url_are_read_and_written(store: Remote, photo: Path) -> None:
    write_atomic(store / "photo.png", photo.read_bytes())
    there, here = load_picture(store / "photo.png", "there"), load_picture(photo, "here")
    assert torch.equal(there.pixels, here.pixels)


def test_what_goes_wrong_is_said_as_what_it_is(
    store: Remote, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "WAITS", ())
    name = "memory://box/a.png"
    with pytest.raises(DataError, match="no such file"):
        load_picture(store / "a.png", name)
    (store / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        load_picture(store / "a.png", name)
    monkeypatch.setattr(Remote, "read_bytes", lost)
    with pytest.raises(DataError, match=r"cannot be fetched: .*lost") as error:
        load_picture(store / "a.png", name)
    assert "again" in error.value.hint
    monkeypatch.setattr(Remote, "write_bytes", lost)
    with pytest.raises(OutputError, match=r"cannot be written: .*lost"):
        write_atomic(store / "b.png", photo.read_bytes())
