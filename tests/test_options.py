from dataclasses import dataclass
from typing import Literal

import pytest

from lavps_cli.errors import UsageError
from lavps_cli.options import (
    parse_count,
    parse_noise,
    parse_pixels,
    parse_seconds,
    parse_settings,
)
from lavps_cli.samplers.lavps import LavpsOptions


@dataclass(frozen=True)
class Sample:
    num_steps: int = 10
    lr: float = 0.1
    grid: Literal["vp", "flow"] = "vp"
    stochastic: bool = False
    note: str = ""


def test_values_take_the_types_of_the_fields() -> None:
    texts = ["num_steps=3", "lr=1e-2", "grid=flow", "stochastic=yes", "note=a=b"]
    assert parse_settings(Sample, texts) == {
        "num_steps": 3,
        "lr": 0.01,
        "grid": "flow",
        "stochastic": True,
        "note": "a=b",
    }


def test_every_option_of_the_sampler_can_be_said() -> None:
    options = LavpsOptions()
    texts = [f"{name}={getattr(options, name)}" for name in LavpsOptions.__slots__]
    assert LavpsOptions(**parse_settings(LavpsOptions, texts)) == options


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("num_steps", "expected name=value", "num_steps, lr"),
        ("num_step=3", "no option 'num_step'", "Did you mean num_steps?"),
        ("zzz=3", "no option 'zzz'", "Choose from"),
        ("num_steps=three", "'three' is not a whole number", "num_steps=3"),
        ("num_steps=2.5", "'2.5' is not a whole number", "num_steps=3"),
        ("lr=fast", "'fast' is not a number", "lr=0.3"),
        ("stochastic=maybe", "'maybe' is not true or false", "stochastic=true"),
        ("grid=flaw", "'flaw' is not allowed", "Did you mean flow?"),
    ],
)
def test_wrong_settings_say_what_is_right(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings(Sample, [text])
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_setting_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        parse_settings(Sample, ["lr=1", "lr=2"])


@pytest.mark.parametrize(
    ("text", "value"),
    [("auto", None), ("0.05", 0.05), ("6.375/255", 0.05), ("0", 0.0), ("819/65535", 1638 / 65535)],
)
def test_noise_on_both_scales(text: str, value: float | None) -> None:
    assert parse_noise(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["-1", "much", "1/0", "nan", "inf", "", "1/", "3/-255"])
def test_what_is_no_noise(text: str) -> None:
    with pytest.raises(UsageError, match="--noise"):
        parse_noise(text)


def test_counts() -> None:
    assert parse_count("--tile", "auto", 0) is None
    assert parse_count("--tile", "0", 0) == 0
    for text in ("-1", "many", "1.5"):
        with pytest.raises(UsageError, match="--tile"):
            parse_count("--tile", text, 0)


@pytest.mark.parametrize(
    ("text", "value"), [("7", 7), ("500k", 500_000), ("200M", 200_000_000), ("1.5g", 1_500_000_000)]
)
def test_pixels(text: str, value: int) -> None:
    assert parse_pixels(text) == value


@pytest.mark.parametrize("text", ["0", "-3", "M", "lots", "1e400"])
def test_what_is_no_number_of_pixels(text: str) -> None:
    with pytest.raises(UsageError, match="--max-pixels"):
        parse_pixels(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("50ms", 0.05), ("1.5s", 1.5), ("2m", 120), ("1h", 3600), ("1d", 86400)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds("--budget", text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "ms", "5", "s", "-1s", "fast"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="--budget"):
        parse_seconds("--budget", text)
