import json
import math
import pickle

import pytest
import torch.distributed as dist

from tests.evaluators.helpers import FakeDataset, FakeLoader, FakeModel, detections, sample
from yolox.evaluators import (
    COCOEvaluator,
    EvalResult,
    Evaluator,
    VOCEvaluator,
    gather_detections,
)

NAMES = ("cat", "dog", "a class with a long name")
SAMPLES = [
    sample(10, [(0, 10, 20, 60, 80), (1, 100, 5, 190, 60)], name="first"),
    sample(20, [(1, 3, 4, 90, 70), (0, 100, 10, 150, 60, True)], name="second"),
    sample(30, [], name="third"),
]
SIZE = (64, 96)


def build(kind=COCOEvaluator, samples=SAMPLES, names=NAMES, num_classes=3, only=None, **kwargs):
    loader = FakeLoader(FakeDataset(list(samples), names), only=only)
    return kind(loader, SIZE, 0.1, 0.5, num_classes, **kwargs)


@pytest.mark.parametrize("kind", [COCOEvaluator, VOCEvaluator])
def test_a_perfect_model(kind):
    result = build(kind).run(FakeModel(SAMPLES, 3))
    assert isinstance(result, EvalResult)
    assert result.ap50_95 == pytest.approx(1.0)
    assert result.ap50 == pytest.approx(1.0)
    assert result.voc["voc12_ap50"] == pytest.approx(1.0)
    assert [(row.name, row.objects) for row in result.per_class] == list(
        zip(NAMES, (1, 2, 0), strict=True)
    )
    assert result.per_class[2].ap50_95 is None
    assert result.per_class[1].ap50 == pytest.approx(1.0)


def test_the_headline_follows_its_rule():
    """One of two dogs is found: COCO's 101 points, VOC's 11 and its area disagree."""
    model = FakeModel([SAMPLES[0], sample(20, []), SAMPLES[2]], 3)
    coco = build().run(model)
    voc07 = build(VOCEvaluator).run(model)
    voc12 = build(VOCEvaluator, use_07_metric=False).run(model)
    assert coco.ap50 == pytest.approx((1 + 51 / 101) / 2)
    assert voc07.ap50 == pytest.approx((1 + 6 / 11) / 2)
    assert voc12.ap50 == pytest.approx((1 + 1 / 2) / 2)
    assert voc07.per_class[1].ap50_95 == pytest.approx(6 / 11)
    assert [coco.headline, voc07.headline, voc12.headline] == ["coco", "voc07", "voc12"]
    assert coco.voc == voc07.voc == voc12.voc
    assert voc07.voc["voc07_ap50_95"] == voc07.ap50_95


def test_a_model_that_finds_nothing():
    model = FakeModel([sample(i, [(0, 1, 1, 2, 2)]) for i in (10, 20, 30)], 3)
    evaluator = build()
    evaluator.confthre = 0.99
    result = evaluator.run(model)
    assert (result.ap50_95, result.ap50) == (0.0, 0.0)
    assert "0.0000" in result.summary()


def test_evaluate_as_the_official_scripts_call_it():
    evaluator = build(per_class_AR=True)
    model = FakeModel(SAMPLES, 3)
    ap50_95, ap50, summary = evaluator.evaluate(model, False, False, None, None, SIZE)
    assert (ap50_95, ap50) == pytest.approx((1.0, 1.0))
    assert "AR50-95" in summary
    assert "forward" in summary
    lines = {line.split("  ")[0].strip(): line for line in summary.splitlines()}
    assert lines["dog"].split() == ["dog", "2", "1.0000", "1.0000", "1.0000"]
    assert lines[NAMES[2]].split()[-4:] == ["0", "n/a", "n/a", "n/a"]
    table = summary.splitlines()[-4:]
    assert len({len(line) for line in table}) == 1, "the columns line up"

    (_, _, text), outputs = evaluator.evaluate(model, return_outputs=True)
    assert "dog" in text
    assert set(outputs) == {10, 20, 30}
    assert outputs[30] == {"bboxes": [], "scores": [], "categories": []}
    assert sorted(outputs[10]["categories"]) == [0, 1]

    assert "dog" not in build(per_class_AP=False).evaluate(model)[2]
    assert evaluator.evaluate(model, half=True)[0] == pytest.approx(1.0)


def test_testdev_needs_no_annotations_and_writes_detections(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bare = [sample(s.image_id, []) for s in SAMPLES]
    evaluator = build(samples=bare, testdev=True)
    evaluator.dataset.class_ids = [1, 18, 90]
    result = evaluator.run(FakeModel(SAMPLES, 3))
    assert math.isnan(result.ap50_95)
    assert "n/a" in result.summary()
    rows = json.loads((tmp_path / "yolox_testdev_2017.json").read_text())
    assert {row["category_id"] for row in rows} == {1, 18}
    dog = next(row for row in rows if row["image_id"] == 20 and row["category_id"] == 18)
    assert dog["bbox"] == pytest.approx([3, 4, 87, 66], abs=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 80}, "num_classes is 80, the data set has 3: cat, dog"),
        ({"samples": [SAMPLES[0], SAMPLES[0]]}, "two samples share an image_id"),
        (
            {"samples": [sample(1, [(3, 0, 0, 5, 5)], name="odd")]},
            r"odd: a class is outside 0\.\.2",
        ),
        ({"samples": [sample(1, [(0, 0, 0, 5, 5, True)])]}, "no image has an object that counts"),
        ({"samples": []}, "no image has an object that counts"),
    ],
)
def test_a_data_set_that_cannot_be_evaluated_on(change, message):
    with pytest.raises(ValueError, match=message):
        build(**change)


def test_all_problems_are_told_at_once():
    with pytest.raises(ValueError, match=r"num_classes is 1(?s:.*)first: a class is outside"):
        build(num_classes=1)
    with pytest.raises(ValueError, match="`samples` and `class_names`, list lacks them"):
        COCOEvaluator(FakeLoader([]), SIZE, 0.1, 0.5, 3)


def test_images_left_out_are_an_error():
    with pytest.raises(ValueError, match=r"left out 2 of 3 images \(second, third"):
        build(only=[10]).run(FakeModel(SAMPLES, 3))


def test_unsupported_arguments():
    evaluator, model = build(), FakeModel(SAMPLES, 3)
    with pytest.raises(ValueError, match="TensorRT is not supported"):
        evaluator.evaluate(model, trt_file="model.trt")
    with pytest.raises(ValueError, match=r"test_size: expected \(64, 96\)"):
        evaluator.evaluate(model, test_size=(640, 640))
    with pytest.raises(ValueError, match="precision: expected one of"):
        evaluator.run(model, precision="int8")


def sent(monkeypatch, found):
    """What a process sends to the others of what it found."""
    packets = []

    def all_gather_object(parts, mine):
        packets.append(mine)
        parts[:] = [mine]

    with monkeypatch.context() as patch:
        patch.setattr(dist, "is_initialized", lambda: True)
        patch.setattr(dist, "get_world_size", lambda: 2)
        patch.setattr(dist, "all_gather_object", all_gather_object)
        samples = [sample(entry.image_id, [], name="any") for entry in found]
        gather_detections(found, samples, True)
    return packets[0]


def other_process(monkeypatch, *elsewhere):
    """Let there be processes of higher rank that found ``elsewhere``."""
    others = [sent(monkeypatch, found) for found in elsewhere]

    def all_gather_object(parts, mine):
        parts[:] = pickle.loads(pickle.dumps([mine, *others]))

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 1 + len(elsewhere))
    monkeypatch.setattr(dist, "all_gather_object", all_gather_object)


FIRST = detections(10, [(0, 0.7, 10, 20, 60, 80), (1, 0.6, 100, 5, 190, 60)])
SECOND = detections(20, [(1, 0.7, 3, 4, 90, 70)])
THIRD = detections(30, [])


def test_processes_put_their_parts_together(monkeypatch):
    """The other process saw the first image too: its sampler repeated one to fill the round."""
    other_process(monkeypatch, [SECOND, detections(10, [(2, 0.9, 1, 1, 5, 5)])])
    together = gather_detections([THIRD, FIRST], SAMPLES, True)
    for entry, expected in zip(together, [FIRST, SECOND, THIRD], strict=True):
        assert entry.image_id == expected.image_id
        for name in ("boxes", "scores", "classes"):
            mine, theirs = getattr(entry, name), getattr(expected, name)
            assert mine.dtype == theirs.dtype
            assert mine.tolist() == theirs.tolist()
    result = build(only=[10, 30]).run(FakeModel(SAMPLES, 3), distributed=True)
    assert result.ap50_95 == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("mine", "elsewhere", "message"),
    [
        ([FIRST, FIRST], [SECOND, THIRD], "yields image first twice"),
        ([FIRST, SECOND, THIRD], [FIRST, SECOND, THIRD], "3 of 3 images were seen by more than"),
        ([FIRST], [THIRD], r"left out 1 of 3 images \(second\)"),
        ([FIRST, SECOND], [THIRD, detections(9, [])], r"yields images \[9\], which are not"),
    ],
)
def test_parts_that_do_not_make_a_whole(mine, elsewhere, message, monkeypatch):
    other_process(monkeypatch, elsewhere)
    with pytest.raises(ValueError, match=message):
        gather_detections(mine, SAMPLES, True)


def test_distributed_alone_changes_nothing():
    assert build().evaluate(FakeModel(SAMPLES, 3), distributed=True)[0] == pytest.approx(1.0)


def test_both_are_the_one_evaluator():
    assert issubclass(COCOEvaluator, Evaluator)
    assert issubclass(VOCEvaluator, Evaluator)
    assert VOCEvaluator.evaluate is COCOEvaluator.evaluate


def test_halves_make_the_whole():
    evaluator, model = build(), FakeModel(SAMPLES, 3)
    inference = evaluator.infer(model)
    assert [entry.image_id for entry in inference.detections] == [10, 20, 30]
    assert evaluator.score(inference).coco == evaluator.run(model).coco


def test_table_by_class_in_order():
    model = FakeModel([SAMPLES[0], sample(20, []), SAMPLES[2]], 3)
    result = build(names=("cat", "dog", "eel")).run(model)

    def names(order):
        return [line.split()[0] for line in result.summary(order=order).splitlines()[-3:]]

    assert names("class") == ["cat", "dog", "eel"]
    assert names("ap") == ["cat", "dog", "eel"], "1, 0.505, none"
    assert names("objects") == ["dog", "cat", "eel"]
    dogs = FakeModel([sample(10, [(1, 100, 5, 190, 60)]), SAMPLES[1], SAMPLES[2]], 3)
    result = build(names=("cat", "dog", "eel")).run(dogs)
    assert names("ap") == ["dog", "cat", "eel"], "1, 0, none"


def test_summary_and_values_by_size():
    result = build().run(FakeModel(SAMPLES, 3))
    assert result.objects == {"small": 0, "medium": 3, "large": 0}
    text = result.summary()
    assert "small n/a (0 objects)  medium 1.0000 (3 objects)" in text
    assert f"({result.coco_tools})" in text
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert values["per_class"][1] == {
        "name": "dog", "objects": 2, "ap50_95": 1.0, "ap50": 1.0, "ar50_95": 1.0
    }  # fmt: skip
    bare = build(samples=[sample(1, [])], require_objects=False, kind=Evaluator, headline="voc12")
    empty = bare.run(FakeModel([sample(1, [(0, 1, 1, 9, 9)])], 3)).to_dict()
    assert (empty["ap50_95"], empty["ap50"]) == (None, None)
