"""Renders the two synthetic pictures of the bundled benchmark, 256x256.

python benchmarks/render_pictures.py lavps_cli/bench/pictures
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

SIZE, OVER = 256, 4
Rays = npt.NDArray[np.float64]


def spheres() -> Image.Image:
    """Return shaded spheres on a chequered floor, by casting one ray a sample."""
    n = SIZE * OVER
    y, x = np.mgrid[1 : -1 : n * 1j, -1 : 1 : n * 1j]
    rays = np.stack([x, y - 0.15, np.full_like(x, 1.6)], -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    light = np.array([-0.5, 0.8, -0.4]) / np.linalg.norm([-0.5, 0.8, -0.4])
    colour = np.stack([0.55 + 0.25 * y, 0.65 + 0.2 * y, 0.9 + 0.05 * y], -1)
    nearest = np.full(x.shape, np.inf)

    balls = [
        ((-0.8, -0.25, 4.0), 0.75, (0.85, 0.2, 0.15)),
        ((0.9, -0.45, 3.2), 0.55, (0.1, 0.45, 0.8)),
        ((0.1, -0.7, 2.4), 0.3, (0.95, 0.8, 0.2)),
        ((0.35, 0.55, 4.6), 0.5, (0.25, 0.7, 0.35)),
    ]

    def hit(origin: Rays, ray: Rays, centre: Rays, radius: float) -> Rays:
        towards = origin - centre
        b = (towards * ray).sum(-1)
        inner = b * b - (towards * towards).sum(-1) + radius**2
        distance = -b - np.sqrt(np.maximum(inner, 0))
        return np.where((inner > 0) & (distance > 1e-4), distance, np.inf)

    def shadow(point: Rays) -> Rays:
        dark = [np.isfinite(hit(point, light, np.array(c), r)) for c, r, _ in balls]
        return np.where(np.any(dark, 0), 0.35, 1.0)

    with np.errstate(divide="ignore", invalid="ignore"):
        floor = np.where(rays[..., 1] < 0, -1.0 / rays[..., 1], np.inf)
    seen = floor < 14
    point = rays * np.where(seen, floor, 0)[..., None]
    tiles = (np.floor(point[..., 0] * 1.5) + np.floor(point[..., 2] * 1.5)) % 2
    shade = np.where(tiles > 0, 0.85, 0.25) * shadow(point)
    colour[seen] = (shade[..., None] * np.array([1.0, 0.96, 0.9]))[seen]
    nearest[seen] = floor[seen]
    for centre, radius, tint in balls:
        distance = hit(np.zeros(3), rays, np.array(centre), radius)
        front = distance < nearest
        point = rays * np.where(front, distance, 0)[..., None]
        normal = (point - np.array(centre)) / radius
        lit = np.maximum((normal * light).sum(-1), 0) * shadow(point + 1e-3 * normal)
        mirror = 2 * (normal * light).sum(-1, keepdims=True) * normal - light
        shine = np.maximum(-(mirror * rays).sum(-1), 0) ** 40
        stripes = 1 - 0.25 * (np.sin(22 * normal[..., 1]) > 0.4)
        value = (0.18 + 0.8 * lit * stripes)[..., None] * np.array(tint) + 0.5 * shine[..., None]
        colour[front] = value[front]
        nearest[front] = distance[front]
    whole = np.clip(colour, 0, 1).reshape(SIZE, OVER, SIZE, OVER, 3).mean((1, 3))
    return Image.fromarray((255 * whole ** (1 / 1.5)).round().astype(np.uint8))


def poster() -> Image.Image:
    """Return text and shapes: edges, thin lines, flat areas."""
    n = SIZE * OVER
    page = Image.new("RGB", (n, n), (243, 236, 220))
    draw = ImageDraw.Draw(page)
    rng = np.random.default_rng(7)
    for i in range(14):
        radius = n * (0.62 - 0.04 * i)
        tint = tuple(int(v) for v in (230 - 12 * i, 120 + 6 * i, 60 + 9 * i))
        draw.ellipse([n / 2 - radius, n - radius, n / 2 + radius, n + radius], fill=tint)
    for _ in range(60):
        x, y, r = rng.integers(0, n), rng.integers(0, n // 3), rng.integers(2, 9)
        draw.ellipse([x - r, y - r, x + r, y + r], fill=(40, 50, 90))
    for text, size, top in (("POSTERIOR", 150, 0.07), ("one of many explanations", 62, 0.24)):
        font = ImageFont.load_default(size)
        width = draw.textlength(text, font=font)
        draw.text(((n - width) / 2, n * top), text, fill=(30, 35, 70), font=font)
    for i in range(9):
        x = n * (0.1 + 0.1 * i)
        draw.line([x, n * 0.95, x + n * 0.04, n * 0.45], fill=(250, 245, 230), width=3 + 2 * i)
    return page.resize((SIZE, SIZE), Image.Resampling.BOX)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    spheres().save(folder / "03-spheres.png")
    poster().save(folder / "12-poster.png")
