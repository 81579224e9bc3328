"""Any segmenter on images of any size at their own resolution: overlapping tiles, mirrored borders, bounded memory.

The kernel is :func:`saccade.layers.tiling.tile_predict` (U-Net's overlap-tile strategy), given again here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saccade.data.dataset import as_tensor_image
from saccade.layers.tiling import tile_predict
from saccade.models.segment.base import Segmenter
from saccade.types.errors import UsageError
from saccade.types.geometry import Geometry
from saccade.types.prediction import Segmentation

__all__ = ["predict_tiled", "tile_predict"]


@torch.no_grad()
def predict_tiled(
    model: Segmenter, image: Any, *, tile: int = 512, margin: int = 96, batch: int = 1, scale: float = 1.0, align: int = 32
) -> Segmentation:
    """Segment a large image without shrinking it to the model's input size.

    A model that was trained on crops or on small images (cells of 120 pixels) reads a whole slide this way. Beside the image
    itself and its class map, only ``batch`` windows are in memory.

    Args:
        model: any segmenter that takes inputs of any size; its own resizing is not used, its channels and normalisation are.
        image: (C, H, W) uint8 tensor, (H, W[, 3]) uint8 array, or Pillow image.
        tile: side of an output tile in network pixels; margin: context on each side. Both are rounded up to ``align``.
        batch: windows a call.
        scale: network pixels an original pixel, where training enlarged or shrank the images.
        align: stride of the network.

    Raises:
        UsageError: settings out of range.
    """
    if tile < 1 or margin < 0 or batch < 1 or scale <= 0:
        raise UsageError(f"tile={tile}, margin={margin}, batch={batch}, scale={scale}: a tile, a batch and a scale are above 0")
    tile, margin = (-(-side // align) * align for side in (tile, margin))
    pixels = as_tensor_image(image)
    original = (int(pixels.shape[-2]), int(pixels.shape[-1]))
    resized = (max(1, round(original[0] * scale)), max(1, round(original[1] * scale)))
    tensor = model.preprocess.image(pixels, Geometry(original, resized))

    def labels(windows: Tensor) -> Tensor:
        maps = model.raw(windows.to(model.device)).argmax(1, keepdim=True)
        return maps.to(torch.uint8 if model.num_classes <= 256 else torch.int32)

    was_training = model.training
    model.eval()
    try:
        mask = tile_predict(labels, tensor, tile=tile, margin=margin, batch=batch, align=align)
    finally:
        model.train(was_training)
    if resized != original:
        mask = Geometry(original, resized).maps_to_original(mask.float(), mode="nearest").to(mask.dtype)
    return Segmentation(mask=mask[0].cpu().numpy(), classes=model.classes, size=original, image=pixels)
