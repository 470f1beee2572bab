import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lavps_cli.bench.records import Book, Config, Record, described, read, values
from lavps_cli.errors import DataError, OutputError

CONFIG = Config(
    method="lavps", options={"num_steps": 4, "lr": 0.3}, model="tiny@0", inference=None,
    task="sr:4", sigma_y=0.05, size=16, device="cpu: x", dtype="fp32", threads=1,
)  # fmt: skip


def record(image: str = "a#1", seed: int = 0, config: Config = CONFIG, **more: object) -> Record:
    head: dict[str, object] = {"split": "test", "image": image, "seed": seed, "seconds": 1.0}
    return Record(**described(config), **(head | more))  # type: ignore[arg-type]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    book = Book(tmp_path / "deep" / "records.jsonl")
    first = record(metrics={"psnr": 20.5, "lpips": None}, reasons={"lpips": "no trunk"})
    book.add(first)
    book.add(record("ü#2", error="it diverged"))
    again = Book(book.path)
    assert list(again.records.values()) == list(book.records.values())
    assert again.get(first.key) == first
    assert [r.image for r in again.of(CONFIG.digest)] == ["a#1"]  # Failures have no result.


@pytest.mark.parametrize("cut", [1, 20, 400])
def test_a_line_that_a_kill_has_cut_is_done_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "records.jsonl"
    Book(path).add(record("a#1"))
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write((json.dumps(asdict(record("b#2"))) + "\n").encode()[:cut])
    book = Book(path)
    assert path.read_bytes() == whole
    assert {r.image for r in book.records.values()} == {"a#1"}
    book.add(record("b#2"))
    assert [r.image for r in read([path])] == ["a#1", "b#2"]


def test_files_of_two_machines_concatenate(tmp_path: Path) -> None:
    other = replace(CONFIG, device="cpu: y")
    for name, each in (("one", record()), ("two", record(config=other)), ("three", record())):
        Book(tmp_path / name).add(each)
    joined = tmp_path / "joined"
    joined.write_bytes(b"".join((tmp_path / n).read_bytes() for n in ("one", "two", "three")))
    assert [r.device for r in read([joined])] == ["cpu: x", "cpu: y"]
    assert read([tmp_path / "one", tmp_path / "two"]) == read([joined])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("not json", "no JSON"),
        ("[1, 2]", "another version"),
        ('{"schema": 99}', "another version"),
        ('{"schema": 1, "image": "x"}', "no record"),
        (json.dumps(asdict(record()) | {"sigma_y": 0.1}), "settings were changed"),
    ],
)
def test_foreign_lines_are_refused_by_number(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "records.jsonl"
    Book(path).add(record())
    with path.open("a") as file:
        file.write(line + "\n")
    before = path.read_bytes()
    with pytest.raises(DataError, match=f"line 2.*{reason}") as caught:
        Book(path)
    assert "-o DIR" in caught.value.hint
    assert path.read_bytes() == before


def test_later_fields_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(asdict(record()) | {"weather": "rain"}) + "\n")
    assert read([path]) == [record()]


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    book = Book(tmp_path / "records.jsonl")
    book.path = tmp_path / "file" / "records.jsonl"
    with pytest.raises(OutputError, match="cannot be written"):
        book.add(record())


def test_every_setting_is_in_the_digest() -> None:
    changes: dict[str, object] = {
        "method": "mgdm", "options": {"num_steps": 5, "lr": 0.3}, "model": "m", "inference": "i",
        "task": "sr:2", "sigma_y": 0.1, "size": 32, "device": "d", "dtype": "bf16", "threads": 2,
        "coverage": 19, "batch": 2,
    }  # fmt: skip
    assert set(changes) == set(asdict(CONFIG))
    digests = {replace(CONFIG, **{k: v}).digest for k, v in changes.items()}  # type: ignore[arg-type]
    assert len(digests | {CONFIG.digest}) == len(changes) + 1
    reordered = replace(CONFIG, options={"lr": 0.3, "num_steps": 4})
    assert reordered.digest == CONFIG.digest


def test_values_are_by_image_and_seed() -> None:
    several = [record("a#1", metrics={"psnr": 1.0}), record("a#1", 1, metrics={"psnr": None})]
    assert values(several, "psnr") == {("a#1", 0): 1.0}


def test_units_count_backward_evaluations_twice() -> None:
    assert record(nfe=10, nbe=3).units == 16
