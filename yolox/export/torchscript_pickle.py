"""The pickles of a TorchScript archive: no name of code in them, no tensor beyond its bytes."""

from __future__ import annotations

import collections
import io
import pickle
import pickletools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

_OPERATIONS = {
    "PROTO",
    "STOP",
    "MARK",
    "GLOBAL",
    "REDUCE",
    "NEWOBJ",
    "BUILD",
    "BINPERSID",
    "BINPUT",
    "LONG_BINPUT",
    "BINGET",
    "LONG_BINGET",
    "NONE",
    "NEWTRUE",
    "NEWFALSE",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "BINUNICODE",
    "EMPTY_TUPLE",
    "TUPLE",
    "TUPLE1",
    "TUPLE2",
    "TUPLE3",
    "EMPTY_LIST",
    "APPEND",
    "APPENDS",
    "EMPTY_DICT",
    "SETITEM",
    "SETITEMS",
}
_ELEMENT_BYTES = {
    "Double": 8,
    "Long": 8,
    "Float": 4,
    "Int": 4,
    "Half": 2,
    "BFloat16": 2,
    "Short": 2,
    "Char": 1,
    "Byte": 1,
    "Bool": 1,
}
_STORAGES = {f"torch {kind}Storage": size for kind, size in _ELEMENT_BYTES.items()}
_NAMES = {
    "torch._utils _rebuild_tensor_v2",
    "collections OrderedDict",
    *(f"torch.jit._pickle build_{kind}list" for kind in ("int", "double", "bool", "tensor")),
}


def pickle_problems(
    name: str, records: Mapping[str, bytes], classes: Collection[str]
) -> Iterator[str]:
    """What is in a pickle that must not be, in words.

    Args:
        name: of the record, such as ``data.pkl``; its tensors are the records ``data/0`` and on.
        records: of the archive.
        classes: full names of those that the archive's own code defines.
    """
    content = records.get(name, b"")
    known = _NAMES | _STORAGES.keys() | {" ".join(each.rsplit(".", 1)) for each in classes}
    problems, kept = [], 0
    try:
        for op, value, _ in pickletools.genops(content):
            if op.name not in _OPERATIONS:
                problems.append(f"the pickle operation {op.name} in {name}")
            elif op.name == "GLOBAL" and str(value) not in known:
                problems.append(f"the name {value} in {name}")
            elif op.name in ("BINPUT", "LONG_BINPUT"):
                # In order, as PyTorch writes them: two readers then agree on them.
                if value != kept:
                    problems.append(f"a memo out of order in {name}")
                kept += 1
        if not problems:
            _Sizes(content, name.removesuffix(".pkl"), records).load()
    except Exception as error:  # of its readers, each in its own way
        problems.append(f"no pickle in {name} ({' '.join(str(error).split())[:200]})")
    yield from problems


class _Inert:
    """Stands for any object of the archive: takes whatever it is made of, and does nothing."""

    def __new__(cls, *_: object) -> _Inert:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


class _Sizes(pickle.Unpickler):
    """Goes through a pickle, of which nothing is made, and compares tensors with their bytes.

    PyTorch does not: it reads as many numbers as are said to be there.
    """

    def __init__(self, content: bytes, folder: str, records: Mapping[str, bytes]) -> None:
        super().__init__(io.BytesIO(content))
        self._folder, self._records = folder, records

    def find_class(self, module: str, name: str) -> Any:
        if f"{module} {name}" in _STORAGES:
            return f"{module} {name}"
        return collections.OrderedDict if name == "OrderedDict" else _Inert

    def persistent_load(self, pid: Any) -> _Inert:
        word, storage, key, place, count = pid
        size = len(self._records[f"{self._folder}/{key}"])
        if (word, place) != ("storage", "cpu") or type(count) is not int or count < 0:
            raise ValueError("a tensor of another kind")
        if count * _STORAGES[storage] > size:
            raise ValueError(f"a tensor of {count} numbers in {size} bytes")
        return _Inert()
