"""Selective search against OpenCV's own set of boxes, its order, and the cache."""

import cv2
import numpy as np
import pytest
import torch

from saccade.data.dataset import Dataset
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.models.detect.selective_search import ProposalCache, SearchSettings, proposal_recall, selective_search
from saccade.types.errors import UsageError


def scene(height=96, width=128, seed=0):
    """Discs and rectangles on a textured ground: (image, boxes)."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 200, np.uint8)
    image += rng.integers(0, 10, image.shape, dtype=np.uint8)
    cv2.rectangle(image, (10, 12), (39, 51), (20, 60, 200), -1)
    cv2.circle(image, (90, 50), 20, (200, 40, 40), -1)
    return image, np.array([[10, 12, 40, 52], [70, 30, 111, 71]], np.float32)


def test_D8_boxes_are_opencvs_set():
    image, _ = scene()
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(image[..., ::-1].copy())
    search.switchToSelectiveSearchFast()
    expected = search.process().astype(np.float32)
    expected[:, 2:] += expected[:, :2]
    ours = selective_search(image, settings=SearchSettings(min_size=0))
    assert {tuple(b) for b in ours.tolist()} == {tuple(b) for b in expected.tolist()}
    assert ours.dtype == np.float32
    assert len({tuple(b) for b in ours.tolist()}) == len(ours)


def test_D8_same_pixels_same_order_and_a_cap_takes_the_first():
    image, _ = scene()
    first, again = selective_search(image), selective_search(torch.from_numpy(image).permute(2, 0, 1))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(selective_search(image, settings=SearchSettings(max_proposals=5)), first[:5])
    assert not np.array_equal(first, selective_search(image, settings=SearchSettings(seed=1)))
    # the rank is position x random: large regions come first on the average
    area = (first[:, 2:] - first[:, :2]).prod(1)
    assert area[: len(area) // 3].mean() > area[-(len(area) // 3) :].mean()


def test_D8_finds_the_objects_and_quality_finds_more():
    image, truth = scene()
    fast = selective_search(image, settings=SearchSettings(base_k=50))
    quality = selective_search(image, "quality")
    assert proposal_recall([fast], [truth])[0.7] == 1.0
    assert proposal_recall([quality], [truth])[0.7] == 1.0
    assert len(quality) > len(selective_search(image, "fast"))


def test_D8_shrinking_gives_boxes_in_the_images_own_pixels():
    image, truth = scene()
    large = cv2.resize(image, (512, 384), interpolation=cv2.INTER_LINEAR)
    boxes = selective_search(large, settings=SearchSettings(max_side=128, min_size=20))
    assert proposal_recall([boxes], [truth * 4])[0.7] == 1.0
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [512, 384]).all()
    assert ((boxes[:, 2:] - boxes[:, :2]) >= 20).all()


def test_D8_recall_at_iou_by_hand():
    truth = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    proposals = np.array([[0, 0, 10, 6], [20, 20, 30, 30]], np.float32)  # IoU 0.6 and 1
    assert proposal_recall([proposals], [truth]) == {0.5: 1.0, 0.7: 0.5, 0.9: 0.5}
    assert proposal_recall([np.zeros((0, 4))], [truth], iou=(0.5,)) == {0.5: 0.0}
    assert np.isnan(proposal_recall([proposals], [np.zeros((0, 4))], iou=(0.5,))[0.5])


def test_D8_odd_inputs():
    assert selective_search(np.zeros((1, 1, 3), np.uint8)).shape == (0, 4)
    assert selective_search(np.zeros((2, 300), np.uint8)).shape == (0, 4)
    assert selective_search(np.full((40, 41), 7, np.uint8)).shape[1] == 4  # flat and grey
    with pytest.raises(UsageError, match="mode"):
        selective_search(np.zeros((9, 9, 3), np.uint8), "slow")
    with pytest.raises(UsageError, match="uint8"):
        selective_search(np.zeros((9, 9, 3), np.float32))


def test_D8_cache_reads_what_it_wrote_and_recomputes_what_is_broken(tmp_path, monkeypatch):
    image, _ = scene()
    cache = ProposalCache(tmp_path / "cache")
    boxes = cache(image)
    file = cache.file(image)
    assert file.is_file()
    calls = []

    def counted(image, settings):
        calls.append(1)
        return selective_search(image, settings=settings)

    monkeypatch.setattr("saccade.models.detect.selective_search.selective_search", counted)
    np.testing.assert_array_equal(cache(image), boxes)
    assert not calls
    whole = file.read_bytes()
    for broken in (whole[:60], whole[:-8], b"", b"not numpy", b"\x93NUMPY"):
        file.write_bytes(broken)
        np.testing.assert_array_equal(cache(image), boxes)
        assert file.read_bytes() == whole
    assert len(calls) == 5
    np.save(file, np.zeros((3, 5), np.float32))
    np.testing.assert_array_equal(cache(image), boxes)
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)  # a pickle is not loaded
    np.testing.assert_array_equal(cache(image), boxes)
    assert not list(tmp_path.rglob("*.part"))


def test_D8_cache_key_is_pixels_and_settings(tmp_path):
    image, _ = scene()
    cache = ProposalCache(tmp_path)
    other = image.copy()
    other[0, 0, 0] ^= 1
    assert cache.file(image) != cache.file(other)
    assert cache.file(image) != ProposalCache(tmp_path, SearchSettings(mode="quality")).file(image)
    assert cache.file(image) == ProposalCache(tmp_path).file(torch.from_numpy(image).permute(2, 0, 1))
    assert cache.file(image[:64, :96]) != cache.file(image[:96, :64].reshape(64, 96, 3))


def test_D8_fill_goes_over_a_data_set_and_names_broken_images(tmp_path):
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), scene(seed=i)[0])
    (tmp_path / "3.png").write_bytes(b"broken")
    records = PackedRecords([Record(path=f"{i}.png", image_id=str(i)) for i in range(4)])
    data = Dataset(DataIndex("test", tmp_path, ["a"], records))
    cache, seen = ProposalCache(tmp_path / "cache"), []
    problems = cache.fill(data, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert [p.path.endswith("3.png") for p in problems] == [True]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 3
    np.testing.assert_array_equal(cache(data.image(data.record(0))), selective_search(data.image(data.record(0))))


def test_D8_about_2000_regions_on_a_real_image(real):
    """640x480 as it is: about 2000 boxes in the fast mode (here 1300 to 2500 a blood smear)."""
    image = cv2.imread(str(sorted((real("bccd") / "JPEGImages").glob("*.jpg"))[0]))[..., ::-1]
    boxes = selective_search(np.ascontiguousarray(image), settings=SearchSettings(max_side=0, base_k=100, max_proposals=10000, min_size=0))
    assert 1000 < len(boxes) < 4000
