"""Faster R-CNN against torchvision's own: forward (images to detections) and training step, the same weights and the same batch.

``python -m benchmarks.faster_rcnn`` writes results/faster_rcnn.csv. ``ratio`` is our time over theirs: at most 1.05 is asked for.
Times are processor time of one thread, which a busy neighbour does not change much.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from benchmarks.common import interleaved, write_csv
from saccade.models.detect import faster_rcnn as ours_module
from saccade.types.sample import Sample, collate

CLASSES = 20


def networks(backbone: str, size: tuple[int, int]) -> tuple[nn.Module, ours_module.FasterRCNN]:
    """Torchvision's network and ours with its weights, all layers trainable."""
    torch.manual_seed(0)
    body = resnet_fpn_backbone(backbone_name=backbone, weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5)
    theirs = FasterRCNN(body, num_classes=CLASSES + 1, min_size=size[0], max_size=size[1], box_score_thresh=0.05)
    for name, value in theirs.named_parameters():  # answers that vary, so that NMS has its usual work
        if value.ndim > 1 and any(key in name for key in ("cls_score", "bbox_pred", "cls_logits")):
            value.data.mul_(30 if "cls_score" in name else 3)
    ours = ours_module.faster_rcnn(CLASSES, backbone=backbone, norm="frozen", min_size=size[0], max_size=size[1])
    ours.load_state_dict(ours.translate_weights(theirs.state_dict(), norm_eps=1e-5))
    return theirs, ours


def objects(count: int, size: tuple[int, int], generator: torch.Generator) -> dict[str, Tensor]:
    """Random boxes of 16 to 100 pixels."""
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([size[1] - 110.0, size[0] - 110.0])
    boxes = torch.cat((corner, corner + 16 + 84 * torch.rand(count, 2, generator=generator)), dim=1)
    return {"boxes": boxes, "labels": torch.randint(0, CLASSES, (count,), generator=generator)}


def compare(backbone: str, size: tuple[int, int], batch: int, rounds: int) -> list[dict]:
    """One row for the forward pass and one for the training step."""
    theirs, ours = networks(backbone, size)
    generator = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for _ in range(batch)]
    targets = [objects(8, size, generator) for _ in range(batch)]
    float_images = [image / 255 for image in images]
    shifted = [target | {"labels": target["labels"] + 1} for target in targets]
    # Our preprocessing runs in loader workers, torchvision's in the network: it is counted for both.
    samples = [Sample(image, target) for image, target in zip(images, targets, strict=True)]

    @torch.no_grad()
    def our_forward() -> object:
        data = collate([ours.preprocess(sample) for sample in samples])
        return ours.predict_batch(data.images, data.geometries, score=0.05, iou=0.5, max_detections=100)

    @torch.no_grad()
    def their_forward() -> object:
        return theirs(float_images)

    def our_step() -> None:
        data = collate([ours.preprocess(sample) for sample in samples])
        ours.zero_grad()
        sum(ours.losses(data.images, data.targets).values()).backward()

    def their_step() -> None:
        theirs.zero_grad()
        sum(theirs(float_images, shifted).values()).backward()

    rows = []
    for name, mine, other, train in (("forward", our_forward, their_forward, False), ("training step", our_step, their_step, True)):
        ours.train(train), theirs.train(train)
        run = interleaved(other, mine, rounds=rounds, clock=time.process_time)
        row = {"backbone": backbone, "what": name, "images": batch, "height": size[0], "width": size[1], "clock": "processor"}
        rows.append(row | run.row("torchvision", "saccade"))
        print(f"{backbone:10} {name:14} {rows[-1]['ratio']:.3f} ({rows[-1]['ratio_low']:.3f} to {rows[-1]['ratio_high']:.3f})")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=320)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size = (arguments.height, arguments.width)
    rows = [row for name in ("resnet18", "resnet50") for row in compare(name, size, arguments.batch, arguments.rounds)]
    print(write_csv("faster_rcnn", rows))


if __name__ == "__main__":
    main()
