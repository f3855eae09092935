"""JSON and YAML from anywhere: read whole or refused with the reason, whatever the bytes are.

A `DocumentError` says what is wrong without the file's name; who reads says which file, what was
expected there, and the next step.
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from yolox.utils.errors import UserError

MEGABYTE = 2**20
MAX_JSON_BYTES = 256 * MEGABYTE  # of this program's own documents, the largest of which are plans
MAX_DATA_BYTES = 16 * 1024 * MEGABYTE  # of annotations
MAX_YAML_BYTES = MEGABYTE
MAX_XML_BYTES = 16 * MEGABYTE  # of an image's annotation
MAX_DEPTH = 64  # levels of lists and objects
MAX_NODES = 1_000_000  # of a YAML document, its aliases written out


class DocumentError(UserError):
    """Why a document cannot be taken, for a sentence that names the file."""


def read_json(path: Path) -> Any:
    """A JSON document of moderate size, in UTF-8.

    Raises:
        DocumentError: not a regular file, larger than `MAX_JSON_BYTES`, no JSON, nested deeper than
            `MAX_DEPTH`, or with a key twice in an object, a whole number of more than 64 bits, NaN
            or Infinity in it.
        OSError: it cannot be read.
    """
    return parse_json(read_bounded(path, MAX_JSON_BYTES))


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON document; raises `DocumentError` as `read_json` does."""
    try:
        value = json.loads(
            content,
            object_pairs_hook=_unique,
            parse_constant=_finite,
            parse_float=_finite,
            parse_int=_whole,
        )
    except DocumentError:
        raise
    except RecursionError:
        raise DocumentError(_too_deep()) from None
    except ValueError as error:
        raise DocumentError(_json_reason(error)) from None
    _require_shallow(value)
    return value


def json_text(value: Any, indent: int | None = None) -> str:
    """A document as `read_json` takes it: numbers that JSON does not have, as NaN, become null."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_without_odd_numbers(value), indent=indent, allow_nan=False)


def read_data_json(path: Path) -> Any:
    """A JSON document of any size, as annotations are, at the speed of Python's reader.

    NaN and Infinity are numbers, and of a key that comes twice the last counts.

    Raises:
        DocumentError: not a regular file, larger than `MAX_DATA_BYTES`, or no JSON.
        OSError: it cannot be read.
    """
    try:
        return json.loads(read_bounded(path, MAX_DATA_BYTES))
    except DocumentError:
        raise
    except RecursionError:  # at a depth that hangs together with what calls this
        raise DocumentError("it is nested deeper than can be read") from None
    except ValueError as error:
        raise DocumentError(_json_reason(error)) from None


def read_yaml(path: Path) -> Any:
    """A YAML document of plain values.

    Raises:
        DocumentError: not a regular file, larger than `MAX_YAML_BYTES`, no YAML, nested deeper than
            `MAX_DEPTH`, with a key twice in a mapping, with aliases that lead back to themselves or
            amount to more than `MAX_NODES` values.
        OSError: it cannot be read.
    """
    return parse_yaml(read_bounded(path, MAX_YAML_BYTES))


def parse_yaml(content: bytes | str) -> Any:
    """The value of a YAML document; raises `DocumentError` as `read_yaml` does."""
    try:
        loader = yaml.SafeLoader(content)
        node = loader.get_single_node()
        if node is None:
            return None
        _weigh(node, [], {})
        return loader.construct_document(node)
    except DocumentError:
        raise
    except RecursionError:
        raise DocumentError(_too_deep()) from None
    except Exception as error:  # its constructors trip over odd scalars in every way there is
        raise DocumentError(f"it is not YAML: {_one_line(error)}") from None


def read_bounded(path: Path, most: int) -> bytes:
    """The bytes of a regular file; raises as `open_bounded`."""
    with open_bounded(path, most) as file:
        return file.readall()


@contextmanager
def open_bounded(path: Path, most: int) -> Iterator[io.FileIO]:
    """A regular file, open to be read.

    Raises:
        DocumentError: it is a device, a pipe or the like, or larger than `most` bytes.
        OSError: it cannot be read.
    """
    # A pipe that nobody writes to would otherwise be waited for.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with io.FileIO(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise DocumentError("it is a folder or a device, no regular file")
        if status.st_size > most:
            raise DocumentError(f"it is larger than {most // MEGABYTE} MiB")
        yield file


def _without_odd_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_odd_numbers(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_odd_numbers(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DocumentError(f"the key {_short(twice)} comes twice in an object")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise DocumentError(f"it holds {_short(text)}, which is no finite number")
    return value


def _whole(text: str) -> int:
    if len(text) > 21 or abs(value := int(text)) >= 2**64:
        raise DocumentError(f"it holds {_short(text)}, a number of more than 64 bits")
    return value


def _require_shallow(value: Any) -> None:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return
        items = (item for one in level for item in (one.values() if type(one) is dict else one))
        level = [item for item in items if isinstance(item, (dict, list))]
    if level:
        raise DocumentError(_too_deep())


def _weigh(node: yaml.Node, above: list[yaml.Node], weights: dict[int, int]) -> int:
    """How many nodes a YAML node amounts to with its aliases written out, all checked."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if any(node is other for other in above):
        raise DocumentError("an alias in it leads back to itself")
    if id(node) in weights:
        return weights[id(node)]
    if len(above) > MAX_DEPTH:
        raise DocumentError(_too_deep())
    inner = [*above, node]
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
        _require_unique(node)
    else:
        parts = list(node.value)
    weight = 1 + sum(_weigh(part, inner, weights) for part in parts)
    if weight > MAX_NODES:
        raise DocumentError(f"its aliases amount to more than {MAX_NODES:,} values")
    weights[id(node)] = weight
    return weight


def _require_unique(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                raise DocumentError(
                    f"the key {_short(key.value)} comes twice in a mapping "
                    f"(line {key.start_mark.line + 1})"
                )
            seen.add((key.tag, key.value))


def _json_reason(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 text (byte {error.start})"
    return f"it is not JSON: {_one_line(error)}"


def _too_deep() -> str:
    return f"it is nested deeper than {MAX_DEPTH} levels"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"
