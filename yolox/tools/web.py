"""Try models in the browser: a picture in, every model's detections side by side."""

from __future__ import annotations

from collections.abc import Sequence

from yolox.tools import cli
from yolox.tools.flags.web import make_parser
from yolox.web import import_gradio, load_candidates, require_port, serve


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, load, serve."""
    args = make_parser().parse_args(argv)
    # Before models are loaded, which takes a while.
    import_gradio()
    require_port(args.host, args.port)
    candidates = load_candidates(args.ckpt, nms=args.nms, size=args.tsize, device=args.device)
    serve(candidates, host=args.host, port=args.port, conf=args.conf)


if __name__ == "__main__":
    cli.entry(main, make_parser)
