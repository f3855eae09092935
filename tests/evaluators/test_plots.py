import json
import warnings

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.evaluators.helpers import detections, perfect, sample
from yolox.evaluators import Timing, evaluate_detections, precision_recall_curves
from yolox.evaluators.confusion import Confusion
from yolox.evaluators.plots import (
    MAX_NAMED_CLASSES,
    group_rare_confusions,
    save_confusion,
    save_f1,
    save_precision_recall,
)
from yolox.evaluators.report import write_report
from yolox.utils.errors import UserError

TIMING = Timing(forward_ms=1.0, postprocess_ms=0.5, images=3)
BOX, FAR = (10, 10, 50, 50), (100, 10, 150, 60)


def picture(path):
    image = cv2.imread(str(path))
    assert image is not None
    return image


def mixed_up(classes):
    """As many images as classes, one object each; every other one taken for the next class."""
    samples = [sample(i, [(i, *BOX)]) for i in range(classes)]
    found = [
        detections(i, [((i + i % 2) % classes, 0.9 - 0.5 * i / classes, *BOX), (i, 0.1, *FAR)])
        for i in range(classes)
    ]
    return samples, found


@pytest.mark.parametrize("classes", [1, 3, 9, 40])
def test_pictures_of_few_and_many_classes(classes, tmp_path):
    samples, found = mixed_up(classes)
    names = [f"_class ${i}$ with a name that is long" for i in range(classes)]
    curves = precision_recall_curves(samples, found, classes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_precision_recall(tmp_path / "pr.png", curves, names)
        save_f1(tmp_path / "f1.png", curves[0], names)
        counts = np.ones((classes + 1, classes + 1), np.int64)
        save_confusion(
            tmp_path / "deep" / "table.png", Confusion(score=0.5, iou=0.5, counts=counts), names
        )
    assert picture(tmp_path / "pr.png").shape[1] == 1024
    assert picture(tmp_path / "f1.png").std() > 10
    assert picture(tmp_path / "deep" / "table.png").std() > 10


def test_hits_are_blue_and_errors_orange(tmp_path):
    def hue(counts):
        path = tmp_path / "table.png"
        save_confusion(path, Confusion(score=0.5, iou=0.5, counts=np.array(counts)), ["a", "b"])
        blue, _, red = (picture(path)[..., i].astype(int) for i in range(3))
        return (blue - red > 60).sum(), (red - blue > 60).sum()

    right, wrong = hue([[9, 0, 0], [0, 9, 0], [0, 0, 0]])
    assert right > 10_000
    assert wrong == 0
    right, wrong = hue([[0, 9, 0], [9, 0, 0], [0, 0, 0]])
    assert right == 0
    assert wrong > 10_000


def test_rare_confusions_are_counted_as_one_class():
    classes = MAX_NAMED_CLASSES + 10
    counts = np.diag(np.arange(1, classes + 2))
    counts[-1, -1] = 0
    counts[0, 1] = counts[2, 1] = counts[35, 36] = 5
    counts[-1, 39] = counts[38, -1] = 3
    table, names = group_rare_confusions(counts, [f"c{i}" for i in range(classes)])
    assert table.shape == (MAX_NAMED_CLASSES + 1, MAX_NAMED_CLASSES + 1)
    assert table.sum() == counts.sum()
    assert names[-1] == f"{classes - MAX_NAMED_CLASSES + 1} others"
    assert {"c0", "c1", "c2", "c35", "c36"} <= set(names)
    assert "c39" in names, "of the classes never confused the frequent ones"
    assert "c3" not in names
    assert table[names.index("c35"), names.index("c36")] == 5
    assert table[-1, names.index("c39")] == 3
    few, same = group_rare_confusions(counts[:3, :3], ["a", "b"])
    assert few.tolist() == counts[:3, :3].tolist()
    assert same == ["a", "b"]


def report(folder, samples, found, names):
    result = evaluate_detections(samples, found, names, headline="coco", timing=TIMING)
    best = write_report(folder, result, samples, found, {"command": "as typed"})
    return best, json.loads((folder / "metrics.json").read_text())


def test_report_holds_the_figures(tmp_path):
    samples, found = mixed_up(4)
    best, content = report(
        tmp_path / "eval",
        samples,
        found,
        ["a", "b", "c", "d"],
    )
    files = {path.name for path in (tmp_path / "eval").iterdir()}
    assert files == {"metrics.json", "precision_recall.png", "f1.png", "confusion.png"}
    assert content["command"] == "as typed"
    assert content["result"]["coco"]["ap50"] == pytest.approx(0.375), "by class 1, 0, 1/2, 0"
    assert content["result"]["timing"]["forward_ms"] == 1.0
    at50, at75 = content["curves"]
    assert (at50["iou"], at75["iou"]) == (0.5, 0.75)
    assert at50["best"]["score"] == best.score == content["confusion"]["score"]
    assert len(at50["classes"][0]["precision_at_recall"]) == 101
    assert content["confusion"]["predicted"][-1] == "missed"
    assert np.array(content["confusion"]["counts"])[:4].sum() == 4


@pytest.mark.parametrize("objects", [[], [(0, *BOX)]])
def test_report_where_nothing_is_found_or_annotated(objects, tmp_path):
    samples = [sample(1, objects)]
    best, content = report(tmp_path, samples, [], ["a", "b"])
    assert best is None
    assert content["curves"][0]["best"] is None
    assert content["result"]["ap50"] == (0.0 if objects else None)


def test_report_into_a_place_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    samples = [sample(1, [(0, *BOX)])]
    with pytest.raises(UserError, match="cannot write into"):
        report(tmp_path / "file", samples, perfect(samples), ["a"])


def test_pictures_name_model_and_data(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(Figure, "suptitle", lambda self, text, **_: said.append(text))
    samples, found = [sample(0, [(0, *BOX)])], perfect([sample(0, [(0, *BOX)])])
    result = evaluate_detections(samples, found, ["a"], headline="coco", timing=TIMING)
    about = {"checkpoint": "/far/away/run_$1/best_ckpt.pth", "data": "VOC2007/test"}
    write_report(tmp_path, result, samples, found, {**about, "test_size": [64, 96]})
    text = r"run_\$1/best_ckpt.pth on VOC2007/test, 1 image at 64×96"
    assert [" ".join(lines.split()) for lines in said] == [text] * 3
