"""Detect objects in an image, or in all images of a folder, and write annotated pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from loguru import logger
from numpy.typing import NDArray

from yolox.data import ValTransform
from yolox.data.datasets import COCO_CLASSES
from yolox.models import load_model
from yolox.tools import cli
from yolox.utils.boxes import postprocess
from yolox.utils.errors import UserError
from yolox.utils.progress import track
from yolox.utils.visualize import vis

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def find_images(path: Path) -> list[Path]:
    """The image itself, or the images below a folder, sorted.

    Raises:
        UserError: no such path, or no image there.
    """
    if path.is_file():
        return [path]
    images = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise UserError(
            f"no image at {path}: give --path an image, or a folder that holds "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    return images


@torch.inference_mode()
def detect(
    model: torch.nn.Module,
    image: NDArray[np.uint8],
    *,
    size: tuple[int, int],
    num_classes: int,
    conf: float,
    nms: float,
) -> NDArray[np.float32]:
    """Detections (k, 7) of a BGR image: x1, y1, x2, y2 in its pixels, obj, class score, class."""
    device = next(model.parameters()).device
    pixels, _ = ValTransform()(image, None, size)
    batch = torch.from_numpy(pixels).unsqueeze(0).to(device, memory_format=torch.channels_last)
    (rows,) = postprocess(model(batch), num_classes, conf, nms)
    if rows is None:
        return np.empty((0, 7), dtype=np.float32)
    found: NDArray[np.float32] = rows.float().cpu().numpy()
    found[:, :4] /= min(size[0] / image.shape[0], size[1] / image.shape[1])
    return found


def _write(target: Path, picture: NDArray[np.uint8]) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        written = cv2.imwrite(str(target), picture)
    except OSError:
        written = False
    if not written:
        raise UserError(f"cannot write {target}: choose another --save_dir")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, load, detect, write."""
    parser = cli.make_parser(
        "Detect objects in an image or a folder; annotated pictures go to --save_dir.",
        "python tools/demo.py -c YOLOX_outputs/yolox_voc_s/best_ckpt.pth --path photos",
    )
    parser.add_argument("-c", "--ckpt", type=Path, required=True, help="checkpoint")
    parser.add_argument("--path", type=Path, required=True, help="image or folder")
    parser.add_argument(
        "--save_dir", type=Path, default=Path("YOLOX_outputs/demo"), help="where pictures go"
    )
    parser.add_argument("--conf", type=cli.fraction, default=0.3, help="least score of a detection")
    parser.add_argument("--nms", type=cli.fraction, default=0.45, help="IoU of NMS")
    parser.add_argument("--tsize", type=cli.side, help="square test size (the checkpoint's)")
    args = parser.parse_args(argv)

    loaded = load_model(args.ckpt)
    size = (args.tsize, args.tsize) if args.tsize else loaded.spec.input_size
    names = loaded.spec.class_names or (COCO_CLASSES if loaded.spec.num_classes == 80 else None)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = loaded.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = find_images(args.path)
    root = args.path if args.path.is_dir() else args.path.parent
    unread = []
    for path in track(images, "Detecting"):
        image = cv2.imread(str(path))
        if image is None:
            unread.append(path)
            continue
        found = detect(
            model,
            image,
            size=size,
            num_classes=loaded.spec.num_classes,
            conf=args.conf,
            nms=args.nms,
        )
        target = args.save_dir / path.relative_to(root)
        scores = found[:, 4] * found[:, 5]
        picture = vis(image, found[:, :4], scores, found[:, 6], args.conf, names)
        _write(target, picture)
        labels = [names[int(k)] if names else str(int(k)) for k in found[:, 6]]
        listing = ", ".join(
            f"{label} {score:.2f}" for label, score in zip(labels, scores, strict=True)
        )
        logger.info(f"{path.name}: {listing or 'nothing found'} → {target}")
    if unread:
        raise UserError(
            f"{len(unread)} of {len(images)} files cannot be decoded as images: "
            + ", ".join(map(str, unread[:10]))
        )


if __name__ == "__main__":
    cli.entry(main)
