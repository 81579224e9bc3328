"""Grids against torchvision's two generators."""

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from saccade.boxes.anchors import grid_boxes, ratio_sides, ssd_scales, ssd_sides


def test_D24_ssd_default_boxes_equal_torchvision():
    grids, size = [(7, 5), (4, 3), (1, 1)], (96, 64)
    theirs = DefaultBoxGenerator([[2], [2, 3], [2]], min_ratio=0.2, max_ratio=0.9)
    images = ImageList(torch.zeros(1, 3, *size), [size])
    expected = theirs(images, [torch.zeros(1, 1, *g) for g in grids])[0]
    scales, out = ssd_scales(3), []
    for k, (grid, ratios) in enumerate(zip(grids, ([2], [2, 3], [2]), strict=True)):
        sides = ssd_sides(scales[k], scales[k + 1], ratios) * torch.tensor([size[1], size[0]])
        out.append(grid_boxes(grid, sides, (size[0] / grid[0], size[1] / grid[1])))
    torch.testing.assert_close(torch.cat(out), expected)


def test_D24_ssd_scales_and_box_count():
    assert ssd_scales(6) == pytest.approx([0.2, 0.34, 0.48, 0.62, 0.76, 0.9, 1.0])
    boxes = [len(ssd_sides(0.2, 0.3, r)) for r in ([2], [2, 3], [2, 3], [2, 3], [2], [2])]
    assert boxes == [4, 6, 6, 6, 4, 4]
    assert sum(n * g * g for n, g in zip(boxes, (38, 19, 10, 5, 3, 1), strict=True)) == 8732


def test_faster_rcnn_anchors_equal_torchvision():
    theirs = AnchorGenerator(((32,),), ((0.5, 1.0, 2.0),))
    images = ImageList(torch.zeros(1, 3, 64, 96), [(64, 96)])
    expected = theirs(images, [torch.zeros(1, 1, 4, 6)])[0]
    sides = 2 * (ratio_sides(32, (0.5, 1.0, 2.0)) / 2).round()
    torch.testing.assert_close(grid_boxes((4, 6), sides, (16, 16), offset=0.0), expected)


def test_a_box_sits_in_the_middle_of_its_cell():
    out = grid_boxes((1, 2), torch.tensor([[4.0, 2.0]]), (8, 8))
    assert out.tolist() == [[2, 3, 6, 5], [10, 3, 14, 5]]
