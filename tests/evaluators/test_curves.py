import numpy as np
import pytest

from tests.evaluators.helpers import detections, perfect, sample
from yolox.evaluators import confusion_table, evaluate_coco, precision_recall_curves
from yolox.evaluators.curves import SCORES
from yolox.evaluators.matching import IGNORED, NOTHING, match_image

A, B = (10, 10, 50, 50), (100, 10, 150, 60)
NOWHERE = (0, 80, 5, 90)


def curve(samples, found, classes=1, iou=0.5):
    (result,) = precision_recall_curves(samples, found, classes, (iou,))
    return result


def scene(seed, images=25, classes=4):
    """Random objects, some difficult; random detections near them, with many equal scores."""
    rng = np.random.default_rng(seed)
    samples, found = [], []
    for image_id in rng.permutation(images).tolist():
        count = int(rng.integers(0, 9))
        corner, size = rng.uniform(0, 150, (count, 2)), rng.uniform(20, 110, (count, 2))
        boxes = np.concatenate([corner, corner + size], axis=1).round()
        kinds = rng.integers(0, classes - 1, count)
        objects = [(kinds[i], *boxes[i], rng.random() < 0.2) for i in range(count)]
        samples.append(sample(image_id, objects))
        rows = []
        for i in rng.integers(0, count, 12) if count else []:
            kind = kinds[i] if rng.random() < 0.8 else rng.integers(0, classes)
            rows.append((kind, round(rng.random(), 1), *(boxes[i] + rng.normal(0, 4, 4))))
        found.append(detections(image_id, sorted(rows, key=lambda row: -row[1])))
    return samples, found


@pytest.mark.parametrize("seed", range(4))
def test_area_is_cocos_ap(seed):
    samples, found = scene(seed)
    coco = evaluate_coco(samples, found, 4)
    at50, at75 = precision_recall_curves(samples, found, 4)
    assert [at50.ap(c) for c in range(4)] == pytest.approx(
        [row.ap50 for row in coco.per_class], abs=1e-9
    )
    assert at50.ap(3) is None
    assert np.nanmean(at75.precision_at_recall) == pytest.approx(coco.metrics["ap75"], abs=1e-9)


def test_by_hand():
    """Right at 0.9, wrong at 0.6, right at 0.3; two objects and a third that is never found."""
    samples = [sample(1, [(0, *A), (0, *B)]), sample(2, [(0, *A)])]
    found = [
        detections(1, [(0, 0.9, *A), (0, 0.3, *B)]),
        detections(2, [(0, 0.6, *NOWHERE)]),
    ]
    result = curve(samples, found)
    at = {score: int(np.argmin(abs(SCORES - score))) for score in (0.2, 0.3, 0.5, 0.7, 0.95)}
    precision = [result.precision[0, at[s]] for s in (0.2, 0.3, 0.5, 0.7)]
    assert precision == pytest.approx([2 / 3, 2 / 3, 1 / 2, 1])
    recall = [result.recall[0, at[s]] for s in (0.2, 0.3, 0.5, 0.7, 0.95)]
    assert recall == pytest.approx([2 / 3, 2 / 3, 1 / 3, 1 / 3, 0])
    assert np.isnan(result.precision[0, at[0.95]])
    assert result.f1[0, at[0.95]] == 0
    # 34 recalls up to 0.33 at precision 1, 33 up to 0.66 at 2/3.
    assert result.ap(0) == pytest.approx((34 + 33 * 2 / 3) / 101)
    best = result.best(0)
    assert (best.precision, best.recall, best.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert best.score == pytest.approx(0.15), "the middle of 0 to 0.3"


def test_a_score_that_prints_as_the_limit_reaches_it():
    for score in (0.1, 0.3, 0.7, 0.9):
        result = curve([sample(1, [(0, *A)])], [detections(1, [(0, score, *A)])])
        assert result.recall[0, round(1000 * score)] == 1
        assert result.recall[0, round(1000 * score) + 1] == 0


def test_overall_is_the_mean_of_the_classes_that_have_objects():
    samples = [sample(1, [(0, *A), (1, *B)])]
    found = [detections(1, [(0, 0.9, *A), (1, 0.4, *B), (2, 0.8, *NOWHERE), (1, 0.3, *NOWHERE)])]
    result = curve(samples, found, classes=3)
    assert (result.best(0).f1, result.best(1).f1, result.best(2)) == (1.0, 1.0, None)
    best = result.best_overall()
    assert (best.precision, best.recall, best.f1) == (1.0, 1.0, 1.0)
    assert 0.3 < best.score <= 0.4
    assert result.objects.tolist() == [1, 1, 0]


def test_nothing_found_and_nothing_there():
    result = curve([sample(1, [(0, *A)])], [])
    assert (result.ap(0), result.best(0), result.best_overall()) == (0.0, None, None)
    result = curve([sample(1, [])], [detections(1, [(0, 0.5, *A)])])
    assert (result.ap(0), result.best(0), result.best_overall()) == (None, None, None)


def test_more_than_a_hundred_detections_of_an_image_count():
    boxes = [(10.0 * i, 0, 10.0 * i + 9, 20) for i in range(150)]
    samples = [sample(1, [(0, *box) for box in boxes])]
    result = curve(samples, perfect(samples))
    assert result.ap(0) == 1.0
    assert evaluate_coco(samples, perfect(samples), 1).metrics["ap50"] < 0.7


def test_matching_rule():
    truth = sample(1, [(0, *A), (1, *A), (0, *B, True)])
    found = detections(
        1,
        [
            (1, 0.9, *A),  # of two equal overlaps its own class
            (1, 0.8, *A),  # the other one, if classes do not matter
            (1, 0.7, *A),  # all taken
            (0, 0.6, *B),  # on a difficult object
            (0, 0.5, 105, 15, 125, 35),  # a part of it
            (1, 0.4, 105, 15, 125, 35),  # likewise, of another class
            (0, 0.3, *NOWHERE),
        ],
    )
    (any_class,) = match_image(truth, found, (0.5,), same_class=False)
    assert any_class.tolist() == [1, 0, NOTHING, IGNORED, IGNORED, IGNORED, NOTHING]
    (own,) = match_image(truth, found, (0.5,), same_class=True)
    assert own.tolist() == [1, NOTHING, NOTHING, IGNORED, IGNORED, NOTHING, NOTHING]


def test_confusion_by_hand():
    samples = [
        sample(1, [(0, *A), (1, *B)]),
        sample(2, [(0, *A), (2, *B, True)]),
        sample(3, [(2, *A)]),
    ]
    found = [
        detections(1, [(0, 0.9, *A), (0, 0.8, *B), (1, 0.7, *B)]),
        detections(2, [(1, 0.9, *NOWHERE), (2, 0.8, *B), (0, 0.2, *A)]),
    ]
    table = confusion_table(samples, found, 3, score=0.5)
    assert table.counts.tolist() == [
        [1, 0, 0, 1],  # found; missed in the second image, where the score is too low
        [1, 0, 0, 0],  # taken for class 0
        [0, 0, 0, 1],  # missed: no detections of that image
        [0, 2, 0, 0],  # the second one of a taken object; nothing there
    ]
    assert confusion_table(samples, found, 3, score=0.2).counts[0].tolist() == [2, 0, 0, 0]
    assert (table.score, table.iou) == (0.5, 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_confusion_counts_each_object_and_detection_once(seed):
    samples, found = scene(seed)
    counts = confusion_table(samples, found, 4, score=0.45).counts
    counted = np.concatenate([s.classes[~s.difficult] for s in samples])
    assert counts[:4].sum(axis=1).tolist() == np.bincount(counted, minlength=4).tolist()
    plenty = np.concatenate([f.classes[f.scores >= np.float32(0.45)] for f in found])
    assert (counts[:, :4].sum(axis=0) <= np.bincount(plenty, minlength=4)).all()
    bare = [sample(s.image_id, []) for s in samples]
    counts = confusion_table(bare, found, 4, score=0.45).counts
    assert counts[4, :4].tolist() == np.bincount(plenty, minlength=4).tolist()


@pytest.mark.parametrize(
    "compute",
    [curve, lambda s, f: confusion_table(s, f, 1, score=0.5)],
    ids=["curves", "confusion"],
)
def test_curves_refuse_wrong_image_ids(compute):
    samples = [sample(1, [(0, *A)])]
    with pytest.raises(ValueError, match=r"\[5\] are not in the data set"):
        compute(samples, [detections(5, [])])
    with pytest.raises(ValueError, match="at most one entry an image"):
        compute(samples, [detections(1, []), detections(1, [])])
