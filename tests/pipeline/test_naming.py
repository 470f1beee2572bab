"""Names of many results."""

import time
from pathlib import Path

import pytest

from lavps_cli.errors import UsageError
from lavps_cli.pipeline.job import Source
from lavps_cli.pipeline.naming import Named, settled
from lavps_cli.pipeline.paths import with_folder
from lavps_cli.pipeline.requests import Output

BESIDE = "{dir}/{stem}.restored.{ext}"


def named(path: str, output: str | None = "out/", tree: str = "", **more: str) -> Named:
    source = Source(path, tree, Path("in") if tree else None)
    return Named(source, Output(output=output, **more), BESIDE, "sr", 0)  # type: ignore[arg-type]


def places(*names: Named) -> list[str]:
    return [each.place for each in settled(names)]


def test_what_does_not_collide_keeps_its_name() -> None:
    found = places(named("in/a.png"), named("in/b.jpg"), named("in/sub/a.png", tree="sub"))
    assert found == ["out/a.png", "out/b.jpg", "out/sub/a.png"]


def test_stems_that_collide_get_the_whole_name() -> None:
    pictures = [named(name, format="png") for name in ("in/a.png", "in/a.jpg", "in/b.jpg")]
    assert places(*pictures) == ["out/a.png.png", "out/a.jpg.png", "out/b.png"]
    pair = [named("a.tif", None), named("a.tiff", None)]
    assert places(*pair) == ["a.restored.tif", "a.restored.tiff"]


@pytest.mark.parametrize(
    "pair",
    [
        (named("x/a.png"), named("y/a.png")),
        (named("a.png", "one.png"), named("b.png", "one.png")),
        (named("a.png"), named("a.png")),
        (named("a.png", "out/../b.png"), named("c.png", "b.png")),
    ],
)
def test_what_cannot_be_told_apart_is_refused(pair: tuple[Named, Named]) -> None:
    with pytest.raises(UsageError, match="would be the result"):
        settled(pair)


def test_names_that_the_picture_decides_are_left_to_it() -> None:
    source, output = Source("a.png"), Output(output="{task}.png")
    unknown = Named(source, output, BESIDE, None, 0)
    assert settled([unknown, unknown]) == [unknown, unknown]


def test_a_folder_is_not_written_into(tmp_path: Path) -> None:
    def of(output: str | None) -> Named:
        source = Source(f"{tmp_path}/a.png", "", tmp_path)
        return Named(source, Output(output=output), BESIDE, "sr", 0)

    with pytest.raises(UsageError, match="where shall the results go"):
        settled([of(None)])
    for inside in (f"{tmp_path}/", f"{tmp_path}/new/", f"{tmp_path}/x/../new/"):
        with pytest.raises(UsageError, match="among the pictures"):
            settled([of(inside)])
    for meant in ("{dir}/{stem}_new.{ext}", f"{tmp_path}/../out/", f"{tmp_path}-out/"):
        settled([of(meant)])


def test_thousands_of_names_take_no_time() -> None:
    many = [named(f"in/{i}.png", tree="t") for i in range(3000)]
    twins = [named(f"in/{i}.jpg", tree="t", format="png") for i in range(3000)]
    started = time.process_time()
    assert len(set(places(*many, *twins))) == 6000
    assert time.process_time() - started < 10  # A quadratic search takes longer.


@pytest.mark.parametrize(
    ("output", "several", "expected"),
    [
        ("out", True, "out/"),
        ("out", False, "out"),
        ("out.png", True, "out.png"),
        ("{stem}", True, "{stem}"),
        ("-", True, "-"),
        ("out//", True, "out/"),
        (None, True, None),
    ],
)
def test_several_pictures_make_a_folder(
    output: str | None, several: bool, expected: str | None
) -> None:
    assert with_folder(Output(output=output), several=several).output == expected
