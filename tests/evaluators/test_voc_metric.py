import json
from pathlib import Path

import numpy as np
import pytest

from tests.evaluators.helpers import detections, perfect, sample
from yolox.evaluators import evaluate_coco, evaluate_voc
from yolox.evaluators.voc_metric import average_precision

GOLDEN = Path(__file__).parents[1] / "golden"
EASY = (0, 10, 10, 50, 50)
FAR = (0, 100, 10, 150, 60)


def both(samples, found, threshold=0.5):
    """AP of class 0 by the 11-point and by the area rule."""
    result = evaluate_voc(samples, found, 1, [threshold])
    return result.ap_11point[0, 0], result.ap_area[0, 0]


def bccd():
    """Ground truth of the BCCD test split, the recorded detections, their order, their AP.

    The detections' scores have three decimals, so many are equal, and the reference sorted them
    with an unstable sort: ``detection_rank`` is the order that it took within each class.
    """
    truth = json.loads((GOLDEN / "bccd_test_ground_truth.json").read_text())
    golden = json.loads((GOLDEN / "voc_ap_bccd_test.json").read_text())
    names = truth["classes"]
    samples = [
        sample(i, [(c, *box, difficult) for c, difficult, *box in objects], name=name)
        for i, (name, objects) in enumerate(truth["objects"].items())
    ]
    rows = {name: [] for name in truth["objects"]}
    for row, rank in zip(golden["detections"], truth["detection_rank"], strict=True):
        rows[row[0]].append((names.index(row[1]), row[2], rank, row[3:]))
    return names, samples, rows, golden["ap"]


def compare(found, samples, names, golden_ap, tolerance):
    result = evaluate_voc(samples, found, len(names), [0.5, 0.75])
    for rule, ap in (("voc07_11point", result.ap_11point), ("voc12_area", result.ap_area)):
        for t, threshold in enumerate(result.iou_thresholds):
            expected = golden_ap[f"{rule}_iou{threshold}"]
            for c, name in enumerate(names):
                assert ap[t, c] == pytest.approx(expected[name], abs=tolerance[rule])


def test_equals_the_reference_on_bccd():
    names, samples, rows, golden_ap = bccd()
    found = [
        detections(s.image_id, [(c, 1 - rank * 1e-4, *box) for c, _, rank, box in rows[s.name]])
        for s in samples
    ]
    compare(found, samples, names, golden_ap, {"voc07_11point": 2e-4, "voc12_area": 1e-5})


def test_equals_the_reference_on_bccd_but_for_ties():
    """With ties in our order one level of the 11-point rule may go the other way."""
    names, samples, rows, golden_ap = bccd()
    found = [
        detections(s.image_id, [(c, score, *box) for c, score, _, box in rows[s.name]])
        for s in samples
    ]
    compare(found, samples, names, golden_ap, {"voc07_11point": 1e-2, "voc12_area": 2e-3})


def test_perfect_detections_and_absent_classes():
    samples = [sample(3, [(0, 1, 1, 9, 9), (2, 5, 5, 60, 50)]), sample(4, [(0, 3, 3, 40, 40)])]
    result = evaluate_voc(samples, perfect(samples), 3, [0.5, 0.95])
    for ap in (result.ap_11point, result.ap_area):
        np.testing.assert_allclose(ap[:, [0, 2]], 1.0)
        assert np.isnan(ap[:, 1]).all()
    assert result.gt_counts.tolist() == [2, 0, 1]


@pytest.mark.parametrize("found", [[], [detections(1, [])]])
def test_no_detections_is_zero(found):
    assert both([sample(1, [EASY])], found) == (0, 0)


def test_only_false_alarms_is_zero():
    found = [detections(1, [(0, 0.9, *FAR[1:])]), detections(2, [(0, 0.8, *FAR[1:])])]
    assert both([sample(1, [EASY]), sample(2, [])], found) == (0, 0)


def test_a_ground_truth_is_found_once():
    samples = [sample(1, [EASY, FAR])]
    rows = [(0, 0.9, *EASY[1:]), (0, 0.8, *EASY[1:]), (0, 0.7, *FAR[1:])]
    eleven, area = both(samples, [detections(1, rows)])
    # Precision 1 up to recall 0.5, then 2/3.
    assert area == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert eleven == pytest.approx((6 + 5 * 2 / 3) / 11)


def test_a_detection_goes_to_its_best_ground_truth_only():
    """Its best one is taken; that it overlaps another enough does not save it."""
    samples = [sample(1, [(0, 0, 0, 99, 99), (0, 0, 30, 99, 129)])]
    rows = [(0, 0.9, 0, 0, 99, 99), (0, 0.8, 0, 10, 99, 109)]
    assert both(samples, [detections(1, rows)]) == pytest.approx((6 / 11, 0.5))


def test_difficult_objects_neither_help_nor_hurt():
    samples = [sample(1, [EASY, (*FAR, True)])]
    easy, hard = (0, 0.5, *EASY[1:]), (0, 0.9, *FAR[1:])
    for rows in ([easy], [easy, hard], [easy, hard, hard]):
        assert both(samples, [detections(1, rows)]) == pytest.approx((1, 1))


def test_equal_scores_stand_in_order():
    samples = [sample(1, [EASY])]
    right, wrong = (0, 0.5, *EASY[1:]), (0, 0.5, *FAR[1:])
    assert both(samples, [detections(1, [right, wrong])]) == pytest.approx((1, 1))
    assert both(samples, [detections(1, [wrong, right])]) == pytest.approx((0.5, 0.5))


def test_the_last_pixel_belongs_to_the_box():
    """50 of 100 pixels: IoU is exactly 0.5, and reaching the threshold is enough."""
    samples = [sample(1, [(0, 0, 0, 9, 9)])]
    found = [detections(1, [(0, 0.9, 0, 0, 9, 4)])]
    assert both(samples, found) == pytest.approx((1, 1))
    assert both(samples, found, 0.51) == (0, 0)
    assert evaluate_coco(samples, found, 1).metrics["ap50"] == 0, "4 × 9 of 9 × 9 to COCO"


def test_a_box_of_zero_width_can_be_found():
    samples = [sample(1, [(0, 5, 5, 5, 20)])]
    assert both(samples, perfect(samples)) == pytest.approx((1, 1))


def test_recall_that_just_reaches_a_level_counts():
    """3 of 10 is level 0.3, which in floating point is below 3 × 0.1."""
    recall, precision = np.array([0.1, 0.2, 0.3]), np.ones(3)
    assert average_precision(recall, precision, use_07_metric=True) == pytest.approx(4 / 11)
    assert average_precision(recall, precision, use_07_metric=False) == pytest.approx(0.3)


def test_voc_metric_refuses_wrong_image_ids():
    with pytest.raises(ValueError, match=r"\[5\] are not in the data set"):
        evaluate_voc([sample(1, [EASY])], [detections(5, [])], 1, [0.5])
    with pytest.raises(ValueError, match="at most one entry an image"):
        evaluate_voc([sample(1, [EASY])], [detections(1, []), detections(1, [])], 1, [0.5])
