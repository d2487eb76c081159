"""The embedding as a picture whose points can be chosen: SVG by hand, and one sheet with the pictures of all points."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from ise_fast.engine.report_data import NO_CAMERA, Array, EmbeddingPicture
from ise_fast.engine.report_figures import jpeg_address

# Colours of the points; 3 : 1 against the card in light and in dark.
PALETTE = ("#4f6bff", "#c97212", "#00907a", "#dd4a50", "#8e4ec6", "#94704c", "#cf3f99", "#6b7a8b", "#7d8c12", "#0c8fbd")
WIDTH, HEIGHT, MARGIN = 520, 400, 12
COLUMNS = 25  # pictures in a row of the sheet
MAX_LEGEND = 12


def scatter(picture: EmbeddingPicture, by: str) -> dict[str, Any]:
    """The points coloured by "group" or by "camera".

    Returns:
        svg, and a legend of (name, colour), empty where there are too many kinds to name.
    """
    values = picture.groups if by == "group" else picture.cams
    kinds = np.unique(values)
    what = ("identity" if picture.of_test_images else "cluster") if by == "group" else "camera"
    low, high = picture.points.min(axis=0), picture.points.max(axis=0)
    place = (picture.points - low) / np.maximum(high - low, 1e-9)  # t-SNE's axes have no unit
    place = MARGIN + place * (np.array([WIDTH, HEIGHT]) - 2 * MARGIN)
    marks = [
        _mark(i, x, HEIGHT - y, int(np.searchsorted(kinds, value)), _about(picture, i))
        for i, ((x, y), value) in enumerate(zip(place.tolist(), values, strict=True))
    ]
    title = f"{len(values)} images as points, coloured by {what}; a click or the arrow keys show the image of one"
    svg = (
        f'<svg class="scatter" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" aria-label="{title}">'
        f"<title>{title}</title>{''.join(marks)}</svg>"
    )
    named = [(_camera(kind) if by == "camera" else f"{what} {kind}", PALETTE[i % 10]) for i, kind in enumerate(kinds)]
    return {"svg": svg, "legend": named if len(named) <= MAX_LEGEND else [], "count": len(kinds)}


def sprite(images: Array) -> dict[str, Any]:
    """All pictures [n, h, w, 3] as one JPEG: its address, columns, and the size of each picture."""
    count, height, width = images.shape[:3]
    rows = -(-count // COLUMNS)
    sheet = np.zeros((rows * COLUMNS, height, width, 3), dtype=np.uint8)
    sheet[:count] = images
    whole = sheet.reshape(rows, COLUMNS, height, width, 3).swapaxes(1, 2).reshape(rows * height, COLUMNS * width, 3)
    return {"address": jpeg_address(whole, quality=80), "columns": COLUMNS, "width": width, "height": height}


def _mark(i: int, x: float, y: float, kind: int, about: str) -> str:
    """A circle for the first ten kinds, a square for the next ten, a diamond for others."""
    data = f'data-i="{i}" data-x="{x:.1f}" data-y="{y:.1f}" data-about="{escape(about)}" fill="{PALETTE[kind % 10]}"'
    shape = kind // 10 % 3
    if shape == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {data}/>'
    turn = f' transform="rotate(45 {x:.1f} {y:.1f})"' if shape == 2 else ""
    return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"{turn} {data}/>'


def _about(picture: EmbeddingPicture, i: int) -> str:
    what = "identity" if picture.of_test_images else "cluster"
    camera = "" if picture.cams[i] == NO_CAMERA else f", {_camera(picture.cams[i])}"
    return f"{what} {picture.groups[i]}{camera}"


def _camera(cam: int) -> str:
    return "camera not known" if cam == NO_CAMERA else f"camera {int(cam) + 1}"  # stored from 0, named from 1
