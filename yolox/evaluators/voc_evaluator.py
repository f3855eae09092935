"""The evaluator with VOC AP as its headline."""

from typing import Any

from yolox.evaluators.coco_evaluator import Evaluator

__all__ = ["VOCEvaluator"]


class VOCEvaluator(Evaluator):
    """Evaluator whose headline is VOC AP. Arguments as for :class:`Evaluator`.

    ``use_07_metric`` chooses between the 11-point rule, by which VOC2007 is reported (the default,
    as in the official package for that year), and the area rule of VOC2010 and later. AP50-95 is
    the mean of the chosen rule over IoU 0.50, 0.55, ..., 0.95. The result holds both rules.
    """

    def __init__(
        self,
        dataloader: Any,
        img_size: tuple[int, int],
        confthre: float,
        nmsthre: float,
        num_classes: int,
        *,
        use_07_metric: bool = True,
    ) -> None:
        super().__init__(
            dataloader,
            img_size,
            confthre,
            nmsthre,
            num_classes,
            headline="voc07" if use_07_metric else "voc12",
        )
