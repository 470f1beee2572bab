from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from lavps_cli.bench.pareto import pareto_front
from lavps_cli.bench.records import Book, Record
from lavps_cli.pipeline.bench_data import load_pictures
from lavps_cli.pipeline.measuring import Bench
from lavps_cli.pipeline.metrics import open_metrics
from lavps_cli.pipeline.model import open_weights
from lavps_cli.pipeline.requests import Compute
from lavps_cli.pipeline.sweep import Candidate, Sweep
from lavps_cli.samplers.lavps import LavpsOptions
from lavps_cli.training.families import parse_families


class Silent:
    """A listener that does not listen."""

    def note(self, text: str) -> None: ...

    def detail(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def progress(self, progress: Any) -> None: ...


@pytest.fixture(scope="module")
def bench(model_folder: Path) -> Bench:
    weights = open_weights(Compute(model=str(model_folder), device="cpu", dtype="fp32"))
    return Bench(
        weights=weights,
        pictures=load_pictures("builtin", 16, 2, Silent()),
        metrics=open_metrics(["psnr"]),
        size=16,
        seed=0,
    )


def candidates(bench: Bench) -> list[Candidate]:
    (family,) = parse_families("deblur:3@0.5", 16)
    found = []
    for method in ("mgdm", "lavps"):
        for end in (0, 2):
            for ratio in (0.6, 0.8):
                options = LavpsOptions(num_steps=6, grad_steps_end=end, switch_ratio=ratio)
                config = bench.config(method, options, family)
                found.append(Candidate(method, options, config))
    return found


def loss(record: Record) -> float | None:
    value = record.metrics["psnr"]
    return None if value is None else -value


def swept(bench: Bench, path: Path, **how: bool) -> tuple[Sweep, list[Candidate]]:
    (family,) = parse_families("deblur:3@0.5", 16)
    sweep = Sweep(bench, family, Book(path), loss, cost=lambda r: float(r.units), **how)
    alive, images = sweep.run(candidates(bench))
    assert images == 4
    return sweep, alive


def test_shared_beginnings_change_no_record_and_save_work(bench: Bench, tmp_path: Path) -> None:
    plain, _ = swept(bench, tmp_path / "plain", share=False, race=False)
    shared, _ = swept(bench, tmp_path / "shared", share=True, race=False)

    def told(sweep: Sweep) -> dict[Any, dict[str, Any]]:
        left_out = ("seconds", "peak_mb")
        return {
            key: {k: v for k, v in asdict(record).items() if k not in left_out}
            for key, record in sweep.book.records.items()
        }

    assert told(shared) == told(plain)
    assert plain.saved.factor == 1
    assert shared.saved.shared > 0
    total = sum(record.units for record in plain.book.records.values())
    assert shared.saved.done + shared.saved.shared == pytest.approx(total)


def test_the_front_is_that_of_the_whole_sweep(bench: Bench, tmp_path: Path) -> None:
    """Costs are counted, so that it does not depend on the machine."""
    plain, everyone = swept(bench, tmp_path / "plain", share=False, race=False)
    raced, alive = swept(bench, tmp_path / "raced", share=True, race=True)
    assert len(alive) <= len(everyone)

    def front(sweep: Sweep, among: list[Candidate]) -> set[str]:
        digests = [c.config.digest for c in among]
        points = []
        for digest in digests:
            records = sweep.book.of(digest)
            losses = [v for r in records if (v := loss(r)) is not None]
            points.append((float(records[0].units), sum(losses) / len(losses)))
        return {digests[i] for i in pareto_front(points)}

    assert front(raced, alive) == front(plain, everyone)


def test_a_record_does_not_depend_on_the_batch(bench: Bench, tmp_path: Path) -> None:
    (family,) = parse_families("inpaint:pixels@0.3-0.7", 16)
    options = LavpsOptions(num_steps=5, grad_steps_end=1, switch_ratio=0.6)
    found = []
    for each in (bench, replace(bench, batch=3)):
        candidate = Candidate("lavps", options, each.config("lavps", options, family))
        book = Book(tmp_path / str(each.batch))
        assert Sweep(each, family, book, loss).run([candidate])[1] == 4
        found.append(sorted(book.records.values(), key=lambda r: r.image))
    for alone, shared in zip(*found, strict=True):
        assert (alone.image, alone.units, alone.batch) == (shared.image, shared.units, 1)
        assert (alone.accepted, shared.batch) == (shared.accepted, 3)
        assert alone.metrics["psnr"] == pytest.approx(shared.metrics["psnr"], abs=1e-3)
        assert alone.residual == pytest.approx(shared.residual, abs=1e-3)


def test_a_late_sweep_gives_every_candidate_two_images(bench: Bench, tmp_path: Path) -> None:
    (family,) = parse_families("deblur:3@0.5", 16)
    few = candidates(bench)[:2]
    sweep = Sweep(bench, family, Book(tmp_path / "late"), loss)
    assert sweep.run(few, until=0.0) == (few, 2)
    assert len(sweep.book.records) == 4
