"""Augmentation: image, boxes, instance masks, key points and class mask move as one; a sample is a function of (seed, epoch, image)."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from saccade.data.dataset import Dataset
from saccade.data.synthetic import load_synthetic
from saccade.data.transforms.augment import (
    GREY,
    Affine,
    Augment,
    AugmentedDataset,
    BatchMix,
    batch_mix,
    build_augment,
    close,
    jitter,
    mix_seed,
    mosaic,
    move,
    seeded,
    shift_hue,
)
from saccade.types.errors import DataError, UsageError
from saccade.types.geometry import Geometry
from saccade.types.recipe import Recipe
from saccade.types.sample import IGNORE, OBJECT_KEYS, Batch, Sample, boxes_tensor

SWAP = (0, 1, 4, 3, 2)


def scene(size=(40, 56), count=3, seed=0, channels=3, points=5):
    """A sample whose image is painted from its instance masks, so that what moved wrongly shows."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    masks, boxes = torch.zeros(count, height, width, dtype=torch.bool), []
    mask = torch.zeros(height, width, dtype=torch.int64)
    image = torch.zeros(channels, height, width, dtype=torch.uint8)
    keypoints, visibility = torch.zeros(count, points, 2), torch.zeros(count, points, dtype=torch.int64)
    for k in range(count):
        u = torch.rand(4, generator=generator).tolist()
        x1, y1 = int(u[0] * 0.7 * width), int(u[1] * 0.7 * height)
        x2, y2 = x1 + max(1, int((0.15 + 0.15 * u[2]) * width)), y1 + max(1, int((0.15 + 0.15 * u[3]) * height))
        x2, y2 = min(x2, width), min(y2, height)
        masks[k, y1:y2, x1:x2] = True
        mask[y1:y2, x1:x2] = k + 1
        image[:, y1:y2, x1:x2] = 200
        boxes.append((x1, y1, x2, y2))
        keypoints[k] = torch.rand(points, 2, generator=generator) * torch.tensor([x2 - x1, y2 - y1]) + torch.tensor([x1, y1])
        visibility[k] = torch.randint(1, 3, (points,), generator=generator)
    target = {
        "boxes": boxes_tensor(boxes, size),
        "labels": torch.arange(count),
        "iscrowd": torch.arange(count) % 2 == 1,
        "masks": tv_tensors.Mask(masks),
        "keypoints": keypoints,
        "visibility": visibility,
        "mask": tv_tensors.Mask(mask),
        "depth": mask + 0.5,
        "image_id": f"scene{seed}",
        "path": "",
    }
    return Sample(tv_tensors.Image(image), target)


def augmented(sample, recipe, seed=0, task="detect", swap=SWAP):
    with seeded(seed):
        return build_augment(recipe, task, swap)(sample)


def check_consistent(sample):
    image, target = sample
    height, width = image.shape[-2:]
    assert isinstance(image, tv_tensors.Image)
    assert image.dtype == torch.uint8
    counts = {len(target[key]) for key in OBJECT_KEYS if key in target}
    assert len(counts) == 1
    boxes = target["boxes"]
    assert isinstance(boxes, tv_tensors.BoundingBoxes)
    assert boxes.canvas_size == (height, width)
    assert boxes.shape[1:] == (4,)
    assert boxes.dtype == torch.float32
    plain = boxes.as_subclass(torch.Tensor)
    assert (plain >= 0).all()
    assert (plain[:, 2:] <= torch.tensor([width, height])).all()
    assert (plain[:, 2:] >= plain[:, :2]).all()
    assert isinstance(target["masks"], tv_tensors.Mask)
    assert target["masks"].shape[1:] == (height, width)
    assert target["masks"].dtype == torch.bool
    assert target["mask"].shape == target["depth"].shape == (height, width)
    assert target["mask"].dtype == torch.int64
    points, visibility = target["keypoints"], target["visibility"]
    assert (points[visibility == 0] == 0).all()
    assert (points >= 0).all()
    assert (points <= torch.tensor([width, height])).all()


recipes = st.builds(
    Recipe,
    hflip=st.sampled_from([0.0, 0.5, 1.0]),
    vflip=st.sampled_from([0.0, 0.5]),
    quarter_turns=st.booleans(),
    rotate=st.sampled_from([0.0, 10.0, 180.0]),
    shear=st.sampled_from([0.0, 8.0]),
    scale=st.sampled_from([0.0, 0.4]),
    translate=st.sampled_from([0.0, 0.2]),
    crop=st.sampled_from([1.0, 0.4]),
    brightness=st.sampled_from([0.0, 0.4]),
    contrast=st.sampled_from([0.0, 0.4]),
    saturation=st.sampled_from([0.0, 0.4]),
    hue=st.sampled_from([0.0, 0.1]),
    blur=st.sampled_from([0.0, 1.0]),
    erase=st.sampled_from([0.0, 1.0]),
)


@given(
    recipe=recipes,
    size=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    count=st.integers(0, 4),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=120, deadline=None)
def test_I14_any_recipe_keeps_a_sample_consistent(recipe, size, count, channels, seed):
    before = scene(size, count, seed % 997, channels)
    kept = before.image.clone(), pickle.dumps(before.target)
    out = augmented(before, recipe, seed)
    check_consistent(out)
    assert out.image.shape[0] == channels
    assert sorted(out.image.shape[-2:]) == sorted(size)
    boxes = out.target["boxes"].as_subclass(torch.Tensor)
    for k, one in enumerate(out.target["masks"].as_subclass(torch.Tensor)):
        ys, xs = torch.nonzero(one, as_tuple=True)
        if len(xs):
            x1, y1, x2, y2 = boxes[k].tolist()
            # the centre of every pixel of the mask lies in the box
            assert x1 - 1e-3 <= xs.min() + 0.5
            assert y1 - 1e-3 <= ys.min() + 0.5
            assert x2 + 1e-3 >= xs.max() + 0.5
            assert y2 + 1e-3 >= ys.max() + 0.5
        label = int(out.target["labels"][k])
        # labels stay with their masks: the class map says which object stood here (or one that lay over it)
        assert set(out.target["mask"][one].unique().tolist()) <= {label + 1, *range(label + 2, count + 1)}
    assert torch.equal(before.image, kept[0])
    assert pickle.dumps(before.target) == kept[1]


@given(recipe=recipes, seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_I14_masks_stay_on_the_image(recipe, seed):
    before = scene((48, 64), 4, seed % 991)
    recipe = recipe.replace(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, blur=0.0, erase=0.0)
    image, target = augmented(before, recipe, seed)
    # the image is 200 on objects, 0 elsewhere, 114 outside; bilinear edges lie between, so only clear pixels are compared
    shown = image[0].as_subclass(torch.Tensor)
    mask = target["mask"].as_subclass(torch.Tensor)
    assert (mask[shown == 200] > 0).all()
    assert (mask[shown == 0] == 0).all()
    assert torch.equal(mask == IGNORE, target["depth"] == 0)
    known = mask != IGNORE
    assert torch.equal(target["depth"][known], mask[known] + 0.5)
    assert set(mask.unique().tolist()) <= {IGNORE, 0, 1, 2, 3, 4}


@given(recipe=recipes, seed=st.integers(0, 2**32), x=st.floats(6, 58), y=st.floats(6, 42))
@settings(max_examples=80, deadline=None)
def test_I14_a_dot_is_found_at_its_key_point(recipe, seed, x, y):
    """Paint a blob around a key point; after any geometry its centre of mass is where the key point went."""
    ys, xs = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    blob = torch.exp(-((xs - x) ** 2 + (ys - y) ** 2) / 8)
    image = tv_tensors.Image((blob * (255 - GREY) + GREY).round().to(torch.uint8).expand(3, -1, -1))
    target = {
        "boxes": boxes_tensor([[0, 0, 64, 48]], (48, 64)),
        "labels": torch.tensor([0]),
        "keypoints": torch.tensor([[[x, y]]]),
        "visibility": torch.tensor([[2]]),
    }
    recipe = recipe.replace(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, blur=0.0, erase=0.0)
    image, target = augmented(Sample(image, target), recipe, seed, swap=(0,))
    height, width = image.shape[-2:]
    if not len(target["labels"]) or not target["visibility"].item():
        return
    point = target["keypoints"][0, 0]
    if not ((point > 9).all() and (point < torch.tensor([width - 9, height - 9])).all()):
        return  # the blob is cut
    bright = (image[0].as_subclass(torch.Tensor).float() - GREY).clamp_min(0)
    ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    centre = torch.stack([(xs * bright).sum(), (ys * bright).sum()]) / bright.sum()
    assert torch.allclose(centre, point, atol=0.3)


@pytest.mark.parametrize("flip", [{"hflip": 1.0}, {"vflip": 1.0}, {"hflip": 1.0, "vflip": 1.0}])
def test_I14_a_flip_twice_is_the_identity(flip):
    sample = scene()
    twice = augmented(augmented(sample, Recipe(**flip)), Recipe(**flip))
    assert torch.equal(twice.image, sample.image)
    for key, value in sample.target.items():
        if isinstance(value, torch.Tensor):
            assert torch.allclose(twice.target[key].float(), value.float(), atol=1e-4), key
        else:
            assert twice.target[key] == value


def test_I14_four_quarter_turns_are_the_identity_and_one_is_rot90():
    sample = scene((31, 45))
    turned = sample
    for k in range(1, 5):
        turned = move(turned, Affine.identity(tuple(turned.image.shape[-2:])).turn(1), SWAP)
        assert torch.equal(turned.image, torch.rot90(sample.image.as_subclass(torch.Tensor), k, (-2, -1)))
        assert torch.equal(turned.target["masks"], torch.rot90(sample.target["masks"].as_subclass(torch.Tensor), k, (-2, -1)))
        check_consistent(turned)
    for key in ("boxes", "keypoints", "mask", "depth", "visibility", "labels"):
        assert torch.allclose(turned.target[key].float(), sample.target[key].float(), atol=1e-4), key


def test_I14_mirrors_swap_left_and_right_and_half_turns_do_not():
    sample = scene()
    marked = sample.target["visibility"] = torch.tensor([[2, 1, 2, 1, 1]] * 3)
    for affine, swapped in (
        (Affine.identity((40, 56)).mirror(True, False), True),
        (Affine.identity((40, 56)).mirror(False, True), True),
        (Affine.identity((40, 56)).mirror(True, True), False),
        (Affine.identity((40, 56)).turn(1), False),
        (Affine.identity((40, 56)).mirror(True, False).turn(1), True),
    ):
        out = move(sample, affine, SWAP)
        order = list(SWAP) if swapped else [0, 1, 2, 3, 4]
        assert torch.equal(out.target["visibility"], marked[:, order])
        assert torch.allclose(out.target["keypoints"], affine.points(sample.target["keypoints"])[:, order])


@pytest.mark.parametrize("size", [(37, 52), (1, 1), (1, 9), (8, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_I14_flips_equal_torchvisions(size, channels):
    sample = scene(size, 2, channels=channels)
    keys = ("boxes", "masks", "mask")
    theirs_image, theirs = v2.RandomHorizontalFlip(1.0)(sample.image, {k: sample.target[k] for k in keys})
    image, target = augmented(sample, Recipe(hflip=1.0))
    assert torch.equal(image, theirs_image)
    assert all(torch.allclose(target[k].float(), theirs[k].float(), atol=1e-5) for k in keys)


def test_I14_rotation_equals_torchvisions_in_the_interior():
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 8), size=(60, 80), mode="bicubic").clamp(0, 1)
    image = tv_tensors.Image((smooth[0] * 255).to(torch.uint8))
    angle = math.radians(20)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    ours = move(Sample(image, {}), Affine.identity((60, 80)).centred(rotation * 1.2, (3, -2))).image
    theirs = F.affine(image, angle=20, translate=[3, -2], scale=1.2, shear=[0.0, 0.0], interpolation=v2.InterpolationMode.BILINEAR)
    difference = (ours.float() - theirs.float()).abs()[:, 15:45, 20:60]
    assert difference.max() <= 3  # OpenCV interpolates at 1/32 pixel
    assert difference.mean() < 0.6


def test_I14_rotated_boxes_are_hulls_and_tight_where_masks_tell_more():
    ys, xs = torch.meshgrid(torch.arange(100) + 0.5, torch.arange(100) + 0.5, indexing="ij")
    disc = ((xs - 50) ** 2 + (ys - 50) ** 2) < 20**2
    target = {"boxes": boxes_tensor([[30, 30, 70, 70]], (100, 100)), "labels": torch.tensor([0])}
    image = tv_tensors.Image(torch.zeros(3, 100, 100, dtype=torch.uint8))
    angle = math.radians(45)
    affine = Affine.identity((100, 100)).centred(np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]))
    hull = move(Sample(image, target), affine).target["boxes"]
    reach = 20 * math.sqrt(2)
    assert torch.allclose(hull.as_subclass(torch.Tensor), torch.tensor([[50 - reach, 50 - reach, 50 + reach, 50 + reach]]), atol=1e-4)
    tight = move(Sample(image, target | {"masks": tv_tensors.Mask(disc[None])}), affine).target["boxes"]
    assert torch.allclose(tight.as_subclass(torch.Tensor), torch.tensor([[30.0, 30, 70, 70]]), atol=1.01)
    # an object without a mask of its own keeps the hull
    empty = move(Sample(image, target | {"masks": tv_tensors.Mask(torch.zeros_like(disc)[None])}), affine).target["boxes"]
    assert torch.equal(empty, hull)


def test_I14_objects_that_leave_are_dropped_with_all_their_fields():
    sample = scene((40, 40), 2)
    sample.target["boxes"] = boxes_tensor([[0, 0, 10, 10], [25, 25, 35, 35]], (40, 40))
    del sample.target["masks"]
    for shift, left in ((-5, [0, 1]), (-9, [1]), (-34, [])):
        _, target = move(sample, Affine.identity((40, 40)).centred(np.eye(2), (shift, 0)), SWAP)
        assert target["labels"].tolist() == left
        assert all(len(target[key]) == len(left) for key in OBJECT_KEYS if key in target)
        assert target["boxes"].shape == (len(left), 4)
        assert isinstance(target["boxes"], tv_tensors.BoundingBoxes)
    shrunk = move(sample, Affine.identity((40, 40)).centred(np.eye(2) * 0.15))
    assert shrunk.target["labels"].tolist() == []


def test_I14_small_objects_survive_what_does_not_shrink_them():
    target = {"boxes": boxes_tensor([[3, 4, 4, 5]], (8, 8)), "labels": torch.tensor([2])}
    sample = Sample(tv_tensors.Image(torch.zeros(3, 8, 8, dtype=torch.uint8)), target)
    out = augmented(sample, Recipe(hflip=1.0))
    assert out.target["boxes"].tolist() == [[4, 4, 5, 5]]


def test_I14_rotation_fills_class_masks_with_ignore_not_with_class_0():
    sample = scene()
    _, target = augmented(sample, Recipe(rotate=40.0), seed=3)
    assert target["mask"][0, 0] == IGNORE
    assert (target["mask"] == IGNORE).float().mean() > 0.02
    assert not target["masks"][:, target["mask"] == IGNORE].any()


def test_I14_no_objects_stay_0_by_4():
    out = augmented(scene(count=0), Recipe(hflip=1.0, rotate=20.0, erase=1.0))
    assert out.target["boxes"].shape == (0, 4)
    assert out.target["keypoints"].shape == (0, 5, 2)
    assert out.target["masks"].shape == (0, 40, 56)


def test_I14_nothing_on_changes_nothing():
    sample = scene()
    out = augmented(sample, Recipe())
    assert out.image is sample.image
    assert out.target is sample.target


def test_I14_strips_longer_than_opencv_takes_are_moved_too():
    image = tv_tensors.Image(torch.full((3, 2, 40_000), 7, dtype=torch.uint8))
    out = augmented(Sample(image, {}), Recipe(scale=0.3, brightness=0.2, blur=1.0), seed=1)
    assert out.image.shape == (3, 2, 40_000)


def test_I14_crop_zooms_into_a_part_and_keeps_the_size():
    sample = scene((60, 80))
    for seed in range(12):
        with seeded(seed):
            affine = build_augment(Recipe(crop=0.3), "detect").geometry((60, 80))
        zoom_x, zoom_y = affine.matrix[0, 0], affine.matrix[1, 1]
        assert 1 <= zoom_x * zoom_y <= 1 / 0.3 + 1e-6 or min(zoom_x, zoom_y) == pytest.approx(1)
        corners = affine.inverse @ np.array([[0, 80], [0, 60], [1, 1]])
        assert (corners >= -1e-6).all()
        assert (corners <= np.array([[80], [60]]) + 1e-6).all()
        out = augmented(sample, Recipe(crop=0.3), seed)
        assert out.image.shape == sample.image.shape
        assert (out.target["mask"] != IGNORE).all()


# -- colour ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("brightness", "contrast", "saturation"), [(1.1, 1, 1), (1, 0.7, 1), (1, 1, 0.5), (0.9, 1.1, 1.2), (1, 0, 1)])
def test_I14_colour_jitter_has_torchvisions_definitions(brightness, contrast, saturation):
    image = torch.randint(60, 190, (3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    theirs = F.to_dtype(image, torch.float32, scale=True)
    for adjust, factor in ((F.adjust_brightness, brightness), (F.adjust_contrast, contrast), (F.adjust_saturation, saturation)):
        theirs = adjust(theirs, factor)
    ours = jitter(np.ascontiguousarray(np.moveaxis(image.numpy(), 0, -1)), brightness, contrast, saturation)
    assert np.abs(np.moveaxis(ours, -1, 0) / 255 - theirs.numpy()).max() < 1 / 255


def test_I14_hue_has_torchvisions_definition():
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours = shift_hue(np.ascontiguousarray(np.moveaxis(image.numpy(), 0, -1)), -0.25)
    theirs = F.adjust_hue(image, -0.25).numpy()
    assert np.abs(np.moveaxis(ours, -1, 0).astype(int) - theirs.astype(int)).mean() < 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (9, 14)])
def test_I14_colour_blur_and_erasing_leave_geometry_alone(channels, size):
    sample = scene(size, 1, channels=channels)
    recipe = Recipe(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2, blur=1.0)
    out = augmented(sample, recipe)
    assert out.image.shape == sample.image.shape
    assert all(torch.equal(out.target[k], v) for k, v in sample.target.items() if isinstance(v, torch.Tensor))


def test_I14_erasing_greys_a_rectangle_and_drops_what_it_hides():
    sample = scene((60, 60), 1)
    sample = Sample(tv_tensors.Image(torch.full((3, 60, 60), 9, dtype=torch.uint8)), sample.target)
    dropped = 0
    for seed in range(40):
        out = augmented(sample, Recipe(erase=1.0), seed)
        grey = (out.image == GREY).all(dim=0)
        assert 0.01 < grey.float().mean() < 0.36
        ys, xs = torch.nonzero(grey, as_tuple=True)
        assert len(ys) == (ys.max() - ys.min() + 1) * (xs.max() - xs.min() + 1)
        assert ((out.image == 9).all(dim=0) | grey).all()
        hidden = sample.target["masks"][0][grey].sum() / sample.target["masks"][0].sum()
        assert len(out.target["labels"]) == (0 if hidden > 0.75 else 1)
        dropped += hidden > 0.75
    assert dropped
    share = np.mean([not torch.equal(augmented(sample, Recipe(erase=0.3), seed).image, sample.image) for seed in range(200)])
    assert 0.2 < share < 0.4


# -- several images -------------------------------------------------------------------------------


def test_I14_mosaic_shows_four_images_around_a_point():
    samples = [scene((40, 50), 3, seed=k) for k in range(4)]
    with seeded(1):
        out = mosaic(samples, SWAP)
    check_consistent(out)
    assert out.image.shape == (3, 40, 50)
    assert len(out.target["labels"]) > 0
    assert out.target["image_id"] == "scene0"
    # each object of the mosaic is painted where its mask lies
    shown = out.image[0].as_subclass(torch.Tensor)
    assert (shown[out.target["masks"].as_subclass(torch.Tensor).any(dim=0)] == 200).all()
    assert torch.equal(shown == 200, out.target["mask"] > 0)
    assert (out.target["mask"] != IGNORE).all()


@given(seed=st.integers(0, 10_000), sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=4, max_size=4))
@settings(max_examples=60, deadline=None)
def test_I14_mosaic_of_any_sizes_is_consistent(seed, sizes):
    samples = [scene(size, k % 3, seed=seed + k, channels=3 if k else 1) for k, size in enumerate(sizes)]
    with seeded(seed):
        out = mosaic(samples, SWAP)
    check_consistent(out)
    assert out.image.shape == (3, *sizes[0])
    mask, shown = out.target["mask"].as_subclass(torch.Tensor), out.image[0].as_subclass(torch.Tensor)
    assert torch.equal(mask == IGNORE, shown == GREY)
    assert torch.equal(mask > 0, shown == 200)


def test_I14_mosaic_of_boxes_only():
    samples = [scene((40, 50), 3, seed=k) for k in range(4)]
    for sample in samples:
        for key in ("masks", "keypoints", "visibility", "mask", "depth"):
            del sample.target[key]
    with seeded(0):
        out = mosaic(samples)
    assert set(out.target) == {"boxes", "labels", "iscrowd", "image_id", "path"}
    assert len(out.target["boxes"]) == len(out.target["labels"]) == len(out.target["iscrowd"]) > 0


def classified(count=8):
    images = torch.rand(count, 3, 8, 8)
    targets = [{"label": torch.tensor(k % 3), "mix_seed": 100 + k} for k in range(count)]
    return Batch(images, targets, [Geometry((8, 8), (8, 8))] * count)


@pytest.mark.parametrize("settings_", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}])
def test_I14_mixup_and_cutmix_give_soft_labels(settings_):
    batch = classified()
    mix = batch_mix(Recipe(**settings_), "classify", 3)
    out = pickle.loads(pickle.dumps(mix))(batch)
    again = mix(batch)
    assert torch.equal(out.images, again.images)
    assert out.images.shape == batch.images.shape
    assert not torch.equal(out.images, batch.images)
    for k, target in enumerate(out.targets):
        assert set(target) == {"label", "label_probs"}
        assert target["label_probs"].shape == (3,)
        assert target["label_probs"].sum().item() == pytest.approx(1)
        assert int(target["label"]) == k % 3
    if settings_ == {"mixup": 0.8}:  # one weight for the batch: pixels and labels tell the same one
        share = out.targets[1]["label_probs"][1].item()
        assert torch.allclose(out.images[1], share * batch.images[1] + (1 - share) * batch.images[0], atol=1e-5)
    other = mix(batch._replace(targets=[t | {"mix_seed": 7} for t in batch.targets]))
    assert not torch.equal(other.images, out.images)


def test_I14_batches_without_seeds_or_neighbours_are_not_mixed():
    mix = BatchMix(3, mixup=1.0)
    plain = classified()._replace(targets=[{"label": torch.tensor(0)}] * 8)
    assert mix(plain).images is plain.images
    single = classified(1)
    assert mix(single).images is single.images
    assert batch_mix(Recipe(), "classify", 3) is None
    with pytest.raises(UsageError, match="one size"):
        mix(classified()._replace(images=[torch.rand(3, 8, 8)] * 8))


# -- data set -------------------------------------------------------------------------------------

BUSY = Recipe(hflip=0.5, vflip=0.5, rotate=10.0, scale=0.3, brightness=0.2, blur=0.3, erase=0.3, mosaic=0.5, epochs=10, close_augment=0.2)


@pytest.fixture(scope="module")
def shapes():
    return Dataset(load_synthetic("shapes?count=12&size=48"))


def same(a, b):
    assert torch.equal(a.image, b.image)
    assert a.target.keys() == b.target.keys()
    for key, value in a.target.items():
        assert torch.equal(value, b.target[key]) if isinstance(value, torch.Tensor) else value == b.target[key], key


def test_I14_a_sample_is_a_function_of_seed_epoch_and_image(shapes):
    data = AugmentedDataset(shapes, BUSY, "detect", seed=5)
    first = {(e, i): data[e, i] for e in (0, 1) for i in range(12)}
    torch.manual_seed(99)
    before = torch.get_rng_state()
    for key in reversed(list(first)):
        same(data[key], first[key])
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first[0, 3].image, first[1, 3].image)
    other = AugmentedDataset(shapes, BUSY, "detect", seed=6)
    assert sum(torch.equal(first[0, i].image, other[0, i].image) for i in range(12)) <= 1
    for sample in first.values():
        check_consistent(sample)


class Keys(torch.utils.data.Dataset):
    """A data set by position over (epoch, i) keys, for a plain loader."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return 12

    def __getitem__(self, i):
        return self.data[2, i]


@pytest.mark.parametrize("workers", [1, 2])
def test_I14_the_number_of_workers_changes_nothing(shapes, workers):
    data = AugmentedDataset(shapes, BUSY, "detect", seed=5)
    loader = torch.utils.data.DataLoader(Keys(data), batch_size=3, num_workers=workers, collate_fn=list)
    loaded = [sample for batch in loader for sample in batch]
    assert len(loaded) == 12
    for i, sample in enumerate(loaded):
        same(sample, data[2, i])


def test_I14_mosaic_and_mixing_close_with_the_run(shapes):
    recipe = Recipe(mosaic=1.0, epochs=10, close_augment=0.2)
    data = AugmentedDataset(shapes, recipe, "detect")
    assert not torch.equal(data[7, 0].image, shapes[0].image)
    assert torch.equal(data[8, 0].image, shapes[0].image)
    assert [close(recipe, e) for e in (0, 7, 8, 9)] == [False, False, True, True]
    mixing = AugmentedDataset(
        Dataset(load_synthetic("shapes?count=6&size=32&task=classify")), Recipe(mixup=0.2, epochs=10, close_augment=0.2), "classify"
    )
    assert isinstance(mixing[0, 0].target["mix_seed"], int)
    assert mixing[0, 0].target["mix_seed"] != mixing[0, 1].target["mix_seed"]
    assert "mix_seed" not in mixing[9, 0].target


def test_I14_a_broken_mosaic_partner_costs_only_the_mosaic(shapes):
    class Broken(Dataset):
        def __getitem__(self, i):
            if i != 0:
                raise DataError("x.jpg", "cannot be decoded")
            return super().__getitem__(i)

    data = AugmentedDataset(Broken(shapes.index), Recipe(mosaic=1.0), "detect")
    assert torch.equal(data[0, 0].image, shapes[0].image)
    with pytest.raises(DataError):
        data[0, 1]


def test_I14_segmentation_masks_are_mixed_and_moved():
    data = AugmentedDataset(Dataset(load_synthetic("cells?count=6&size=64&task=segment")), BUSY.replace(mosaic=1.0), "segment", seed=1)
    for i in range(6):
        image, target = data[0, i]
        assert image.shape[-2:] == target["mask"].shape == (64, 64)
        assert set(target["mask"].unique().tolist()) <= {IGNORE, 0, 1, 2, 3}


def test_I14_seeds_are_spread_and_fixed():
    assert mix_seed(0) == 0xE220A8397B1DCDAF >> 1  # the first output of splitmix64 seeded with 0, as published
    assert mix_seed(1, 2, 3) == 3851293329796251419
    seeds = {mix_seed(s, e, i) for s in range(4) for e in range(20) for i in range(100)}
    assert len(seeds) == 4 * 20 * 100
    assert all(0 <= s < 2**63 for s in seeds)
    with seeded(1, 2, 3):
        first = torch.rand(2000)
    with seeded(1, 2, 4):
        second = torch.rand(2000)
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.1


@pytest.mark.parametrize(
    ("recipe", "task", "message"),
    [
        (Recipe(hflip=1.5), "detect", "recipe.hflip is 1.5"),
        (Recipe(crop=0.0), "detect", "recipe.crop is 0.0"),
        (Recipe(scale=1.0), "detect", "recipe.scale"),
        (Recipe(brightness=math.nan), "detect", "recipe.brightness"),
        (Recipe(rotate=math.nan), "detect", "recipe.rotate"),
        (Recipe(mosaic=0.5), "classify", "recipe.mosaic works for detect and segment"),
        (Recipe(mixup=0.5), "detect", "recipe.mixup works for classify"),
        (Recipe(cutmix=0.5), "segment", "recipe.cutmix works for classify"),
    ],
)
def test_I14_recipes_out_of_range_are_refused(recipe, task, message):
    with pytest.raises(UsageError, match=message):
        build_augment(recipe, task)


def test_I14_augment_is_picklable():
    augment = pickle.loads(pickle.dumps(build_augment(BUSY, "detect", SWAP)))
    assert isinstance(augment, Augment)
    sample = scene()
    with seeded(4):
        first = augment(sample)
    same(first, augmented(sample, BUSY, 4))
