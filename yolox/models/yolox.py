"""The detector: backbone with neck, then head."""

from __future__ import annotations

from torch import Tensor, nn

from yolox.models.losses import detection_loss
from yolox.models.yolo_fpn import YOLOFPN
from yolox.models.yolo_head import HeadOutput, YOLOXHead, decode
from yolox.models.yolo_pafpn import YOLOPAFPN


class YOLOX(nn.Module):
    """YOLOX (Ge et al. 2021, arXiv:2107.08430). Images are BGR, 0 to 255, not normalised."""

    def __init__(
        self, backbone: YOLOPAFPN | YOLOFPN | None = None, head: YOLOXHead | None = None
    ) -> None:
        super().__init__()
        self.backbone = YOLOPAFPN() if backbone is None else backbone
        self.head = YOLOXHead(80) if head is None else head

    def raw(self, x: Tensor) -> HeadOutput:
        """Images (B, 3, H, W), H and W multiples of the largest stride → raw predictions."""
        out: HeadOutput = self.head(self.backbone(x))
        return out

    def loss(self, x: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The training losses in the module's present mode; see `detection_loss`."""
        return detection_loss(self.raw(x), targets, use_l1=self.head.use_l1)

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Training mode with targets (B, G, 5): the losses. Otherwise decoded boxes (B, A, 5 + C).

        Raises:
            ValueError: training mode without targets, or a size that the strides do not divide.
        """
        largest = max(self.head.strides)
        if x.shape[-1] % largest or x.shape[-2] % largest:
            raise ValueError(
                f"input height and width must be multiples of {largest}, got {tuple(x.shape[-2:])}"
            )
        if self.training:
            if targets is None:
                raise ValueError("training mode needs targets; call model.eval() to detect")
            return self.loss(x, targets)
        return decode(self.raw(x))
