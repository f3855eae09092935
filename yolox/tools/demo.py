"""Detect objects in an image, or in all images of a folder, and write annotated pictures."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from loguru import logger
from numpy.typing import NDArray

from yolox.data import ValTransform
from yolox.data.datasets import COCO_CLASSES
from yolox.data.datasets.decoding import read_image
from yolox.data.datasets.files import IMAGE_EXTENSIONS
from yolox.data.errors import bullets
from yolox.data.image_header import ImageError
from yolox.data.tiles import Window, tile_windows
from yolox.evaluators import ImageDetections
from yolox.evaluators.tiled import merge_tiles
from yolox.exp import Exp
from yolox.export import is_exported
from yolox.models import ModelSpec, load_model
from yolox.tools import cli
from yolox.tools.exported import open_file
from yolox.utils.boxes import postprocess
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError
from yolox.utils.files import write_bytes
from yolox.utils.model_utils import fuse_model
from yolox.utils.printable import printable
from yolox.utils.progress import track
from yolox.utils.visualize import vis

CONF, NMS = 0.3, 0.45  # of a checkpoint, where nothing else is asked
TILE_BATCH = 4  # tiles a forward pass
OVERLAP = 200  # of tiles, pixels: as tools/convert_dota.py cuts them


def find_images(path: Path) -> list[Path]:
    """The image itself, or the images below a folder, sorted.

    Raises:
        UserError: no such path, or no image there.
    """
    if path.is_file():
        return [path]
    images = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_EXTENSIONS)
    if not images:
        raise UserError(
            f"no image at {path}: give --path an image, or a folder that holds "
            f"{', '.join(IMAGE_EXTENSIONS)}"
        )
    return images


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A model with what it takes to detect with it.

    Attributes:
        model: in evaluation mode, where it is to run; or an exported file.
        size: (height, width) of its input, pixels.
        num_classes: of the model.
        conf: least score of a detection, in [0, 1].
        nms: IoU of NMS, in [0, 1].
        legacy: input of the oldest weights: RGB, scaled as for ImageNet.
        autocast: dtype for mixed precision, None for the model's own.
    """

    model: torch.nn.Module
    size: tuple[int, int]
    num_classes: int
    conf: float
    nms: float
    legacy: bool = False
    autocast: torch.dtype | None = None

    @torch.inference_mode()
    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Detections (k, 7) of each BGR image of a batch, by falling score.

        Columns: x1, y1, x2, y2 in the image's own pixels, obj, class score, class.
        """
        transform = ValTransform(legacy=self.legacy)
        pixels = np.stack([transform(image, None, self.size)[0] for image in images])
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        batch = torch.from_numpy(pixels).to(device, memory_format=torch.channels_last)
        with self._precision(device):
            prediction = self.model(batch)
        found = []
        for image, rows in zip(
            images, postprocess(prediction, self.num_classes, self.conf, self.nms), strict=True
        ):
            array = np.empty((0, 7), np.float32) if rows is None else rows.float().cpu().numpy()
            array[:, :4] /= min(self.size[0] / image.shape[0], self.size[1] / image.shape[1])
            found.append(array)
        return found

    def detect_whole(self, image: NDArray[np.uint8]) -> ImageDetections:
        """Detections of a BGR image of any size, shown to the network at once."""
        return _as_detections(self.detect([image])[0])

    def detect_tiled(self, image: NDArray[np.uint8], tile: int, overlap: int) -> ImageDetections:
        """Detections of a BGR image of any size, shown to the network tile by tile.

        Tiles are those of :func:`yolox.data.tiles.tile_windows`, and their detections are merged
        as evaluation on whole images merges them.
        """
        windows = tile_windows(image.shape[0], image.shape[1], tile, overlap)
        found = [
            _as_detections(rows)
            for batch in _batches(image, windows)
            for rows in self.detect(batch)
        ]
        return merge_tiles(
            found, [window[:2] for window in windows], image_id=0, nms_threshold=self.nms
        )

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.autocast)


def _batches(
    image: NDArray[np.uint8], windows: Sequence[Window]
) -> Iterator[list[NDArray[np.uint8]]]:
    for start in range(0, len(windows), TILE_BATCH):
        yield [image[y1:y2, x1:x2] for x1, y1, x2, y2 in windows[start : start + TILE_BATCH]]


def _as_detections(rows: NDArray[np.float32]) -> ImageDetections:
    return ImageDetections(
        image_id=0,
        boxes=rows[:, :4],
        scores=rows[:, 4] * rows[:, 5],
        classes=rows[:, 6].astype(np.int64),
    )


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = cli.make_parser(
        "Detect objects in an image or a folder; annotated pictures go to --save_dir.",
        "python tools/demo.py -c YOLOX_outputs/yolox_voc_s/best_ckpt.pth --path photos",
    )
    parser.add_argument("demo", nargs="?", default="image", help="image: what --path names")
    parser.add_argument(
        "-c", "--ckpt", type=Path, help="checkpoint or exported file (the Exp's best_ckpt.pth)"
    )
    parser.add_argument("--path", type=Path, required=True, help="image or folder")
    parser.add_argument(
        "--save_dir", type=Path, default=Path("YOLOX_outputs/demo"), help="where pictures go"
    )
    parser.add_argument(
        "--save_result", action="store_true", help="accepted for old scripts: pictures are written"
    )
    parser.add_argument(
        "--conf",
        type=cli.fraction,
        help=f"least score of a detection ({CONF}; an exported file's own)",
    )
    parser.add_argument(
        "--nms", type=cli.fraction, help=f"IoU of NMS ({NMS}; an exported file's own)"
    )
    parser.add_argument("--tsize", type=cli.side, help="square test size (the checkpoint's)")
    parser.add_argument("--legacy", action="store_true", help="input of the oldest weights: RGB")
    parser.add_argument("--fuse", action="store_true", help="fold batch norms first")
    parser.add_argument("--fp16", action="store_true", help="half precision (bf16 on a CPU)")
    parser.add_argument(
        "--device", choices=("cpu", "gpu"), help="where to run (a GPU where there is one)"
    )
    large = parser.add_argument_group("large images")
    large.add_argument(
        "--tile", type=cli.positive, help="detect in tiles of this side, pixels, and merge"
    )
    large.add_argument(
        "--overlap", type=cli.natural, default=OVERLAP, help="of neighbouring tiles, pixels"
    )
    exp = parser.add_argument_group("recipe, which names the checkpoint where -c does not")
    exp.add_argument("-f", "--exp_file", type=Path, help="Exp file")
    exp.add_argument("-n", "--name", help="built-in Exp: yolox-nano … yolox-x, yolov3")
    exp.add_argument("-expn", "--experiment-name", help="output folder's name (the Exp's)")
    return parser


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.demo != "image":
        supported = "video and webcam are not supported: cut the video into images first"
        parser.error(f"expected image or nothing before the flags, got {args.demo}; {supported}")
    if args.tile and not 0 <= args.overlap < args.tile:
        parser.error(f"--overlap: expected 0 to {args.tile - 1} for this --tile")
    if args.device == "gpu" and not torch.cuda.is_available():
        raise UserError("--device gpu: PyTorch finds no GPU here, use --device cpu")


def _load(args: argparse.Namespace) -> tuple[Detector, Sequence[str] | None]:
    """The detector, and its class names where they are known."""
    exp: Exp | None = None
    if args.ckpt is None or args.exp_file or args.name:
        exp = cli.load_exp(argparse.Namespace(**vars(args), opts=[]))
    if args.ckpt is None and exp is not None:
        args.ckpt = exp.output_folder(args.experiment_name) / "best_ckpt.pth"
    gpu = torch.cuda.is_available() and args.device != "cpu"
    model, spec = _load_file(args) if is_exported(args.ckpt) else _load_checkpoint(args, gpu)
    size = (args.tsize, args.tsize) if args.tsize else spec.input_size
    names = _names(args.ckpt, spec, exp)
    half = torch.float16 if gpu else torch.bfloat16
    detector = Detector(
        model=model,
        size=size,
        num_classes=spec.num_classes,
        conf=args.conf,
        nms=args.nms,
        legacy=args.legacy,
        autocast=half if args.fp16 else None,
    )
    return detector, names or None


def _names(path: Path, spec: ModelSpec, exp: Exp | None) -> Sequence[str]:
    """Class names for the pictures; empty where nothing tells them."""
    if spec.class_names:
        return spec.class_names
    count, own = spec.num_classes, tuple(exp.class_names) if exp else ()
    if len(own) == count:
        return own
    names = COCO_CLASSES if count == len(COCO_CLASSES) else ()
    logger.warning(
        f"{path} does not name its {count} classes: "
        f"{'COCO names in the usual order' if names else 'numbers'} are shown; to name them, give "
        "-f an Exp that sets class_names, or write a file that has them: python tools/prunmodel.py "
        f"--mode save -c {path} -o named.pth class_names NAME,NAME,…"
    )
    return names


def _load_checkpoint(args: argparse.Namespace, gpu: bool) -> tuple[torch.nn.Module, ModelSpec]:
    args.conf = CONF if args.conf is None else args.conf
    args.nms = NMS if args.nms is None else args.nms
    loaded = load_model(resolve_weights(args.ckpt))
    model = fuse_model(loaded.model) if args.fuse else loaded.model
    device = "cuda" if gpu else "cpu"
    return model.to(device, memory_format=torch.channels_last), loaded.spec  # type: ignore[call-overload]


def _load_file(args: argparse.Namespace) -> tuple[torch.nn.Module, ModelSpec]:
    flags = {"--fuse": args.fuse, "--fp16": args.fp16, "--device gpu": args.device == "gpu"}
    model, spec = open_file(args.ckpt, tsize=args.tsize, flags=flags)
    args.conf = model.info.conf_threshold if args.conf is None else args.conf
    args.nms = model.info.nms_threshold if args.nms is None else args.nms
    if loss := model.nms_loss(args.conf, args.nms):
        logger.warning(loss)
    return model, spec


def _target(path: Path) -> Path:
    """Where a picture goes: by its own name, as PNG where OpenCV writes no file of that suffix."""
    return path if cv2.haveImageWriter(str(path)) else path.with_name(f"{path.name}.png")


def _write(target: Path, picture: NDArray[np.uint8]) -> None:
    try:
        encoded = cv2.imencode(target.suffix, picture)[1].tobytes()
    except cv2.error as error:
        raise UserError(
            f"cannot write {target}: OpenCV writes no {target.suffix or 'pictures without suffix'}"
            ", so convert the picture first"
        ) from error
    write_bytes(target, encoded)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, load, detect, write."""
    parser = make_parser()
    args = parser.parse_args(argv)
    _check(parser, args)
    cli.tell_idle(
        ("--overlap", not args.tile and args.overlap != OVERLAP, "nothing is cut: give --tile"),
        ("-expn", args.ckpt and args.experiment_name, "-c names the checkpoint"),
    )
    detector, names = _load(args)
    images = find_images(args.path)
    root = args.path if args.path.is_dir() else args.path.parent
    given = {path.resolve() for path in images}
    if any((args.save_dir / path.relative_to(root)).resolve() in given for path in images):
        raise UserError(f"{args.save_dir} holds the pictures to look at: choose another --save_dir")
    unread = []
    for path in track(images, "Detecting"):
        try:
            image = read_image(path)
        except ImageError as error:
            unread.append(f"{path} {error.what}")
            continue
        if args.tile:
            found = detector.detect_tiled(image, args.tile, args.overlap)
        else:
            found = detector.detect_whole(image)
        target = _target(args.save_dir / path.relative_to(root))
        picture = vis(image, found.boxes, found.scores, found.classes, args.conf, names)
        _write(target, picture)
        labels = [printable(names[k]) if names else str(k) for k in found.classes.tolist()]
        listing = ", ".join(
            f"{label} {score:.2f}" for label, score in zip(labels, found.scores, strict=True)
        )
        shown, place = printable(path.name), printable(str(target))
        logger.info(f"{shown}: {listing or 'nothing found'} → {place}")
    if unread:
        raise UserError(f"{len(unread)} of {len(images)} files cannot be decoded:{bullets(unread)}")


if __name__ == "__main__":
    cli.entry(main)
