import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lavps_cli.errors import UsageError
from lavps_cli.pipeline.job import Job
from lavps_cli.pipeline.manifest import read_manifest
from lavps_cli.pipeline.requests import Problem, Restoration, Selection
from lavps_cli.pipeline.results import Pipes

ROWS: list[dict[str, Any]] = [
    {"input": "a.png", "seed": 7, "task": "denoise", "option": {"num_steps": 4}},
    {"input": "b.png", "kernel": "5@30", "mean": True, "samples": 2},
    {"input": "a.png", "scale": 3, "noise": "0.1"},
]


def read(path: Path) -> list[Job]:
    for name in ("a.png", "b.png"):
        (path.parent / name).touch()
    request = Restoration(
        inputs=(), problem=Problem(task="denoise"), select=Selection(manifest=str(path))
    )
    return read_manifest(request, Pipes(bytes, print))


def test_without_the_library_it_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError) as caught:
        read(tmp_path / "jobs.parquet")
    assert "lavps[parquet]" in caught.value.hint


class TestWithIt:
    @pytest.fixture(autouse=True)
    def _library(self) -> None:
        pytest.importorskip("pyarrow")

    def written(self, folder: Path, rows: list[dict[str, Any]]) -> Path:
        import pyarrow
        from pyarrow import parquet

        path = folder / "jobs.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=1)
        return path

    def test_a_table_says_what_lines_of_json_say(self, tmp_path: Path) -> None:
        columns = {key: None for row in ROWS for key in row}
        lines = tmp_path / "jobs.jsonl"
        lines.write_text("\n".join(map(json.dumps, ROWS)))
        table = self.written(tmp_path, [columns | row for row in ROWS])
        for one, other in zip(read(table), read(lines), strict=True):
            assert one.source == other.source
            for part in ("problem", "sampling", "output"):
                assert getattr(one.request, part) == getattr(other.request, part)

    def test_wrong_rows_are_told_by_their_number(self, tmp_path: Path) -> None:
        rows = [{"input": "a.png", "seed": 1}, {"input": "a.png", "seed": -1}]
        with pytest.raises(UsageError) as caught:
            read(self.written(tmp_path, rows))
        assert "line 2" in caught.value.hint

    def test_values_that_no_option_takes(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="1 line is wrong"):
            read(self.written(tmp_path, [{"input": b"a.png"}]))

    def test_what_is_no_table(self, tmp_path: Path) -> None:
        path = tmp_path / "jobs.parquet"
        path.write_text('{"input": "a.png"}')
        with pytest.raises(UsageError, match="no Parquet table"):
            read(path)
