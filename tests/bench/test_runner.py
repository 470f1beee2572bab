import time
from pathlib import Path

from lavps_cli.bench.records import Book, Record, Split
from lavps_cli.bench.runner import Cell, Images, measure_all
from tests.bench.test_records import CONFIG, record

IMAGES = Images("test", ["a#1", "b#2", "c#3"])


def cells(log: list[tuple[str, str]]) -> list[Cell]:
    from dataclasses import replace

    def cell(method: str) -> Cell:
        config = replace(CONFIG, method=method)

        def measure(place: int, split: Split) -> Record:
            log.append((method, IMAGES.names[place]))
            return record(IMAGES.names[place], config=config)

        return Cell(config, measure)

    return [cell("lavps"), cell("mgdm")]


def test_methods_take_turns_image_by_image(tmp_path: Path) -> None:
    log: list[tuple[str, str]] = []
    left = measure_all(cells(log), IMAGES, 0, Book(tmp_path / "r"))
    assert log == [(m, i) for i in IMAGES.names for m in ("lavps", "mgdm")]
    assert left.complete


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
