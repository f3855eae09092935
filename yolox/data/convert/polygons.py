"""Polygons cut by an upright rectangle. Corners are float64 (n, 2), x y in pixels."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Corners = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]


def convex_hull(corners: Corners) -> Corners:
    """The corners (m, 2) of the convex hull in order round it; repeated corners are left out.

    Of an object's four corners it is the outline, whichever order they were written in.
    """
    hull = cv2.convexHull(corners.astype(np.float32)).reshape(-1, 2)
    return np.asarray(hull, dtype=np.float64)


def polygon_area(corners: Corners) -> float:
    """The area of a simple polygon, in square pixels; 0 for fewer than three corners."""
    if len(corners) < 3:
        return 0.0
    # From a corner of its own: far from the origin the products would lose digits.
    x, y = (corners - corners[0]).T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def bounds(corners: Corners) -> Box:
    """The upright box x1 y1 x2 y2 around a polygon."""
    (x1, y1), (x2, y2) = corners.min(axis=0), corners.max(axis=0)
    return float(x1), float(y1), float(x2), float(y2)


def clip_polygon(corners: Corners, box: Box) -> Corners:
    """The part (m, 2) of a convex polygon inside an upright box; (0, 2) where there is none.

    Sutherland and Hodgman, "Reentrant polygon clipping", CACM 1974: one edge after the other.
    """
    for axis, limit, sign in ((0, box[0], 1), (1, box[1], 1), (0, box[2], -1), (1, box[3], -1)):
        corners = _clip_edge(corners, axis, limit, sign)
    return corners


def _clip_edge(corners: Corners, axis: int, limit: float, sign: int) -> Corners:
    """What lies on the side of a line where sign × (coordinate - limit) is not negative."""
    inside = sign * (corners[:, axis] - limit)
    if np.all(inside >= 0):
        return corners
    kept: list[Corners] = []
    for i, point in enumerate(corners):
        before, at = inside[i - 1], inside[i]
        if (before < 0) != (at < 0):
            crossing = corners[i - 1] + (point - corners[i - 1]) * (before / (before - at))
            crossing[axis] = limit  # exactly: it becomes the edge of a box
            kept.append(crossing)
        if at >= 0:
            kept.append(point)
    return np.array(kept, dtype=np.float64).reshape(-1, 2)
