"""Where results go: `-o PATH|DIR/|-|TEMPLATE` to files, checked before any work is done."""

import re
from collections.abc import Container
from dataclasses import dataclass, replace
from pathlib import Path

from lavps_cli.catalog import ExistingName
from lavps_cli.errors import OutputError, UsageError
from lavps_cli.images import deep
from lavps_cli.images.picture import FORMATS, Picture, held_depth
from lavps_cli.images.writing import check_format, check_name, check_target, format_of
from lavps_cli.pipeline.job import Source
from lavps_cli.pipeline.requests import Output
from lavps_cli.storage.places import Place, is_url, located
from lavps_cli.storage.remote import Remote

STDIO = "-"
TEMPLATE = "{dir}/{stem}.restored.{ext}"
"""Where results of `lavps restore` go without `-o`."""
FIELDS = ("dir", "tree", "stem", "ext", "task", "seed", "sample")


@dataclass(frozen=True)
class Targets:
    """The files of one picture."""

    files: tuple[Place, ...]
    """One per result; empty for stdout."""
    format: str
    depth: int = 8
    """Bits per channel; 32 are floats."""
    compare: Place | None = None
    uncertainty: Place | None = None
    uncertainty_map: Place | None = None
    bounds: tuple[Place, ...] = ()
    """The lower and the upper end of intervals."""
    sidecar: Place | None = None
    mask: Place | None = None
    kernel: Place | None = None
    makes_folders: bool = False

    @property
    def all(self) -> list[Place]:
        spread = (self.uncertainty, self.uncertainty_map)
        beside = (self.compare, *spread, self.sidecar, self.mask, self.kernel)
        return [*self.files, *self.bounds, *(path for path in beside if path is not None)]


def name_of(source: str) -> str:
    """Return what messages call an input."""
    return "stdin" if source == STDIO else source


def check_outputs(
    inputs: tuple[str, ...], output: str | None, files_each: int, option: str = "-o"
) -> None:
    """Check what can be said about `-o`, or another option, before pictures are opened.

    Raises:
        UsageError: Several results would share one name, or its template is wrong.
    """
    if not inputs:
        raise UsageError("no pictures given.", "For example:  lavps restore old.jpg --scale 4")
    if inputs.count(STDIO) > 1:
        raise UsageError("stdin can be read once.", "Give - once.")
    if output is None:
        return
    if output == STDIO and len(inputs) * files_each > 1:
        raise UsageError("-o - takes one picture.", "Write several into a folder:  -o DIR/")
    template = _template(output)
    for name in re.findall(r"\{(.*?)\}", template):
        if name not in FIELDS:
            known = " ".join(f"{{{field}}}" for field in FIELDS)
            raise UsageError(
                f"{option} {output}: there is no field {{{name}}}.", f"Choose from: {known}"
            )
    if len(inputs) > 1 and output != STDIO and "{stem}" not in template:
        raise UsageError(
            f"{option} {output} would hold all {len(inputs)} results.",
            f"Tell them apart:  {option} '{{dir}}/{{stem}}_new.png'",
        )


def _template(output: str) -> str:
    if "{" in output or output == STDIO:
        return output
    if output.endswith(("/", "\\")) or _is_folder(output):
        return f"{output.rstrip('/') or '/'}/{{tree}}/{{stem}}.{{ext}}"
    return output


def _is_folder(output: str) -> bool:
    place = located(output)
    if isinstance(place, Remote):  # In a store, what is not called like a picture.
        return not any(place.suffix.lower() in entry.suffixes for entry in FORMATS.values())
    try:
        return place.is_dir()
    except OSError:  # A name too long: `check_name` tells.
        return False


def plan_targets(
    source: str,
    output: Output,
    picture: Picture,
    *,
    formats: tuple[str, ...] = tuple(FORMATS),
    default: str,
    task: str,
    seed: int,
    count: int,
    uncertainty: str | None = None,
    bounds: bool = False,
    sidecar: bool = False,
    mask: str | None = None,
    kernel: bool = False,
    tree: str = "",
    stem: str | None = None,
    makes_folders: bool = False,
) -> Targets:
    """Return the files of one picture.

    Args:
        source: The input.
        output: What the flags say.
        picture: The input, whose format is kept where nothing else is said.
        formats: What the result can be written as; the first where nothing else is said.
        default: The template without `-o`.
        task: For the template.
        seed: For the template.
        count: Results of this picture; several get `.s00` and so on.
        uncertainty: The template of that file.
        bounds: Whether the ends of intervals are written.
        sidecar: Whether there is a JSON file beside the result.
        mask: The template of that file.
        kernel: Whether the estimated kernel is written beside the result.
        tree: The folder of the input below the one that was given.
        stem: What the input is called; None for its own name.
        makes_folders: Whether folders are made also where `-o` names one file.

    Raises:
        UsageError: `-o` and `--format` contradict each other, or the name tells no format.
        OutputError: The format cannot hold the picture.
    """
    text = default if output.output is None else output.output
    template = _template(text)
    own = picture.format if picture.format in formats else formats[0]
    format_name = own if output.format == "auto" else output.format
    path = located("stdin" if source == STDIO else source)
    if template != STDIO and "{ext}" not in template:
        named = format_of(located(template))
        if output.format not in ("auto", named):
            raise UsageError(
                f"-o {text} says {named}, --format says {output.format}.", "Leave --format out."
            )
        format_name = named
    if format_name not in formats:
        raise UsageError(
            f"-o {text}: this is written as {' or '.join(formats)} only.",
            f"For example:  -o out.{formats[0]}",
        )
    depth = held_depth(format_name, picture.depth)
    if output.bit_depth != "auto":
        depth = int(output.bit_depth)
    check_format(format_name, alpha=picture.alpha is not None, depth=depth)
    if depth == 16 and picture.stored is not None and not deep.is_installed():
        raise OutputError(
            "16 bits per channel of another colour profile cannot be calculated here.",
            'Install:  pip install "lavps[deep]"      Do without:  --metadata strip',
        )
    values = _values(path, format_name, tree, stem) | {"task": task, "seed": str(seed)}
    files = []
    for sample in range(count):
        values["sample"] = f"{sample:0{max(2, len(str(count - 1)))}d}"
        file = _place(template, values)
        if count > 1 and "{sample}" not in template:
            file = file.with_name(f"{file.stem}.s{values['sample']}{file.suffix}")
        files.append(file)
    first = _place(default, values) if template == STDIO else files[0]
    compare = first.with_name(f"{values['stem']}.compare.png") if output.compare else None
    spread = _place(uncertainty, values) if uncertainty is not None else None
    ends = [f"{values['stem']}.{end}{first.suffix}" for end in ("lower", "upper")] if bounds else []
    return Targets(
        files=() if template == STDIO else tuple(files),
        format=format_name,
        depth=depth,
        compare=compare,
        uncertainty=spread,
        uncertainty_map=None if spread is None else spread.with_suffix(".map.png"),
        bounds=tuple(first.with_name(end) for end in ends),
        sidecar=first.with_suffix(".json") if sidecar else None,
        mask=_place(mask, values) if mask is not None else None,
        kernel=first.with_name(f"{values['stem']}.kernel.png") if kernel else None,
        makes_folders=makes_folders or template != text or "{" in template,
    )


def _values(path: Place, format_name: str, tree: str, stem: str | None) -> dict[str, str]:
    """Return what the fields of a template stand for, but for the task and the seed."""
    kept = path.suffix.lower() in FORMATS[format_name].suffixes
    ext = path.suffix[1:] if kept else FORMATS[format_name].suffixes[0][1:]
    values = {"dir": str(path.parent), "tree": tree, "stem": stem or path.stem, "ext": ext}
    return values | {"sample": "00"}


def expected_file(
    source: Source, output: Output, *, default: str, task: str | None, seed: int
) -> Place | None:
    """Return the result's name as far as it is known before the picture is opened.

    That of the first sample; the format is taken to be what the input's name says. `{task}` stays
    where only the picture tells it. None for stdout.
    """
    template = _template(default if output.output is None else output.output)
    if template == STDIO:
        return None
    path = located("stdin" if source.path == STDIO else source.path)
    suffix = path.suffix.lower()
    own = next((name for name, entry in FORMATS.items() if suffix in entry.suffixes), "png")
    format_name = own if output.format == "auto" else output.format
    values = _values(path, format_name, source.tree, source.stem) | {"seed": str(seed)}
    return _place(template, values | ({} if task is None else {"task": task}))


def with_folder(output: Output, *, several: bool) -> Output:
    """Return `-o` with a slash where it must be a folder that is not there yet.

    Of several pictures a name without an ending of a file can be nothing else.
    """
    name = output.output
    if not several or name is None or name == STDIO or "{" in name or is_url(name):
        return output
    if Path(name).suffix:
        return output
    return replace(output, output=f"{name.rstrip('/')}/" if name.strip("/") else name)


def home_of(output: Output) -> Place | None:
    """Return the folder that `-o` names, None where it names none or a file.

    Of a template that is the folder before its first field.
    """
    text = output.output
    if text is None or text == STDIO:
        return None
    template = _template(text)
    if "{" not in template:
        return None
    folder = template.partition("{")[0].rpartition("/")[0]
    return located(folder) if folder else None


def _filled(template: str, values: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)


def _place(template: str, values: dict[str, str]) -> Place:
    text = _filled(template, values)
    if is_url(text):  # A store takes what is empty for a name.
        scheme, _, key = text.partition("://")
        text = f"{scheme}://{'/' * (scheme == 'file')}{re.sub('/+', '/', key).strip('/')}"
    return located(text)


def places_of(inputs: tuple[str, ...]) -> frozenset[Place]:
    """Return where inputs lie, so that none is overwritten."""
    return frozenset(located(source).resolve() for source in inputs if source != STDIO)


def claim(
    targets: Targets,
    source: str,
    existing: ExistingName,
    claimed: dict[Place, str],
    inputs: Container[Place],
    owned: frozenset[Place] = frozenset(),
) -> bool:
    """Check that the files may be written, and return whether there is anything to do.

    Args:
        targets: The files.
        source: The input.
        existing: What to do about files that are there.
        claimed: Files of this run and their inputs; grows.
        inputs: Files that are never overwritten.
        owned: Files of an earlier run with the same settings, which may be.

    Raises:
        OutputError: One may not be written.
    """
    for path in targets.all:
        check_name(path)
        place = path.resolve()
        if place in inputs:
            raise OutputError(f"{path} would replace an input.", "Write elsewhere:  -o DIR/")
        if place in claimed:
            raise OutputError(
                f"{path} is already the result of {claimed[place]}.",
                "Tell them apart:  -o '{dir}/{stem}_new.{ext}'",
            )
    if existing == "skip" and targets.files and all(map(_exists, targets.files)):
        return False
    for path in targets.all:
        if isinstance(path, Path) and targets.makes_folders and not path.parent.is_dir():
            continue
        check_target(path)
        if existing in ("error", "resume") and path.resolve() not in owned and _exists(path):
            by_others = " and was not made by these settings" if existing == "resume" else ""
            raise OutputError(
                f"{path} exists{by_others}.",
                "Replace it:  --force        Keep it and go on:  --existing skip",
            )
    claimed |= dict.fromkeys((path.resolve() for path in targets.all), source)
    return True


def _exists(path: Place) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise OutputError(
            f"{path} cannot be asked for: {error.strerror}.", "Give the same command again later."
        ) from error


def make_folders(targets: Targets) -> None:
    """Make the folders of the files where `-o` names a folder or a template.

    Raises:
        OutputError: One cannot be made.
    """
    for path in targets.all if targets.makes_folders else []:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{path.parent} cannot be made: {error.strerror}.", "Choose:  -o DIR/"
            ) from error
