"""The fields of an Exp: who set them, and how they are read from text."""

from __future__ import annotations

import difflib
import numbers
import os
import re
import types
import typing
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from torch import nn

from yolox.utils.errors import UserError

_FLAG = re.compile(r"--?[A-Za-z]")
# Of a list: a text in quotes, which may hold commas, or all up to the next comma.
_BRACKETS = re.compile(r"\s*(?:\((.*)\)|\[(.*)\])\s*", re.DOTALL)
_ITEM = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)"|([^,]*?))\s*(?:,|$)""")


class ExpError(UserError):
    """An Exp that cannot be loaded, or a field or value it does not have."""


class Fields:
    """Typed fields that remember which of them a person set.

    Defaults are attributes of the class, so that an attribute of the object is one that was set:
    before or after ``super().__init__()``, by an Exp file, in Python or on a command line.
    """

    _assigned: frozenset[str] = frozenset()
    _given: frozenset[str] = frozenset()

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        self._put({"_assigned": self._assigned | {name}})

    @property
    def assigned(self) -> frozenset[str]:
        """Names that a person set, in an Exp file, in Python or on a command line."""
        own = [kind for kind in type(self).__mro__ if not kind.__module__.startswith("yolox.")]
        return self._assigned.union(*map(vars, own))

    @property
    def given(self) -> frozenset[str]:
        """Fields that a person set for this run, on its command line; see `merge`."""
        return self._given

    def put(self, **values: object) -> None:
        """Set fields as the program does, not a person."""
        self._put(values)

    def overlook(self, names: Collection[str]) -> None:
        """Take fields as not given for this run, though they keep their values."""
        self._put({"_given": self._given.difference(names)})

    def suggest(self, **values: object) -> None:
        """Set those of the fields that no person set."""
        self._put({name: value for name, value in values.items() if name not in self.assigned})

    def _put(self, values: dict[str, object]) -> None:
        vars(self).update(values)

    def outranked(self, name: str, *others: str) -> bool:
        """Whether a person set one of the other fields more expressly than this one.

        The command line counts for more than an Exp file, and that for more than a default.
        """
        rank = self._rank(name)
        return any(self._rank(other) > rank for other in others)

    def _rank(self, name: str) -> int:
        return (name in self.assigned) + (name in self.given)

    def field_types(self) -> dict[str, Any]:
        """Every field and its type: annotated ones, and those that a subclass only assigns."""
        declared = typing.get_type_hints(type(self))
        assigned = {name: type(value) for name, value in vars(self).items()}
        return {
            name: kind
            for name, kind in (assigned | declared).items()
            if not name.startswith("_")
            and hasattr(self, name)
            and not isinstance(getattr(self, name), nn.Module)
        }

    def give(self, **values: object) -> None:
        """Set fields as a person does for this run; `merge` is the same from text.

        Raises:
            ExpError: listing every unknown field (nearest names shown) and value of another type.
        """
        fields = self.field_types()
        declared = typing.get_type_hints(type(self))
        problems = [_unknown(key, fields) for key in values if key not in fields]
        problems += [
            f"{key} takes {type_name(declared[key])}, got {value!r}"
            for key, value in values.items()
            if key in declared and not fits(value, declared[key])
        ]
        if problems:
            raise ExpError("; ".join(problems))
        for key, value in values.items():
            setattr(self, key, plain(value, declared.get(key)))
        self._put({"_given": self._given.union(values)})

    def merge(self, pairs: Sequence[str]) -> None:
        """Set fields from ``[key, value, key, value, …]`` texts, each read as its field's type.

        Raises:
            ExpError: listing every unknown key (nearest names shown) and unreadable value; or
                flags among them.
        """
        _refuse_flags(pairs)
        if len(pairs) % 2:
            raise ExpError(f"overrides come as pairs of key and value; {pairs[-1]!r} has no value")
        fields = self.field_types()
        problems, values = [], {}
        for key, text in zip(pairs[::2], pairs[1::2], strict=True):
            if key not in fields:
                problems.append(_unknown(key, fields))
                continue
            try:
                values[key] = read_field(text, fields[key], getattr(self, key))
            except ValueError:
                problems.append(f"{key} takes {type_name(fields[key])}, got {text!r}")
        if problems:
            raise ExpError("; ".join(problems))
        if values:
            self.give(**values)


def _unknown(key: str, fields: Collection[str]) -> str:
    near = difflib.get_close_matches(key, fields, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"unknown Exp key {key!r}{hint}"


def _refuse_flags(pairs: Sequence[str]) -> None:
    """Raise where a flag stands among keys and values: the parser took it for one of them."""
    for place, word in enumerate(pairs):
        if not _FLAG.match(word):
            continue
        start = place - place % 2
        follows = f", and {pairs[start]} has no value" if place % 2 else ""
        raise ExpError(
            f"flags go before the first key and value: move {word} before {pairs[0]!r}{follows}"
            if start
            else f"flags go before keys and values: {' '.join(pairs[:2])} is no key and value"
        )


def read_field(text: str, kind: Any, current: Any) -> Any:
    """A text as a value of a type; ValueError where it is none."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none":
            return None
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
        origin = typing.get_origin(kind)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if kind in (int, float):
        return kind(text)
    if origin is tuple or kind in (tuple, list):
        parts = _items(text)
        kinds = typing.get_args(kind) or tuple(type(item) for item in current) or (str,)
        fixed = len(kinds) if Ellipsis not in kinds and typing.get_args(kind) else None
        if fixed is not None and len(parts) != fixed:
            raise ValueError(text)
        items = [
            read_field(part, kinds[min(i, len(kinds) - 1)] if fixed else kinds[0], None)
            for i, part in enumerate(parts)
        ]
        return items if kind is list else tuple(items)
    if kind is str:
        return text
    raise ValueError(text)


def fits(value: object, kind: Any) -> bool:
    """Whether a value is of an annotated type; of one that `read_field` cannot read, any is.

    A list is as good as a tuple, a path as a text, and a number of NumPy as one of Python.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in args)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return False
        parts = args[:1] * len(value) if Ellipsis in args else args
        return len(value) == len(parts) and all(map(fits, value, parts))
    if kind is bool:
        return type(value) in (bool, int) and value in (0, 1)
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, (str, os.PathLike))
    return value is None if kind is type(None) else True


def plain(value: object, kind: Any = None) -> object:
    """A value of a type as a checkpoint can hold it: numbers of NumPy are none of its."""
    if typing.get_origin(kind) is tuple and isinstance(value, (tuple, list)):
        return tuple(map(plain, value))
    return value.item() if isinstance(value, np.number) else value


def type_name(kind: Any) -> str:
    """What a field of an annotated type takes, in words for a message: ``a number``."""
    names = {bool: "True or False", int: "an integer", float: "a number", str: "a text"}
    args = [arg for arg in typing.get_args(kind) if arg not in (Ellipsis, types.NoneType)]
    if not args:
        return names.get(kind, getattr(kind, "__name__", str(kind)))
    if typing.get_origin(kind) is not tuple:
        return f"{type_name(args[0])} or None"
    count = "a list of" if Ellipsis in typing.get_args(kind) else str(len(args))
    example = "a,b" if args[0] is str else "320,320"
    return f"{count} {names.get(args[0], 'values').split()[-1]}s, as in {example}"


def _items(text: str) -> list[str]:
    """The texts of a list, without quotes and empty ones."""
    if bare := _BRACKETS.fullmatch(text):
        text = bare[1] if bare[2] is None else bare[2]
    found = ["".join(match.groups("")).strip() for match in _ITEM.finditer(text)]
    return [item for item in found if item]


def write_names(names: Sequence[str]) -> str:
    """A list of texts as `read_field` reads it: in quotes where it would be misread."""
    misread = [name.startswith("-") or set(name) & set(",'()[]") for name in names]
    return ",".join(
        f'"{name}"' if quoted else name for name, quoted in zip(names, misread, strict=True)
    )
