"""Pictures a second from a data set: decoding once, then batches from the mapped file.

    python benchmarks/loading_speed.py PHOTOS [--size 64]

One thread. What training needs is in the column `images_per_second` of metrics.jsonl, the share of
its time that passed waiting for pictures in `waiting`.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from lavps_cli.data.sources import open_source
from lavps_cli.data.store import Crop, prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos")
    parser.add_argument("--size", type=int, default=64)
    given = parser.parse_args()
    source = open_source(given.photos)
    crops: tuple[Crop, ...] = ("whole", "random")
    for crop in crops:
        with TemporaryDirectory() as folder:
            started = time.perf_counter()
            pictures = prepare([source], size=given.size, crop=crop, cache=Path(folder))
            decoded = len(pictures) / (time.perf_counter() - started)
            started = time.perf_counter()
            for i in range(50):
                pictures.batch(64 * i, 64, 0)
            drawn = 50 * 64 / (time.perf_counter() - started)
            print(f"{crop:<7} {len(pictures)} pictures, decoding {decoded:.0f} a second, "
                  f"batches {drawn:.0f} a second")  # fmt: skip


if __name__ == "__main__":
    main()
