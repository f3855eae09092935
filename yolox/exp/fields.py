"""Exp fields from text, each read as its own type."""

from __future__ import annotations

import types
import typing
from typing import Any

from yolox.utils.errors import UserError


class ExpError(UserError):
    """An Exp that cannot be loaded, or a field or value it does not have."""


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
        parts = [part.strip() for part in text.strip().strip("()[]").split(",") if part.strip()]
        kinds = typing.get_args(kind) or tuple(type(item) for item in current) or (str,)
        fixed = len(kinds) if Ellipsis not in kinds and typing.get_args(kind) else None
        if fixed is not None and len(parts) != fixed:
            raise ValueError(text)
        items = [
            read_field(
                part.strip("'\""), kinds[min(i, len(kinds) - 1)] if fixed else kinds[0], None
            )
            for i, part in enumerate(parts)
        ]
        return items if kind is list else tuple(items)
    if kind is str:
        return text
    raise ValueError(text)


def type_name(kind: Any) -> str:
    names = {bool: "True or False", int: "an integer", float: "a number", str: "a text"}
    args = [arg for arg in typing.get_args(kind) if arg is not Ellipsis]
    if not args:
        return names.get(kind, getattr(kind, "__name__", str(kind)))
    count = "a list of" if Ellipsis in typing.get_args(kind) else str(len(args))
    return f"{count} {names.get(args[0], 'values').split()[-1]}s, as in 320,320"
