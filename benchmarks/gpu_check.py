"""A check of a GPU in at most eight minutes, which make test-gpu runs.

    python benchmarks/gpu_check.py
    python benchmarks/gpu_check.py --official ../YOLOX    # the official code in the same table
    python benchmarks/gpu_check.py --device cpu --tiny    # its own rehearsal, without a GPU

Needs a clone of the repository and its packages, and no network. Every part is a process of its own
and tells whether it passed; what is measured goes into gpu_check.json too. Exits with 1 if one
failed.

suite   the tests that compute on the device (pytest)
speed   training steps of yolox-s at 640 × 640: images a second in fp32, bf16 and fp16, in a plain
        loop and as the trainer makes them, and how busy the GPU is meanwhile
pair    two processes on one card, over gloo
prune   a short training, then prune + refit + verify, with AP and latency before and after
bench   both models with `yolox bench`
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
SUITE = (
    "tests/gpu",
    "tests/core/test_step.py",
    "tests/core/test_distill.py",
    "tests/core/test_sparsity.py",
    "tests/models/test_assigner.py",
    "tests/evaluators/test_evaluator.py",
    "tests/pruning/test_importance.py",
    "tests/pruning/test_compensate.py",
    "tests/test_predict.py",
)
# Shares of the time; what a part leaves goes to those behind it.
SHARES = {"suite": 0.3, "speed": 0.3, "pair": 0.12, "prune": 0.18, "bench": 0.1}
# The same for the official code, whose package has the same names: nothing else is imported.
STEP = """
import json, sys, time
import torch
from yolox.exp import get_exp
device, size, batch, steps, precision, style = json.loads(sys.argv[1])
exp = get_exp(None, sys.argv[2])
torch.manual_seed(0)
model = exp.get_model().to(device).train()
images = torch.rand(batch, 3, size, size, device=device) * 255
labels = torch.zeros(batch, 20, 5, device=device)
labels[..., 0] = torch.randint(0, 80, (batch, 20), device=device)
labels[..., 1:3] = torch.rand(batch, 20, 2, device=device) * size
labels[..., 3:] = 10 + torch.rand(batch, 20, 2, device=device) * size / 3
ema = None
if style == "trainer":
    from yolox.core.optim import build_sgd
    from yolox.utils.ema import ModelEMA
    model.to(memory_format=torch.channels_last)
    images = images.to(memory_format=torch.channels_last)
    optimizer = build_sgd(model, lr=1e-4, momentum=0.9, weight_decay=5e-4)
    ema = ModelEMA(model)
else:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True)
kind = torch.device(device).type
half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
scaler = torch.amp.GradScaler(kind, enabled=precision == "fp16")
def step():
    with torch.autocast(kind, half or torch.bfloat16, enabled=half is not None):
        loss = model(images, labels)["total_loss"]
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    if ema:
        ema.update(model)
def wait():
    if kind != "cpu":
        torch.accelerator.synchronize()
for _ in range(max(2, steps // 5)):
    step()
wait()
print("timing", flush=True)
start = time.perf_counter()
for _ in range(steps):
    step()
wait()
print(batch * steps / (time.perf_counter() - start))
"""


class Check:
    """The parts, and what they found."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder = args, folder
        self.found: dict[str, Any] = {}
        self.exp = "exps/yolox_demo.py"
        self.words = ["output_dir", str(folder / "out"), "data_dir", str(folder / "VOCdevkit")]
        if args.tiny:
            self.words += ["width", "0.125", "input_size", "64,64", "test_size", "64,64"]

    def run(self, words: Sequence[str], seconds: float, **more: str) -> str:
        """A process of this interpreter; its output, or an error with the end of it."""
        environment = {**os.environ, "PYTHONPATH": str(REPO), **more}
        done = subprocess.run(
            [sys.executable, *words],
            cwd=REPO,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
        )
        if done.returncode:
            raise RuntimeError(done.stdout[-3000:])
        return done.stdout

    def command(self, name: str, *words: object, seconds: float) -> str:
        """One of our commands."""
        return self.run(["-m", "yolox.tools.door", name, *map(str, words)], seconds)

    def suite(self, seconds: float) -> str:
        files = ["tests/gpu"] if self.args.tiny else SUITE
        out = self.run(["-m", "pytest", "-q", "-n", "4", "-p", "no:warnings", *files], seconds)
        return out.strip().splitlines()[-1]

    def speed(self, seconds: float) -> str:
        rows = [("ours, plain loop", "plain", REPO), ("ours, as the trainer", "trainer", REPO)]
        if self.args.official:
            rows.insert(0, ("official code", "plain", self.args.official.resolve()))
        tiny = self.args.tiny
        precisions = ("fp32", "bf16") if self.args.device == "cpu" else ("fp32", "bf16", "fp16")
        end, lines, results = time.monotonic() + seconds, [], []
        for precision in precisions:
            for label, style, package in rows:
                setting = [self.args.device, 64 if tiny else 640, 2 if tiny else 16]
                setting += [2 if tiny else 30, precision, style]
                model = "yolox-nano" if tiny else "yolox-s"
                with Busy() as busy:
                    out = self.run(
                        ["-c", STEP, json.dumps(setting), model],
                        end - time.monotonic(),
                        PYTHONPATH=str(package),
                    )
                rate = float(out.strip().splitlines()[-1])
                results.append({"code": label, "precision": precision, "images_per_second": rate})
                results[-1]["gpu_busy"] = busy.median
                told = "" if busy.median is None else f", GPU busy {busy.median} %"
                lines.append(f"{precision}  {label:<22} {rate:8.1f} images/s{told}")
        self.found["speed"] = results
        return "\n".join(lines)

    def pair(self, seconds: float) -> str:
        place = "cpu" if self.args.device == "cpu" else "cuda:0"
        out = self.command(
            "train", "-f", self.exp, "--device", place, "-d", 2, "-expn", "pair",
            *self.words, "max_epoch", 1, "no_aug_epochs", 0,
            seconds=seconds,
        )  # fmt: skip
        if "training done" not in out:
            raise RuntimeError(out[-3000:])
        return "two processes trained an epoch"

    def prune(self, seconds: float) -> str:
        start, out = time.monotonic(), self.folder / "out"
        place = ("--device", self.args.device)
        epochs = 1 if self.args.tiny else 8
        self.command(
            "train", "-f", self.exp, *place, *self.words, "max_epoch", epochs, "no_aug_epochs", 0,
            seconds=seconds,
        )  # fmt: skip
        told = self.command(
            "prune", "-f", self.exp, *place, "-c", out / "yolox_demo/latest_ckpt.pth", "-o",
            out / "pruned.pth", "--target", "macs=0.5", "--eval", "--images", 16,
            "--round-to", 1 if self.args.tiny else 8, *self.words,
            seconds=seconds - (time.monotonic() - start),
        )  # fmt: skip
        lines = [line for line in told.splitlines() if "verified:" in line or "latency" in line]
        return "\n".join(line.partition("INFO")[2].strip() or line for line in lines)

    def bench(self, seconds: float) -> str:
        out, target = self.folder / "out", self.folder / "bench.json"
        told = self.command(
            "bench", out / "yolox_demo/latest_ckpt.pth", out / "pruned.pth", "--runtimes", "torch",
            "--device", self.args.device, "--json", target, "--at-most", int(seconds / 2),
            *(("--runs", 3, "--no-memory") if self.args.tiny else ()),
            seconds=seconds,
        )  # fmt: skip
        self.found["bench"] = json.loads(target.read_text(encoding="utf-8"))
        return told.strip()


class Busy:
    """How busy the first GPU is, in percent, by nvidia-smi; None where there is none."""

    def __enter__(self) -> Busy:
        self._seen: list[int] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        if shutil.which("nvidia-smi"):
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def median(self) -> int | None:
        """Of the second half, in which steps are timed and nothing is loaded."""
        late = sorted(self._seen[len(self._seen) // 2 :])
        return late[len(late) // 2] if late else None

    def _watch(self) -> None:
        query = ["nvidia-smi", "-i", "0", "--query-gpu=utilization.gpu", "--format=csv,noheader"]
        while not self._done.wait(0.5):
            with suppress(OSError, ValueError):
                said = subprocess.run(query, capture_output=True, text=True, check=False).stdout
                self._seen.append(int(said.split()[0]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal")
    parser.add_argument(
        "--official", type=Path, help="clone of the official YOLOX, to compare with"
    )
    parser.add_argument("--parts", nargs="+", choices=tuple(SHARES), default=list(SHARES))
    parser.add_argument("--minutes", type=float, default=8.0, help="most time that it takes")
    parser.add_argument("--tiny", action="store_true", help="sizes for a rehearsal")
    parser.add_argument("--output", type=Path, default=Path("gpu_check.json"))
    args = parser.parse_args()
    sys.path.insert(0, str(REPO))
    from yolox.data import generate_demo_dataset
    from yolox.utils.device import device_name, driver_version, resolve_device
    from yolox.utils.errors import UserError

    try:
        device = resolve_device(args.device)
    except UserError as error:
        print(f"this check needs a GPU: {error}")
        return 1
    about = device_name(device)
    if device.type != "cpu":
        about += f", {driver_version(device)}"
    print(about)
    end, failed = time.monotonic() + 60 * args.minutes, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate_demo_dataset(folder, num_images=20 if args.tiny else 200)
        check = Check(args, folder)
        for number, part in enumerate(args.parts):
            rest = sum(SHARES[other] for other in args.parts[number:])
            seconds = (end - time.monotonic()) * SHARES[part] / rest
            start = time.monotonic()
            told, passed = _outcome(getattr(check, part), seconds)
            failed += [] if passed else [part]
            took = time.monotonic() - start
            print(f"\n== {part}: {'passed' if passed else 'FAILED'} in {took:.0f} s\n{told}")
    content = {"device": about, "failed": failed, **check.found}
    args.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"\nfigures in {args.output}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def _outcome(part: Callable[[float], str], seconds: float) -> tuple[str, bool]:
    try:
        return part(seconds), True
    except subprocess.TimeoutExpired as error:
        out = error.stdout or b""
        text = out.decode(errors="replace") if isinstance(out, bytes) else out
        return f"not done after {seconds:.0f} s\n{text[-2000:]}", False
    except (RuntimeError, OSError, ValueError) as error:
        return str(error), False


if __name__ == "__main__":
    sys.exit(main())
