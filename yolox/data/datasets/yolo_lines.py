"""Lines of YOLO label files: which of the formats that share ``.txt`` a set of them is in.

After the class comes a box, a box and a confidence, the corners of a polygon or of an oriented box,
or the box of a pose and its keypoints; and a polygon can be as long as a pose. The data.yaml says
which, or else all lines of a split together: polygons differ in length, and their corners make an
outline that does not cross itself; poses are all of one length, and their keypoints are in the box
that the first four numbers give. Fractions throughout. Shape suffixes: M lines of one length.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from yolox.data.datasets.outlines import Box, points_box
from yolox.data.errors import DataError

Floats = npt.NDArray[np.float64]

COORDINATE_TOLERANCE = 1e-3  # how far a value may be outside [0, 1]
_MAX_SAMPLED_LINES = 200  # lines of a length: enough to tell
_NEARLY_ALL = 0.9  # of the lines, where a few may be broken
_MAJORITY = 0.5
_GAP, _GAP_OF_FEW, _FEW = 0.3, 0.6, 10  # between what speaks for either; of fewer lines than these
_KEYPOINT_MARGIN = 0.1  # of a box: keypoints are set by hand, as boxes are
_MIN_KEYPOINT_SPREAD = 0.25  # of a box: closer together, they are not what it was drawn around
_EDGE_TOLERANCE = 0.02


class Line(NamedTuple):
    """One line with numbers after its class.

    Attributes:
        number: of the line in its file, from 1.
        category: the class as written.
        length: how many numbers come after the class.
        box: x1 y1 x2 y2 of the first four numbers as centre and sides.
        hull: x1 y1 x2 y2 around all of them as points; None of four or five numbers.
        box_inside, all_inside: whether the first four, or all of them, are 0 to 1.
    """

    number: int
    category: float
    length: int
    box: Box
    hull: Box | None
    box_inside: bool
    all_inside: bool


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What lines of a length are. `hull`: their box is that around their points."""

    words: str
    hull: bool = False
    all_fractions: bool = True


BOX = Kind(words="boxes")
SCORED_BOX = Kind(words="boxes with a confidence, which is left out")
POLYGON = Kind(words="polygons, whose bounding box is taken", hull=True)
SCORED_POLYGON = Kind(
    words="polygons with a confidence, which is left out, and whose bounding box is taken",
    hull=True,
)
ORIENTED = Kind(words="oriented boxes of four corners, whose bounding box is taken", hull=True)


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What a data.yaml says of its labels: (keypoints, numbers of each), and the task."""

    keypoints: tuple[int, int] | None = None
    task: str | None = None


def _pose(count: int, numbers: int) -> Kind:
    each = "with visibility" if numbers == 3 else "without visibility"
    plural = "keypoint" if count == 1 else "keypoints"
    return Kind(
        words=f"poses of {count} {plural} {each}, whose box is given by the first four numbers",
        all_fractions=False,
    )


class Lines:
    """The lines of a split as they are read, and what is needed to tell what they are."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self._looked_at: defaultdict[int, list[list[float]]] = defaultdict(list)

    def parse(self, number: int, text: str) -> Line:
        """Raises DataError for what is no line of any kind."""
        values = text.split()
        if "_" in text:  # which Python has in numbers
            raise DataError(f"is not all numbers: {text.strip()[:80]!r}")
        try:
            category, *numbers = map(float, values)
        except ValueError as error:
            raise DataError(f"is not all numbers ({error})") from None
        count = len(numbers)
        if count < 4:
            raise DataError(
                f"has {len(values)} numbers: expected a class and 4 of a box, or a class and the "
                f"x y of at least 3 corners"
            )
        self.counts[count] += 1
        x, y, width, height = numbers[:4]
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        low, high = -COORDINATE_TOLERANCE, 1 + COORDINATE_TOLERANCE
        inside = low <= x <= high and low <= y <= high and low <= width <= high
        inside = inside and low <= height <= high
        if count == 4:
            return Line(number, category, count, box, None, inside, inside)
        hull = None
        if count >= 6:
            even = count - count % 2
            hull = points_box(numbers[:even:2], numbers[1:even:2])
            if len(self._looked_at[count]) < _MAX_SAMPLED_LINES:
                self._looked_at[count].append(numbers)
        rest = all(low <= value <= high for value in numbers[4:])
        return Line(number, category, count, box, hull, inside, inside and rest)

    def kinds(self, declared: Declared) -> tuple[dict[int, Kind], str | None]:
        """What lines are by their count of numbers; and why that is not sure, None if it is.

        A count that is not among them cannot be used.
        """
        if declared.keypoints is not None:
            each = declared.keypoints[1]
            length = 4 + declared.keypoints[0] * each
            pose = _pose(declared.keypoints[0], each)
            return {4: BOX, length: pose, length + 1: pose}, None
        if all(count < 6 for count in self.counts):
            return {4: BOX, 5: SCORED_BOX}, None
        usual, lines = self.counts.most_common(1)[0]
        if declared.task == "pose":
            return {4: BOX, usual: self._best_pose(usual)[0]}, None
        if declared.task == "obb":
            return {4: BOX, 8: ORIENTED, 9: ORIENTED}, None
        if declared.task is None and usual >= 6 and lines >= _NEARLY_ALL * self.counts.total():
            judged = self._judge(usual)
            if judged is None:
                return self._polygons(), self._doubt(usual)
            if not judged.hull:
                return {usual: judged}, None
            return self._polygons() | {usual: judged}, None
        return self._polygons(), None

    def _polygons(self) -> dict[int, Kind]:
        even = {count: POLYGON for count in self.counts if count >= 6 and count % 2 == 0}
        if even or 4 in self.counts:
            return {4: BOX, **even}
        return {5: SCORED_BOX, **dict.fromkeys(self.counts, SCORED_POLYGON)}

    def _doubt(self, count: int) -> str:
        pose = self._best_pose(count)
        return (
            f"its lines of {count} numbers after the class can be polygons or poses. Say which in "
            f"it: `task: segment` for polygons, `kpt_shape: [{pose[1]}, {pose[2]}]` for poses"
        )

    # ---------------------------------------------------------------------------------- judging

    def _judge(self, count: int) -> Kind | None:
        """What nearly all lines are by their numbers, which are as many; None if not sure."""
        lines_M = np.array(self._looked_at[count])
        outline = POLYGON if count % 2 == 0 else SCORED_POLYGON
        points = lines_M[:, : count - count % 2].reshape(len(lines_M), -1, 2)
        pose, _, _, share = self._best_pose(count)
        if _visibilities(lines_M) and (share >= _MAJORITY or (lines_M[:, 6::3] == 2).any()):
            return pose  # 2 is no coordinate
        if points.shape[1] == 4 and _parallelograms(points).mean() >= _NEARLY_ALL:
            return ORIENTED
        if np.isclose(points[:, 0], points[:, -1], atol=1e-9).all(axis=1).mean() >= _NEARLY_ALL:
            return outline
        simple = float(np.mean([_is_simple(corners) for corners in points]))
        gap = _GAP_OF_FEW if len(lines_M) < _FEW else _GAP
        if share >= _MAJORITY and share - simple >= gap:
            return pose
        return outline if simple >= _MAJORITY and simple - share >= gap else None

    def _best_pose(self, count: int) -> tuple[Kind, int, int, float]:
        """As what pose lines make the most sense; its keypoints, numbers of each, share of lines.

        The numbers of a keypoint are x y or x y visibility; a last odd one is a confidence.
        """
        lines_M = np.array(self._looked_at[count])
        odd = count % 2
        shapes = [(2, 0)] if not odd else [(3, 0), (2, 1), (3, 1)]
        if _visibilities(lines_M):
            shapes = [(3, 0)]
        fitting = [
            ((count - 4 - scores) // each, each)
            for each, scores in shapes
            if (count - 4 - scores) % each == 0 and count > 4 + scores
        ]
        shares = [(_poses(lines_M, k, each), k, each) for k, each in fitting]
        share, k, each = max(shares, key=lambda found: found[0])
        return _pose(k, each), k, each, share


def _visibilities(lines_M: Floats) -> bool:
    """Whether every third number after the box is 0, 1 or 2, which coordinates never all are."""
    rest = lines_M[:, 4:]
    return rest.shape[1] % 3 == 0 and bool(np.isin(rest[:, 2::3], (0, 1, 2)).all())


def _poses(lines_M: Floats, keypoints: int, each: int) -> float:
    """Share of lines whose first four numbers are a box in the image around the keypoints."""
    centre, sides = lines_M[:, None, 0:2], lines_M[:, None, 2:4]
    points = lines_M[:, 4 : 4 + keypoints * each].reshape(len(lines_M), keypoints, each)
    seen = (points[..., :2] != 0).any(axis=2)  # what is not labelled is at 0, 0
    if each == 3:
        seen &= points[..., 2] > 0
    low_edge, high_edge = centre - sides / 2, centre + sides / 2
    inside = (low_edge >= -_EDGE_TOLERANCE) & (high_edge <= 1 + _EDGE_TOLERANCE)
    in_image = inside.all(axis=(1, 2))
    near = (
        np.abs(points[..., :2] - centre) <= sides * (0.5 + _KEYPOINT_MARGIN) + COORDINATE_TOLERANCE
    )
    around = (near.all(axis=2) | ~seen).all(axis=1)
    low = np.where(seen[..., None], points[..., :2], np.inf).min(axis=1)
    high = np.where(seen[..., None], points[..., :2], -np.inf).max(axis=1)
    spread = (high - low >= _MIN_KEYPOINT_SPREAD * sides[:, 0]).any(axis=1) | (seen.sum(axis=1) < 2)
    return float(((sides > 0).all(axis=(1, 2)) & in_image & around & spread).mean())


def _parallelograms(points: Floats) -> npt.NDArray[np.bool_]:
    """Bool (M,) of corners (M, 4, 2): opposite sides are alike, as of a turned box."""
    gap = np.abs(points[:, 0] + points[:, 2] - points[:, 1] - points[:, 3]).max(axis=1)
    size = np.ptp(points, axis=1).max(axis=1)
    alike: npt.NDArray[np.bool_] = gap <= 0.05 * size + COORDINATE_TOLERANCE
    return alike


def _is_simple(corners: Floats) -> bool:
    """Whether no two sides of an outline (P, 2) cross; touching is no crossing."""
    ends = np.roll(corners, -1, axis=0)
    sides = (ends - corners)[:, None]

    def turn(to: Floats) -> Floats:
        reach = to[None] - corners[:, None]
        return sides[..., 0] * reach[..., 1] - sides[..., 1] * reach[..., 0]

    apart = turn(corners) * turn(ends) < 0
    return not (apart & apart.T).any()
