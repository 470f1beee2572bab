"""`lavps degrade`: clean pictures in, damaged ones with a record of the damage out."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torch.nn.functional import interpolate

from lavps_cli.errors import LavpsError, UsageError
from lavps_cli.images import RECORD_KEY, Picture, encode, load_picture, write_atomic
from lavps_cli.options import parse_pixels
from lavps_cli.pipeline.paths import (
    STDIO,
    check_outputs,
    claim,
    make_folders,
    name_of,
    plan_targets,
)
from lavps_cli.pipeline.problem import Degraded, degrade_picture, implied_task
from lavps_cli.pipeline.record import to_text
from lavps_cli.pipeline.requests import DegradationRequest
from lavps_cli.pipeline.results import Failure, Listener, Outcome, Pipes, Result

TEMPLATE = "{dir}/{stem}.degraded.{ext}"


def degrade_files(
    request: DegradationRequest, listener: Listener, pipes: Pipes
) -> Iterator[Outcome]:
    """Damage pictures one after another; one that fails does not stop the others.

    Raises:
        UsageError: The flags make no sense.
    """
    implied_task(request.problem)
    check_outputs(request.inputs, request.output.output, 1)
    if request.save_mask is not None:
        if implied_task(request.problem) != "inpaint":
            raise UsageError("--save-mask is for --task inpaint.", "Leave it out.")
        check_outputs(request.inputs, str(request.save_mask), 1)
    claimed: dict[Path, str] = {}
    for source in request.inputs:
        try:
            yield _one(source, request, listener, pipes, claimed)
        except LavpsError as error:
            yield Failure(input=source, error=error)


def _one(
    source: str,
    request: DegradationRequest,
    listener: Listener,
    pipes: Pipes,
    claimed: dict[Path, str],
) -> Result:
    name = name_of(source)
    raw = pipes.read() if source == STDIO else Path(source)
    picture = load_picture(raw, name, parse_pixels(request.max_pixels))
    made = degrade_picture(picture, name, request.problem, request.seed)
    for note in made.notes:
        listener.warn(note)
    task = made.record.task
    targets = plan_targets(
        source, request.output, own_format="png", default=TEMPLATE, task=task, seed=request.seed,
        count=1,
    )  # fmt: skip
    if targets.format != "png":
        raise UsageError(
            f"-o {request.output.output}: the record of the damage needs a PNG.",
            "For example:  -o damaged.png",
        )
    if not claim(targets, source, request.output.existing, claimed):
        return Result(status="skipped", input=source, output=str(targets.files[0]), task=task)
    make_folders(targets)
    text = to_text(made.record)
    y = made.observation.y
    file = replace(picture, pixels=y, alpha=_alpha(picture, made))
    content = encode(file, "png", text={RECORD_KEY: text})
    if request.save_mask is not None and made.record.mask is not None:
        write_atomic(request.save_mask, encode(_mask_picture(made), "png"))
    if targets.files:
        if request.sidecar:
            write_atomic(targets.files[0].with_suffix(".json"), (text + "\n").encode())
        write_atomic(targets.files[0], content)
    else:
        pipes.write(content)
    about = json.loads(text)
    return Result(
        input=source,
        output=str(targets.files[0]) if targets.files else STDIO,
        task=task,
        details={
            "noise": {"sigma": made.record.noise, "sigma_255": made.record.noise * 127.5},
            "size_in": list(picture.size),
            "size_out": about["size"],
            "seed": request.seed,
        },
    )


def _alpha(picture: Picture, made: Degraded):
    if picture.alpha is None:
        return None
    h, w = made.clean.shape[-2:]
    alpha = made.observation.seen(picture.alpha[..., :h, :w])
    return interpolate(alpha, tuple(made.observation.y.shape[-2:]), mode="area")


def _mask_picture(made: Degraded) -> Picture:
    assert made.record.mask is not None
    return Picture(1 - 2 * made.record.mask.values[None])
