"""JSON and YAML of any bytes: the value, or the reason in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolox.utils import documents
from yolox.utils.documents import (
    MAX_DEPTH,
    DocumentError,
    json_text,
    parse_json,
    read_data_json,
    read_json,
    read_yaml,
)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)
    .filter(lambda value: abs(value) < 1e308) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def bomb(levels: int) -> str:
    """YAML of a few lines that is ten to the power of levels values long."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


def reason(read: Callable[[Path], Any], content: bytes | str, folder: Path) -> str:
    path = folder / "document"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DocumentError) as raised:
        read(path)
    said = str(raised.value)
    assert "\n" not in said
    assert len(said) < 400
    return said


@given(PLAIN)
def test_json_comes_back_as_it_was(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert (
        parse_json(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) == value
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"a": 1} x', "not JSON: Extra data"),
        (b'{"a": "\xff"}', "not UTF-8 text (byte 7)"),
        (b"\0" * 100, "not JSON"),
        ("[" * 100_000, "nested deeper"),
        ('{"a":' * 100_000, "nested deeper"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested deeper"),
        ("[NaN]", "'NaN', which is no finite number"),
        ("[-Infinity]", "no finite number"),
        ("[1e999]", "'1e999', which is no finite number"),
        (f"[{2**64}]", "more than 64 bits"),
        (f"[{'9' * 10_000}]", "more than 64 bits"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' comes twice"),
        ('{"' + "k" * 500 + '": 1, "' + "k" * 500 + '": 1}', "comes twice"),
    ],
)
def test_json_that_is_refused(content: bytes | str, words: str, tmp_path: Path) -> None:
    assert words in reason(read_json, content, tmp_path)


def test_json_at_its_limits(tmp_path: Path) -> None:
    path = tmp_path / "document"
    path.write_bytes(b"\xef\xbb\xbf" + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert isinstance(read_json(path), list)
    assert parse_json("-18446744073709551615") == -(2**64) + 1
    path.write_text('{"bbox": [NaN, 1e999], "bbox": [1]}')
    assert read_data_json(path) == {"bbox": [1]}
    assert "nested deeper than can be read" in reason(read_data_json, "[" * 100_000, tmp_path)


@pytest.mark.parametrize("read", [read_json, read_data_json, read_yaml])
def test_what_is_no_file_or_too_large(
    read: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises((DocumentError, OSError)):
            read(place)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")
    for limit in ("MAX_JSON_BYTES", "MAX_DATA_BYTES", "MAX_YAML_BYTES"):
        monkeypatch.setattr(documents, limit, 2**20)
    assert "larger than 1 MiB" in reason(read, b" " * (2**20 + 1), tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: [", "not YAML"),
        (b"a: \xff\xfe", "not YAML"),
        ("a: \x07", "not YAML"),
        ("a: 1\n---\nb: 2", "not YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not YAML"),
        ("a: 2020-99-99", "not YAML"),
        ("a: !!int ''", "not YAML"),
        ("a: !!bool x", "not YAML"),
        ("a: !!timestamp x", "not YAML"),
        ("? [1]\n: 2", "not YAML"),
        ("[" * 5000, "nested deeper"),
        ("[" * 70 + "]" * 70, "nested deeper"),
        (bomb(9), "aliases amount to more than"),
        ("a: &a [*a]", "leads back to itself"),
        ("&a {<<: *a}", "leads back to itself"),
        ("names: {0: ant, 1: bee, 0: cat}", "the key '0' comes twice in a mapping (line 1)"),
        ("train: a\nval: b\ntrain: c", "the key 'train' comes twice in a mapping (line 3)"),
    ],
)
def test_yaml_that_is_refused(content: bytes | str, words: str, tmp_path: Path) -> None:
    assert words in reason(read_yaml, content, tmp_path)


def test_yaml_with_aliases_as_people_write_it(tmp_path: Path) -> None:
    path = tmp_path / "document"
    path.write_text("base: &base {a: 1, b: [2]}\nown:\n  <<: *base\n  a: 3\nagain: *base\n")
    assert read_yaml(path) == {
        "base": {"a": 1, "b": [2]}, "own": {"a": 3, "b": [2]}, "again": {"a": 1, "b": [2]},
    }  # fmt: skip
    path.write_text("# nothing\n")
    assert read_yaml(path) is None


def test_numbers_that_json_does_not_have_are_written_as_null() -> None:
    odd = {"a": [1.5, float("nan"), (float("inf"), {"b": -float("inf")})], "c": "NaN"}
    assert parse_json(json_text(odd)) == {"a": [1.5, None, [None, {"b": None}]], "c": "NaN"}
    plain = {"a": [1.5, 2, None, "é"]}
    assert json_text(plain, indent=1) == json.dumps(plain, indent=1)
