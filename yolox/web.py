"""A page in the browser to try models: a picture in, every model's detections side by side."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from loguru import logger
from numpy.typing import NDArray

from yolox.bench.plan import file_bytes
from yolox.data.decoding import read_image
from yolox.export.exported_model import ExportedModel
from yolox.predict import Detector, load
from yolox.utils.choices import CONF
from yolox.utils.download import resolve_weights
from yolox.utils.errors import UserError
from yolox.utils.extras import import_extra
from yolox.utils.files import short_names
from yolox.utils.model_utils import count_params
from yolox.utils.visualize import vis

MIN_SCORE = 0.05  # that is asked of a model: where the threshold begins
MAX_SIDE = 1280  # pixels of a picture on the page
MAX_FILE_SIZE = "100mb"

# Before Gradio is imported: nothing is told to anybody.
_ENVIRONMENT = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
# The browser itself keeps the page to this server.
_POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; frame-ancestors 'none'; "
    "base-uri 'self'; form-action 'self'"
)
_FONT = ("system-ui", "sans-serif")
_CSS = """
.gradio-container { width: 100%; max-width: 1500px !important; margin: 0 auto !important; }
.html-container:has(.model) { padding: 0 !important; }
.model h3 { margin: 0; font-size: 1.05rem; overflow-wrap: anywhere; }
.model p { margin: .2rem 0 0; }
.model .facts { opacity: .75; font-size: .85rem; }
"""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model on the page.

    Attributes:
        label: tells it from the others.
        detector: asks for all that the threshold can reach.
        facts: what is known of it without a picture, a few words each.
    """

    label: str
    detector: Detector
    facts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownDetections:
    """What a model found in the picture on the page; boxes (n, 4) are in pixels of `image`."""

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    names: tuple[str, ...]
    milliseconds: float


def load_candidates(sources: Sequence[str | Path], **options: Any) -> list[Candidate]:
    """Models by their files, each run once so that the first picture is timed fairly.

    Args:
        sources: checkpoints, names of published weights, or exported files.
        options: those of `yolox.predict.load`, but for `conf`.

    Raises:
        UserError: a file that cannot be loaded, or is given twice.
    """
    paths = [Path(s) if Path(s).exists() else resolve_weights(s) for s in sources]
    candidates = []
    for path, label in zip(paths, short_names(paths), strict=True):
        detector = load(path, **options)
        model = detector.model
        if isinstance(model, ExportedModel):
            facts = [f"{model.info.format}, {model.precision}"]
        else:
            facts = [f"{count_params(model) / 1e6:.2f} M parameters"]
        if isinstance(model, ExportedModel) and model.info.nms:
            facts.append(f"keeps scores of {detector.conf:g} or more")
        else:
            detector = replace(detector, conf=MIN_SCORE)
        height, width = detector.size
        detector.predict(np.zeros((height, width, 3), np.uint8))
        facts = [f"{file_bytes(path) / 1e6:.1f} MB", *facts, f"{height} × {width}"]
        candidates.append(Candidate(label=label, detector=detector, facts=tuple(facts)))
    return candidates


def detect_all(candidates: Sequence[Candidate], image: NDArray[np.uint8]) -> list[ShownDetections]:
    """Every model's detections in a BGR image (H, W, 3), which is made smaller to be shown."""
    scale = min(1.0, MAX_SIDE / max(image.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    small = image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    seen = []
    for candidate in candidates:
        start = time.perf_counter()
        (found,) = candidate.detector.predict(image)
        seconds = time.perf_counter() - start
        seen.append(
            ShownDetections(
                image=np.asarray(small, np.uint8),
                boxes=found.boxes * np.float32(scale),
                scores=found.scores,
                classes=found.classes,
                names=found.names,
                milliseconds=seconds * 1e3,
            )
        )
    return seen


def headline(candidate: Candidate, shown: ShownDetections | None, threshold: float) -> str:
    """A model's name, its facts, and what it found, as HTML; names are escaped."""
    facts = [fact.replace(" ", "\N{NO-BREAK SPACE}") for fact in candidate.facts]
    found = ""
    if shown is not None:
        facts.insert(0, f"{shown.milliseconds:.0f}\N{NO-BREAK SPACE}ms")
        counts = Counter(shown.classes[shown.scores >= threshold].tolist())
        words = [
            (f"{count} × " if count > 1 else "") + (shown.names[k] if shown.names else f"class {k}")
            for k, count in counts.most_common()
        ]
        found = ", ".join(words) or f"nothing with a score of {threshold:.2f} or more"
    return (
        f'<div class="model"><h3>{escape(candidate.label)}</h3>'
        f'<p class="facts">{escape(" · ".join(facts))}</p><p>{escape(found)}</p></div>'
    )


def draw_detections(shown: ShownDetections, threshold: float) -> NDArray[np.uint8]:
    """The picture with detections of at least the threshold, RGB."""
    names = shown.names or None
    picture = vis(shown.image, shown.boxes, shown.scores, shown.classes, threshold, names)
    return np.ascontiguousarray(picture[..., ::-1])


def build_page(candidates: Sequence[Candidate], conf: float = CONF) -> Any:
    """The page, a ``gradio.Blocks``; `conf` is where the threshold stands at first."""
    gr = import_gradio()

    def outputs(seen: Sequence[ShownDetections] | None, threshold: float) -> list[Any]:
        shown: Sequence[ShownDetections | None] = seen or [None] * len(candidates)
        texts = [headline(c, s, threshold) for c, s in zip(candidates, shown, strict=True)]
        pictures = [
            gr.update(value=s and draw_detections(s, threshold), visible=bool(s)) for s in shown
        ]
        return [*texts, *pictures]

    def on_picture(path: str | None, threshold: float) -> list[Any]:
        if path is None:
            return [None, *outputs(None, threshold)]
        try:
            seen = detect_all(candidates, read_image(Path(path)))
        except UserError as error:
            said, _, _ = str(error).replace(path, Path(path).name).partition(": ")
            raise gr.Error(escape(said), print_exception=False) from error
        return [seen, *outputs(seen, threshold)]

    with gr.Blocks(title="YOLOX", analytics_enabled=False) as page:
        kept = gr.State(None, time_to_live=3600)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                picture = gr.Image(
                    label="Picture",
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "webcam", "clipboard"],
                    height=280,
                    buttons=[],
                    elem_id="picture",
                )
                # It is read by this package, with its limits, not by Gradio. Not in a subclass, for
                # which Gradio would write a file beside this one.
                picture.preprocess = _path_of
                threshold = gr.Slider(
                    MIN_SCORE, 1.0, value=max(conf, MIN_SCORE), step=0.01, label="Threshold",
                    info="least score of a detection", buttons=[], elem_id="threshold",
                )  # fmt: skip
            with gr.Column(scale=3, min_width=280), gr.Row():
                texts, pictures = [], []
                for candidate in candidates:
                    with gr.Column(min_width=280):
                        texts.append(gr.HTML(headline(candidate, None, conf), padding=False))
                        pictures.append(
                            gr.Image(
                                show_label=False, format="jpeg", interactive=False, visible=False,
                                buttons=["download", "fullscreen"], elem_classes="detections",
                                alt_text=f"detections of {candidate.label}",
                            )
                        )  # fmt: skip
        shown = [*texts, *pictures]
        common: dict[str, Any] = {"trigger_mode": "always_last", "api_visibility": "private"}
        picture.change(on_picture, [picture, threshold], [kept, *shown], **common)
        threshold.change(outputs, [kept, threshold], shown, show_progress="hidden", **common)
    return page


def serve(candidates: Sequence[Candidate], *, host: str, port: int, conf: float = CONF) -> None:
    """Serve the page until Ctrl-C. Pictures that were dropped go with it.

    Raises:
        UserError: Gradio is not installed, or the port cannot be had.
    """
    gr = import_gradio()
    require_port(host, port)
    with tempfile.TemporaryDirectory(prefix="yolox_web_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build_page(candidates, conf)
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            show_error=True,
            footer_links=[],
            max_file_size=MAX_FILE_SIZE,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            theme=gr.themes.Default(font=_FONT, font_mono=("ui-monospace", "monospace")),
            css=_CSS,
            app_kwargs={"middleware": [_policy()], "docs_url": None, "redoc_url": None},
        )
        address = f"[{host}]" if ":" in host else host
        logger.info(f"open http://{address}:{port} in a browser; Ctrl-C ends")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            logger.info("stopped")
        finally:
            page.close(verbose=False)


def require_port(host: str, port: int) -> None:
    """Raise `UserError` unless a server can be had at an address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise UserError(
            f"cannot serve at {host}, port {port} ({error.strerror}): give another `port` or `host`"
        ) from error


def import_gradio() -> Any:
    """Gradio, told to report to nobody; `UserError` where it is not installed."""
    os.environ.update(_ENVIRONMENT)
    return import_extra("gradio", "the page")


def _path_of(payload: Any) -> str | None:
    """Where Gradio has put a picture that came from the browser."""
    return None if payload is None else str(payload.path)


def _policy() -> Any:
    """The middleware that sends the policy with every answer."""
    middleware = import_extra("starlette.middleware", "the page")

    class SendPolicy:
        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
            async def with_policy(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    policy = (b"content-security-policy", _POLICY.encode())
                    message = {**message, "headers": [*message.get("headers", ()), policy]}
                await send(message)

            await self._app(scope, receive, with_policy)

    return middleware.Middleware(SendPolicy)
