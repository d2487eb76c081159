"""The colours synthetic people are made of: short lists, because people who differ in everything are no challenge."""

from __future__ import annotations

Colour = tuple[int, int, int]

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
