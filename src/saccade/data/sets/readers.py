"""How the named sets are read: a function a set, from its folder to an index. Keywords are the set's options (``set:wbc?part=2``)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from saccade.data.formats import cifar_bin, imagefolder, mnist_idx, voc
from saccade.data.formats.files import read_text
from saccade.data.images import read_image
from saccade.data.records import DataIndex, ImageReader, PackedRecords, Record, inside
from saccade.types.errors import DataError, UsageError

WBC_PARTS = ("background", "cytoplasm", "nucleus")
WBC_CELLS = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")


def bccd(root: Path) -> DataIndex:
    """Pascal VOC; splits train 205, val 87, trainval 292, test 72; two boxes without area are skipped."""
    return voc.read(root)


def wbc(root: Path, part: int | str = 1, task: str = "segment") -> DataIndex:
    """White blood cells. Mask values 0, 128, 255 are background, cytoplasm, nucleus; stray greys of part 2 go to the nearest.

    Args:
        root: the folder.
        part: 1 (300 images of at most 120 x 120) or 2 (300 x 300).
        task: "segment" (classes are the parts; the cell type is in ``record.extra["cell"]``) or "classify" (classes are the cell types).
    """
    if str(part) not in ("1", "2"):
        raise UsageError(f"set:wbc has the parts 1 and 2, not {part!r}")
    if task not in ("segment", "classify"):
        raise UsageError(f"set:wbc is for segment or classify, not {task!r}")
    table = root / f"Class Labels of Dataset {part}.csv"
    cells: dict[int, int] = {}
    for number, row in enumerate(csv.reader(read_text(table).splitlines()), 1):
        if number == 1 or not any(c.strip() for c in row):
            continue
        try:
            image, cell = (int(c) for c in row[:2])
        except ValueError:
            raise DataError(table, "has no image number and class", where=f"line {number}") from None
        if not 1 <= cell <= len(WBC_CELLS):
            raise DataError(table, f"names the class {cell}, known are 1 to {len(WBC_CELLS)}", where=f"line {number}")
        cells[image] = cell - 1
    folder = f"Dataset {part}"
    records, problems = [], []
    for file in sorted((root / folder).glob("*.bmp")):
        mask, cell = file.with_suffix(".png"), cells.get(int(file.stem)) if file.stem.isdecimal() else None
        if not mask.is_file() or cell is None:
            problems.append(DataError(file, "has no mask" if cell is not None else f"has no class in {table.name}", hint="it is skipped"))
            continue
        record = Record(f"{folder}/{file.name}", file.stem)
        if task == "classify":
            record.label = cell
        else:
            record.mask, record.extra = f"{folder}/{mask.name}", {"cell": WBC_CELLS[cell]}
        records.append(record)
    if not records:
        raise DataError(root / folder, "holds no image with a mask")
    classes = list(WBC_PARTS if task == "segment" else WBC_CELLS)
    values = {0: 0, 128: 1, 255: 2} if task == "segment" else None
    return DataIndex(
        "masks" if task == "segment" else "imagefolder", root, classes, PackedRecords(records), tasks=(task,),
        problems=problems, reason=f"set:wbc, {folder}", mask_values=values, mask_nearest=True,
    )  # fmt: skip


def mnist(root: Path) -> DataIndex:
    """The idx files; where ``train-images`` is missing, PNGs of ``png/train/DIGIT/`` are the training images."""
    index = mnist_idx.read(root)
    pictures = root / "png" / "train"
    if "train" in index.splits or not pictures.is_dir():
        return index
    return _with_pictures(index, imagefolder.read(pictures), "png/train")


def fashion_mnist(root: Path) -> DataIndex:
    """The idx files, with the class names of the paper."""
    return mnist_idx.read(root, classes=FASHION)


def cifar10(root: Path) -> DataIndex:
    """The binary version (``data_batch_1.bin`` ...), or folders ``train/CLASS`` and ``test/CLASS`` of pictures."""
    if not any(root.glob("*.bin")):
        return imagefolder.read(root)
    index = cifar_bin.read(root)
    if index.problems:  # a fetched set is whole
        raise index.problems[0]
    return index


def camvid(root: Path) -> DataIndex:
    """Images and masks by the lists train.txt, val.txt, test.txt, of whose paths the last two parts count. 11 (void) is ignored."""
    records: list[Record] = []
    splits: dict[str, np.ndarray] = {}
    problems: list[DataError] = []
    for split in ("train", "val", "test"):
        file = root / f"{split}.txt"
        start = len(records)
        for number, line in enumerate(read_text(file).splitlines(), 1):
            row, where = line.split(), f"line {number}"
            if not row:
                continue
            if len(row) != 2:
                raise DataError(file, f"has {len(row)} names, expected an image and its mask", where=where)
            image, mask = ("/".join(name.split("/")[-2:]) for name in row)
            missing = [n for n in (image, mask) if not inside(root, n, source=file, where=where).is_file()]
            if missing:
                problems.append(DataError(file, f"names {missing[0]!r}, which is missing; the image is skipped", where=where))
                continue
            records.append(Record(image, image.removesuffix(".png"), mask=mask))
        splits[split] = np.arange(start, len(records))
    if not records:
        raise DataError(root, "not one image of the lists is there", hint=str(problems[0]) if problems else "")
    return DataIndex(
        "masks", root, list(CAMVID), PackedRecords(records), splits={s: v for s, v in splits.items() if len(v)}, tasks=("segment",),
        problems=problems, reason="set:camvid", mask_values={k: k for k in range(len(CAMVID))}, ignore=(len(CAMVID),),
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- readers


class MixedReader:
    """Pixels of an index whose records are partly files under a root, partly keys of another reader (``file#number``)."""

    def __init__(self, root: Path, other: ImageReader) -> None:
        self.root, self.other = root, other

    def image(self, record: Record) -> np.ndarray:
        """(H, W) or (H, W, 3) uint8."""
        if "#" in record.path:
            return self.other.image(record)
        array = read_image(inside(self.root, record.path, source=record.image_id)).numpy()
        return array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)

    def mask(self, record: Record) -> np.ndarray:
        """The other reader's mask."""
        return self.other.mask(record)


def _with_pictures(index: DataIndex, pictures: DataIndex, folder: str) -> DataIndex:
    """An index of files (training) and of keys of a reader (the others) with the same class names."""
    assert index.reader is not None
    if pictures.classes != index.classes:
        raise DataError(pictures.root, f"has the classes {', '.join(pictures.classes)}, the idx files {', '.join(index.classes)}")
    train = [Record(f"{folder}/{r.path}", f"train/{r.path.rpartition('/')[2].partition('.')[0]}", label=r.label) for r in pictures.records]
    shift = len(train)
    index.records = PackedRecords([*train, *index.records])
    index.splits = {"train": np.arange(shift), **{s: v + shift for s, v in index.splits.items()}}
    index.problems = [*pictures.problems, *index.problems]
    index.reader = MixedReader(index.root, index.reader)
    index.reason = f"{shift} PNG in {folder}, and {index.reason}"
    return index
