"""Records and samples of large data sets as a few arrays, made into objects one by one.

A hundred thousand images are some millions of Python objects, in each process. As arrays they take
a twentieth, and a process started by `torch.multiprocessing` has them from shared memory.

Shape suffixes: I images; N objects of all of them, in the order of the images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt
import torch

from yolox.data.datasets.records import Record
from yolox.data.datasets.sample import Sample

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
T = TypeVar("T")


class _Columns:
    """A dataclass of arrays that other processes share."""

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in vars(self).items()
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            value = value.numpy() if isinstance(value, torch.Tensor) else value
            object.__setattr__(self, name, value)


class _Table(Sequence[T]):
    """A sequence of objects that are made when they are asked for."""

    def _row(self, index: int) -> T:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self._row(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"{index} of {len(self)}")
        return self._row(index % len(self))

    def __iter__(self) -> Iterator[T]:
        return map(self._row, range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class Strings(_Columns, _Table[str]):
    """Many strings as one.

    Attributes:
        text: all of them in UTF-8, uint8.
        ends: where each of them ends, int64 (n,).
    """

    text: npt.NDArray[np.uint8]
    ends: Ints

    @classmethod
    def of(cls, strings: Iterable[str]) -> Strings:
        """As given; lone surrogates are kept."""
        parts = [string.encode("utf-8", "surrogatepass") for string in strings]
        ends = np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), dtype=np.int64)
        return cls(np.frombuffer(bytearray(b"".join(parts)), np.uint8), ends)

    @classmethod
    def joined(cls, parts: Sequence[Strings]) -> Strings:
        """The strings of all parts."""
        text = np.concatenate([np.zeros(0, np.uint8), *(part.text for part in parts)])
        return cls(text, _joined_ends(part.ends for part in parts))

    def __len__(self) -> int:
        return len(self.ends)

    def _row(self, index: int) -> str:
        start = self.ends[index - 1] if index else 0
        return bytes(self.text[start : self.ends[index]]).decode("utf-8", "surrogatepass")


@dataclass(frozen=True, eq=False, kw_only=True)
class RecordTable(_Columns, _Table[Record]):
    """Records; see `Record` for what the columns hold.

    Attributes:
        names: of the images.
        images: their files; a relative one is below ``folder``.
        folder: see ``images``.
        sources: annotation files, each once.
        source: index of each image's, int64 (I,).
        ids: int64 (I,), and ``numbered`` bool (I,) where the data set numbers the image.
        sizes: height and width, int32 (I, 2), 0 where the annotation does not say.
        ends: number of objects up to the end of each image, int64 (I,).
        class_names: of the objects, each once.
        classes: index of each object's, int32 (N,).
        boxes: float64 (N, 4).
        difficult: bool (N,).
        relative: bool (I,).
    """

    names: Strings
    images: Strings
    folder: str
    sources: tuple[str, ...]
    source: Ints
    ids: Ints
    numbered: Bools
    sizes: npt.NDArray[np.int32]
    ends: Ints
    class_names: tuple[str, ...]
    classes: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.float64]
    difficult: Bools
    relative: Bools

    @classmethod
    def of(cls, records: Sequence[Record]) -> RecordTable:
        """The records as a table; itself if they are one."""
        if isinstance(records, cls):
            return records
        sources = {source: i for i, source in enumerate(dict.fromkeys(r.source for r in records))}
        class_names = dict.fromkeys(name for r in records for name in r.names)
        codes = {name: i for i, name in enumerate(class_names)}
        return cls(
            names=Strings.of(record.name for record in records),
            images=Strings.of(str(record.image) for record in records),
            folder="",
            sources=tuple(map(str, sources)),
            source=np.array([sources[r.source] for r in records], np.int64),
            ids=np.array([r.image_id or 0 for r in records], np.int64),
            numbered=np.array([r.image_id is not None for r in records], np.bool_),
            sizes=np.array([r.size or (0, 0) for r in records], np.int32).reshape(-1, 2),
            ends=np.cumsum([len(r.names) for r in records], dtype=np.int64),
            class_names=tuple(class_names),
            classes=np.array([codes[name] for r in records for name in r.names], np.int32),
            boxes=np.array([box for r in records for box in r.boxes], np.float64).reshape(-1, 4),
            difficult=np.array([flag for r in records for flag in r.difficult], np.bool_),
            relative=np.array([r.relative for r in records], np.bool_),
        )

    @classmethod
    def joined(cls, parts: Sequence[RecordTable]) -> RecordTable:
        """The records of all parts, whose ``folder`` must be one."""
        if len(parts) == 1:
            return parts[0]
        table = cls.of([])
        columns: dict[str, Any] = {
            name: np.concatenate([value, *(getattr(part, name) for part in parts)])
            for name, value in vars(table).items()
            if isinstance(value, np.ndarray)
        }
        sources, source = _joined_codes([(part.sources, part.source) for part in parts])
        class_names, classes = _joined_codes([(part.class_names, part.classes) for part in parts])
        return cls(
            **columns
            | {
                "names": Strings.joined([part.names for part in parts]),
                "images": Strings.joined([part.images for part in parts]),
                "folder": parts[0].folder if parts else "",
                "sources": sources,
                "source": source.astype(np.int64),
                "ends": _joined_ends(part.ends for part in parts),
                "class_names": class_names,
                "classes": classes.astype(np.int32),
            }
        )

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Path:
        """The file of an image."""
        return _below(self.folder, self.images[index])

    def counts(self) -> Ints:
        """Objects of each image, int64 (I,)."""
        return np.diff(self.ends, prepend=0)

    def image_of(self, number: int) -> int:
        """The image of an object, given by its place among all."""
        return int(np.searchsorted(self.ends, number, side="right"))

    def _row(self, index: int) -> Record:
        start, end = self.ends[index - 1] if index else 0, self.ends[index]
        height, width = self.sizes[index].tolist()
        names = self.class_names
        return Record(
            name=self.names[index],
            image=self.image(index),
            source=Path(self.sources[self.source[index]]),
            image_id=int(self.ids[index]) if self.numbered[index] else None,
            size=(height, width) if height else None,
            names=tuple(names[code] for code in self.classes[start:end].tolist()),
            boxes=tuple(map(tuple, self.boxes[start:end].tolist())),
            difficult=tuple(self.difficult[start:end].tolist()),
            relative=bool(self.relative[index]),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class SampleTable(_Columns, _Table[Sample]):
    """Samples; see `Sample` for what the columns hold, and `RecordTable` for those not here.

    Attributes:
        boxes: float32 (N, 4).
        classes: int32 (N,).
    """

    names: Strings
    images: Strings
    folder: str
    ids: Ints
    sizes: npt.NDArray[np.int32]
    ends: Ints
    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int32]
    difficult: Bools

    def __len__(self) -> int:
        return len(self.names)

    def names_by_id(self) -> Mapping[int, str]:
        """The images' names by their ids."""
        return _NamesById(self)

    def with_classes(self, index: npt.NDArray[np.integer[Any]]) -> SampleTable:
        """The samples with other class indices: ``index[i]`` in place of i."""
        return replace(self, classes=index[self.classes].astype(np.int32))

    def _row(self, index: int) -> Sample:
        start, end = self.ends[index - 1] if index else 0, self.ends[index]
        height, width = self.sizes[index].tolist()
        return Sample(
            image_id=int(self.ids[index]),
            name=self.names[index],
            path=_below(self.folder, self.images[index]),
            height=height,
            width=width,
            boxes=self.boxes[start:end],
            classes=self.classes[start:end].astype(np.int64),
            difficult=self.difficult[start:end],
        )


def _below(folder: str, file: str) -> Path:
    return Path(f"{folder}/{file}" if folder else file)


def _joined_ends(parts: Iterable[Ints]) -> Ints:
    """Where things end, of parts one behind the other."""
    joined, start = [np.zeros(0, np.int64)], 0
    for ends in parts:
        joined.append(ends + start)
        start += int(ends[-1]) if len(ends) else 0
    return np.concatenate(joined)


def _joined_codes(
    parts: Sequence[tuple[Sequence[str], npt.NDArray[Any]]],
) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
    """Texts of parts, each once in the order of first sight, and the codes by which they go."""
    codes = {text: i for i, text in enumerate(dict.fromkeys(t for ts, _ in parts for t in ts))}
    joined = [np.zeros(0, np.int64)]
    joined += [np.array([codes[t] for t in texts], np.int64)[of] for texts, of in parts if len(of)]
    return tuple(codes), np.concatenate(joined)


class _NamesById(Mapping[int, str]):
    def __init__(self, samples: SampleTable) -> None:
        self._samples = samples
        self._order = np.argsort(samples.ids, kind="stable")

    def __getitem__(self, image_id: int) -> str:
        ids = self._samples.ids
        spot = int(np.searchsorted(ids, image_id, side="right", sorter=self._order)) - 1
        if spot < 0 or ids[self._order[spot]] != image_id:
            raise KeyError(image_id)
        return self._samples.names[int(self._order[spot])]

    def __iter__(self) -> Iterator[int]:
        return iter(self._samples.ids.tolist())

    def __len__(self) -> int:
        return len(self._samples)
