"""Every example runs and shows what it says."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_example_runs_and_is_short(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) < 80
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert capsys.readouterr().out


def test_toy_posterior_agrees_with_the_exact_one(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "01_toy_posterior.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for line in lines:
        exact, sampled = map(float, re.findall(r"-?\d+\.\d+", line))
        assert abs(exact - sampled) < 0.1
