from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lavps_cli.errors import UsageError
from lavps_cli.pipeline.metrics import open_metrics

X = torch.zeros(1, 3, 16, 16)


def test_named_metrics_say_what_they_depend_on() -> None:
    for metric in open_metrics(["psnr", "ssim"]):
        assert {"name", "higher_is_better", "range", "border", "version"} <= set(metric.told)
        value, reason = metric.measure(X, X + 0.1)
        assert value is not None
        assert reason == ""


def test_lpips_without_a_trunk_has_no_value_but_a_reason() -> None:
    (metric,) = open_metrics(["lpips"], offline=True)
    value, reason = metric.measure(X, X)
    assert value is None
    assert "lpips" in reason.lower()
    assert metric.told["reason"]
    assert metric.told["net"] == "alex"


def test_lpips_takes_a_trunk_from_a_file(tmp_path: Path) -> None:
    if find_spec("lpips") is None:
        pytest.skip("needs the files of lpips")
    from lavps_cli.metrics.lpips import _FEATURES

    path = tmp_path / "trunk.safetensors"
    save_file({f"features.{k}": v for k, v in _FEATURES["squeeze"]().state_dict().items()}, path)
    (metric,) = open_metrics([f"lpips:squeeze@{path}"], offline=True)
    assert metric.name == "lpips-squeeze"
    x = torch.rand(1, 3, 40, 40)
    assert metric.measure(x, x) == (0.0, "")
    small = metric.measure(X, X)
    assert small[0] is None
    assert "32x32" in small[1]


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x04cos\nsystem\n."])
def test_a_damaged_trunk_is_a_reason_and_is_never_executed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trunk.pth"
    path.write_bytes(content)
    (metric,) = open_metrics([f"lpips:alex@{path}"], offline=True)
    assert metric.score is None
    assert "trunk.pth cannot be read" in metric.reason or "not installed" in metric.reason


def test_ones_own_function(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "def far(xhat, x):\n    return (xhat - x).abs().amax((1, 2, 3))\n"
        "def near(xhat, x):\n    return [1.0 - float((xhat - x).abs().max())]\n"
        "near.higher_is_better = True\n"
        "def bad(xhat, x):\n    raise RuntimeError('no')\n"
        "def nothing(xhat, x):\n    return [float('nan')]\n"
        "def many(xhat, x):\n    return [1.0, 2.0]\n"
    )
    far, near, bad, nothing, many = open_metrics(
        [f"{path}:{name}" for name in ("far", "near", "bad", "nothing", "many")]
    )
    assert far.measure(X, X + 0.5) == (0.5, "")
    assert not far.higher
    assert near.measure(X, X)[0] == 1.0
    assert near.higher
    assert bad.measure(X, X) == (None, "bad raised RuntimeError: no")
    assert nothing.measure(X, X)[0] is None
    assert many.measure(X, X) == (None, "many gave 2 values for one picture")
    assert far.told["version"].startswith("mine.py ")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("pnsr", "psnr"),
        ("psnr:x", "Write:  psnr"),
        ("lpips:vg", "vgg"),
        ("nowhere.py:f", "FILE.py"),
    ],
)
def test_names_that_are_none(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_metrics([text])
    assert hint in caught.value.hint


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def score(a, b):\n    return a\n")
    with pytest.raises(UsageError) as caught:
        open_metrics([f"{path}:scor"])
    assert "score" in caught.value.hint
    path.write_text("raise OSError('broken')\n")
    with pytest.raises(UsageError, match="broken"):
        open_metrics([f"{path}:score"])


def test_once_is_enough() -> None:
    with pytest.raises(UsageError, match="twice"):
        open_metrics(["psnr", "psnr"])
