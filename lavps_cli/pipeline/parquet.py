"""Manifests as Parquet tables: a row is a job, a column an option."""

import json
from collections.abc import Iterator
from typing import Any

from lavps_cli.errors import UsageError
from lavps_cli.storage.places import Place

SUFFIX = ".parquet"
_AT_ONCE = 4096


def lines_of(path: Place, name: str) -> Iterator[bytes]:
    """Yield each row as a line of JSON, without what is null; a part of the table at a time.

    Raises:
        UsageError: pyarrow is not installed, or the file is no table.
        OSError: It cannot be read.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UsageError(
            f"--manifest {name}: Parquet tables need pyarrow, which is not installed.",
            'Install it:  pip install "lavps[parquet]"   or give JSON lines',
        ) from error
    try:
        with path.open("rb") as file:
            for rows in ParquetFile(file).iter_batches(batch_size=_AT_ONCE):
                for row in rows.to_pylist():
                    # What JSON has no name for is told as a text, which no option takes.
                    yield json.dumps(_said(row), default=str).encode()
    except ArrowException as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"--manifest {name} is no Parquet table: {reason}", "Give JSON lines, or another file."
        ) from error


def _said(row: dict[str, Any]) -> dict[str, Any]:
    """Return what is not null, in tables inside it too."""
    return {
        key: _said(value) if isinstance(value, dict) else value
        for key, value in row.items()
        if value is not None
    }
