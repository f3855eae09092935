"""Detect objects in images, a video or a camera's pictures, and write them annotated."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import cv2
from loguru import logger

from yolox.data.sources import Camera, Images, Source, Video, open_source
from yolox.export import is_exported
from yolox.export.runtime import refuse_for_exported
from yolox.predict import Detector, Prediction, load
from yolox.tools import cli
from yolox.tools.flags.demo import KINDS, make_parser
from yolox.utils.choices import TILE_OVERLAP
from yolox.utils.errors import UserError
from yolox.utils.printable import printable
from yolox.utils.progress import track
from yolox.utils.video import writing_video

CAMERA_FPS = 15.0  # of the written video: a camera does not say what it really gives


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, load, detect, write."""
    args = make_parser().parse_args(argv)
    _read_words(args)
    _check(args)
    cli.tell_idle(
        (
            "--overlap",
            not args.tile and args.overlap != TILE_OVERLAP,
            "nothing is cut: give --tile",
        ),
        ("-expn", args.ckpt and args.experiment_name, "-c names the checkpoint"),
    )
    detector = _load(args)
    source = _source(args)
    if isinstance(source, Images):
        _refuse_overwriting(source, args)
    frames = detector.frames(source, tile=args.tile, overlap=args.overlap)
    total = None if isinstance(source, Camera) else len(source)
    with _writer(source, args) as write:
        start, seen = time.perf_counter(), 0
        try:
            for found in track(frames, "Detecting", total):
                write(found)
                seen += 1
        except KeyboardInterrupt:
            if not isinstance(source, Camera):
                raise
            logger.info("stopped")  # a camera has no end of its own
    if not isinstance(source, Images):
        seconds = time.perf_counter() - start
        logger.info(f"{seen} frames, {seen / seconds:.1f} a second")


def _read_words(args: argparse.Namespace) -> None:
    """Take the kind, `demo`, and the place, `path`, from the words without a flag."""
    args.demo = args.what[0] if args.what and args.what[0] in KINDS else None
    places = args.what[args.demo is not None :] + ([args.path] if args.path else [])
    if len(places) > 1:
        raise UserError(
            f"{len(places)} places to look at ({', '.join(places[:3])}"
            f"{', …' if len(places) > 3 else ''}): give one, a folder or a pattern in quotes for "
            f"many pictures; kinds are {', '.join(KINDS)}"
        )
    args.path = places[0] if places else None


def _check(args: argparse.Namespace) -> None:
    """Raise `UserError` for flags that do not go together."""
    if args.tile and not 0 <= args.overlap < args.tile:
        raise UserError(f"--overlap: expected 0 to {args.tile - 1} for this --tile")
    if args.demo == "webcam" and args.path:
        raise UserError(f"webcam takes its pictures from --camid: leave out {args.path}")
    if args.demo == "webcam" and not args.save_result:
        raise UserError(
            "a camera's pictures can be written but not shown, for OpenCV comes without a window "
            "here: give --save_result"
        )
    if args.demo != "webcam" and not args.path:
        raise UserError("name what to look at: an image, a folder, a video or webcam")


def _source(args: argparse.Namespace) -> Source:
    """What the place or --camid names, which has to be of the kind that was asked for."""
    if args.demo == "webcam":
        return open_source(args.camid)
    source = open_source(args.path)
    if args.demo == "video" and isinstance(source, Images):
        raise UserError(f"{args.path} is no video by its name: leave out the word video")
    if args.demo == "image" and not isinstance(source, Images):
        raise UserError(f"{args.path} is a video: leave out the word image, or say video")
    return source


def _load(args: argparse.Namespace) -> Detector:
    names: Sequence[str] = ()
    if args.ckpt is None or args.exp_file or args.name:
        exp = cli.load_exp(argparse.Namespace(**vars(args), opts=[]))
        names = exp.class_names
        args.ckpt = args.ckpt or exp.output_folder(args.experiment_name) / "best_ckpt.pth"
    if is_exported(args.ckpt):
        flags = {"--fuse": args.fuse, "--fp16": args.fp16}
        refuse_for_exported(args.ckpt, flags)
    return load(
        args.ckpt,
        conf=args.conf,
        nms=args.nms,
        max_candidates=args.max_candidates,
        size=args.tsize,
        device=args.device,
        half=args.fp16,
        fuse=args.fuse,
        legacy=args.legacy,
        names=names,
    )


def _refuse_overwriting(source: Images, args: argparse.Namespace) -> None:
    given = {path.resolve() for path in source.paths}
    if any((args.save_dir / name).resolve() in given for name in source.names):
        raise UserError(f"{args.save_dir} holds the pictures to look at: choose another --save_dir")


@contextmanager
def _writer(source: Source, args: argparse.Namespace) -> Iterator[Callable[[Prediction], None]]:
    """What to do with each prediction: a picture each, or the frames of one video."""
    if isinstance(source, Images):

        def picture(found: Prediction) -> None:
            target = args.save_dir / found.name
            if not cv2.haveImageWriter(target.name):
                target = target.with_name(f"{target.name}.png")
            found.save(target)
            shown, place = printable(found.name), printable(str(target))
            logger.info(f"{shown}: {_listing(found)} → {place}")

        yield picture
        return
    name = f"{source.path.stem}.mp4" if isinstance(source, Video) else f"camera_{args.camid}.mp4"
    target = args.save_dir / name
    if isinstance(source, Video) and target.resolve() == source.path.resolve():
        raise UserError(f"{target} is the video to look at: choose another --save_dir")
    with writing_video(target, source.fps or CAMERA_FPS) as append:
        yield lambda found: append(found.plot())
    logger.info(f"written to {target}")


def _listing(found: Prediction) -> str:
    return (
        ", ".join(
            f"{printable(label)} {score:.2f}"
            for label, score in zip(found.class_names, found.scores, strict=True)
        )
        or "nothing found"
    )


if __name__ == "__main__":
    cli.entry(main, make_parser)
