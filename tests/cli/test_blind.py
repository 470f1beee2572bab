import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from lavps_cli.pipeline.kernels import read_kernel

Lavps = Callable[..., Result]


def test_the_kernel_is_written_beside_the_result_and_told(restore: Lavps, photo: Path) -> None:
    result = restore(photo, "--blind", "--kernel", "5", "--json")
    assert result.exit_code == 0, result.output
    line: dict[str, Any] = json.loads(result.stdout)
    told = line["kernel"]
    file = photo.with_name("photo.kernel.png")
    assert told["source"] == "estimated"
    assert told["file"] == str(file)
    assert 0 <= told["confidence"] <= 1
    assert read_kernel(str(file), 0.9, 0).values.shape == (5, 5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--blind",), "needs the size"),
        (("--blind", "--kernel", "8"), "odd"),
        (("--blind", "--kernel", "disk:7"), "needs the size"),
        (("--blind", "--kernel", "5", "--kernel-seed", "3"), "estimates it"),
        (("--blind", "--kernel", "5", "--simulate"), "--simulate knows it"),
        (("--blind", "--scale", "2"), "no effect"),
    ],
)
def test_flags_that_make_no_sense(
    restore: Lavps, photo: Path, flags: tuple[str, ...], message: str
) -> None:
    result = restore(photo, *flags)
    assert result.exit_code == 2
    assert message in result.output


def test_without_it_the_assumed_kernel_is_warned_of(restore: Lavps, photo: Path) -> None:
    result = restore(photo, "--kernel", "5", "--noise", "0.1")
    assert result.exit_code == 0
    assert "drawn kernel 5" in " ".join(result.output.split())
    assert not photo.with_name("photo.kernel.png").exists()
