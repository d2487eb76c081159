"""Draws synthetic pedestrians as cameras see them, with Pillow and NumPy only.

What belongs to a person, to a camera, to one walk of the person past the camera and to one frame of it follows from
separate random streams, so that no image depends on any other being drawn.
"""

from .shot import DISTRACTOR, JUNK, Shot, render

__all__ = ["DISTRACTOR", "JUNK", "Shot", "render"]
