"""Try models in the browser: a picture in, every model's detections side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from yolox.predict import CONF, NMS
from yolox.tools import cli
from yolox.web import HOST, PORT, import_gradio, load_candidates, require_port, serve


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = cli.make_parser(
        "Serve a page on this machine to try models on: drop a picture or use the camera, see what "
        "each finds, and move the threshold.",
        "python tools/web.py -c YOLOX_outputs/yolox_voc_s/best_ckpt.pth pruned.onnx",
    )
    parser.add_argument(
        "-c",
        "--ckpt",
        nargs="+",
        required=True,
        help="checkpoints and exported files, or names as yolox_nano",
    )
    parser.add_argument(
        "--conf", type=cli.fraction, default=CONF, help="where the threshold stands at first"
    )
    parser.add_argument(
        "--nms", type=cli.fraction, help=f"IoU of NMS ({NMS}; an exported file's own)"
    )
    parser.add_argument("--tsize", type=cli.side, help="square test size (each model's)")
    parser.add_argument(
        "--device", choices=("cpu", "gpu"), help="where checkpoints run (a GPU where there is one)"
    )
    parser.add_argument(
        "--host", default=HOST, help="address to serve at; 0.0.0.0 lets other machines in"
    )
    parser.add_argument("--port", type=_port, default=PORT, help="to serve at")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, load, serve."""
    args = make_parser().parse_args(argv)
    # Before models are loaded, which takes a while.
    import_gradio()
    require_port(args.host, args.port)
    device = {None: "auto", "gpu": "cuda"}.get(args.device, args.device)
    candidates = load_candidates(args.ckpt, nms=args.nms, size=args.tsize, device=device)
    serve(candidates, host=args.host, port=args.port, conf=args.conf)


def _port(text: str) -> int:
    value = cli.positive(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"must be at most 65535, got {text}")
    return value


if __name__ == "__main__":
    cli.entry(main)
