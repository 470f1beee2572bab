"""Damaged and hostile files: a message for each, in bounded time and memory, and nothing written.

Run this file to try more of them: python tests/test_fuzz.py 20000
"""

import io
import json
import resource
import signal
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import typer
from PIL import ExifTags, ImageCms, PngImagePlugin
from PIL import Image as PillowImage
from typer.testing import CliRunner

from lavps_cli.cli.configuration import settings_of
from lavps_cli.cli.main import app
from lavps_cli.errors import LavpsError
from lavps_cli.images.reading import load_picture
from lavps_cli.images.writing import encode, with_writable_metadata
from lavps_cli.pipeline.compression import compressed
from lavps_cli.pipeline.jobs import find_jobs
from lavps_cli.pipeline.kernels import read_kernel
from lavps_cli.pipeline.masks import read_mask
from lavps_cli.pipeline.model import open_weights
from lavps_cli.pipeline.record import from_text, to_text
from lavps_cli.pipeline.requests import Compute, Problem, Restoration, Selection
from lavps_cli.pipeline.restore import check_restoration
from lavps_cli.pipeline.results import Pipes, Progress
from lavps_cli.weights.checkpoint import load_denoiser, load_inference
from lavps_cli.weights.tensors import read_contents

PIXELS = 1 << 18
SECONDS = 10
MEGABYTES = 192
"""What one input may add to the memory of the process: what is read holds `PIXELS` at most."""
NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
JUNK: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 50_000, 2**31, 10**30, 1e308, -0.5),
    *("", "x", "9" * 5000, [], {}, [[]], [1] * 400),
)

Seeds = dict[str, list[bytes]]


class Silence:
    """A listener that does not listen."""

    def note(self, text: str) -> None: ...

    def detail(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def progress(self, progress: Progress) -> None: ...


Target = Callable[[bytes, Path], None]


def pictures() -> list[bytes]:
    """Return small files of every kind, with everything that they can say."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (21, 26, 4)).astype(np.uint8)
    values[4:15, 5:20] = (200, 40, 90, 255)
    colour = PillowImage.fromarray(values)
    tags = PillowImage.Exif()
    tags[ExifTags.Base.Orientation] = 6
    tags[ExifTags.Base.Artist] = "someone"
    tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] = 2.8
    tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (1.0, 2.0, 3.0)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    said: dict[str, Any] = {"exif": tags, "icc_profile": icc}
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a title", zip=True)
    text.add_itxt("XML:com.adobe.xmp", "<x/>")
    made: list[tuple[str, str, dict[str, Any]]] = [
        ("PNG", "RGB", said | {"pnginfo": text, "dpi": (300, 300)}),
        ("PNG", "LA", {}),
        ("PNG", "P", {"transparency": 1}),
        ("PNG", "1", {}),
        ("JPEG", "RGB", said | {"comment": b"a title"}),
        ("JPEG", "L", {"progressive": True}),
        ("JPEG", "CMYK", {"icc_profile": icc}),
        ("WEBP", "RGBA", said),
        ("WEBP", "RGB", {"lossless": True}),
        ("TIFF", "RGBA", said | {"dpi": (300, 300)}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "L", {"compression": "jpeg"}),
        ("TIFF", "1", {"compression": "group4"}),
        ("AVIF", "RGBA", said),
        ("GIF", "P", {"comment": b"a title"}),
        ("BMP", "RGB", {}),
        ("PPM", "RGB", {}),
        ("PPM", "1", {}),
        ("JPEG2000", "RGB", {}),
    ]
    found = []
    for kind, mode, options in made:
        image = colour.convert("RGB").quantize(16) if mode == "P" else colour
        image = image if mode == "P" else colour.convert("RGB").convert(mode)
        found.append(saved(image, kind, **options))
    again = {"save_all": True, "append_images": [colour.rotate(90), colour]}
    found += [saved(colour, kind, **again) for kind in ("PNG", "GIF", "TIFF", "WEBP")]
    for deep in deeper(values):
        found += [written(deep), written(deep, tile=(16, 16)), written(deep, compression="zlib")]
    return [*found, *arrays(), *optional(colour, values)]


def saved(image: PillowImage.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def deeper(values: Any) -> list[Any]:
    return [values[:, :, :3].astype(np.uint16) * 257, (values[:, :, 0] / 255).astype("f4")]


def written(values: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def arrays() -> list[bytes]:
    found = []
    for values in (np.eye(7), np.ones((9, 9, 3), np.float32), np.ones((5, 4), np.uint16)):
        stream = io.BytesIO()
        np.save(stream, values)
        found.append(stream.getvalue())
    return found


def optional(colour: PillowImage.Image, values: Any) -> list[bytes]:
    """Return files of the encoders that may be missing."""
    found = []
    try:
        import imagecodecs

        found.append(bytes(imagecodecs.png_encode(values.astype(np.uint16) * 257)))
        ten = values[:, :, :3].astype(np.uint16) * 4
        found.append(bytes(imagecodecs.avif_encode(ten, bitspersample=10)))
        found += [written(deep, compression="zlib", predictor=True) for deep in deeper(values)]
    except ImportError:
        pass
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
        found.append(saved(colour, "HEIF"))
    except ImportError:
        pass
    return found


def kernels() -> list[bytes]:
    stream = io.BytesIO()
    np.savez(stream, psf=np.eye(5))
    compressed = io.BytesIO()
    np.savez_compressed(compressed, psf=np.eye(5), other=np.ones((3, 3)))
    texts = [b"0 1 0\n1 2 1\n0 1 0\n", b"1,2,1\n", b"# none\n", b"1e400 1\n2 3\n"]
    return [*arrays(), stream.getvalue(), compressed.getvalue(), *texts]


def records() -> list[bytes]:
    from lavps_cli.images.picture import Picture
    from lavps_cli.pipeline.damage import degrade_picture
    from lavps_cli.pipeline.requests import Problem

    picture = Picture(torch.zeros(1, 3, 24, 32))
    problems = [
        Problem(task="sr", scale=2, noise="0.05"),
        Problem(kernel="5", noise="0.05"),
        Problem(mask="centre", noise="0"),
    ]
    return [to_text(degrade_picture(picture, "x", p, 0).record).encode() for p in problems]


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    values = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        values[int(rng.integers(len(values)))] ^= 1 << int(rng.integers(8))
    return bytes(values)


def overwritten(content: bytes, rng: np.random.Generator) -> bytes:
    """Write a number that means trouble over a place near the start."""
    values = bytearray(content)
    kind = "<>"[rng.integers(2)] + "HI"[rng.integers(2)]
    number = NUMBERS[rng.integers(len(NUMBERS))] & (0xFFFF if kind[1] == "H" else 0xFFFFFFFF)
    near = min(len(values), 4096 if rng.random() < 0.5 else 128)
    at = int(rng.integers(near))
    values[at : at + struct.calcsize(kind)] = struct.pack(kind, number)
    return bytes(values[: len(content)])


def shortened(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(len(content)))]


def spliced(content: bytes, rng: np.random.Generator) -> bytes:
    """Take out, repeat or insert a part."""
    a, b = sorted(int(n) for n in rng.integers(len(content) + 1, size=2))
    parts = (content[:a] + content[b:], content[:b] + content[a:], content[:a] + rng.bytes(9))
    return parts[rng.integers(3)]


def resealed(content: bytes) -> bytes:
    """Return a PNG whose checksums are right again, so that its damage is looked at."""
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        return content
    values, at = bytearray(content), 8
    while at + 12 <= len(values):
        end = at + 8 + struct.unpack_from(">I", values, at)[0]
        if end + 4 > len(values):
            break
        values[end : end + 4] = struct.pack(">I", zlib.crc32(values[at + 4 : end]))
        at = end + 4
    return bytes(values)


def rewritten(content: bytes, rng: np.random.Generator) -> bytes:
    """Replace one value of a JSON text, anywhere in it."""
    tree = json.loads(content)
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        keys = node.keys() if isinstance(node, dict) else range(len(node))
        for key in keys:
            places.append((node, key))
            if isinstance(node[key], dict | list):
                visit(node[key])

    visit(tree)
    node, key = places[rng.integers(len(places))]
    node[key] = JUNK[rng.integers(len(JUNK))]
    return json.dumps(tree).encode()


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    if content[:1] == b"{" and rng.random() < 0.6:
        return rewritten(content, rng)
    for _ in range(int(rng.integers(1, 4))):
        change = (flipped, overwritten, overwritten, shortened, spliced)[rng.integers(5)]
        content = change(content, rng) or b"\0"
    return resealed(content) if rng.random() < 0.7 else content


def read_image(content: bytes, folder: Path) -> None:
    picture = load_picture(content, "x", PIXELS)
    assert -20 < float(picture.pixels.min()) <= float(picture.pixels.max()) < 20
    encode(with_writable_metadata(picture, picture.format), picture.format)


def read_compression(content: bytes, folder: Path) -> None:
    picture = load_picture(content, "x", PIXELS)
    found = compressed(picture, "x", None)
    assert found.y.isfinite().all()
    assert found.A(torch.zeros(1, 3, *found.shape)).shape == found.y.shape


def compressions() -> list[bytes]:
    """Return JPEG files with every division of colours, turned and progressive."""
    values = np.random.default_rng(0).integers(0, 256, (21, 26, 3)).astype(np.uint8)
    colour, tags, files = PillowImage.fromarray(values), PillowImage.Exif(), []
    tags[ExifTags.Base.Orientation] = 6
    for picture, sampling in (
        *((colour, sampling) for sampling in ("4:4:4", "4:2:2", "4:2:0")),
        (colour.convert("L"), "4:4:4"),
    ):
        out = io.BytesIO()
        picture.save(out, "JPEG", subsampling=sampling, exif=tags, progressive=len(files) == 2)
        files.append(out.getvalue())
    return files


def settings_files() -> list[bytes]:
    """Return settings that say all kinds of things."""
    return [
        b'[restore]\npreset = "fast"\noption = {num_steps = 12}\nsamples = 2\nmean = true\n',
        b'[benchmark]\nbudget = ["1s", "5s"]\ntasks = "sr"\nseed = 3\n[restore]\ngain = 1.5\n',
        b'[train]\nlr = 1e-3\nlog = ["jsonl"]\n[calibrate-speedup]\nlevel = 0.05\n',
    ]


def read_settings(content: bytes, folder: Path) -> None:
    path = folder / "lavps.toml"
    path.write_bytes(content)
    try:
        commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
        settings_of(commands, "restore", str(path), {"XDG_CONFIG_HOME": str(folder)})
    finally:
        path.unlink()


def read_masks(content: bytes, folder: Path) -> None:
    from lavps_cli.images.picture import Picture

    path = folder / "mask.png"
    path.write_bytes(content)
    try:
        read_mask(str(path), Picture(torch.zeros(1, 3, 21, 26)), "x", resize=True)
    finally:
        path.unlink()


def read_kernels(content: bytes, folder: Path) -> None:
    starts = {b"\x93N": ".npy", b"PK": ".npz", b"\x89P": ".png"}
    path = folder / f"psf{starts.get(content[:2], '.txt')}"
    path.write_bytes(content)
    try:
        read_kernel(str(path), 0.9, 0)
    finally:
        path.unlink()


def read_record(content: bytes, folder: Path) -> None:
    from_text(content.decode("utf-8", "surrogateescape"), (32, 24))


def read_config(content: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(content)
    if b'"inference"' in content:
        load_inference(folder, device=torch.device("cpu"))
    else:
        request = Compute(model=str(folder), inference="none", device="cpu", dtype="fp32")
        weights = open_weights(request, "mgdm")
        weights.model(weights.tiling(32, 24, None, None))


OPTIONS = (
    ("--scale", "2"),
    ("--kernel", "5"),
    ("--mask", "centre"),
    ("--mask", "alpha"),
    ("--task", "denoise", "--page", "2"),
    ("--task", "denoise", "--bit-depth", "16"),
    ("--task", "denoise", "--bit-depth", "8"),
)


def run_program(content: bytes, folder: Path) -> None:
    """Degrade a picture as the program does; its exit code becomes an error."""
    path, out = folder / "in", folder / "out.png"
    path.write_bytes(content)
    options = OPTIONS[zlib.crc32(content) % len(OPTIONS)]
    try:
        given = ["degrade", str(path), "-o", str(out), "--max-pixels", str(PIXELS), *options]
        result = CliRunner().invoke(app, given)
        assert "Traceback" not in result.output
        assert "bug" not in result.stderr
        assert result.exit_code in (0, 2, 3, 4)
        assert out.is_file() == (result.exit_code == 0)
    finally:
        path.unlink()
        out.unlink(missing_ok=True)
    if result.exit_code:
        assert result.stdout == ""
        raise LavpsError(result.stderr)


def manifests() -> list[bytes]:
    """Return manifests that say all that one can."""
    lines = [
        {"input": "config.json", "scale": 4, "noise": "6.4/255", "seed": 7, "samples": 2},
        {"input": "config.json", "kernel": "21@35", "boundary": "reflect", "mean": False},
        {
            "input": "config.json",
            "mask": "config.json",
            "invert-mask": True,
            "output": "{stem}.png",
        },
        {"input": "config.json", "task": "denoise", "option": {"num_steps": 4}, "quality": 90},
        {
            "input": "model.safetensors",
            "page": 2,
            "format": "webp",
            "alpha": "drop",
            "budget": "5s",
        },
    ]
    whole = "\n".join(map(json.dumps, lines)).encode()
    return [b"\n" + whole, *(json.dumps(line).encode() for line in lines)]


def read_jobs(content: bytes, folder: Path) -> None:
    path = folder / "jobs.jsonl"
    path.write_bytes(content)
    pipes, select = Pipes(bytes, print), Selection(manifest=str(path))
    try:
        request = Restoration(inputs=(), problem=Problem(task="denoise"), select=select)
        find_jobs(request, Silence(), pipes, default="{stem}.new.{ext}", check=check_restoration)
    finally:
        path.unlink()


def read_safetensors(content: bytes, folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        read_contents(path)
        load_denoiser(folder, device=torch.device("cpu"))
    finally:
        path.write_bytes(whole)


@contextmanager
def in_time() -> Iterator[None]:
    """Interrupt what takes too long."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def tried(target: Target, content: bytes, folder: Path) -> str:
    """Return how a target takes an input: `read`, or the name of its error.

    Raises:
        BaseException: It fails in another way, takes long, or takes much memory.
    """
    files, before = sorted(folder.iterdir()), peak()
    try:
        with in_time():
            target(content, folder)
        outcome = "read"
    except LavpsError as error:
        outcome = type(error).__name__
        if isinstance(error.__cause__, MemoryError) or "llocate" in str(error):
            raise AssertionError("asked for more memory than there is") from error
    assert peak() - before < MEGABYTES, f"{peak() - before:.0f} MB more"
    assert sorted(folder.iterdir()) == files
    return outcome


def targets(model: Path) -> dict[str, tuple[Target, list[bytes]]]:
    """Return what is tried, and the files that it begins with."""
    config, inference = (
        (folder / "config.json").read_bytes()
        for folder in (model, model.with_name("tiny-inference"))
    )
    images = pictures()
    return {
        "images": (read_image, images),
        "masks": (read_masks, images),
        "kernels": (read_kernels, [*kernels(), *images[:4]]),
        "program": (run_program, images),
        "records": (read_record, records()),
        "manifests": (read_jobs, manifests()),
        "compressions": (read_compression, compressions()),
        "settings": (read_settings, settings_files()),
        "configs": (read_config, [config, inference]),
        "safetensors": (read_safetensors, [(model / "model.safetensors").read_bytes()]),
    }


@pytest.fixture(scope="module")
def found(model_folder: Path) -> dict[str, tuple[Target, list[bytes]]]:
    return targets(model_folder)


SHARES = {
    "images": 200,
    "masks": 60,
    "program": 20,
    "kernels": 60,
    "records": 60,
    "manifests": 100,
    "compressions": 60,
    "settings": 60,
    "configs": 30,
    "safetensors": 30,
}
"""How many inputs the tests try."""


def lent(model: Path, folder: Path) -> None:
    """Copy a model into a folder, where it may be damaged."""
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((model / name).read_bytes())


@pytest.mark.parametrize("name", SHARES)
def test_hostile_files(
    found: dict[str, tuple[Target, list[bytes]]], name: str, tmp_path: Path, model_folder: Path
) -> None:
    lent(model_folder, tmp_path)
    target, seeds = found[name]
    rng = np.random.default_rng(7)
    outcomes = Counter(tried(target, seed, tmp_path) for seed in seeds[:9])
    assert outcomes["read"] > 0
    for i in range(SHARES[name]):
        outcomes[tried(target, mutated(seeds[i % len(seeds)], rng), tmp_path)] += 1
    assert outcomes.total() - outcomes["read"] > SHARES[name] // 5  # It does damage.


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main(count: int, seed: int, folder: Path) -> None:
    """Try many inputs; keep those that fail in `folder`."""
    import faulthandler
    import traceback

    from conftest import model_folder  # type: ignore[import-not-found]

    faulthandler.enable()
    weights, work, kept = (folder / name for name in ("weights", "work", "failed"))
    for each in (weights, work, kept):
        each.mkdir(parents=True, exist_ok=True)

    class Factory:
        def mktemp(self, name: str) -> Path:
            return weights

    model = model_folder.__wrapped__(Factory())
    lent(model, work)
    outcomes: dict[str, Counter[str]] = {}
    total = sum(SHARES.values())
    for name, (target, seeds) in targets(model).items():
        lent(model, work)  # What came before may have left a damaged one.
        rng, told = np.random.default_rng(seed), outcomes.setdefault(name, Counter())
        start, slowest = time.monotonic(), 0.0
        for i in range(count * SHARES[name] // total):
            content = mutated(seeds[i % len(seeds)], rng)
            (folder / "now").write_bytes(content)  # What a crash of a decoder leaves behind.
            before = time.monotonic()
            try:
                told[tried(target, content, work)] += 1
            except BaseException as error:
                told["FAILED"] += 1
                where = kept / f"{name}-{i}"
                where.write_bytes(content)
                where.with_suffix(".txt").write_text(traceback.format_exc())
                say(name, i, type(error).__name__, str(error)[:200])
                lent(model, work)
            slowest = max(slowest, time.monotonic() - before)
        seconds = time.monotonic() - start
        say(f"{name}: {dict(told)}, {seconds:.0f} s, slowest {slowest:.2f} s")
    say(f"{count} inputs, peak {peak():.0f} MB")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0, Path(sys.argv[3]))
