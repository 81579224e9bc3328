"""YOLOv5s at 640 pixels: the forward pass plain, fused and channels-last; decoding beside suppression alone; target assignment.

``python -m benchmarks.yolov5 [--quick] [--rounds 15] [--threads 1]`` writes results/yolov5.csv.

Rows ``forward``: one image through ``raw``; ``ratio`` is the time of the plain network over that of the other. Rows ``decode``: from the
outputs of the 25 200 priors for 80 classes (random, with one prior of 50 on an object) to detections, at the score of a prediction and at
that of an evaluation, beside ``torchvision.ops.batched_nms`` alone on the boxes that reach it there. ``difference_ms`` is the median of
the differences, round by round: at most 3 ms is asked for. Row ``assignment``: which priors learn which truths, all three levels, for 16
images of 50 objects. All times are processor time (of one thread, unless asked otherwise), which a busy neighbour does not change much.
"""

from __future__ import annotations

import argparse
import copy
import time
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torchvision import ops

from benchmarks.common import interleaved, seconds, timed, write_csv
from saccade.boxes import nms
from saccade.layers.fuse import fuse_conv_bn
from saccade.models.detect.base import Objects
from saccade.models.detect.yolov5 import YOLOv5, assign, yolov5
from saccade.types.geometry import Geometry
from saccade.types.prediction import Detection
from saccade.types.recipe import EVALUATION, PREDICTION

MOST_MS = 3.0
SIZE, CLASSES = 640, 80


@torch.inference_mode()
def forward(model: YOLOv5, rounds: int) -> list[dict[str, Any]]:
    """Plain against fused, channels-last, and both."""
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    fused, last = fuse_conv_bn(copy.deepcopy(model)), copy.deepcopy(model).to(memory_format=torch.channels_last)
    both = copy.deepcopy(fused).to(memory_format=torch.channels_last)
    turned = image.contiguous(memory_format=torch.channels_last)
    rows = []
    for name, other, given in (("fused", fused, image), ("channels-last", last, turned), ("fused channels-last", both, turned)):
        for a, b in zip(other.raw(given), model.raw(image), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        run = interleaved(partial(other.raw, given), partial(model.raw, image), rounds=rounds, clock=time.process_time)
        rows.append({"what": "forward", "case": name} | run.row("variant", "plain"))
        print(f"forward, {name}: {np.median(run.a):.3f} s, plain {np.median(run.b):.3f} s, ratio {run.ratio:.2f}", flush=True)
    return rows


def outputs(generator: torch.Generator) -> list[Tensor]:
    """Heads' outputs as of a trained network: nearly all far below every threshold, some clearly above."""
    raw = []
    for stride in (8, 16, 32):
        cells = SIZE // stride
        out = torch.randn(1, 3, 5 + CLASSES, cells, cells, generator=generator)
        out[:, :, 4] -= 9
        out[:, :, 5:] -= 8
        count = 3 * cells * cells // 50
        prior, row, column = (torch.randint(n, (count,), generator=generator) for n in (3, cells, cells))
        out[0, prior, 4, row, column] = 2 * torch.randn(count, generator=generator)
        out[0, prior, 5 + torch.randint(CLASSES, (count,), generator=generator), row, column] += 10
        raw.append(out.flatten(1, 2))
    return raw


@torch.inference_mode()
def decode(model: YOLOv5, rounds: int) -> list[dict[str, Any]]:
    """Decoding with suppression against suppression alone, on what ``select`` gave to it."""
    raw, geometries = outputs(torch.Generator().manual_seed(1)), [Geometry((480, 640), (SIZE, SIZE))]
    rows = []
    for score in (PREDICTION.score, EVALUATION.score):
        with mock.patch.object(nms, "class_nms", wraps=nms.class_nms) as spy:
            found = model.decode(raw, geometries, score=score)[0]
        assert isinstance(found, Detection)
        boxes, scores, labels, iou = spy.call_args.args
        run = interleaved(
            partial(model.decode, raw, geometries, score=score),
            partial(ops.batched_nms, boxes, scores, labels, iou),
            rounds=rounds,
            warmup=3,
            clock=time.process_time,
        )
        difference = float(np.median(run.a - run.b)) * 1000
        rows.append(
            {"what": "decode", "case": f"score {score}", "priors": sum(r[0, 0].numel() for r in raw) * 3, "survivors": len(boxes)}
            | {"boxes": len(found.boxes), "difference_ms": difference}
            | run.row("decode", "batched_nms")
        )
        print(
            f"decode at {score}: {1000 * np.median(run.a):.2f} ms, batched_nms of {len(boxes)} alone {1000 * np.median(run.b):.2f} ms, "
            f"difference {difference:.2f} ms",
            flush=True,
        )
    return rows


def assignment(model: YOLOv5, rounds: int, images: int = 16, objects: int = 50) -> dict[str, Any]:
    """Seconds to gather a batch's truths and to assign them on all levels."""
    generator, targets = torch.Generator().manual_seed(2), []
    for _ in range(images):
        centre = SIZE * torch.rand(objects, 2, generator=generator)
        side = 8 * (40 ** torch.rand(objects, 2, generator=generator))  # 8 to 320 pixels
        boxes = torch.cat([centre - side / 2, centre + side / 2], 1).clamp(0, SIZE)
        targets.append({"boxes": boxes, "labels": torch.randint(CLASSES, (objects,), generator=generator)})

    def run() -> int:
        truth = Objects.of(targets, torch.zeros(()))
        levels = zip(model.priors, model.strides, strict=True)
        return sum(len(assign(truth.boxes, priors, stride, (SIZE // stride, SIZE // stride)).truth) for priors, stride in levels)

    run()
    times = np.array([timed(run, time.process_time) for _ in range(rounds)])
    print(f"assignment, {images} images of {objects} objects: {1000 * np.median(times):.2f} ms, {run()} pairs", flush=True)
    return {"what": "assignment", "case": f"{images} x {objects}", "rounds": rounds, "pairs": run()} | seconds("assignment", times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="3 rounds")
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else arguments.rounds
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = yolov5(CLASSES, variant="s", size=SIZE).eval()
    found = [*decode(model, rounds), assignment(model, rounds), *forward(model, rounds)]
    rows = [row | {"clock": "processor", "threads": arguments.threads} for row in found]
    print(write_csv("yolov5", rows))
    slow = [row for row in rows if row.get("difference_ms", 0.0) > MOST_MS]
    if slow:
        raise SystemExit(f"decoding takes {max(row['difference_ms'] for row in slow):.1f} ms more than suppression alone")


if __name__ == "__main__":
    main()
