"""`lavps degrade`: clean pictures in, damaged ones with a record of the damage out."""

from collections.abc import Container, Iterator
from dataclasses import replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from lavps_cli.catalog import TaskName, has_holes
from lavps_cli.errors import LavpsError, UsageError
from lavps_cli.images.colour import in_own_colours
from lavps_cli.images.picture import RECORD_KEY, Picture
from lavps_cli.images.reading import load_picture
from lavps_cli.images.writing import encode, with_writable_metadata, write_atomic
from lavps_cli.options import parse_pixels
from lavps_cli.pipeline.damage import Degraded, degrade_picture, required_task
from lavps_cli.pipeline.degradation import check_problem
from lavps_cli.pipeline.inputs import are_several, find_sources
from lavps_cli.pipeline.job import Source
from lavps_cli.pipeline.naming import Named, settled
from lavps_cli.pipeline.paths import (
    STDIO,
    check_outputs,
    claim,
    make_folders,
    name_of,
    places_of,
    plan_targets,
    with_folder,
)
from lavps_cli.pipeline.record import to_text
from lavps_cli.pipeline.requests import DegradationRequest
from lavps_cli.pipeline.results import Failure, Listener, Outcome, Pipes, Result
from lavps_cli.storage.places import Place, located

TEMPLATE = "{dir}/{stem}.degraded.{ext}"


def degrade_files(
    request: DegradationRequest, listener: Listener, pipes: Pipes
) -> Iterator[Outcome]:
    """Damage pictures one after another; one that fails does not stop the others.

    Raises:
        UsageError: The flags make no sense.
    """
    check_problem(request.problem)
    parse_pixels(request.max_pixels)
    task = required_task(request.problem)
    sources = _sources(request, listener, pipes)
    output = with_folder(request.output, several=are_several(sources))
    inputs = tuple(source.path for source in sources)
    request = replace(request, inputs=inputs, output=output)
    check_outputs(request.inputs, request.output.output, 1)
    if request.sidecar and request.output.output == STDIO:
        raise UsageError("--sidecar needs a file to lie beside.", "Write one:  -o damaged.png")
    if request.save_mask is not None:
        if not has_holes(task):
            raise UsageError("--save-mask is for --task inpaint.", "Leave it out.")
        check_outputs(request.inputs, request.save_mask, 1, option="--save-mask")
    claimed: dict[Place, str] = {}
    places = places_of(inputs)
    # Whatever the inputs are, the results are PNG, but for the compression of JPEG.
    output = replace(output, format=_format(task))
    named = [Named(source, output, TEMPLATE, task, request.seed) for source in sources]
    for source in (each.source for each in settled(named)):
        try:
            yield _one(source, request, listener, pipes, claimed, places)
        except LavpsError as error:
            yield Failure(input=source.path, error=error)
            if request.fail_fast:
                return


def _sources(request: DegradationRequest, listener: Listener, pipes: Pipes) -> list[Source]:
    if not request.inputs and request.select.files_from is None:
        return []
    return find_sources(request.inputs, request.select, listener, pipes)


def _one(
    named: Source,
    request: DegradationRequest,
    listener: Listener,
    pipes: Pipes,
    claimed: dict[Place, str],
    inputs: Container[Place],
) -> Result:
    source = named.path
    name = name_of(source)
    raw = pipes.read() if source == STDIO else located(source)
    picture = load_picture(
        raw,
        name,
        parse_pixels(request.max_pixels),
        page=request.page,
        may_cut=request.output.bit_depth == "8",
    )
    made = degrade_picture(picture, name, request.problem, request.seed)
    for note in made.notes:
        listener.warn(note)
    task = made.record.task
    targets = plan_targets(
        source,
        request.output,
        picture,
        formats=(_format(task),),
        default=TEMPLATE,
        task=task,
        seed=request.seed,
        count=1,
        sidecar=request.sidecar,
        mask=request.save_mask,
        tree=named.tree,
        stem=named.stem,
    )
    output = str(targets.files[0]) if targets.files else STDIO
    if not claim(targets, source, request.output.existing, claimed, inputs):
        listener.detail(f"{name}: {output} exists, skipped")
        return Result(status="skipped", input=source, output=output, task=task)
    details = {
        "noise": made.observation.about_noise
        | {"sigma": made.record.noise, "sigma_255": round(made.record.noise * 127.5, 3)},
        "size_in": list(picture.size),
        "size_out": list(made.record.size),
        "seed": request.seed,
    }
    if request.dry_run:
        return Result(status="planned", input=source, output=output, task=task, details=details)
    make_folders(targets)
    text = to_text(made.record)
    if '"mask":null' in text:
        listener.warn(f"the mask of {name} is too large for the record; keep it with --save-mask.")
    content = made.jpeg
    if content is None:
        picture = with_writable_metadata(picture, "png")
        if task == "colorize":
            picture = replace(picture, stored=None, metadata=replace(picture.metadata, icc=b""))
        y = in_own_colours(made.observation.y, picture, targets.depth)
        file = replace(picture, pixels=y, alpha=_alpha(made), depth=targets.depth)
        content = encode(file, "png", text={RECORD_KEY: text})
    if targets.mask is not None:
        write_atomic(targets.mask, encode(_mask_picture(made), "png"))
    if targets.sidecar is not None:
        write_atomic(targets.sidecar, (text + "\n").encode())
    if targets.files:
        write_atomic(targets.files[0], content)
    else:
        pipes.write(content)
    return Result(input=source, output=output, task=task, details=details)


def _format(task: TaskName) -> Literal["png", "jpg"]:
    return "jpg" if task == "jpeg" else "png"


def _alpha(made: Degraded) -> Float[Tensor, "1 1 h w"] | None:
    if made.alpha is None:
        return None
    return interpolate(made.alpha, tuple(made.observation.y.shape[-2:]), mode="area")


def _mask_picture(made: Degraded) -> Picture:
    assert made.record.mask is not None
    return Picture(1 - 2 * made.record.mask.values[None])
