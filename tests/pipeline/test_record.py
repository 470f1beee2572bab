import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as PillowImage

from lavps_cli.errors import DataError
from lavps_cli.images.picture import Picture
from lavps_cli.pipeline.damage import Degraded, degrade_picture
from lavps_cli.pipeline.record import MAX_CHARS, Record, from_text, to_text
from lavps_cli.pipeline.requests import Problem

PROBLEMS = [
    Problem(scale=4, downsample="bicubic", noise="0.1"),
    Problem(kernel="7", kernel_seed=3, noise="0.02"),
    Problem(kernel="5@30", boundary="circular", noise="0"),
    Problem(mask="centre"),
    Problem(mask="rectangle"),
    Problem(mask="pixels"),
    Problem(task="denoise", noise="12/255"),
    Problem(task="colorize", noise="poisson:12.5"),
    Problem(gain=1.5),
    Problem(scale=2, downsample="gaussian:5@0.8"),
    Problem(scale=2, mask="pixels"),
    Problem(kernel="5@30", mask="centre"),
]


def damaged(problem: Problem, seed: int = 5) -> Degraded:
    x = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return degrade_picture(Picture(x), "in", problem, seed)


def assert_equal(a: Record, b: Record) -> None:
    assert (a.task, a.size, a.noise, a.seed) == (b.task, b.size, b.noise, b.seed)
    assert (a.scale, a.boundary, a.gain, a.peak) == (b.scale, b.boundary, b.gain, b.peak)
    assert (a.downsample == b.downsample) or (a.filter is not None)
    for one, two in ((a.kernel, b.kernel), (a.mask, b.mask), (a.filter, b.filter)):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            assert torch.equal(one.values, two.values)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_round_trip(problem: Problem) -> None:
    record = damaged(problem).record
    text = to_text(record)
    assert text.isascii()
    assert_equal(from_text(text, record.size), record)


def test_mask_files_travel_as_bits(tmp_path: Path) -> None:
    image = PillowImage.new("L", (24, 16))
    image.paste(255, (3, 4, 9, 8))
    image.save(tmp_path / "m.png")
    record = damaged(Problem(mask=str(tmp_path / "m.png"))).record
    text = to_text(record)
    assert str(tmp_path) not in text
    assert_equal(from_text(text, record.size), record)


def entries(problem: Problem) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(to_text(damaged(problem).record))
    return values


def changed(problem: Problem, **changes: Any) -> str:
    return json.dumps(entries(problem) | changes)


def with_kernel(**changes: Any) -> str:
    values = entries(PROBLEMS[1])
    return json.dumps(values | {"kernel": values["kernel"] | changes})


def with_mask(**changes: Any) -> str:
    values = entries(PROBLEMS[4])
    return json.dumps(values | {"mask": values["mask"] | changes})


def packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()


DENOISE = PROBLEMS[6]
HOSTILE = {
    "not json": "{",
    "a list": "[]",
    "deep": "[" * 100_000,
    "too long": " " * (MAX_CHARS + 1),
    "other schema": changed(DENOISE, schema=2),
    "no task": json.dumps({"schema": 1}),
    "other task": changed(DENOISE, task="rm -rf"),
    "task of another type": changed(DENOISE, task=["sr"]),
    "other size": changed(DENOISE, size=[24, 17]),
    "size of another type": changed(DENOISE, size="24x16"),
    "noise out of range": changed(DENOISE, noise=1e9),
    "negative noise": changed(DENOISE, noise=-1),
    "noise not a number": to_text(damaged(DENOISE).record).replace("0.094117", "NaN0"),
    "nan": changed(DENOISE, noise=float("nan")),
    "huge number": changed(DENOISE, noise=0).replace('"noise": 0', '"noise": ' + "9" * 5000),
    "true as a number": changed(DENOISE, noise=True),
    "seed out of range": changed(DENOISE, seed=1 << 80),
    "float seed": changed(DENOISE, seed=1.5),
    "scale": changed(PROBLEMS[0], size=[6, 4], scale=17),
    "reduction": changed(PROBLEMS[0], size=[6, 4], downsample="magic"),
    "boundary": changed(PROBLEMS[1], boundary="none"),
    "no kernel": changed(PROBLEMS[1], kernel=None),
    "kernel shape": with_kernel(shape=[7, 9]),
    "even kernel": with_kernel(shape=[2, 2], values=packed(bytes(16))),
    "huge kernel": with_kernel(shape=[100_001, 100_001]),
    "kernel bomb": with_kernel(values=packed(bytes(1 << 24))),
    "kernel of zeros": with_kernel(values=packed(bytes(7 * 7 * 4))),
    "kernel of nan": with_kernel(values=packed(b"\xff" * (7 * 7 * 4))),
    "kernel not packed": with_kernel(values="AAAA"),
    "kernel not base64": with_kernel(values="\u00e9"),
    "mask kind": with_mask(kind="stars"),
    "mask seed": with_mask(seed=None),
    "mask of another draw": with_mask(seed=99),
    "mask bits": with_mask(kind="file", bits=packed(bytes(1000))),
    "mask of text": changed(PROBLEMS[4], mask="centre"),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_records_are_refused(text: str) -> None:
    size = (6, 4) if '"sr"' in text else (24, 16)
    with pytest.raises(DataError, match="record of `lavps degrade` is unusable"):
        from_text(text, size)


def test_masks_too_large_for_a_record_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lavps_cli.pipeline.record.MAX_CHARS", 150)
    record = damaged(PROBLEMS[4]).record
    text = to_text(record)
    assert json.loads(text)["mask"] is None
    assert from_text(text, record.size).mask is None
