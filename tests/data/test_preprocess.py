"""Preprocess: every mode's geometry and pixels, against torchvision, timm and hand-computed cases."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2

from saccade.data.transforms.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from saccade.types.geometry import Geometry
from saccade.types.sample import IGNORE, Sample, boxes_tensor

MODES = {
    "stretch": Preprocess(mode="stretch", size=(24, 40)),
    "letterbox": Preprocess(mode="letterbox", size=(32, 40), fill=0.5),
    "letterbox_down": Preprocess(mode="letterbox", size=(32, 40), upscale=False),
    "shortest": Preprocess(mode="shortest", size=(24, 40), multiple=16),
    "crop": Preprocess(mode="crop", size=(24, 24)),
    "keep": Preprocess(mode="keep", multiple=8),
}
PLAIN = {"mean": (0.0,), "std": (1.0,)}
sides = st.integers(1, 70)


def picture(height, width, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    return tv_tensors.Image((smooth[0] * 255).round().to(torch.uint8))


def full_target(height, width):
    mask = torch.arange(height * width).reshape(height, width) % 5
    return {
        "boxes": boxes_tensor([[0, 0, width, height], [width / 4, height / 4, width / 2, height]], (height, width)),
        "labels": torch.tensor([1, 0]),
        "masks": tv_tensors.Mask(torch.stack([mask > 1, mask > 3])),
        "keypoints": torch.tensor([[[0.5, 0.5]], [[width - 0.5, height - 0.5]]]),
        "visibility": torch.tensor([[2], [1]]),
        "mask": tv_tensors.Mask(mask),
        "depth": torch.rand(height, width),
        "image_id": "a",
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (37, 1), (33, 47), (24, 40), (64, 64), (5, 90)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_gives_the_canvas_for_odd_sizes(mode, size, channels):
    preprocess = MODES[mode]
    tensor, target, geometry = preprocess(Sample(picture(*size, channels), full_target(*size)))
    assert tensor.shape == (3, *geometry.canvas)
    assert tensor.dtype == torch.float32
    assert torch.isfinite(tensor).all()
    assert type(tensor) is torch.Tensor
    assert geometry.original == size
    assert target["mask"].shape == target["masks"].shape[1:] == target["depth"].shape == geometry.canvas
    assert target["boxes"].canvas_size == geometry.canvas
    assert isinstance(target["boxes"], tv_tensors.BoundingBoxes)
    assert isinstance(target["mask"], tv_tensors.Mask)
    assert target["mask"].dtype == torch.int64
    assert target["masks"].dtype == torch.bool
    assert type(target["depth"]) is torch.Tensor
    assert torch.equal(target["labels"], torch.tensor([1, 0]))
    if mode in ("keep", "shortest"):
        assert all(side % preprocess.multiple == 0 for side in geometry.canvas)


@given(
    height=sides, width=sides, mode=st.sampled_from(list(MODES)), points=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=4)
)
@settings(max_examples=80, deadline=None)
def test_points_and_boxes_come_back(height, width, mode, points):
    geometry = MODES[mode].geometry((height, width))
    xy = torch.tensor(points, dtype=torch.float32).reshape(-1, 2) * torch.tensor([width, height])
    assert torch.allclose(geometry.points_to_original(geometry.points_to_network(xy)), xy, atol=1e-3)
    boxes = torch.cat([xy * 0.5, xy * 0.5 + xy * 0.5], dim=1)
    back = geometry.boxes_to_original(geometry.boxes_to_network(boxes))
    assert back.shape == (len(points), 4)
    assert torch.allclose(back, boxes, atol=1e-3)


def test_no_boxes_stay_0_by_4():
    target = {
        "boxes": boxes_tensor([], (9, 7)),
        "masks": tv_tensors.Mask(torch.zeros(0, 9, 7, dtype=torch.bool)),
        "labels": torch.zeros(0).long(),
    }
    for preprocess in MODES.values():
        _, out, geometry = preprocess(Sample(picture(9, 7), target))
        assert out["boxes"].shape == (0, 4)
        assert out["masks"].shape == (0, *geometry.canvas)


def test_a_dot_and_its_point_go_to_the_same_place():
    image = torch.zeros(3, 60, 90, dtype=torch.uint8)
    image[:, 20:30, 30:45] = 255
    mask = (image[0] > 0).long()
    point = torch.tensor([[[37.5, 25.0]]])
    for name in MODES:
        preprocess = MODES[name]
        target = {"boxes": boxes_tensor([[30, 20, 45, 30]], (60, 90)), "keypoints": point, "mask": tv_tensors.Mask(mask)}
        tensor, target, _ = Preprocess(**preprocess.to_dict() | PLAIN | {"fill": 0.0})(Sample(tv_tensors.Image(image), target))
        bright = tensor[0].clamp(0, 1)
        ys, xs = torch.meshgrid(*(torch.arange(s) + 0.5 for s in bright.shape), indexing="ij")
        centre = torch.stack([(xs * bright).sum(), (ys * bright).sum()]) / bright.sum()
        assert torch.allclose(centre, target["keypoints"][0, 0], atol=0.15), name
        x1, y1, x2, y2 = target["boxes"][0].tolist()
        assert bright.sum().item() == pytest.approx((x2 - x1) * (y2 - y1), rel=0.06)
        on = (target["mask"] == 1).nonzero().float() + 0.5
        assert torch.allclose(on.mean(dim=0).flip(0), centre, atol=0.5), name


def test_letterbox_keeps_the_aspect_and_pads_alike():
    preprocess = Preprocess(mode="letterbox", size=(100, 100), fill=0.5, **PLAIN)
    geometry = preprocess.geometry((480, 640))
    assert geometry == Geometry((480, 640), (75, 100), (12, 0), (100, 100))
    tensor, target, _ = preprocess(Sample(picture(480, 640), full_target(480, 640)))
    assert torch.all(tensor[:, :12] == 0.5)
    assert torch.all(tensor[:, 87:] == 0.5)
    assert torch.all(target["mask"][:12] == IGNORE)
    assert torch.all(target["mask"][12:87] >= 0)
    assert torch.all(target["mask"][87:] == IGNORE)
    assert not target["masks"][:, :12].any()
    assert torch.all(target["depth"][:12] == 0)
    assert torch.allclose(target["boxes"][0], torch.tensor([0.0, 12, 100, 87]))
    small = Preprocess(mode="letterbox", size=(100, 100), upscale=False)
    assert small.geometry((20, 30)) == Geometry((20, 30), (20, 30), (40, 35), (100, 100))


@given(height=sides, width=sides, target=st.tuples(st.integers(8, 64), st.integers(8, 64)))
@settings(max_examples=60, deadline=None)
def test_letterbox_distorts_by_less_than_a_pixel(height, width, target):
    geometry = Preprocess(mode="letterbox", size=target).geometry((height, width))
    factor = min(target[0] / height, target[1] / width)
    for side, resized, canvas in zip((height, width), geometry.resized, target, strict=True):
        assert resized <= canvas
        assert abs(resized - side * factor) <= 0.5 or resized == 1
    assert geometry.resized[0] == target[0] or geometry.resized[1] == target[1]


@pytest.mark.parametrize(("short", "longest"), [(64, 100), (50, 1000), (33, 40)])
def test_shortest_gives_torchvisions_detector_sizes(short, longest):
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    oracle = GeneralizedRCNNTransform(short, longest, [0.0] * 3, [1.0] * 3, size_divisible=1)
    preprocess = Preprocess(mode="shortest", size=(short, longest))
    for height in (1, 17, 50, 61, 64, 97, 101):
        for width in range(1, 130, 6):
            theirs = oracle.resize(torch.zeros(3, height, width), None)[0].shape[-2:] if min(height, width) > 2 else None
            ours = preprocess.geometry((height, width)).resized
            assert min(ours) >= 1
            if theirs is not None:
                assert ours == tuple(theirs), (height, width)


def test_shortest_gives_torchvisions_detector_pixels():
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    image = picture(75, 110)
    oracle = GeneralizedRCNNTransform(48, 96, list(IMAGENET_MEAN), list(IMAGENET_STD), size_divisible=1)
    theirs = oracle([image.as_subclass(torch.Tensor) / 255])[0].tensors[0]
    ours, _, _ = Preprocess(mode="shortest", size=(48, 96), antialias=False, resize_float=True)(Sample(image, {}))
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("antialias", [True, False])
def test_stretch_gives_torchvisions_resize(interpolation, antialias):
    image = picture(45, 80)
    oracle = v2.Compose(
        [
            v2.Resize((30, 33), interpolation=v2.InterpolationMode(interpolation), antialias=antialias),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    ours, _, _ = Preprocess(mode="stretch", size=(30, 33), interpolation=interpolation, antialias=antialias)(Sample(image, {}))
    assert torch.allclose(ours, oracle(image), atol=1e-6)


@pytest.mark.parametrize(("size", "crop"), [(224, 0.875), (32, 0.9), (48, 1.0), (33, 0.95)])
@pytest.mark.parametrize("shape", [(75, 110), (110, 75), (64, 64), (40, 131)])
def test_crop_gives_timms_evaluation_transform(size, crop, shape):
    from PIL import Image
    from timm.data import create_transform

    image = picture(*shape)
    oracle = create_transform(size, crop_pct=crop, interpolation="bicubic", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    theirs = oracle(Image.fromarray(np.moveaxis(image.numpy(), 0, -1)))
    ours, _, geometry = Preprocess(mode="crop", size=(size, size), crop=crop, interpolation="bicubic")(Sample(image, {}))
    assert geometry.canvas == (size, size)
    # Pillow and torch round their 8-bit kernels differently, by a level or two
    assert (ours - theirs).abs().max() <= 2.01 / 255 / min(IMAGENET_STD)


def test_masks_follow_the_image_at_any_scale():
    """The nearest pixel's centre: a mask resized by 4 is not half a source pixel off the image."""
    mask = (torch.arange(64)[None, :] >= 32).expand(64, 64).long()
    image = tv_tensors.Image((mask * 255).to(torch.uint8).expand(3, -1, -1))
    tensor, target, _ = Preprocess(mode="stretch", size=(20, 20), antialias=False, **PLAIN)(Sample(image, {"mask": tv_tensors.Mask(mask)}))
    assert torch.equal(target["mask"], (tensor[0] >= 0.5).long())
    ramp = torch.arange(64).expand(64, 64)
    _, target, _ = Preprocess(mode="stretch", size=(16, 16))(Sample(image, {"mask": tv_tensors.Mask(ramp)}))
    assert target["mask"][0, :3].tolist() == [2, 6, 10]


def test_ignore_survives_resizing():
    mask = torch.full((30, 30), 3)
    mask[:15] = IGNORE
    _, target, _ = Preprocess(mode="stretch", size=(11, 13))(Sample(picture(30, 30), {"mask": tv_tensors.Mask(mask)}))
    assert set(target["mask"].unique().tolist()) == {IGNORE, 3}


@pytest.mark.parametrize("mode", MODES)
def test_maps_come_back_to_the_original(mode):
    geometry = MODES[mode].geometry((45, 62))
    height, width = geometry.canvas
    (sy, sx), (top, left) = geometry.scale, geometry.offset
    # a map that holds its own original x and y, so that what comes back must equal the pixel's position
    xs = ((torch.arange(width) + 0.5 - left) / sx).expand(height, width)
    ys = ((torch.arange(height) + 0.5 - top) / sy)[:, None].expand(height, width)
    back = geometry.maps_to_original(torch.stack([xs, ys]))
    assert back.shape == (2, 45, 62)
    inner = (slice(14, 30), slice(20, 40))
    assert torch.allclose(back[0][inner], (torch.arange(62) + 0.5).expand(45, 62)[inner], atol=0.05)
    assert torch.allclose(back[1][inner], (torch.arange(45) + 0.5)[:, None].expand(45, 62)[inner], atol=0.05)


def test_what_a_centre_crop_cuts_off_comes_back_as_zero():
    geometry = Preprocess(mode="crop", size=(32, 32), crop=1.0).geometry((32, 64))
    back = geometry.maps_to_original(torch.ones(1, 8, 8))
    assert back[0, :, 16:48].eq(1).all()
    assert back[0, :, :16].eq(0).all()
    assert back[0, :, 48:].eq(0).all()


def test_channels_convert():
    colour = tv_tensors.Image(torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 4, 4))
    grey, _, _ = Preprocess(mode="keep", channels=1, mean=(0.0,), std=(1.0,))(Sample(colour, {}))
    assert grey.shape == (1, 4, 4)
    assert grey[0, 0, 0].item() == pytest.approx(0.299, abs=1 / 255)
    back, _, _ = Preprocess(mode="keep", **PLAIN)(Sample(tv_tensors.Image(torch.full((1, 4, 4), 51, dtype=torch.uint8)), {}))
    assert torch.allclose(back, torch.full((3, 4, 4), 0.2))


def test_the_sample_is_left_alone_and_the_settings_travel():
    image, target = picture(20, 30), full_target(20, 30)
    before = image.clone(), {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in target.items()}
    for preprocess in MODES.values():
        first = preprocess(Sample(image, target))
        again = Preprocess.from_dict(pickle.loads(pickle.dumps(preprocess)).to_dict())(Sample(image, target))
        assert torch.equal(first[0], again[0])
        assert first[2] == again[2]
    assert torch.equal(image, before[0])
    assert all(torch.equal(target[k], v) if isinstance(v, torch.Tensor) else target[k] == v for k, v in before[1].items())


def test_wrong_normalisation_is_refused():
    with pytest.raises(ValueError, match="mean has 2 values for 3 channels"):
        Preprocess(mean=(0.5, 0.5))
