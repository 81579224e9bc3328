"""SSD300 against torchvision's own: latency of one image (pixels to detections) and training step, the same weights and the same batch.

``python -m benchmarks.ssd`` writes results/ssd.csv. ``ratio`` is our time over theirs: at most 1.0 is asked for.
Times are processor time of one thread, which a busy neighbour does not change much.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn
from torchvision.models.detection import ssd300_vgg16

from benchmarks.common import interleaved, write_csv
from saccade.models.detect.ssd import SSD, ssd300
from saccade.types.sample import Sample, collate

SETTINGS = {"score": 0.01, "iou": 0.45, "max_detections": 200}
"""Torchvision's own, which are the paper's."""


def networks(classes: int) -> tuple[nn.Module, SSD]:
    """Torchvision's network and ours with its weights, all layers trainable."""
    torch.manual_seed(0)
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=classes + 1)
    ours = ssd300(classes, scales="torchvision")
    ours.load_state_dict(ours.translate_weights(theirs.state_dict()))
    return theirs, ours


def objects(count: int, classes: int, size: tuple[int, int], generator: torch.Generator) -> dict[str, Tensor]:
    """Random boxes of 16 to 100 pixels."""
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([size[1] - 110.0, size[0] - 110.0])
    boxes = torch.cat((corner, corner + 16 + 84 * torch.rand(count, 2, generator=generator)), dim=1)
    return {"boxes": boxes, "labels": torch.randint(0, classes, (count,), generator=generator)}


def compare(classes: int, size: tuple[int, int], batch: int, rounds: int) -> list[dict]:
    """One row for the latency of one image and one for the training step."""
    theirs, ours = networks(classes)
    generator = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for _ in range(batch)]
    targets = [objects(8, classes, size, generator) for _ in range(batch)]
    float_images = [image / 255 for image in images]
    shifted = [target | {"labels": target["labels"] + 1} for target in targets]
    # Our preprocessing runs in loader workers, torchvision's in the network: it is counted for both.
    samples = [Sample(image, target) for image, target in zip(images, targets, strict=True)]

    @torch.no_grad()
    def our_forward() -> object:
        data = collate([ours.preprocess(samples[0])])
        return ours.predict_batch(data.images, data.geometries, **SETTINGS)

    @torch.no_grad()
    def their_forward() -> object:
        return theirs(float_images[:1])

    def our_step() -> None:
        data = collate([ours.preprocess(sample) for sample in samples])
        ours.zero_grad()
        torch.stack(list(ours.losses(data.images, data.targets).values())).sum().backward()

    def their_step() -> None:
        theirs.zero_grad()
        torch.stack(list(theirs(float_images, shifted).values())).sum().backward()

    rows = []
    for name, mine, other, train in (("latency", our_forward, their_forward, False), ("training step", our_step, their_step, True)):
        ours.train(train), theirs.train(train)
        run = interleaved(other, mine, rounds=rounds, clock=time.process_time)
        row = {"what": name, "images": batch if train else 1, "classes": classes, "height": size[0], "width": size[1], "clock": "processor"}
        rows.append(row | run.row("torchvision", "saccade"))
        print(f"{name:14} {rows[-1]['ratio']:.3f} ({rows[-1]['ratio_low']:.3f} to {rows[-1]['ratio_high']:.3f})")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--classes", type=int, default=90)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--width", type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = compare(arguments.classes, (arguments.height, arguments.width), arguments.batch, arguments.rounds)
    print(write_csv("ssd", rows))


if __name__ == "__main__":
    main()
