from pathlib import Path
from typing import Any

import pytest
import torch

from lavps_cli.catalog import ExistingName
from lavps_cli.errors import OutputError, UsageError
from lavps_cli.images.picture import Picture
from lavps_cli.pipeline.paths import (
    Targets,
    check_outputs,
    claim,
    make_folders,
    places_of,
    plan_targets,
)
from lavps_cli.pipeline.requests import Output

PLAIN = Picture(torch.zeros(1, 3, 2, 2))
JPEG = Picture(torch.zeros(1, 3, 2, 2), format="jpg")
CLEAR = Picture(torch.zeros(1, 3, 2, 2), alpha=torch.ones(1, 1, 2, 2))


def plan(
    source: str = "a/in.png",
    output: str | None = None,
    picture: Picture = PLAIN,
    count: int = 1,
    **more: Any,
) -> Targets:
    names = ("uncertainty", "sidecar", "mask", "formats")
    extra = {name: more.pop(name) for name in names if name in more}
    return plan_targets(
        source,
        Output(output=output, **more),
        picture,
        default="{dir}/{stem}.restored.{ext}",
        task="sr",
        seed=7,
        count=count,
        **extra,
    )


@pytest.mark.parametrize(
    ("source", "output", "picture", "expected"),
    [
        ("a/in.png", None, PLAIN, "a/in.restored.png"),
        ("in.JPG", None, JPEG, "in.restored.JPG"),
        ("in.jpeg", None, JPEG, "in.restored.jpeg"),
        ("wrong.png", None, JPEG, "wrong.restored.jpg"),
        ("in.bmp", None, PLAIN, "in.restored.png"),
        ("a/in.png", "x.webp", PLAIN, "x.webp"),
        ("a/in.png", "out/", PLAIN, "out/in.png"),
        ("a/in.png", "{dir}/{task}_{stem}_{seed}.{ext}", PLAIN, "a/sr_in_7.png"),
        ("-", "out/", PLAIN, "out/stdin.png"),
    ],
)
def test_names(source: str, output: str | None, picture: Picture, expected: str) -> None:
    assert plan(source, output, picture).files == (Path(expected),)


def test_an_existing_folder_needs_no_slash(tmp_path: Path) -> None:
    assert plan(output=str(tmp_path)).files == (tmp_path / "in.png",)


def test_samples_are_numbered() -> None:
    assert [str(p) for p in plan(count=2).files] == [
        "a/in.restored.s00.png",
        "a/in.restored.s01.png",
    ]
    files = plan(output="{sample}/{stem}.png", count=101).files
    assert (str(files[0]), str(files[100])) == ("000/in.png", "100/in.png")


def test_files_beside_the_result() -> None:
    targets = plan(output="out/", compare=True, uncertainty="{stem}.std.png", sidecar=True)
    assert targets.compare == Path("out/in.compare.png")
    assert targets.uncertainty == Path("in.std.png")
    assert targets.sidecar == Path("out/in.json")
    assert plan(output="-").files == ()


@pytest.mark.parametrize(
    ("output", "more", "message"),
    [
        ("x.xyz", {}, "'.xyz'"),
        ("noname", {}, "no picture format"),
        ("x.png", {"format": "jpg"}, "says png, --format says jpg"),
        ("x.jpg", {"formats": ("png",)}, "written as png only"),
    ],
)
def test_formats_must_be_clear(output: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(output=output, **more)


def test_formats() -> None:
    assert plan(output="x.jpg").format == "jpg"
    assert plan(format="webp").files == (Path("a/in.restored.webp"),)
    assert plan(output="-", format="jpg").format == "jpg"
    assert plan(output="-", picture=JPEG).format == "jpg"
    with pytest.raises(OutputError, match="transparency"):
        plan(output="x.jpg", picture=CLEAR)


@pytest.mark.parametrize(
    ("inputs", "output", "each", "message"),
    [
        ((), None, 1, "no pictures given"),
        (("-", "-"), None, 1, "stdin can be read once"),
        (("a", "b"), "-", 1, "takes one picture"),
        (("a",), "-", 3, "takes one picture"),
        (("a", "b"), "x.png", 1, "would hold all 2 results"),
        (("a",), "{steam}.png", 1, "no field {steam}"),
    ],
)
def test_impossible_outputs(
    inputs: tuple[str, ...], output: str | None, each: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_outputs(inputs, output, each)


def claimed(
    tmp_path: Path, output: str, existing: ExistingName = "error", source: str = "in.png"
) -> bool:
    return claim(plan(source, str(tmp_path / output)), source, existing, {}, frozenset())


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out.png").touch()
    with pytest.raises(OutputError) as caught:
        claimed(tmp_path, "out.png")
    assert "exists" in caught.value.message
    assert "--force" in caught.value.hint
    assert claimed(tmp_path, "out.png", "overwrite")
    assert not claimed(tmp_path, "out.png", "skip")
    assert claimed(tmp_path, "new.png", "skip")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(OutputError, match="no such folder"):
        claimed(tmp_path, "none/out.png")
    with pytest.raises(OutputError, match="no such folder"):
        claimed(tmp_path, "file/out.png")
    targets = plan(output=str(tmp_path / "file" / "sub") + "/")
    with pytest.raises(OutputError, match="cannot be made"):
        make_folders(targets)


def test_folders_are_made_where_they_are_named_as_such(tmp_path: Path) -> None:
    targets = plan(output=str(tmp_path / "new" / "deep") + "/")
    assert claim(targets, "in.png", "error", {}, frozenset())
    assert not (tmp_path / "new").exists()
    make_folders(targets)
    assert (tmp_path / "new" / "deep").is_dir()


def test_inputs_are_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.png").touch()
    for source, output in (("in.png", "in.png"), ("./in.png", str(tmp_path) + "/")):
        with pytest.raises(OutputError, match="replace an input"):
            claim(plan(source, output), source, "overwrite", {}, places_of((source,)))


def test_two_inputs_never_share_a_result(tmp_path: Path) -> None:
    names: dict[Path, str] = {}
    for source in ("a/in.png", "b/in.png"):
        targets = plan(source, str(tmp_path) + "/")
        if source == "a/in.png":
            assert claim(targets, source, "overwrite", names, frozenset())
        else:
            with pytest.raises(OutputError, match=r"already the result of a/in\.png"):
                claim(targets, source, "overwrite", names, frozenset())
