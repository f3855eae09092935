import numpy as np
import pytest

from tests.evaluators.helpers import detections, perfect, sample
from yolox.evaluators import evaluate_coco

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
