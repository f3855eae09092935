"""One HTML file that puts models side by side, from their files and what was measured of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yolox.bench.guest import Guests
from yolox.exp import Exp
from yolox.jobs.report.collect import ReportSettings, gather_report
from yolox.jobs.report.commands import commands_of, targets_of
from yolox.jobs.report.measured import BenchFigures, read_bench
from yolox.report import Report, save_report
from yolox.utils.choices import CONF
from yolox.utils.download import resolve_weights
from yolox.utils.files import require_writable, short_names


@dataclass(frozen=True, kw_only=True)
class PageSettings:
    """What a page shows, and where that is found.

    Attributes:
        labels: one a model; by default the ends of the paths that tell them apart.
        title: of the page; empty for the Exp's name.
        images: most images that are shown side by side.
        conf: least score of the detections drawn on them, in [0, 1].
        bench: latencies, a file of `yolox.jobs.measure.measure_models`; none by default.
        compress: commands, a compress.json; by default those told beside the files.
        openvino_precision: arithmetic of OpenVINO's files, as `open_exported` takes it.
    """

    labels: tuple[str, ...] = ()
    title: str = ""
    images: int = 6
    conf: float = CONF
    bench: Path | None = None
    compress: Path | None = None
    openvino_precision: str = "f32"


def write_report(
    files: Sequence[Path],
    exp: Exp | None,
    output: Path,
    page: PageSettings,
    *,
    command: str = "",
    guests: Guests | None = None,
) -> Report:
    """Read, evaluate, and write the page.

    Args:
        files: checkpoints, names of published ones, and exported files; the first is the model
            before, the last the one after.
        exp: names the data to evaluate on; None leaves out whatever needs them.
        output: the HTML file.
        page: what else goes into it.
        command: the line that does it again, for the page.
        guests: of those files that are of other programs, what they hold.

    Raises:
        UserError: a file that cannot be read, data that are not there, classes that differ.
    """
    guests = guests or {}
    given = [path if path in guests else resolve_weights(path) for path in files]
    labels = page.labels or tuple(short_names(given))
    paths = [guests[path].path if path in guests else path for path in given]
    bench = read_bench(page.bench, paths, labels) if page.bench else BenchFigures()
    commands = commands_of(paths, page.compress, command)
    settings = ReportSettings(
        title=page.title,
        labels=labels,
        images=page.images,
        score=page.conf,
        measured=bench.rows,
        measured_on=bench.machine,
        measured_size=bench.size,
        openvino_precision=page.openvino_precision,
        asked=targets_of(commands),
        commands=commands,
    )
    # Before minutes of evaluation are lost.
    require_writable(output.parent)
    report = gather_report(paths, exp, settings, {guest.path: guest for guest in guests.values()})
    save_report(report, output)
    return report
