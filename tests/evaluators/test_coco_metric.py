import gc

import numpy as np
import pytest

from tests.evaluators.helpers import detections, perfect, sample
from tests.evaluators.test_curves import scene
from yolox.evaluators import (
    Timing,
    evaluate_coco,
    evaluate_detections,
    objects_beyond_limit,
)
from yolox.evaluators.coco_metric import COCO_TOOLS, PYCOCOTOOLS

SAMPLES = [
    sample(7, [(0, 10, 10, 50, 50), (1, 60, 10, 160, 90)]),
    sample(9, [(0, 0, 0, 20, 20)]),
    sample(11, []),
]


def test_perfect_detections():
    result = evaluate_coco(SAMPLES, perfect(SAMPLES), 2)
    assert result.metrics["ap50_95"] == pytest.approx(1.0)
    assert result.metrics["ap_small"] == pytest.approx(1.0)
    assert result.metrics["ap_medium"] == pytest.approx(1.0)
    assert result.metrics["ar50_95"] == pytest.approx(1.0)
    assert result.metrics["ap_large"] is None, "the largest box has 8000 pixels"
    assert [row.ap50 for row in result.per_class] == pytest.approx([1.0, 1.0])


def test_a_class_without_objects_is_not_counted():
    false_alarm = detections(11, [(2, 0.99, 5, 5, 50, 50)])
    result = evaluate_coco(SAMPLES, [*perfect(SAMPLES[:2]), false_alarm], 4)
    assert result.metrics["ap50_95"] == pytest.approx(1.0)
    assert result.per_class[2].ap50_95 is None
    assert result.per_class[3].ap50 is None
    assert result.per_class[3].ar50_95 is None


@pytest.mark.parametrize("found", [[], [detections(7, []), detections(9, [])]])
def test_no_detections_is_zero(found):
    result = evaluate_coco(SAMPLES, found, 3)
    assert result.metrics["ap50_95"] == 0.0
    assert result.metrics["ap50"] == 0.0
    assert [row.ap50_95 for row in result.per_class] == [0.0, 0.0, None]


def test_nothing_annotated_is_undefined():
    result = evaluate_coco([sample(1, [])], [detections(1, [(0, 0.5, 1, 1, 9, 9)])], 1)
    assert result.metrics["ap50_95"] is None


def test_difficult_objects_neither_help_nor_hurt():
    samples = [sample(1, [(0, 10, 10, 50, 50), (0, 100, 10, 150, 60, True)])]
    easy, hard = (0, 0.5, 10, 10, 50, 50), (0, 0.9, 100, 10, 150, 60)
    for rows in ([easy], [easy, hard], [easy, hard, hard]):
        result = evaluate_coco(samples, [detections(1, rows)], 1)
        assert result.metrics["ap50_95"] == pytest.approx(1.0)


def test_equal_scores_stand_in_order():
    right, wrong = (0, 0.5, 10, 10, 50, 50), (0, 0.5, 100, 10, 150, 60)
    samples = [sample(1, [(0, 10, 10, 50, 50)])]
    first = evaluate_coco(samples, [detections(1, [right, wrong])], 1)
    second = evaluate_coco(samples, [detections(1, [wrong, right])], 1)
    assert first.metrics["ap50"] == pytest.approx(1.0)
    assert second.metrics["ap50"] == pytest.approx(0.5)


def test_iou_thresholds():
    """IoU 0.76: right at 0.5 .. 0.75, wrong at 0.8 .. 0.95."""
    samples = [sample(1, [(0, 0, 0, 100, 100)])]
    result = evaluate_coco(samples, [detections(1, [(0, 0.5, 0, 0, 100, 76)])], 1)
    assert result.metrics["ap50"] == pytest.approx(1.0)
    assert result.metrics["ap75"] == pytest.approx(1.0)
    assert result.metrics["ap50_95"] == pytest.approx(0.6)


def test_prints_nothing_and_changes_nothing(capsys):
    boxes = SAMPLES[0].boxes.copy()
    evaluate_coco(SAMPLES, perfect(SAMPLES), 2)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert np.array_equal(SAMPLES[0].boxes, boxes)


def test_unknown_image():
    with pytest.raises(ValueError, match=r"image ids \[8\] are not in the data set"):
        evaluate_coco(SAMPLES, [detections(8, [])], 2)
    with pytest.raises(ValueError, match="at most one entry an image"):
        evaluate_coco(SAMPLES, [detections(7, []), detections(7, [])], 2)


def test_objects_are_counted_by_size():
    """32 × 32 is small and medium to COCO; difficult objects are left out."""
    boxes = [(0, 0, 31, 31), (0, 0, 32, 32), (0, 0, 96, 95), (0, 0, 97, 96)]
    samples = [sample(1, [*((0, *box) for box in boxes), (0, 0, 0, 5, 5, True)])]
    result = evaluate_coco(samples, perfect(samples), 1)
    assert result.objects == {"small": 2, "medium": 2, "large": 1}


def flat(result):
    rows = [(row.ap50_95, row.ap50, row.ar50_95) for row in result.per_class]
    return [-1.0 if v is None else v for v in (*result.metrics.values(), *sum(rows, ()))]


@pytest.mark.parametrize("seed", range(5))
def test_both_libraries_give_the_same_figures(seed):
    pytest.importorskip("faster_coco_eval", reason="needs faster-coco-eval, a faster pycocotools")
    samples, found = scene(seed)
    for part in (found, [], [detections(entry.image_id, []) for entry in found]):
        fast = evaluate_coco(samples, part, 4)
        slow = evaluate_coco(samples, part, 4, PYCOCOTOOLS)
        assert (fast.tools, slow.tools) == ("faster-coco-eval", "pycocotools")
        assert flat(fast) == pytest.approx(flat(slow), abs=1e-9)
        assert fast.objects == slow.objects


def test_both_libraries_count_at_most_a_hundred_of_a_class_an_image():
    boxes = [(10 * i, 0, 10 * i + 9, 20) for i in range(130)]
    samples = [sample(1, [(0, *box) for box in boxes])]
    for tools in (PYCOCOTOOLS, COCO_TOOLS):
        result = evaluate_coco(samples, perfect(samples), 1, tools)
        assert result.metrics["ar50_95"] == pytest.approx(100 / 130)


def test_objects_beyond_the_limit_of_detections_are_counted():
    """A perfect detector of 150 objects of a class in an image reaches a recall of 100 / 150."""
    corners = np.stack(np.meshgrid(np.arange(15), np.arange(10)), axis=-1).reshape(-1, 2) * 20.0
    boxes = np.concatenate([corners, corners + 12], axis=1).astype(np.float32)
    crowded = sample(1, [(0, *box) for box in boxes])
    found = detections(1, [(0, 1 - i / 300, *box) for i, box in enumerate(boxes)])
    result = evaluate_coco([crowded], [found], 1)
    assert result.metrics["ar50_95"] == pytest.approx(100 / 150)
    assert objects_beyond_limit([crowded]) == 50
    assert objects_beyond_limit([sample(1, [(i % 2, *box) for i, box in enumerate(boxes)])]) == 0
    ignored = sample(1, [(0, *box, i < 60) for i, box in enumerate(boxes)])
    assert objects_beyond_limit([ignored]) == 0
    assert objects_beyond_limit([]) == 0
    timing = Timing(forward_ms=1, postprocess_ms=1, images=1)
    figures = {"class_names": ["cat"], "headline": "coco", "timing": timing}
    text = evaluate_detections([crowded], [found], **figures).summary()
    assert "50 of 150 objects are beyond that and count as missed" in text
    assert "VOC area: AP50-95 1.0000" in text
    assert "beyond" not in evaluate_detections(SAMPLES[2:], [], **figures).summary()


def test_the_samples_are_gone_through_as_often_for_one_class_as_for_many():
    """Each time, a table makes all of them anew."""
    passes = []

    class Counted(list):
        def __iter__(self):
            passes.append(self)
            return super().__iter__()

    for classes in (1, 9):
        samples = Counted(sample(i, [(i % classes, 10, 10, 50, 50)]) for i in range(9))
        detected = perfect(samples)
        passes.clear()
        result = evaluate_coco(samples, detected, classes)
        assert sum(row.ap50 == pytest.approx(1.0) for row in result.per_class) == classes
        assert len(passes) <= 5


def test_the_garbage_collector_goes_on_afterwards(monkeypatch):
    on = []

    def run(*args):
        on.append(gc.isenabled())
        raise RuntimeError("broken")

    monkeypatch.setattr("yolox.evaluators.coco_metric.evaluate_class", run)
    with pytest.raises(RuntimeError, match="broken"):
        evaluate_coco(SAMPLES, perfect(SAMPLES), 2)
    assert on == [False]
    assert gc.isenabled()
