"""Files of Ultralytics among those that a command is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from yolox.bench.guest import Guest
from yolox.tools.words import called
from yolox.ultralytics.exported import ExportedDetector, file_of, metadata_of
from yolox.ultralytics.installed import begin_safely
from yolox.utils.checkpoint import is_of_ultralytics
from yolox.utils.errors import UserError


def read_guests(paths: Iterable[Path]) -> dict[Path, Guest]:
    """What those of some files hold that are of Ultralytics.

    Ultralytics itself is imported where one of them is a ``.pt``, and not otherwise.

    Raises:
        UserError: naming every one that cannot be read, and why; or Ultralytics is not installed.
    """
    found: dict[Path, Guest] = {}
    problems = []
    for path in dict.fromkeys(paths):
        try:
            if guest := _read(path, begun=any(guest.sha256 for guest in found.values())):
                found[path] = guest
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))
    return found


def refuse_exported(guests: Mapping[Path, Guest]) -> None:
    """Refuse files whose layers cannot be counted; all of them are named.

    Raises:
        UserError: some are exported files.
    """
    exported = [str(path) for path, guest in guests.items() if isinstance(guest, ExportedDetector)]
    if exported:
        raise UserError(f"exported files are compared by {called('bench')}: {', '.join(exported)}")


def is_openvino(path: Path) -> bool:
    """Whether it is a file of OpenVINO, or a folder in which an exporter put one."""
    return file_of(path).suffix == ".xml"


def _read(path: Path, *, begun: bool) -> Guest | None:
    if path.is_file() and is_of_ultralytics(path):
        if not begun:
            begin_safely()
        # Only now: it imports Ultralytics.
        from yolox.ultralytics.guest import DetectorFile

        return DetectorFile(path)
    file = file_of(path)
    facts = metadata_of(file)
    return None if facts is None else ExportedDetector(file, facts)
