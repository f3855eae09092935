"""What the readers had to interpret, of all splits together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from yolox.data.datasets.plausible import box_remarks
from yolox.data.datasets.records import RecordSet, Remark
from yolox.data.doctor.boxes import BoxTable
from yolox.data.doctor.report import Finding, finding


def remark_findings(
    records_by_split: Mapping[str, RecordSet], tables: Mapping[str, BoxTable]
) -> list[Finding]:
    """The remarks of the readers, and those on the boxes of a whole split; alike ones as one."""
    groups: defaultdict[Remark, list[tuple[str, str]]] = defaultdict(list)
    for split, records in records_by_split.items():
        table = tables[split]
        units = box_remarks(table.boxes, table.limits, records.form, records.first_pixel)
        for remark in (*records.remarks, *units):
            alike = Remark(
                severity=remark.severity, title=remark.title, cases=(), advice=remark.advice
            )
            groups[alike] += [(split, f"{split}: {case}") for case in remark.cases]
    return [
        found
        for alike, cases in groups.items()
        for found in finding(alike.severity, alike.title, cases, alike.advice)
    ]
