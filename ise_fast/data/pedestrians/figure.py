"""Draws a person onto a canvas, from simple shapes in body heights."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .person import Colour, Person, View, shaded

Point = tuple[float, float]


class Figure:
    """Draws a person onto a canvas. Points are (right, up) from between the feet, in body heights."""

    def __init__(self, canvas: Image.Image, person: Person, view: View, phase: float, unit: float, foot: Point) -> None:
        self.canvas = canvas
        self.pen = ImageDraw.Draw(canvas)
        self.person = person
        self.view = view
        self.unit = unit
        self.foot = foot
        self.sideways = view in ("left", "right")
        self.heading = {"left": -1, "right": 1, "front": 1, "back": -1}[view]
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
