import json

import pytest

from yolox.utils import json_stream
from yolox.utils.json_stream import NotStreamedError, stream_lists

DOCUMENT = {
    "info": {"a": [1, {"b": "]}"}], "number": 12.5e3},
    "images": [{"id": 1, "name": 'q"\\, é 😀'}, {}, 17, -0.5, "text", None, [1, 2]],
    "none": [],
    "last": 123456,
}


def read(text, wanted=("images", "none"), size=7):
    content = text if isinstance(text, bytes) else text.encode()
    chunks = (content[i : i + size] for i in range(0, len(content), size))
    return {key: list(elements) for key, elements in stream_lists(chunks, set(wanted))}


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
@pytest.mark.parametrize("layout", [{}, {"indent": 2}, {"separators": (",", ":")}])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_any_layout_cut_anywhere(size, layout, ascii_only):
    text = json.dumps(DOCUMENT, ensure_ascii=ascii_only, **layout)
    assert read(text, size=size) == {"images": DOCUMENT["images"], "none": []}


def test_nan_and_lone_surrogates_are_read_as_by_json():
    found = read('{"images": [NaN, -Infinity, "\\ud800"]}')["images"]
    assert str(found) == str(json.loads('[NaN, -Infinity, "\\ud800"]'))


@pytest.mark.parametrize(
    "skipped", [list(range(9000)), {str(i): i for i in range(4000)}, "text" * 10_000]
)
def test_what_is_skipped_is_scanned_few_times(skipped, monkeypatch):
    text = json.dumps({"extra": skipped, "images": [1]})
    scan, scanned = json_stream.scan_once, []

    def counted(part, at):
        end = len(part)
        try:
            value, end = scan(part, at)
            return value, end
        finally:
            scanned.append(end - at)

    monkeypatch.setattr(json_stream, "scan_once", counted)
    assert read(text, size=256) == {"images": [1]}
    assert sum(scanned) < 4 * len(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", '{"images": [1', '{"images": [1,]}', '{"images": [1 2]}', '{"images": 5}',
        '{"images": [{"a": tru}]}', '{"a": 1} x', '{"a": 1, "a": 2}', "{1: 2}", '{"a" 1}',
        '{"a": 1 "b": 2}', '{"images": [01]}', b'\xef\xbb\xbf{"a": 1}', b'{"a": "\xff"}',
        '{"a": 1}'.encode("utf-16"), '{"images": ' + "[" * 5000 + "]" * 5000 + "}",
    ],
)  # fmt: skip
def test_all_else_is_left_to_whoever_reads_it_whole(text):
    with pytest.raises(NotStreamedError):
        read(text, size=3)
