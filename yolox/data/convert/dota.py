"""DOTA's aerial images with oriented boxes → tiles with upright boxes, in the layout of VOC.

An image is cut into overlapping tiles, and each object's outline with it: a rotated object at a
tile's edge gets the upright box of the part that the tile shows, not the cut box of the whole.
What a tile shows too little of is left out, see `TileSettings`. The image's own ground truth goes
into ``VOC<year>/Whole``, last of all its files: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
from loguru import logger

from yolox.data.convert.cut import CutJob, CutResult, Shape, TileSettings, cut
from yolox.data.convert.labels import DotaObject, dota_classes, read_labels
from yolox.data.convert.polygons import bounds, clip_polygon, convex_hull, polygon_area
from yolox.data.datasets.voc import CLASSES_FILE
from yolox.data.errors import DataError, bullets
from yolox.data.image_header import ImageError
from yolox.data.image_size import read_image_size
from yolox.data.tiles import WHOLE_FOLDER, WholeRecord
from yolox.utils.files import replacing, require_writable
from yolox.utils.locks import claimed
from yolox.utils.progress import track

__all__ = ["Conversion", "convert_dota"]

_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What a conversion made.

    Attributes:
        folder: VOC<year>.
        images: whole ones.
        tiles: written, now or by an earlier run that was stopped.
        objects, difficult: in the tiles; the second are among the first.
        classes: the class list.
    """

    folder: Path
    images: int
    tiles: int
    objects: int
    difficult: int
    classes: tuple[str, ...]


def convert_dota(
    images: Path,
    labels: Path,
    devkit: Path,
    *,
    year: str = "2007",
    split: str = "train",
    settings: TileSettings | None = None,
    workers: int = 1,
) -> Conversion:
    """Write the tiles of all images to ``devkit/VOC<year>`` and add their names to a split.

    Args:
        images: folder of images, as ``P0706.png``, of DOTA 1.0, 1.5 or 2.0.
        labels: folder of their label files, as ``P0706.txt``.
        devkit: folder to write into.
        year: of the folder ``VOC<year>``; its splits share their class list.
        split: file of image names that the tiles are added to.
        settings: how to cut.
        workers: processes; each decodes an image at a time, which takes 6 bytes a pixel.

    Images that are there already, cut in the same way from the same labels, are not cut again.
    Nothing is written before all label files have been read.

    Raises:
        DataError: listing all files that cannot be used; or ``VOC<year>`` holds other data, or one
            of the images cut in another way.
    """
    settings = settings or TileSettings()
    for what, value in (("year", year), ("split", split)):
        if not re.fullmatch(r"[\w.-]+", value):
            raise DataError(f"{what}: expected letters, digits, '-', '_' or '.', got {value!r}")
    folder = devkit / f"VOC{year}"
    jobs = _plan(images, labels, folder, split, settings)
    with claimed(folder, DataError):
        return _convert(jobs, folder, split, workers, images)


def _convert(
    jobs: list[CutJob], folder: Path, split: str, workers: int, images: Path
) -> Conversion:
    """Cut all images, then write the split."""
    require_writable(folder / WHOLE_FOLDER, DataError)
    done = list(track(_run(jobs, workers), "Cutting", total=len(jobs)))
    problems = [entry.problem for entry in done if entry.problem]
    if problems:
        raise DataError(
            f"{len(problems)} of {len(jobs)} images cannot be cut. Correct or remove them and run "
            f"again: what is done stays, and the split is written at the end:{bullets(problems)}"
        )
    tiles = [name for entry in done for name in entry.tiles]
    if not tiles:
        raise DataError(f"no tile of {images} holds an object: raise keep_empty to keep some")
    found = {shape.name for job in jobs for shape in job.shapes}
    classes = _merge_lists(folder, split, tiles, found)
    return Conversion(
        folder=folder,
        images=len(jobs),
        tiles=len(tiles),
        objects=sum(entry.objects for entry in done),
        difficult=sum(entry.difficult for entry in done),
        classes=classes,
    )


# ----------------------------------------------------------------------------------------- planning


def _plan(
    images: Path, labels: Path, folder: Path, split: str, settings: TileSettings
) -> list[CutJob]:
    """A job for each image. Raises DataError with everything that is wrong."""
    if (folder / "JPEGImages").exists() and not (folder / WHOLE_FOLDER).exists():
        raise DataError(
            f"{folder} holds data that this converter did not write: choose another `output` or "
            "`year`"
        )
    problems: list[str] = []
    jobs, outside = [], 0
    for image, label in track(_pairs(images, labels), "Reading"):
        objects, wrong = read_labels(label)
        problems += wrong
        try:
            size = read_image_size(image)
        except ImageError as error:
            problems.append(f"{image}: {error.what}")
            continue
        if wrong:
            continue
        shapes = _shapes(objects, size)
        outside += len(objects) - len(shapes)
        record = _record(image.stem, size, shapes, split, settings)
        job = CutJob(image=image, folder=folder, shapes=shapes, record=record, settings=settings)
        problems += _conflict(job)
        jobs.append(job)
    if problems:
        raise DataError(f"nothing was converted, problems: {len(problems)}{bullets(problems)}")
    if outside:
        logger.warning(f"{outside} objects have no area inside their image and are left out")
    return jobs


def _pairs(images: Path, labels: Path) -> list[tuple[Path, Path]]:
    """Images with their label files, by name."""
    for what, path in (("images", images), ("labels", labels)):
        if not path.is_dir():
            raise DataError(f"the folder of {what} {path} is not there")
    found: dict[str, list[Path]] = {}
    for path in sorted(images.iterdir()):
        if path.suffix.lower() in _EXTENSIONS:
            found.setdefault(path.stem, []).append(path)
    texts = {path.stem: path for path in labels.glob("*.txt")}
    if not found:
        raise DataError(f"no image in {images}: looked for {', '.join(_EXTENSIONS)}")
    twice = [", ".join(path.name for path in paths) for paths in found.values() if len(paths) > 1]
    bare = [stem for stem in found if stem not in texts]
    if twice or bare:
        raise DataError(
            f"{images} and {labels} do not fit together; give each image one label file of its "
            f"name, empty if it shows nothing:"
            + bullets(
                [f"several images of one name: {names}" for names in twice]
                + [f"{stem}: no {stem}.txt" for stem in bare]
            )
        )
    if alone := sorted(set(texts) - set(found)):
        logger.warning(
            f"{len(alone)} label files have no image in {images} and are left out: "
            f"{', '.join(alone[:5])}{', …' if len(alone) > 5 else ''}"
        )
    return [(paths[0], texts[stem]) for stem, paths in found.items()]


def _shapes(objects: Sequence[DotaObject], size: tuple[int, int]) -> tuple[Shape, ...]:
    """What of each object lies in the image; objects without area there are left out."""
    shapes = []
    for entry in objects:
        outline = clip_polygon(convex_hull(entry.corners), (0, 0, size[1], size[0]))
        if polygon_area(outline) > 0:
            shapes.append(Shape(name=entry.name, outline=outline, difficult=entry.difficult))
    return tuple(shapes)


def _record(
    name: str,
    size: tuple[int, int],
    shapes: Sequence[Shape],
    split: str,
    settings: TileSettings,
) -> WholeRecord:
    rest = asdict(settings)
    return WholeRecord(
        name=name,
        height=size[0],
        width=size[1],
        size=rest.pop("size"),
        overlap=rest.pop("overlap"),
        settings=rest | {"split": split},
        names=tuple(shape.name for shape in shapes),
        boxes=tuple(bounds(shape.outline) for shape in shapes),
        difficult=tuple(shape.difficult for shape in shapes),
    )


def _conflict(job: CutJob) -> list[str]:
    """Why the image cannot be put beside what is there."""
    path, new = job.record_path, job.record
    if not path.exists():
        return []
    try:
        old = WholeRecord.read(path)
    except DataError as error:
        return [f"{path}: {error}"]
    if old == new:
        return []
    pairs = {
        **{key: (getattr(old, key), getattr(new, key)) for key in ("size", "overlap")},
        **{key: (old.settings.get(key), value) for key, value in new.settings.items()},
    }
    differences = [f"{key} {was}, not {now}" for key, (was, now) in pairs.items() if was != now]
    return [
        f"{new.name} is in {job.folder} already, made with "
        f"{', '.join(differences) or 'other labels'}: choose another `output` or `year`"
    ]


# ------------------------------------------------------------------------------------------ cutting


def _run(jobs: Sequence[CutJob], workers: int) -> Iterator[CutResult]:
    if workers == 1 or len(jobs) == 1:
        yield from map(cut, jobs)
        return
    # Not forked: OpenCV's and torch's threads would be copied in whatever state they are.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(jobs)), context, initializer=cv2.setNumThreads, initargs=(0,)
    ) as pool:
        try:
            yield from pool.map(cut, jobs)
        except BrokenProcessPool:
            raise DataError(
                "a worker was ended by the system, most likely for want of memory: run again with "
                "fewer `workers`, what is done stays"
            ) from None


def _merge_lists(
    folder: Path, split: str, tiles: Sequence[str], found: set[str]
) -> tuple[str, ...]:
    """Add tiles to the split and classes to the class list; returns the list."""
    listed = _lines(folder / CLASSES_FILE)
    classes = dota_classes(found, listed)
    if listed and classes != tuple(listed):
        logger.warning(
            f"the class list of {folder.name} grows from {len(listed)} to {len(classes)}: a model "
            f"trained on the shorter one does not fit any more"
        )
    split_file = folder / "ImageSets" / "Main" / f"{split}.txt"
    names = sorted({*_lines(split_file), *tiles})
    for path, lines in ((folder / CLASSES_FILE, classes), (split_file, names)):
        with replacing(path, DataError) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return classes


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8").split("\n")[:-1]
