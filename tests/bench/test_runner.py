import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lavps_cli.bench.records import Book, Record, Split
from lavps_cli.bench.runner import Cell, Images, measure_all
from tests.bench.test_records import CONFIG, record

IMAGES = Images("test", ["a#1", "b#2", "c#3"])


def cells(log: list[tuple[str, str]]) -> list[Cell]:
    def cell(method: str) -> Cell:
        config = replace(CONFIG, method=method)

        def measure(places: Sequence[int], split: Split) -> list[Record]:
            names = [IMAGES.names[place] for place in places]
            log.extend((method, name) for name in names)
            return [record(name, config=config) for name in names]

        return Cell(config, measure)

    return [cell("lavps"), cell("mgdm")]


def test_methods_take_turns_image_by_image(tmp_path: Path) -> None:
    log: list[tuple[str, str]] = []
    left = measure_all(cells(log), IMAGES, 0, Book(tmp_path / "r"))
    assert log == [(m, i) for i in IMAGES.names for m in ("lavps", "mgdm")]
    assert left.complete


def test_images_of_a_batch_are_measured_together(tmp_path: Path) -> None:
    log: list[tuple[str, str]] = []
    book = Book(tmp_path / "r")
    book.add(record("a#1", config=replace(CONFIG, method="lavps")))
    left = measure_all(cells(log), IMAGES, 0, book, batch=2)
    methods = ["lavps", "mgdm", "mgdm", "lavps", "mgdm"]
    assert log == list(zip(methods, ["b#2", "a#1", "b#2", "c#3", "c#3"], strict=True))
    assert (left.measured, left.missing) == (6, 0)


def test_a_late_run_gives_every_cell_one_image_and_goes_on_later(tmp_path: Path) -> None:
    log: list[tuple[str, str]] = []
    left = measure_all(cells(log), IMAGES, 0, Book(tmp_path / "r"), until=time.monotonic() - 1)
    assert log == [("lavps", "a#1"), ("mgdm", "a#1")]
    assert (left.measured, left.missing, left.complete) == (2, 4, False)
    told: list[tuple[int, int]] = []
    left = measure_all(
        cells(log), IMAGES, 0, Book(tmp_path / "r"),
        on_record=lambda record, done, total: told.append((done, total)),
    )  # fmt: skip
    assert log == [(m, i) for i in IMAGES.names for m in ("lavps", "mgdm")]
    assert left.complete
    assert told == [(3, 6), (4, 6), (5, 6), (6, 6)]
