"""The first images of real sets to every format that can hold them, and back: nothing differs but what the writer says is lost."""

import numpy as np
import pytest

from saccade.data.compare import differences
from saccade.data.dataset import Dataset
from saccade.data.formats import FORMATS, format_module, read_data, write_data
from saccade.types.errors import UsageError

SETS = {
    "bccd": ("bccd", "voc", 6),
    "coco_mini": ("coco_mini", "coco", 8),
    "coco128": ("coco128", "yolo", 8),
    "wbc": ("wbc_segmentation/Dataset 1", "masks", 6),
    "camvid": ("camvid", "masks", 4),
    "mnist": ("mnist", "idx", 20),
    "orl": ("orl_faces", "imagefolder", 20),
}
"""Folder, format and number of images of each."""

REFUSED = {
    "bsds": "is only read",
    "quickdraw": "holds strokes",
    "inkml": "holds strokes",
    "csvpoints": "key points",
    "cifar": "32x32 pixels",
    "instances": "boxes only",
}
"""Formats that need more than truth for a task, and what they say."""


@pytest.fixture(scope="module")
def samples(real):
    """A sample of a set by its name, read once."""
    kept = {}

    def find(name):
        if name not in kept:
            folder, form, count = SETS[name]
            data = Dataset(read_data(real(folder.partition("/")[0]) / folder.partition("/")[2], form))
            kept[name] = data.subset(np.linspace(0, len(data) - 1, count).astype(int))
        return kept[name]

    return find


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("name", SETS)
def test_T3_convert_and_back(samples, tmp_path, name, target):
    data, module = samples(name), format_module(target)
    try:
        losses = write_data(data, tmp_path / "out", target)
    except UsageError as error:
        assert not (tmp_path / "out").exists()
        assert (REFUSED[target] if set(module.TASKS) & set(data.tasks) else "these data are for") in str(error)  # noqa: PT017
        return
    assert not any("\n" in line for line in losses)
    after = Dataset(read_data(tmp_path / "out", target))
    assert differences(data, after, module.HOLDS, losses) == []
    assert set(after.tasks) & set(data.tasks) or not module.HOLDS


@pytest.mark.parametrize("name", SETS)
def test_T3_convert_to_its_own_format_loses_nothing(samples, tmp_path, name):
    data = samples(name)
    losses = write_data(data, tmp_path / "out", data.index.format)
    assert [line for line in losses if "file names" not in line and "image ids" not in line] == []
    after = Dataset(read_data(tmp_path / "out"))  # recognised by itself
    assert after.index.format == data.index.format
    assert differences(data, after, format_module(data.index.format).HOLDS) == []
