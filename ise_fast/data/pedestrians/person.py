"""What stays with an identity, and how it walks past a camera.

The colours come from short lists, because people who differ in everything are no challenge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
View = Literal["front", "back", "left", "right"]
VIEWS: tuple[View, ...] = ("front", "back", "left", "right")
DYE = 40  # no two red pullovers are of the same red: largest difference per channel
TURNING = 0.5  # part of the frames in which a person does not look where the walk goes

SKIN: tuple[Colour, ...] = ((236, 200, 174), (214, 168, 136), (168, 118, 86), (112, 76, 56))
HAIR: tuple[Colour, ...] = ((28, 24, 24), (74, 48, 32), (146, 104, 58), (206, 178, 120), (128, 128, 132))
FABRICS: tuple[Colour, ...] = (
    (208, 48, 48),
    (48, 84, 176),
    (56, 140, 76),
    (232, 200, 68),
    (236, 236, 236),
    (40, 40, 44),
    (138, 138, 142),
    (142, 76, 156),
    (230, 128, 48),
)
TROUSERS: tuple[Colour, ...] = (
    (40, 42, 52),
    (56, 82, 140),
    (150, 128, 96),
    (112, 112, 116),
    (214, 210, 200),
    (92, 58, 44),
)
LEATHER: tuple[Colour, ...] = ((30, 28, 28), (222, 220, 216), (122, 76, 44), (180, 52, 52))


def shaded(colour: Colour, factor: float) -> Colour:
    """Darker (factor below 1) or brighter, within the range of a byte."""
    red, green, blue = (max(0, min(255, round(value * factor))) for value in colour)
    return red, green, blue


@dataclass(frozen=True)
class Person:
    """Body, clothes and belongings."""

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

        def pick(choices: tuple[Colour, ...], dye: float = DYE) -> Colour:
            colour = choices[random.integers(len(choices))] + random.uniform(-dye, dye, 3)
            red, green, blue = np.clip(np.rint(colour), 0, 255).astype(int).tolist()
            return red, green, blue

        return cls(
            height=random.uniform(0.82, 0.92),
            build=random.uniform(0.82, 1.28),
            skin=pick(SKIN, dye=8),
            hair=pick(HAIR, dye=8),
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
class Frame:
    """How a person stands in one image. The frames of one walk past a camera resemble each other."""

    view: View
    place: float  # where in the background, 0 to 1
    phase: float  # of the step, in radians
    scale: float  # of the body

    @classmethod
    def draw(cls, seed: int, person: int, camera: int, frame: int, views: NDArray[np.float64]) -> Frame:
        """`views`: how often this camera sees people from each side."""
        walk, step = (np.random.default_rng((seed, 3, person, camera, *word)) for word in ((), (frame,)))
        turning = step if step.random() < TURNING else walk
        return cls(
            view=VIEWS[turning.choice(len(VIEWS), p=0.6 * views + 0.4 / len(VIEWS))],
            place=step.random(),
            phase=step.uniform(0, 2 * np.pi),
            scale=walk.uniform(0.94, 1.06) * step.uniform(0.97, 1.03),
        )
