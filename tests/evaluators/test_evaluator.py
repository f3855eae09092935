import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from tests.evaluators.helpers import FakeDataset, FakeLoader, FakeModel, sample
from yolox.evaluators import run_inference

SIZE = (64, 96)
SAMPLES = [
    sample(10, [(0, 10, 20, 60, 80), (2, 100, 5, 199, 60)], height=100, width=200),
    sample(20, [(1, 3, 4, 20, 30)], height=32, width=24),
    sample(30, [], height=480, width=640),
]


def infer(model, loader, **kwargs):
    options = {"num_classes": 3, "img_size": SIZE, "conf_threshold": 0.1, "nms_threshold": 0.5}
    return run_inference(model, loader, **(options | kwargs))


def check(detections, samples=SAMPLES):
    assert [d.image_id for d in detections] == [s.image_id for s in samples]
    for found, truth in zip(detections, samples, strict=True):
        order = np.argsort(found.classes, kind="stable")
        np.testing.assert_allclose(found.boxes[order], truth.boxes, atol=1e-3)
        assert found.classes[order].tolist() == sorted(truth.classes.tolist())
        np.testing.assert_allclose(found.scores, 0.8 * 0.9, rtol=1e-5)
        assert (found.boxes.dtype, found.scores.dtype) == (np.float32, np.float32)
        assert found.boxes.shape == (len(truth.boxes), 4)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_boxes_come_back_in_original_pixels(batch_size):
    loader = FakeLoader(FakeDataset(SAMPLES, ("a", "b", "c")), batch_size=batch_size)
    check(infer(FakeModel(SAMPLES, 3), loader)[0])


class TorchDataset(Dataset):
    def __len__(self):
        return len(SAMPLES)

    def __getitem__(self, index):
        s = SAMPLES[index]
        image = np.full((3, *SIZE), s.image_id, np.float32)
        return image, np.zeros((5, 5)), (s.height, s.width), np.array([s.image_id])


@pytest.mark.parametrize("batch_size", [1, 2])
def test_reads_what_the_default_collate_makes(batch_size):
    check(infer(FakeModel(SAMPLES, 3), DataLoader(TorchDataset(), batch_size=batch_size))[0])


def test_reads_pairs_of_sizes():
    def batches():
        pairs = [(s.height, s.width) for s in SAMPLES]
        images = torch.tensor([10.0, 20.0, 30.0])[:, None, None, None].expand(-1, 3, *SIZE)
        yield images[:2], None, pairs[:2], [10, 20]
        yield images[2:], None, torch.tensor(pairs[2:]), torch.tensor([30])

    check(infer(FakeModel(SAMPLES, 3), batches())[0])


def test_modes_are_restored():
    model = FakeModel(SAMPLES, 3).train()
    model.frozen.eval()
    loader = FakeLoader(FakeDataset(SAMPLES, ("a", "b", "c")))
    infer(model, loader)
    assert model.modes == [(False, False, True)] * 2
    assert (model.training, model.conv.training, model.frozen.training) == (True, True, False)

    def broken():
        yield from loader
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        infer(model, broken())
    assert (model.training, model.frozen.training) == (True, False)


def test_timing_leaves_out_the_warm_up():
    dataset = FakeDataset(SAMPLES, ("a", "b", "c"))
    _, timing = infer(FakeModel(SAMPLES, 3), FakeLoader(dataset, batch_size=2))
    assert timing.images == 1
    assert timing.forward_ms > 0
    assert timing.postprocess_ms > 0
    _, timing = infer(FakeModel(SAMPLES, 3), FakeLoader(dataset, batch_size=3))
    assert timing.images == 3
    _, timing = infer(FakeModel(SAMPLES, 3), [])
    assert (timing.images, timing.forward_ms) == (0, 0)


def test_autocast_reaches_the_model():
    seen = []

    class Spy(FakeModel):
        def forward(self, images):
            seen.append(self.conv(images).dtype)
            return super().forward(images).bfloat16()

    loader = FakeLoader(FakeDataset(SAMPLES, ("a", "b", "c")))
    detections, _ = infer(Spy(SAMPLES, 3), loader, autocast=torch.bfloat16)
    assert set(seen) == {torch.bfloat16}
    assert detections[0].boxes.dtype == np.float32


def test_evaluator_refuses_wrong_batches():
    images = torch.zeros(2, 3, *SIZE)
    model = FakeModel(SAMPLES, 3)
    with pytest.raises(ValueError, match=r"expected \(64, 64\).*got \(64, 96\)"):
        infer(model, [(images, None, [(1, 1)] * 2, [10, 20])], img_size=(64, 64))
    with pytest.raises(ValueError, match="each of 2 images, got 1, 1 and 2"):
        infer(model, [(images, None, [(1, 1)], [10, 20])])
