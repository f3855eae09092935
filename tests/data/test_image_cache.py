"""The image cache: the same pixels, one copy of them, and never those of another file."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from loguru import logger

from yolox.data import (
    DataError,
    DetectionDataset,
    Draw,
    MosaicDetection,
    Sample,
    TrainTransform,
    VOCDetection,
    build_eval_loader,
    build_train_loader,
)
from yolox.data.data_augment import fit_size
from yolox.data.datasets import image_cache, mosaicdetection
from yolox.data.decoding import FACTORS, decode, decode_factor, read_bytes
from yolox.data.image_size import read_image_size

SETS = (("2007", "trainval"),)
INPUT = (64, 64)
# at 64 x 64: shown whole-size, enlarged, at 0.5 (read at 1/2), at 0.1 (read at 1/8)
IMAGES = {
    "same.jpg": (64, 60),
    "small.png": (31, 17),
    "half.jpg": (127, 101),
    "large.jpg": (640, 333),
    "odd.png": (129, 75),
    "tiny.bmp": (5, 3),
}


def write_image(path: Path, size: tuple[int, int], seed: int = 0) -> None:
    img = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    img = cv2.GaussianBlur(img, (5, 5), 2)
    path.write_bytes(cv2.imencode(path.suffix, img)[1].tobytes())


def sample(path: Path, number: int) -> Sample:
    size = read_image_size(path)
    assert size is not None
    return Sample(
        image_id=number,
        name=path.stem,
        path=path,
        height=size[0],
        width=size[1],
        boxes=np.array([[0, 0, size[1] / 2, size[0]], [1, 1, 3, 4]], dtype=np.float32),
        classes=np.array([0, 1]),
        difficult=np.array([False, True]),
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `IMAGES`; what would go to the user's cache folder goes to ``user``."""
    monkeypatch.setenv("YOLOX_CACHE", str(tmp_path / "user"))
    images = tmp_path / "images"
    images.mkdir()
    for seed, (name, size) in enumerate(IMAGES.items()):
        write_image(images / name, size, seed)
    return images


def samples(folder: Path) -> list[Sample]:
    return [sample(folder / name, i) for i, name in enumerate(IMAGES)]


def dataset(folder: Path, cache_type: str | None = None, **options) -> DetectionDataset:
    options = {"img_size": INPUT, **options}
    if cache_type is None:
        return DetectionDataset(samples(folder), ("a", "b"), **options)
    options |= {"cache": True, "cache_type": cache_type}
    return DetectionDataset(samples(folder), ("a", "b"), **options)


def cache_files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / ".yolox_cache").iterdir() if path.name != "lock")


# ----------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("cache_type", ["ram", "disk"])
def test_every_way_to_load_gives_the_same_pixels(folder, cache_type):
    plain, cached = dataset(folder), dataset(folder, cache_type)
    for index in range(len(plain)):
        for factor in FACTORS:
            expected = plain.load_reduced(index, factor)
            img = cached.load_reduced(index, factor)
            assert img.dtype == np.uint8
            np.testing.assert_array_equal(img, expected)
            img[:] = 0  # the caller's own copy
            np.testing.assert_array_equal(cached.load_reduced(index, factor), expected)
        np.testing.assert_array_equal(cached.load_image(index), plain.load_image(index))
        for mine, other in zip(cached[index], plain[index], strict=True):
            np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("cache_type", ["ram", "disk"])
def test_training_samples_are_bit_identical(folder, cache_type):
    sources = [dataset(folder), dataset(folder, cache_type)]
    plain, cached = (
        MosaicDetection(d, INPUT, preproc=TrainTransform(), mosaic_scale=(0.3, 2)) for d in sources
    )
    for seed in range(30):
        draw = Draw(seed % len(IMAGES), seed, seed % 3 > 0)
        for mine, other in zip(cached[draw], plain[draw], strict=True):
            np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("cache_type", ["ram", "disk"])
def test_what_is_kept_needs_no_file_and_the_rest_does(folder, cache_type):
    cached = dataset(folder, cache_type)
    for item in cached.samples:
        item.path.unlink()
    finest = {"same.jpg": 1, "small.png": 1, "half.jpg": 2, "large.jpg": 8, "odd.png": 2}
    for index, name in enumerate(finest):
        for factor in FACTORS:
            if factor >= finest[name]:
                side = cached.samples[index].height / factor
                assert abs(cached.load_reduced(index, factor).shape[0] - side) < 1
            else:
                with pytest.raises(DataError, match="cannot be read"):
                    cached.load_reduced(index, factor)


def test_the_factor_kept_is_the_one_that_a_mosaic_reads(folder):
    for scale in np.linspace(0.05, 2, 200):
        assert decode_factor(scale) == mosaicdetection.decode_factor(scale)
    for item in samples(folder):
        finest = decode_factor(fit_size((item.height, item.width), INPUT)[1])
        slots, size = image_cache.plan_slots([item], INPUT)
        assert [f for f, slot in zip(FACTORS, slots[0], strict=True) if slot[0]] == [
            f for f in FACTORS if f >= finest
        ]
        kept = sum(-(-item.height // f) * -(-item.width // f) * 3 for f in FACTORS if f >= finest)
        assert size == 88 + 4 * 4 * 8 + kept


def test_samples_may_be_put_in_another_order_later(folder):
    plain, cached = dataset(folder), dataset(folder, "ram")
    cached.samples = [cached.samples[i] for i in (3, 0, 3)]
    for index, original in enumerate((3, 0, 3)):
        np.testing.assert_array_equal(cached.load_image(index), plain.load_image(original))


def test_a_data_set_without_images_has_nothing_to_cache():
    assert len(DetectionDataset([], ("a",), cache=True)) == 0


# ------------------------------------------------------------------------------------- one copy


def mapping(data: DetectionDataset, out: multiprocessing.SimpleQueue) -> None:
    """Read all images, then say where they are: inode, permissions and KiB of its own."""
    for index in range(len(data)):
        data.load_reduced(index, 8 if index == 3 else 2 if index != 5 else 1)
    blocks = Path("/proc/self/smaps").read_text().split("VmFlags")
    block = next(b for b in blocks if "memfd:yolox-images" in b or ".yolox_cache" in b)
    lines = block.splitlines()
    place = next(line.split() for line in lines if "yolox" in line)  # range, access, .., inode
    own = next(line.split() for line in lines if line.startswith("Anonymous:"))
    out.put((int(place[4]), place[1], int(own[1])))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("cache_type", ["ram", "disk"])
def test_other_processes_map_the_same_pages(folder, cache_type, method):
    cached = dataset(folder, cache_type)
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    worker = context.Process(target=mapping, args=(cached, queue))
    worker.start()
    theirs = queue.get()
    worker.join()
    assert cached.image_cache is not None
    # shared (s), read-only, of the same file, with no page of its own
    assert theirs == (os.fstat(cached.image_cache.fd).st_ino, "r--s", 0)


@pytest.mark.parametrize("cache_type", ["ram", "disk"])
def test_pickled_it_takes_no_pixel_along_and_reads_files(folder, cache_type):
    cached = dataset(folder, cache_type)
    assert image_cache.plan_slots(cached.samples, INPUT)[1] > 40_000
    content = pickle.dumps(cached)
    assert len(content) < len(pickle.dumps(dataset(folder))) + 1000
    np.testing.assert_array_equal(pickle.loads(content).load_image(0), cached.load_image(0))


def batches(loader) -> list[bytes]:
    loader.set_epoch(1, mosaic=True)
    return [tensor.numpy().tobytes() for batch in loader for tensor in (*batch[:2], batch[3])]


def test_workers_serve_the_same_batches_from_the_cache_alone(demo, monkeypatch, tmp_path):
    monkeypatch.setenv("YOLOX_CACHE", str(tmp_path))
    source = VOCDetection(demo, SETS).samples[:4]
    own = []
    for item in source:  # their own files, to be removed
        path = tmp_path / item.path.name
        path.write_bytes(item.path.read_bytes())
        own.append(sample(path, item.image_id))

    def loader(data: DetectionDataset, workers: int):
        mosaic = MosaicDetection(data, (96, 128), preproc=TrainTransform())
        return build_train_loader(mosaic, batch_size=2, seed=5, num_workers=workers)

    size = (96, 128)
    expected = batches(loader(DetectionDataset(own, ("a", "b"), size), 0))
    cached = DetectionDataset(own, ("a", "b"), size, cache=True)
    for item in own:
        item.path.unlink()
    assert batches(loader(cached, 0)) == expected
    assert batches(loader(cached, 1)) == expected
    spawning = loader(cached, 1)
    spawning.multiprocessing_context = "spawn"
    assert batches(spawning) == expected
    images = [b[0] for b in build_eval_loader(cached, batch_size=1, num_workers=1)]
    assert torch.equal(images[0][0], torch.from_numpy(cached[0][0]))


# ------------------------------------------------------------------------------------ never stale


def test_a_disk_cache_is_made_once_and_read_by_later_runs(folder, monkeypatch, log):
    dataset(folder, "disk")
    made = cache_files(folder)
    assert len(made) == 1
    monkeypatch.setattr(image_cache, "decode", None)  # would fail if called
    dataset(folder, "disk")
    assert cache_files(folder) == made
    assert f"{len(IMAGES)} images cached in {made[0]}" in log("INFO")


@pytest.mark.parametrize("what", ["content", "time", "renamed", "size", "opencv"])
def test_any_change_makes_it_again_and_removes_the_old(folder, what, monkeypatch, log):
    dataset(folder, "disk")
    old = cache_files(folder)
    first = folder / "odd.png"
    size, times = INPUT, (first.stat().st_atime_ns, first.stat().st_mtime_ns)
    if what == "content":  # of the same length, as noise in a bitmap is
        content = bytearray((folder / "tiny.bmp").read_bytes())
        content[-4] ^= 255
        (folder / "tiny.bmp").write_bytes(bytes(content))
    elif what == "time":
        os.utime(first, ns=(times[0], times[1] + 1))
    elif what == "renamed":  # another file of the same length and time in its place
        other = folder / "other.png"
        other.write_bytes(first.read_bytes())
        os.utime(other, ns=times)
        other.replace(first)
        assert first.stat().st_mtime_ns == times[1]
    elif what == "size":
        size = (96, 64)
    else:
        monkeypatch.setattr(cv2, "getBuildInformation", lambda: "another")
    cached = dataset(folder, "disk", img_size=size)
    new = cache_files(folder)
    assert len(new) == 1
    assert new != old
    removed = [text for text in log("INFO") if text.startswith("removed")]
    assert len(removed) == 1
    assert str(old[0]) in removed[0]
    plain = dataset(folder, img_size=size)
    for index in range(len(plain)):
        np.testing.assert_array_equal(cached.load_image(index), plain.load_image(index))


def test_caches_of_other_images_are_left_alone(folder):
    dataset(folder, "disk")
    half = samples(folder)[:3]
    DetectionDataset(half, ("a", "b"), INPUT, cache=True, cache_type="disk")
    assert len(cache_files(folder)) == 2


@pytest.mark.parametrize("place", [0, 10, 50, 82, 100, "short", "empty", "long"])
def test_a_damaged_file_is_made_again(folder, place, log):
    dataset(folder, "disk")
    (path,) = cache_files(folder)
    whole = path.read_bytes()
    if isinstance(place, int):  # magic, key, digest, size, table
        broken = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    else:
        broken = {"short": whole[:-1], "empty": b"", "long": whole + b"\0"}[place]
    path.write_bytes(broken)
    cached = dataset(folder, "disk")
    assert any("is damaged" in text for text in log("WARNING"))
    assert path.read_bytes() == whole
    np.testing.assert_array_equal(cached.load_image(0), dataset(folder).load_image(0))


def test_a_damaged_image_is_named_and_decoded_from_its_file(folder, log):
    dataset(folder, "disk")
    (path,) = cache_files(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    plain, cached = dataset(folder), dataset(folder, "disk")
    for _ in range(2):
        for index in range(len(plain)):
            for factor in FACTORS:
                np.testing.assert_array_equal(
                    cached.load_reduced(index, factor), plain.load_reduced(index, factor)
                )
    (text,) = [text for text in log("WARNING") if "is damaged" in text]
    assert f"{path} is damaged where it holds {folder}" in text


_CHILD = """
import os, signal, sys
from pathlib import Path
from tests.data import test_image_cache as t
from yolox.data.datasets import image_cache
decode, action = image_cache.decode, sys.argv[2]
def stop(path, data, factor, size):
    if path.name == "odd.png" and action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if path.name == "odd.png" and factor == 2:
        print("filling", flush=True)
        sys.stdin.readline()
    return decode(path, data, factor, size)
image_cache.decode = stop
t.dataset(Path(sys.argv[1]), "disk")
"""


def child(folder: Path, action: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(folder), action],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_killed_while_filling_it_leaves_nothing_that_counts(folder):
    with child(folder, "die") as process:
        process.communicate()
    assert process.returncode == -9
    left = cache_files(folder)
    assert [path.suffix for path in left] == [".tmp"]
    cached = dataset(folder, "disk")
    assert [path.suffix for path in cache_files(folder)] == [".cache"]
    np.testing.assert_array_equal(cached.load_image(0), dataset(folder).load_image(0))


def test_of_two_processes_one_fills_and_the_other_waits(folder, monkeypatch):
    with child(folder, "wait") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "filling\n"
        monkeypatch.setattr(image_cache, "decode", None)  # would fail if called
        waiting = threading.Event()
        handle = logger.add(lambda text: "waiting" in text and waiting.set(), level="INFO")
        results = []
        thread = threading.Thread(target=lambda: results.append(dataset(folder, "disk")))
        thread.start()
        assert waiting.wait(60)
        assert not results
        process.stdin.write("\n")
        process.stdin.flush()
        thread.join()
        logger.remove(handle)
        assert process.wait() == 0
    assert len(cache_files(folder)) == 1
    expected = decode(folder / "same.jpg", read_bytes(folder / "same.jpg"), 1)
    np.testing.assert_array_equal(results[0].load_image(0), expected)


# ------------------------------------------------------------------------------------- bad input


def test_another_cache_type_is_refused(folder):
    with pytest.raises(DataError, match="cache_type must be one of ram, disk: 'gpu'"):
        DetectionDataset([], ("a",), cache_type="gpu")


@pytest.mark.parametrize("cache_type", ["ram", "disk"])
def test_all_images_that_cannot_be_read_are_named(folder, cache_type):
    items = samples(folder)
    (folder / "same.jpg").write_bytes(b"no image")
    (folder / "odd.png").write_bytes(b"")
    write_image(folder / "half.jpg", (50, 50))
    with pytest.raises(DataError) as error:
        DetectionDataset(items, ("a", "b"), INPUT, cache=True, cache_type=cache_type)
    for text in (
        "3 of 6 images cannot be cached",
        "same.jpg cannot be decoded (8 bytes)",
        "odd.png cannot be decoded (0 bytes)",
        "half.jpg is 25 × 25 (height × width) as decoded at 1/2, but 127 × 101 when its size was "
        "recorded, and 50 × 50 by its header",
    ):
        assert text in str(error.value)
    if cache_type == "disk":
        assert cache_files(folder) == []


@pytest.mark.parametrize("cache_type", ["ram", "disk"])
def test_all_images_that_are_gone_are_named(folder, cache_type):
    items = samples(folder)
    (folder / "same.jpg").unlink()
    (folder / "odd.png").unlink()
    with pytest.raises(DataError, match=r"2 of 6 images cannot be cached(.|\n)*same(.|\n)*odd"):
        DetectionDataset(items, ("a", "b"), INPUT, cache=True, cache_type=cache_type)


def test_too_little_memory(folder, monkeypatch):
    size = image_cache.plan_slots(samples(folder), INPUT)[1]
    monkeypatch.setattr(image_cache, "available_memory", lambda: int(size / 0.9) + 1)
    dataset(folder, "ram")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(DataError, match=r"GB in each of 2 processes.*use the disk cache"):
        dataset(folder, "ram")
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.setattr(image_cache, "available_memory", lambda: int(size / 0.9) - 1)
    with pytest.raises(DataError, match="use the disk cache"):
        dataset(folder, "ram")


def test_too_little_room_on_disk(folder, monkeypatch):
    size = image_cache.plan_slots(samples(folder), INPUT)[1]
    full = SimpleNamespace(f_bavail=size - 1, f_frsize=1, f_blocks=10, f_bfree=10)
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(DataError, match="free: make room, use cache_type ram"):
        dataset(folder, "disk")
    assert cache_files(folder) == []


@pytest.mark.parametrize("cache_type", ["ram", "disk"])
def test_where_there_is_no_room_an_input_that_fits_is_named(tmp_path, monkeypatch, cache_type):
    path = tmp_path / "large.png"
    path.write_bytes(cv2.imencode(".png", np.zeros((512, 512, 3), np.uint8))[1].tobytes())
    empty = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    names = ("boxes", "classes", "difficult")
    arrays = dict(zip(names, empty, strict=True))
    image = Sample(image_id=0, name="large", path=path, height=512, width=512, **arrays)
    room = image_cache.plan_slots([image], (128, 128))[1]
    monkeypatch.setattr(image_cache, "available_memory", lambda: int(room / 0.9) + 1)
    full = SimpleNamespace(f_bavail=room, f_frsize=1, f_blocks=10, f_bfree=10)
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(DataError, match=r"at input_size 128,128 it needs .* GB and would fit"):
        DetectionDataset([image], ["a"], (512, 512), cache=True, cache_type=cache_type)


def test_a_write_that_fails_leaves_nothing(folder):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        with pytest.raises(DataError, match=r"cannot write .*\(File too large\)"):
            dataset(folder, "disk")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert cache_files(folder) == []


def test_beside_images_that_cannot_be_written_to_the_users_folder_is_taken(folder, tmp_path):
    (folder / ".yolox_cache").touch()
    cached = dataset(folder, "disk")
    assert len(list((tmp_path / "user" / "images").glob("*.cache"))) == 1
    np.testing.assert_array_equal(cached.load_image(1), dataset(folder).load_image(1))


def test_no_place_at_all(folder, tmp_path):
    (folder / ".yolox_cache").touch()
    (tmp_path / "user").touch()
    with pytest.raises(DataError, match="no folder to write the image cache to") as error:
        dataset(folder, "disk")
    assert str(folder / ".yolox_cache") in str(error.value)
    assert str(tmp_path / "user" / "images") in str(error.value)


# ------------------------------------------------------------------------------------- difficult


def test_difficult_objects_can_be_kept_out_of_training(folder):
    with_all, without = dataset(folder), dataset(folder, train_difficult=False)
    assert with_all.labels(0).tolist() == [[0, 0, 30, 64, 0], [1, 1, 3, 4, 1]]
    assert without.labels(0).tolist() == [[0, 0, 30, 64, 0]]
    assert without[0][1].tolist() == [[0, 0, 30, 64, 0]]
    assert len(without.samples[0].boxes) == 2  # evaluation still knows of it
