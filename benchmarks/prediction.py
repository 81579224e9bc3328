"""Prediction against the bare forward pass, and the memory of a long stream of files.

python -m benchmarks.prediction [--quick] [--workers 1] [--rounds 15] [--stream 100000]

Rows ``overhead``: images/s of ``model.raw`` alone on a preprocessed batch in memory, of ``predict_batch`` (the same and decoding), of
``model.predict`` (also preprocessing) on images in memory, and of ``predict_files`` on JPEG files with loader workers. ``ratio`` is the
time of ``predict_batch`` over that of the forward pass: at most 1.10 is asked for. ``memory_ratio`` and ``files_ratio`` are the others',
resizing and JPEG included. Networks are untrained; the detector's scores are moved so that 100 boxes an image pass the threshold, as many
as a trained one has before suppression on a crowded picture.

Row ``stream``: a folder of 28 x 28 PNG files through LeNet-5 into JSON lines; what the processes have grown by between a tenth
of the stream and its end. More than 32 MiB is a failure.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor

from benchmarks.common import interleaved, timed, write_csv
from saccade.engine.predictor import predict_files
from saccade.models.base import Model
from saccade.models.registry import create_model
from saccade.types.prediction import Prediction
from saccade.types.recipe import PREDICTION
from saccade.types.sample import Sample, collate
from saccade.workflows.predict import Writer, predict

MOST, MOST_GROWTH = 1.10, 32 * 2**20
CASES: tuple[tuple[str, int, dict[str, Any], tuple[int, int]], ...] = (
    ("ssdlite", 3, {"size": 320}, (480, 640)),
    ("unet", 3, {"size": 192, "width": 16}, (300, 300)),
    ("timm/resnet18", 10, {}, (375, 500)),
)
"""Model, classes, options, and (H, W) of the images."""


def pictures(count: int, size: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    """Smooth random pictures that compress like photographs; (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    small = [Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)) for _ in range(count)]
    return [np.array(image.resize(size[::-1], Image.Resampling.BICUBIC)) for image in small]


@torch.no_grad()
def crowd(model: Model, images: Tensor, boxes: int = 100) -> None:
    """Move a detector's class biases so that so many boxes an image reach the score of a prediction."""
    logits = model.raw(images)["logits"]
    least = logits.flatten().topk(boxes * len(images)).values[-1]
    wanted = torch.logit(torch.tensor(PREDICTION.score))
    for head in model.classification:  # type: ignore[union-attr]
        head[-1].bias += wanted - least


def overhead(name: str, classes: int, options: dict[str, Any], size: tuple[int, int], batch: int, rounds: int, workers: int) -> dict:
    """One row: the forward pass, decoding, preprocessing and files."""
    torch.manual_seed(0)
    model = create_model(name, classes, **options).eval()
    arrays = pictures(batch, size)
    ready = collate([model.preprocess(Sample(torch.from_numpy(a).permute(2, 0, 1).contiguous(), {})) for a in arrays])
    assert isinstance(ready.images, Tensor)
    images, geometries, settings = ready.images, ready.geometries, asdict(PREDICTION)
    if model.task == "detect":
        crowd(model, images)

    @torch.inference_mode()
    def forward() -> object:
        return model.raw(images)

    @torch.inference_mode()
    def decoded() -> list[Prediction]:
        return model.predict_batch(images, geometries, **settings)

    timing = interleaved(forward, decoded, rounds=rounds, warmup=2)
    row = {"what": "overhead", "model": name, "images": batch, "height": size[0], "width": size[1]}
    row |= timing.row("forward", "predict_batch")
    memory = interleaved(forward, lambda: list(predict(model, arrays, batch_size=batch)), rounds=max(rounds // 3, 3))
    with tempfile.TemporaryDirectory() as folder:
        count = batch * 4
        for i in range(count):
            Image.fromarray(arrays[i % batch]).save(f"{folder}/{i:04}.jpg", quality=90)
        files = interleaved(
            lambda: [forward() for _ in range(count // batch)],
            lambda: list(predict_files(model, [folder], batch_size=batch, workers=workers)),
            rounds=max(rounds // 5, 3),
        )
    row |= {"memory_ratio": memory.ratio, "files_ratio": files.ratio, "workers": workers}
    speeds = {"forward": batch / timing.a, "predict_batch": batch / timing.b, "memory": batch / memory.b, "files": count / files.b}
    row |= {f"{key}_images_per_s": float(np.median(values)) for key, values in speeds.items()}
    print(f"{name}: " + ", ".join(f"{key} {np.median(values):.1f}" for key, values in speeds.items()) + " images/s")
    if model.task == "detect":
        row["boxes_per_image"] = float(np.mean([len(prediction) for prediction in decoded()]))  # type: ignore[arg-type]
    print(f"  predict_batch/forward {timing.ratio:.3f} ({row['ratio_low']:.3f} to {row['ratio_high']:.3f})", flush=True)
    return row


def resident() -> int:
    """Bytes in memory of this process and its loader workers."""
    own = psutil.Process()
    return sum(process.memory_info().rss for process in (own, *own.children(recursive=True)))


def watched(stream: Iterator[Prediction], marks: dict[int, int], each: int) -> Iterator[Prediction]:
    """The stream; ``marks[images] = bytes`` after every ``each`` images."""
    for i, prediction in enumerate(stream, 1):
        yield prediction
        if i % each == 0:
            marks[i] = resident()


def stream(count: int, workers: int) -> dict[str, Any]:
    """One row: memory and images/s of a stream of so many files."""
    model = create_model("lenet5", 10)
    marks: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for k in range(10):
            Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(f"{folder}/source-{k}.png")
        images = Path(folder) / "images"
        images.mkdir()
        for i in range(count):
            os.link(f"{folder}/source-{i % 10}.png", images / f"{i:06}.png")
        writer = Writer(Path(folder) / "out", "jsonl", draw=False)
        predictions = predict(model, str(images), batch_size=64, workers=workers)
        seconds = timed(lambda: writer.write_all(watched(predictions, marks, count // 10)))
        lines = sum(1 for _ in writer.file.open())
    assert lines == count
    first, last = marks[count // 10], marks[count]
    grown = max(marks.values()) - first
    print(f"{count} files: {count / seconds:.0f} images/s, memory {first / 2**20:.0f} to {last / 2**20:.0f} MiB")
    return {
        "what": "stream", "model": "lenet5", "images": count, "height": 28, "width": 28, "workers": workers,
        "files_images_per_s": count / seconds, "resident_at_tenth_mib": first / 2**20, "resident_at_end_mib": last / 2**20,
        "growth_mib": grown / 2**20,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stream", type=int, default=100_000, help="files of the memory check")
    parser.add_argument("--quick", action="store_true", help="5 rounds, 10 000 files")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.stream = 5, 10_000
    torch.set_num_threads(arguments.threads)
    rows = [overhead(*case, arguments.batch, arguments.rounds, arguments.workers) for case in CASES]
    rows.append(stream(arguments.stream, arguments.workers))
    print(write_csv("prediction", rows))
    slow = [f"{row['model']} {row['ratio']:.3f}" for row in rows[:-1] if row["ratio"] > MOST]
    if slow:
        raise SystemExit(f"decoding costs more than {MOST - 1:.0%} of the forward pass: {', '.join(slow)}")
    if rows[-1]["growth_mib"] * 2**20 > MOST_GROWTH:
        raise SystemExit(f"memory grew by {rows[-1]['growth_mib']:.0f} MiB over the stream")


if __name__ == "__main__":
    main()
