"""Jobs as lines of JSON: `{"input": "a.png", "mask": "m.png", "seed": 7}`, checked all together."""

import json
import re
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lavps_cli.catalog import MOST_SAMPLES
from lavps_cli.errors import LavpsError, UsageError, suggestion
from lavps_cli.pipeline.degradation import implied_task, task_of_flags
from lavps_cli.pipeline.job import Job, Source
from lavps_cli.pipeline.parquet import SUFFIX, lines_of
from lavps_cli.pipeline.paths import STDIO
from lavps_cli.pipeline.requests import Output, Problem, Restoration, Sampling
from lavps_cli.pipeline.results import Pipes
from lavps_cli.storage.places import is_url, located

_PARTS: dict[str, type] = {"problem": Problem, "sampling": Sampling, "output": Output}
_COMMON = ("method", "existing")
"""Of a whole run; the weights depend on the method."""
_SETTINGS = "option"
_SHOWN = 20
_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
}


def read_manifest(request: Restoration, pipes: Pipes) -> list[Job]:
    """Return the jobs of `--manifest`; what a line does not say comes from the command line.

    Raises:
        UsageError: It cannot be read, or lines are wrong; the message lists them.
    """
    return list(each_job(request, pipes))[: request.select.limit]


def each_job(
    request: Restoration,
    pipes: Pipes,
    check: Callable[[Restoration], object] = lambda request: None,
) -> Iterator[Job]:
    """Yield the jobs of `--manifest`, one after the other, without regard to `--limit`.

    Relative paths are relative to the manifest, those of stdin to where the command runs.

    Args:
        request: What the command line says.
        pipes: For a manifest on stdin.
        check: Of the settings of one job; raises `LavpsError`.

    Raises:
        UsageError: It cannot be read; or, at the end, lines are wrong, and the message lists them.
    """
    name = request.select.manifest
    assert name is not None
    select = request.select
    if request.inputs or select.files_from is not None or select.recursive:
        raise UsageError(
            "--manifest names the pictures; nothing else may.",
            "Leave out INPUT, --files-from and -r.",
        )
    folder = "" if name == STDIO else str(located(name).parent)
    wrong: list[str] = []
    for number, line in enumerate(_lines(name, pipes), 1):
        if not line.strip():
            continue
        try:
            job = _job(number, line, request, folder)
            check(job.request)
        except (ValueError, RecursionError, LavpsError) as error:
            hint = error.hint if isinstance(error, LavpsError) else ""
            shown = len(wrong) < _SHOWN  # The others are counted.
            wrong.append(f"line {number}: {error} {hint}".rstrip() if shown else "")
        else:
            yield job
    _refuse("stdin" if name == STDIO else name, wrong)


def _lines(name: str, pipes: Pipes) -> Iterator[bytes]:
    if name == STDIO:
        yield from pipes.read().splitlines()
        return
    try:
        if name.lower().endswith(SUFFIX):
            yield from lines_of(located(name), name)
            return
        with located(name).open("rb") as file:
            yield from file
    except LavpsError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"--manifest {name}: {reason}.", "Check the path.") from error


def checked(jobs: Sequence[Job], name: str | None, check: Callable[[Restoration], object]) -> None:
    """Check the options of every job.

    Args:
        jobs: Of a manifest, or of a command line.
        name: Of the manifest, None where there is none.
        check: Raises `LavpsError`.

    Raises:
        UsageError: Lines of a manifest are wrong; the message lists them.
        LavpsError: What `check` raises of the first job without a manifest.
    """
    wrong = []
    for job in jobs:
        try:
            check(job.request)
        except LavpsError as error:
            if name is None:
                raise
            wrong.append(f"line {job.line}: {error.message} {error.hint}".rstrip())
    if name is not None:
        _refuse("stdin" if name == STDIO else name, wrong)


def _refuse(name: str, wrong: list[str]) -> None:
    """Raise one error for all the lines that are wrong."""
    if wrong:
        more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        lines = "line is" if len(wrong) == 1 else "lines are"
        raise UsageError(
            f"{name}: {len(wrong)} {lines} wrong; nothing is started.",
            "\n".join([*wrong[:_SHOWN], *more]),
        )


def _job(number: int, line: bytes, request: Restoration, folder: str) -> Job:
    try:
        values = json.loads(line, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg} at column {error.colno}.") from error
    except UnicodeDecodeError as error:
        raise ValueError("no UTF-8.") from error
    if not isinstance(values, dict):
        raise ValueError('expected an object such as {"input": "a.png", "seed": 7}.')
    keys = {key.replace("-", "_"): value for key, value in values.items()}
    source = keys.pop("input", None)
    if not isinstance(source, str) or not source:
        raise ValueError('"input" is missing or no text.')
    if source == STDIO:
        raise ValueError("a manifest names files, not -.")
    page = _typed("page", keys.pop("page"), int) if "page" in keys else request.page
    if _task(keys, request) != implied_task(request.problem):
        # What the command line says of another kind of damage does not count.
        problem = Problem(noise=request.problem.noise, boundary=request.problem.boundary)
        request = replace(request, problem=problem)
    parts = {name: _changed(getattr(request, name), keys) for name in _PARTS}
    if keys:
        key = next(iter(keys))
        shown = key.replace("_", "-")
        if any(key in _names(cls) for cls in _PARTS.values()):
            raise ValueError(f'"{shown}" is for the command line: it is the same for all lines.')
        raise ValueError(f'there is no key "{shown}". {suggestion(shown, _known())}')
    parts["problem"] = _placed(parts["problem"], folder, values)
    if "output" in values and parts["output"].output is not None:
        parts["output"] = replace(parts["output"], output=_joined(folder, parts["output"].output))
    made = replace(request, inputs=(_joined(folder, source),), page=page, **parts)
    _check_there(made.inputs[0])
    return Job(source=Source(made.inputs[0]), request=made, line=number)


def _task(keys: dict[str, Any], request: Restoration) -> Any:
    """Return the task that a line names or implies, else that of the command line."""
    if keys.get("task") is not None:
        return keys["task"]
    given = [key for key, value in keys.items() if value is not None]
    return task_of_flags(given) or implied_task(request.problem)


def _check_there(name: str) -> None:
    if is_url(name):
        return  # Reading tells: to ask a store line by line takes too long.
    try:
        Path(name).lstat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{name}: {reason}.") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key is given twice.")
    return values


def _changed(part: Any, keys: dict[str, Any]) -> Any:
    """Return a part of the request with the values of its keys, which are taken out."""
    cls: Any = type(part)
    hints, changes = _hints(cls), {}
    for name in hints:
        key = _SETTINGS if name == "settings" else name
        if key in keys and name not in _COMMON:
            changes[name] = _typed(key, keys.pop(key), hints[name])
    return replace(part, **changes) if changes else part


@cache
def _hints(cls: Any) -> dict[str, Any]:
    """Return the types of the fields of a dataclass, by name; looking them up takes long."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def _names(cls: type) -> list[str]:
    return list(_hints(cls))


def _known() -> list[str]:
    names = {_SETTINGS if n == "settings" else n for cls in _PARTS.values() for n in _names(cls)}
    return ["input", "page", *sorted(name.replace("_", "-") for name in names - {*_COMMON})]


def _typed(key: str, value: Any, kind: Any) -> Any:
    shown = key.replace("_", "-")
    if get_origin(kind) in (Union, types.UnionType):
        if value is None:
            return None
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            allowed = [str(each) for each in get_args(kind)]
            hint = suggestion(str(value), allowed)
            raise ValueError(f'"{shown}": {value!r} is not allowed. {hint}')
        return value
    if get_origin(kind) is tuple:
        if isinstance(value, dict):
            value = [f"{name}={each}" for name, each in value.items()]
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise ValueError(f'"{shown}": expected a list of texts.')
        return tuple(value)
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # 21 is a kernel, 0.05 a noise.
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f'"{shown}": {value!r} is not {_KINDS.get(kind, kind.__name__)}.')
    if kind is int and value < (1 if key in ("page", "samples", "quality") else 0):
        raise ValueError(f'"{shown}": {value} is too small.')
    if key == "samples" and value > MOST_SAMPLES:
        raise ValueError(f'"{shown}": {value} is too many, {MOST_SAMPLES} is the most.')
    return value


def _placed(problem: Problem, folder: str, values: dict[str, Any]) -> Problem:
    """Return the problem with the paths of a line relative to the manifest."""
    changes: dict[str, Any] = {}
    for key in ("mask", "kernel"):
        value = getattr(problem, key)
        if key not in values or value is None or not folder:
            continue
        if _is_file(folder, value):  # Else it is no file: 21@35.
            changes[key] = _joined(folder, value)
    return replace(problem, **changes)


def _is_file(folder: str, value: str) -> bool:
    if is_url(folder):  # Not asked for line by line: as it is called.
        return re.search(r"\.[A-Za-z]\w*(:\w+)?$", value) is not None
    try:
        return (Path(folder) / value.partition(":")[0]).exists()
    except OSError:  # No name at all, such as one that is too long.
        return False


def _joined(folder: str, path: str) -> str:
    if not folder or is_url(path) or (is_url(folder) and path.startswith("/")):
        return path
    return str(located(folder) / path)
