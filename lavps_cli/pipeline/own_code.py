"""Functions out of the user's own files, given as FILE.py:function."""

import hashlib
import inspect
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from lavps_cli.errors import UsageError, suggestion


def is_own(text: str) -> bool:
    """Return whether a text names a function of the user's own."""
    return ".py:" in text


def own_function(option: str, text: str) -> tuple[Callable[..., Any], str]:
    """Return the function that `FILE.py:function` names, and the sha256 of the file.

    Raises:
        UsageError: There is no such file or function, or the file raises.
    """
    file, _, name = text.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise UsageError(
            f"{option} {text}: there is no file {file}.", "Give it as FILE.py:function."
        )
    # A name of its own, so that two files of one name do not shadow each other.
    key = f"_lavps_own_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = spec_from_file_location(key, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[key] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(
            f"{option} {text}: the file raises {type(error).__name__}: {error}", "Mend it."
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        functions = [n for n, v in vars(module).items() if inspect.isfunction(v)]
        raise UsageError(f"{option} {text}: it has no such function.", suggestion(name, functions))
    return function, hashlib.sha256(path.read_bytes()).hexdigest()
