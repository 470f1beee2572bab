from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from lavps_cli.errors import DataError, LavpsError, UsageError
from lavps_cli.operators.kernels import gaussian_kernel, line_kernel, motion_kernel
from lavps_cli.pipeline.kernels import read_kernel

MATRIX = np.arange(1.0, 10).reshape(3, 3)


def read(spec: str) -> torch.Tensor:
    return read_kernel(spec, 0.9, 0).values


def test_formulas() -> None:
    motion = motion_kernel(21, 0.9, torch.Generator().manual_seed(0))
    assert torch.equal(read("21"), motion)
    assert torch.equal(read("21@35"), line_kernel(21, 35))
    assert torch.equal(read("7.5@-10.5"), line_kernel(7.5, -10.5))
    assert torch.equal(read("gaussian:15@2.5"), gaussian_kernel(15, 2.5))
    assert read("disk:7").shape == read("box:7").shape == (7, 7)
    assert float(read("box:5").std()) == 0


def test_seed_and_intensity_reach_the_draw() -> None:
    one = read_kernel("9", 0.3, 4)
    assert not torch.equal(one.values, read_kernel("9", 0.3, 5).values)
    assert not torch.equal(one.values, read_kernel("9", 0.9, 4).values)
    assert one.about == {
        "type": "motion", "size": 9, "intensity": 0.3, "seed": 4, "source": "flags"
    }  # fmt: skip
    assert one.assumed
    assert not read_kernel("disk:7", 0.9, 0).assumed


def test_files(tmp_path: Path) -> None:
    expected = torch.from_numpy(MATRIX / MATRIX.sum()).float()
    np.save(tmp_path / "k.npy", MATRIX)
    np.savez(tmp_path / "one.npz", k=MATRIX)
    np.savez(tmp_path / "two.npz", a=np.eye(3), k=MATRIX)
    np.savetxt(tmp_path / "k.txt", MATRIX)
    np.savetxt(tmp_path / "comma.txt", MATRIX, delimiter=", ")
    PillowImage.fromarray(MATRIX.astype(np.uint8)).save(tmp_path / "k.png")
    PillowImage.fromarray((1000 * MATRIX).astype(np.uint16)).save(tmp_path / "deep.png")
    PillowImage.fromarray(MATRIX.astype(np.float32)).save(tmp_path / "k.tif")
    names = ("k.npy", "one.npz", "two.npz:k", "k.txt", "comma.txt", "k.png", "deep.png", "k.tif")
    for name in names:
        torch.testing.assert_close(read(str(tmp_path / name)), expected)


def test_the_order_is_that_of_convolution(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", np.diag([1.0, 2, 3]))
    assert read(str(tmp_path / "k.npy"))[0, 0] < read(str(tmp_path / "k.npy"))[2, 2]


def test_unknown_specs_name_the_forms() -> None:
    with pytest.raises(UsageError) as caught:
        read("2l")
    assert "expected a size (21), a spec (21@35, gaussian:15@2.5, disk:7" in caught.value.message
    assert "no file named '2l' here" in caught.value.message


@pytest.mark.parametrize(
    "spec", ["20", "0", "gaussian:15", "gaussian:15@0", "disk:8", "999", "box:257", "1e9@3"]
)
def test_impossible_specs(spec: str) -> None:
    with pytest.raises(UsageError):
        read(spec)


def test_bad_files_are_errors_with_a_reason(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "negative.npy", np.array([[1.0, -1]]))
    np.save(tmp_path / "cube.npy", np.ones((2, 2, 2)))
    np.save(tmp_path / "nan.npy", np.array([[np.nan, 1]]))
    np.save(tmp_path / "huge.npy", np.ones((1, 301)))
    np.savez(tmp_path / "objects.npz", k=np.array([{}], dtype=object))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cube.npy").read_bytes()[:100])
    (tmp_path / "no.npz").write_bytes(b"PK")
    (tmp_path / "words.txt").write_text("one two")
    (tmp_path / "words.png").write_text("one two")
    (tmp_path / "large.txt").write_bytes(b"0 " * (1 << 23) + b"1")
    claims = np.lib.format.header_data_from_array_1_0(np.ones((1, 1)))
    with (tmp_path / "claims.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, claims | {"shape": (1 << 30, 1 << 30)})
    for path in tmp_path.iterdir():
        with pytest.raises(LavpsError) as caught:
            read(str(path))
        assert isinstance(caught.value, DataError | UsageError), path
        assert caught.value.hint, path


def test_archives_name_their_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.eye(3), b=MATRIX)
    for spec in ("two.npz", "two.npz:c"):
        with pytest.raises(UsageError) as caught:
            read(str(tmp_path / spec))
        assert "two.npz:a" in caught.value.hint
