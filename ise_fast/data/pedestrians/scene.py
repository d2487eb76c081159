"""Places and cameras: what is behind a person and in front, and how light, lens and sensor change it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from .person import VIEWS, Colour, shaded

PANORAMA = 5  # widths of an image that a camera's background is wide


@dataclass(frozen=True)
class Camera:
    """What stays with a camera: its light, its sharpness, its favourite view and the place it looks at."""

    number: int
    seed: int
    shift: float  # how much cameras differ, 1: as usual
    gain: tuple[float, float, float]
    gamma: float
    contrast: float
    blur: float  # standard deviation in image heights
    noise: float  # standard deviation in grey levels
    slope: float  # brightness of the right side against the left
    views: NDArray[np.float64]  # how often people are seen from each side

    @classmethod
    def draw(cls, seed: int, number: int, shift: float) -> Camera:
        random = np.random.default_rng((seed, 2, number))

        def differ(low: float, high: float) -> float:
            return shift * random.uniform(low, high)

        light, warmth, tint = 1 + differ(-0.06, 0.05), differ(-0.045, 0.045), differ(-0.015, 0.015)
        return cls(
            number=number,
            seed=seed,
            shift=shift,
            gain=(light * (1 + warmth), light * (1 + tint), light * (1 - warmth)),
            gamma=1 + max(-0.6, differ(-0.07, 0.1)),
            contrast=max(0.3, 1 + differ(-0.09, 0.03)),
            blur=differ(0.0, 0.008),
            noise=2 + differ(0.0, 2.5),
            slope=differ(-0.05, 0.05),
            views=random.dirichlet(np.full(len(VIEWS), 0.9)),
        )


def background(camera: Camera, place: float, size: tuple[int, int]) -> Image.Image:
    """What this camera sees behind a person at `place` (0 to 1), as (width, height) = size."""
    width, height = size
    panorama = _panorama(camera.seed, camera.number, camera.shift, width, height)
    left = int(place * (panorama.width - width))
    return panorama.crop((left, 0, left + width, height))


@lru_cache(maxsize=64)
def _panorama(seed: int, camera: int, shift: float, width: int, height: int) -> Image.Image:
    """The place a camera looks at: wall, floor, joints in the floor, doors, windows and posts."""
    random = np.random.default_rng((seed, 5, camera))
    wall, floor = (_material(random, spread=0.35 * shift) for _ in range(2))
    image = Image.new("RGB", (PANORAMA * width, height), wall)
    pen = ImageDraw.Draw(image)
    horizon = random.uniform(0.35, 0.62)
    ground = int(horizon * height)
    pen.rectangle((0, ground, image.width, height), fill=floor)
    joints = int(random.integers(3, 7))
    for joint in range(joints):
        y = int(ground + (joint / joints) ** 2 * (height - ground))
        pen.line((0, y, image.width, y), fill=shaded(floor, 0.86), width=max(1, height // 90))
    distance = width * random.uniform(0.25, 0.7)
    for joint in range(int(image.width / distance)):
        x = joint * distance
        end = x + random.uniform(-0.3, 0.3) * width
        pen.line((x, ground, end, height), fill=shaded(floor, 0.9), width=max(1, height // 120))
    for _ in range(int(random.integers(8, 15))):
        x, across = random.uniform(0, image.width), width * random.uniform(0.06, 0.5)
        top, bottom = sorted((random.uniform(0, horizon) * height, random.uniform(0, horizon) * height))
        standing = random.random() < 0.5
        pen.rectangle((x, top, x + across, ground if standing else bottom), fill=_material(random, 1.2 * shift))
    return image


def _material(random: np.random.Generator, spread: float) -> Colour:
    """A greyish colour, the further from middle grey the larger `spread`."""
    colour = 130 + spread * (random.uniform(-75, 75) + random.uniform(-26, 26, 3))
    red, green, blue = np.clip(np.rint(colour), 0, 255).astype(int).tolist()
    return red, green, blue


def occlude(canvas: Image.Image, random: np.random.Generator) -> None:
    """Something between camera and person: a post, or a low wall."""
    width, height = canvas.size
    colour = _material(random, spread=0.8)
    if random.random() < 0.5:
        x, across = random.uniform(0, width), width * random.uniform(0.06, 0.16)
        box = (x, 0.0, x + across, float(height))
    else:
        box = (0.0, height * random.uniform(0.68, 0.85), float(width), float(height))
    ImageDraw.Draw(canvas).rectangle(box, fill=colour)


def expose(image: Image.Image, camera: Camera, random: np.random.Generator) -> Image.Image:
    """Light, lens and sensor of a camera, with the small changes of light from frame to frame."""
    width, height = image.size
    blurred = image.filter(ImageFilter.GaussianBlur(camera.blur * height))
    across = 1 + camera.slope * np.linspace(-1, 1, width)
    gain = random.uniform(0.9, 1.1) / 255 * across[:, None] * np.array(camera.gain)  # [w, 3]
    light = np.asarray(blurred, dtype=np.float32) * np.maximum(gain, 0).astype(np.float32)
    np.power(light, camera.gamma, out=light)
    levels = random.standard_normal(light.shape, dtype=np.float32)
    levels *= camera.noise
    levels += 255 * (0.45 * (1 - camera.contrast) + camera.contrast * light) + 0.5  # rounds when cut to bytes
    return Image.fromarray(np.clip(levels, 0, 255, out=levels).astype(np.uint8))
