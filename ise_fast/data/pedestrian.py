"""Draws one synthetic pedestrian as one camera sees them. Pillow and NumPy only; coordinates in units of body height.

What belongs to a person (`Person`), to a camera (`Camera`), to one walk of the person past the camera (`Track`) and
to one frame of it follows from separate random streams, so that no image depends on any other being drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from .wardrobe import FABRICS, HAIR, LEATHER, SKIN, TROUSERS, Colour, shaded

Point = tuple[float, float]
View = Literal["front", "back", "left", "right"]
VIEWS: tuple[View, ...] = ("front", "back", "left", "right")
PANORAMA = 5  # widths of an image that a camera's background is wide


@dataclass(frozen=True)
class Shot:
    """One image: where it goes, and who is seen by which camera in which frame."""

    folder: str
    label: int  # identity in the file name: the person, 0 (distractor) or -1 (junk)
    person: int
    camera: int  # from 1
    frame: int

    @property
    def file(self) -> tuple[str, str]:
        """(folder, name) in the grammar of Market-1501: identity, camera, sequence, frame, detection."""
        label = f"{self.label:04d}" if self.label >= 0 else str(self.label)
        # Strangers of one camera share label and frame numbers: the person tells them apart.
        frame = self.frame if self.label > 0 else self.person * 100
        return self.folder, f"{label}_c{self.camera}s1_{frame:06d}_01.jpg"


@dataclass(frozen=True)
class Person:
    """What stays with an identity. Colours come from short lists, so that people share many of them."""

    height: float  # of the body, in image heights
    build: float
    skin: Colour
    hair: Colour
    hair_style: str
    hat: Colour
    upper: Colour
    upper_second: Colour
    pattern: str
    sleeves: str
    lower: Colour
    lower_style: str
    shoes: Colour
    bag: str
    bag_colour: Colour

    @classmethod
    def draw(cls, seed: int, person: int) -> Person:
        random = np.random.default_rng((seed, 1, person))

        def pick(choices: tuple[Colour, ...]) -> Colour:
            return choices[random.integers(len(choices))]

        return cls(
            height=random.uniform(0.76, 0.88),
            build=random.uniform(0.82, 1.28),
            skin=pick(SKIN),
            hair=pick(HAIR),
            hair_style=str(random.choice(["short", "long", "bald", "hat"], p=[0.45, 0.35, 0.08, 0.12])),
            hat=pick(FABRICS),
            upper=pick(FABRICS),
            upper_second=pick(FABRICS),
            pattern=str(
                random.choice(["plain", "stripes", "halves", "jacket", "print"], p=[0.35, 0.2, 0.15, 0.15, 0.15])
            ),
            sleeves=str(random.choice(["long", "short"])),
            lower=pick(TROUSERS),
            lower_style=str(random.choice(["trousers", "shorts", "skirt"], p=[0.55, 0.25, 0.2])),
            shoes=pick(LEATHER),
            bag=str(random.choice(["none", "backpack", "handbag", "suitcase"], p=[0.35, 0.3, 0.2, 0.15])),
            bag_colour=pick(FABRICS),
        )


@dataclass(frozen=True)
class Camera:
    """What stays with a camera: its light, its sharpness, its favourite view and the place it looks at."""

    gain: tuple[float, float, float]
    gamma: float
    contrast: float
    blur: float  # standard deviation in image heights
    noise: float  # standard deviation in grey levels
    slope: float  # brightness of the right side against the left
    views: NDArray[np.float64]
    horizon: float

    @classmethod
    def draw(cls, seed: int, camera: int) -> Camera:
        random = np.random.default_rng((seed, 2, camera))
        warmth, tint = random.uniform(-0.13, 0.13), random.uniform(-0.04, 0.04)
        light = random.uniform(0.8, 1.15)
        return cls(
            gain=(light * (1 + warmth), light * (1 + tint), light * (1 - warmth)),
            gamma=random.uniform(0.8, 1.3),
            contrast=random.uniform(0.75, 1.1),
            blur=random.uniform(0.0, 0.012),
            noise=random.uniform(2.0, 7.0),
            slope=random.uniform(-0.15, 0.15),
            views=random.dirichlet(np.full(len(VIEWS), 0.9)),
            horizon=random.uniform(0.35, 0.62),
        )


@dataclass(frozen=True)
class Track:
    """One walk past a camera: its frames resemble each other."""

    view: View
    place: float  # where in the panorama the walk begins
    step: float
    phase: float
    scale: float

    @classmethod
    def draw(cls, seed: int, person: int, camera: int, views: NDArray[np.float64]) -> Track:
        random = np.random.default_rng((seed, 3, person, camera))
        view = VIEWS[random.choice(len(VIEWS), p=0.6 * views + 0.4 / len(VIEWS))]
        return cls(
            view,
            random.uniform(),
            random.uniform(-0.02, 0.02),
            random.uniform(0, 2 * np.pi),
            random.uniform(0.94, 1.06),
        )


def render(shot: Shot, size: tuple[int, int], seed: int) -> Image.Image:
    """The image of a shot: scene and figure drawn larger, reduced, then seen through the camera."""
    height, width = size
    zoom = 2 if height >= 200 else 4
    random = np.random.default_rng((seed, 4, shot.person, shot.camera, shot.frame))
    person = Person.draw(seed, shot.person)
    camera = Camera.draw(seed, shot.camera)
    track = Track.draw(seed, shot.person, shot.camera, camera.views)

    canvas_width, canvas_height = width * zoom, height * zoom
    panorama = _panorama(seed, shot.camera, camera.horizon, canvas_width, canvas_height)
    place = (track.place + track.step * (shot.frame % 1_000)) % 1.0
    left = int(place * (panorama.width - canvas_width))
    canvas = panorama.crop((left, 0, left + canvas_width, canvas_height))

    empty = shot.label == 0 and random.random() < 0.3  # a false alarm of the detector
    if not empty:
        badly_cut = shot.label < 0
        unit = (
            person.height
            * track.scale
            * canvas_height
            * (random.uniform(1.3, 2.0) if badly_cut else random.uniform(0.97, 1.03))
        )
        spread = 0.35 if badly_cut else 0.06
        foot = (
            canvas_width * (0.5 + random.uniform(-spread, spread)),
            canvas_height * random.uniform(0.93, 0.98) + (unit * random.uniform(0.1, 0.5) if badly_cut else 0),
        )
        _Figure(
            canvas, person, track, unit, foot, phase=track.phase + 0.9 * shot.frame + random.uniform(-0.3, 0.3)
        ).draw()
    if random.random() < 0.08:
        _occlude(canvas, random)
    return _expose(canvas.resize((width, height), Image.Resampling.BOX), camera, random)


class _Figure:
    """Draws a person onto a canvas. Points are (right, up) from between the feet, in body heights."""

    def __init__(
        self, canvas: Image.Image, person: Person, track: Track, unit: float, foot: Point, phase: float
    ) -> None:
        self.canvas = canvas
        self.pen = ImageDraw.Draw(canvas)
        self.person = person
        self.view = track.view
        self.unit = unit
        self.foot = foot
        self.sideways = track.view in ("left", "right")
        self.heading = {"left": -1, "right": 1, "front": 1, "back": -1}[track.view]
        self.swing = float(np.sin(phase)) * (1.0 if self.sideways else 0.35)
        self.shoulder = 0.125 * person.build * (0.72 if self.sideways else 1.0)
        self.hip = 0.085 * person.build * (0.85 if self.sideways else 1.0)

    def draw(self) -> None:
        person = self.person
        x, y = self.foot
        self.pen.ellipse(
            (x - 0.2 * self.unit, y - 0.02 * self.unit, x + 0.2 * self.unit, y + 0.03 * self.unit), fill=(52, 52, 54)
        )
        if person.bag == "suitcase":
            self._box((-self.heading * 0.27, 0.12), 0.07, 0.11, person.bag_colour)
            self._limb([(-self.heading * 0.23, 0.22), (-self.heading * 0.15, 0.42)], [0.01, 0.01], (40, 40, 40))
        if person.bag == "backpack" and self.view == "front":
            self._box((0, 0.68), self.shoulder + 0.025, 0.1, shaded(person.bag_colour, 0.8))
        self._arm(-1)
        self._leg(-1)
        self._leg(1)
        if person.lower_style == "skirt":
            self._skirt()
        self._torso()
        self._head()
        self._arm(1)
        self._bag()

    def _leg(self, side: int) -> None:
        person = self.person
        shade = 0.86 if side < 0 else 1.0
        spread = self.swing * side
        hip = (0.3 * self.hip * side if self.sideways else 0.5 * self.hip * side, 0.5)
        knee = (hip[0] + 0.09 * spread * self.heading, 0.27)
        foot = (
            (hip[0] + (0.16 * spread - 0.03) * self.heading, 0.03)
            if self.sideways
            else (hip[0], 0.03 + 0.05 * max(spread, 0))
        )
        thickness = 0.055 * person.build
        shin = person.lower if person.lower_style == "trousers" else person.skin
        thigh = person.skin if person.lower_style == "skirt" else person.lower
        self._limb([knee, foot], [0.8 * thickness, 0.6 * thickness], shaded(shin, shade))
        self._limb([hip, knee], [1.15 * thickness, 0.9 * thickness], shaded(thigh, shade))
        toe = (foot[0] + (0.06 * self.heading if self.sideways else 0.0), 0.015 + foot[1] - 0.03)
        self._limb([foot, toe], [0.03, 0.025], shaded(person.shoes, shade))

    def _skirt(self) -> None:
        flare = 1.5 * self.hip + 0.03 * abs(self.swing)
        self._polygon([(-self.hip, 0.52), (self.hip, 0.52), (flare, 0.3), (-flare, 0.3)], self.person.lower)

    def _arm(self, side: int) -> None:
        person = self.person
        shade = 0.82 if side < 0 else 0.94
        spread = -self.swing * side
        shoulder = (0.0 if self.sideways else side * self.shoulder, 0.8)
        outward = 0.0 if self.sideways else 0.035 * side
        elbow = (shoulder[0] + outward + 0.07 * spread * self.heading * self.sideways, 0.64)
        hand = (
            elbow[0] + 0.3 * outward + 0.1 * (spread + 0.3) * self.heading * self.sideways,
            0.49 + 0.02 * abs(spread),
        )
        thickness = 0.036 * person.build
        lower = person.upper if person.sleeves == "long" else person.skin
        self._limb([elbow, hand], [thickness, 0.75 * thickness], shaded(lower, shade))
        self._limb([shoulder, elbow], [1.2 * thickness, thickness], shaded(person.upper, shade))
        self._limb([hand, hand], [0.022, 0.022], shaded(person.skin, shade))

    def _torso(self) -> None:
        person = self.person
        waist = 0.92 * self.hip
        outline = [
            (-0.4 * self.shoulder, 0.85), (0.4 * self.shoulder, 0.85), (self.shoulder, 0.81), (waist, 0.62),
            (self.hip, 0.48), (-self.hip, 0.48), (-waist, 0.62), (-self.shoulder, 0.81),
        ]  # fmt: skip
        mask = Image.new("L", self.canvas.size)
        ImageDraw.Draw(mask).polygon([self._pixel(point) for point in outline], fill=255)
        cloth = Image.new("RGB", self.canvas.size, person.upper)
        brush = ImageDraw.Draw(cloth)
        if person.pattern == "stripes":
            for level in (0.49, 0.57, 0.65, 0.73, 0.81):
                brush.rectangle((*self._pixel((-1, level + 0.04)), *self._pixel((1, level))), fill=person.upper_second)
        elif person.pattern == "halves":
            brush.rectangle((*self._pixel((-1, 0.64)), *self._pixel((1, 0.3))), fill=person.upper_second)
        elif person.pattern == "jacket" and self.view != "back":  # open: the shirt shows
            middle = 0.5 * self.shoulder * self.heading if self.sideways else 0.0
            brush.rectangle(
                (*self._pixel((middle - 0.035, 0.9)), *self._pixel((middle + 0.035, 0.3))), fill=person.upper_second
            )
        elif person.pattern == "print" and self.view == "front":
            brush.ellipse((*self._pixel((-0.05, 0.78)), *self._pixel((0.05, 0.67))), fill=person.upper_second)
        self.canvas.paste(cloth, mask=mask)

    def _head(self) -> None:
        person = self.person
        lean = 0.015 * self.heading * self.sideways
        self._limb([(lean, 0.84), (lean, 0.88)], [0.03, 0.03], shaded(person.skin, 0.85))
        centre = (lean, 0.925)
        if person.hair_style == "long":
            back = -0.03 * self.heading * self.sideways
            self._limb([(lean + back, 0.94), (lean + back, 0.8)], [0.068, 0.062], person.hair)
        self._ellipse(centre, 0.052, 0.07, person.skin)
        if person.hair_style in ("short", "long"):
            if self.view == "back":
                self._ellipse((centre[0], 0.937), 0.058, 0.066, person.hair)
            else:
                offset = -0.022 * self.heading * self.sideways
                self._ellipse((centre[0] + offset, 0.962), 0.055, 0.042, person.hair)
        elif person.hair_style == "hat":
            self._ellipse((centre[0], 0.972), 0.062, 0.036, person.hat)
            brim = 0.045 * self.heading * self.sideways
            self._limb(
                [(centre[0] - 0.05 + brim, 0.957), (centre[0] + 0.05 + brim, 0.957)],
                [0.012, 0.012],
                shaded(person.hat, 0.8),
            )

    def _bag(self) -> None:
        colour = self.person.bag_colour
        if self.person.bag == "backpack":
            if self.view == "back":
                self._box((0, 0.68), 0.85 * self.shoulder, 0.12, colour)
                self._box((0, 0.63), 0.5 * self.shoulder, 0.045, shaded(colour, 0.75))
            elif self.sideways:
                self._box((-self.heading * (self.shoulder + 0.04), 0.69), 0.055, 0.115, colour)
            else:
                for side in (-1, 1):
                    self._limb(
                        [(0.6 * side * self.shoulder, 0.84), (0.7 * side * self.shoulder, 0.64)], [0.016, 0.016], colour
                    )
        elif self.person.bag == "handbag":
            # On the person's own right side: to the left of the image from the front, to the right from the back.
            across = {"front": -1.0, "back": 1.0, "left": 0.2, "right": -0.2}[self.view] * (self.shoulder + 0.04)
            self._limb([(-0.5 * across, 0.84), (across, 0.56)], [0.01, 0.01], shaded(colour, 0.7))
            self._box((across, 0.5), 0.06, 0.055, colour)

    def _pixel(self, point: Point) -> Point:
        return self.foot[0] + point[0] * self.unit, self.foot[1] - point[1] * self.unit

    def _polygon(self, points: list[Point], colour: Colour) -> None:
        self.pen.polygon([self._pixel(point) for point in points], fill=colour)

    def _ellipse(self, centre: Point, across: float, up: float, colour: Colour) -> None:
        (x, y), a, b = self._pixel(centre), across * self.unit, up * self.unit
        self.pen.ellipse((x - a, y - b, x + a, y + b), fill=colour)

    def _box(self, centre: Point, across: float, up: float, colour: Colour) -> None:
        (x, y), a, b = self._pixel(centre), across * self.unit, up * self.unit
        self.pen.rounded_rectangle((x - a, y - b, x + a, y + b), radius=0.3 * min(a, b), fill=colour)

    def _limb(self, ends: list[Point], radii: list[float], colour: Colour) -> None:
        """A rod with round ends of two radii."""
        for end, radius in zip(ends, radii, strict=True):
            self._ellipse(end, radius, radius, colour)
        (ax, ay), (bx, by) = ends
        length = float(np.hypot(bx - ax, by - ay))
        if length > 0:
            nx, ny = (ay - by) / length, (bx - ax) / length
            ra, rb = radii
            corners = [
                (ax + ra * nx, ay + ra * ny),
                (bx + rb * nx, by + rb * ny),
                (bx - rb * nx, by - rb * ny),
                (ax - ra * nx, ay - ra * ny),
            ]
            self._polygon(corners, colour)


@lru_cache(maxsize=64)
def _panorama(seed: int, camera: int, horizon: float, width: int, height: int) -> Image.Image:
    """The place a camera looks at: wall, floor, joints in both, doors, windows and posts."""
    random = np.random.default_rng((seed, 5, camera))
    wall, floor = (_material(random, 70, 190) for _ in range(2))
    image = Image.new("RGB", (PANORAMA * width, height), wall)
    pen = ImageDraw.Draw(image)
    ground = int(horizon * height)
    pen.rectangle((0, ground, image.width, height), fill=floor)
    joints = int(random.integers(3, 7))
    for joint in range(joints):
        y = int(ground + (joint / joints) ** 2 * (height - ground))
        pen.line((0, y, image.width, y), fill=shaded(floor, 0.86), width=max(1, height // 90))
    distance = width * random.uniform(0.25, 0.7)
    for joint in range(int(image.width / distance)):
        x = joint * distance
        pen.line(
            (x, ground, x + random.uniform(-0.3, 0.3) * width, height),
            fill=shaded(floor, 0.9),
            width=max(1, height // 120),
        )
    for _ in range(int(random.integers(8, 15))):
        x, across = random.uniform(0, image.width), width * random.uniform(0.06, 0.5)
        top, bottom = sorted((random.uniform(0, horizon) * height, random.uniform(0, horizon) * height))
        standing = random.random() < 0.5
        pen.rectangle((x, top, x + across, ground if standing else bottom), fill=_material(random, 40, 215))
    return image


def _material(random: np.random.Generator, darkest: int, brightest: int) -> Colour:
    """A greyish colour."""
    red, green, blue = np.clip(random.integers(darkest, brightest) + random.integers(-26, 27, 3), 0, 255).tolist()
    return red, green, blue


def _occlude(canvas: Image.Image, random: np.random.Generator) -> None:
    """Something between camera and person: a post, or a low wall."""
    width, height = canvas.size
    colour = _material(random, 50, 180)
    if random.random() < 0.5:
        x, across = random.uniform(0, width), width * random.uniform(0.06, 0.16)
        box = (x, 0.0, x + across, float(height))
    else:
        box = (0.0, height * random.uniform(0.68, 0.85), float(width), float(height))
    ImageDraw.Draw(canvas).rectangle(box, fill=colour)


def _expose(image: Image.Image, camera: Camera, random: np.random.Generator) -> Image.Image:
    """Light, lens and sensor of a camera, with the small changes of light from frame to frame."""
    width, height = image.size
    blurred = image.filter(ImageFilter.GaussianBlur(camera.blur * height))
    light = np.asarray(blurred, dtype=np.float64) / 255
    light *= np.array(camera.gain) * random.uniform(0.93, 1.07)
    light *= (1 + camera.slope * np.linspace(-1, 1, width))[None, :, None]
    light = 0.45 + camera.contrast * (np.clip(light, 0, None) ** camera.gamma - 0.45)
    levels = 255 * light + random.normal(0, camera.noise, light.shape)
    return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))
