"""COCO panoptic: real files against an independent reader, hostile files, and write-then-read."""

import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from saccade.data.dataset import Dataset
from saccade.data.formats import coco, coco_panoptic, detect_format, rle, write_data
from saccade.data.polygons import rasterize
from saccade.data.records import DataIndex, PackedRecords, Record
from saccade.types.errors import DataError

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def png(array):
    out = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8)).save(out, "PNG")
    return out.getvalue()


def ids_png(ids):
    ids = np.asarray(ids)
    return png(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1))


IDS = np.zeros((6, 8), int)
IDS[1:3, 2:6] = 70000  # a cat: 4 x 2
IDS[4:, :] = 300  # grass
IDS[0, 7] = 5  # a crowd of one pixel
VALID = {
    "images": [{"id": 1, "file_name": "a.jpg", "height": 6, "width": 8}],
    "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [
        {"id": 70000, "category_id": 17, "iscrowd": 0, "bbox": [2, 1, 4, 2], "area": 8},
        {"id": 300, "category_id": 193, "iscrowd": 0, "bbox": [0, 4, 8, 2], "area": 16},
        {"id": 5, "category_id": 1, "iscrowd": 1, "bbox": [7, 0, 1, 1], "area": 1},
    ]}],
    "categories": [{"id": 1, "name": "person", "isthing": 1}, {"id": 17, "name": "cat", "isthing": 1},
                   {"id": 193, "name": "grass", "isthing": 0, "supercategory": "plant"}],
}  # fmt: skip


def make(root, data=VALID, ids=IDS, raw_png=None):
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "images" / "a.jpg").write_bytes(png(np.zeros((6, 8, 3))))
    folder = root / "annotations"
    (folder / "panoptic_train").mkdir(parents=True, exist_ok=True)
    (folder / "panoptic_train.json").write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    if ids is not None:
        (folder / "panoptic_train" / "a.png").write_bytes(ids_png(ids) if raw_png is None else raw_png)
    return root


def changed(*path, value):
    data = json.loads(json.dumps(VALID))
    node = data
    for key in path[:-1]:
        node = node[key]
    if value is DELETE:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return data


DELETE = object()
INFO = ("annotations", 0, "segments_info")


def one_line(error):
    text = str(error)
    assert text
    assert "\n" not in text
    return text


# ------------------------------------------------------------------------------------------------------------ real files


@pytest.fixture(scope="module")
def whole(real):
    return coco_panoptic.read(real("coco128"), stuff=True)


def test_T1_panoptic_coco128_is_what_the_pngs_say(real, whole):
    assert whole.problems == []
    assert {s: len(v) for s, v in whole.splits.items()} == {"train": 100, "val": 24}
    assert len(whole.classes) == 133
    folder = real("coco128") / "panoptic_segmentation" / "annotations"
    records = {r.path.rpartition("/")[2][:-4]: r for r in whole.records}
    things = {n for n, info in whole.extra["categories"].items() if info["isthing"]}
    assert len(things) == 80
    for split in ("train2017", "val2017"):
        data = json.loads((folder / f"panoptic_{split}.json").read_text())
        for item in data["annotations"]:
            record = records[item["file_name"][:-4]]
            assert [whole.category_ids[k] for k in record.labels] == [s["category_id"] for s in item["segments_info"]]
            assert record.extra["area"].tolist() == [s["area"] for s in item["segments_info"]]
            assert (record.boxes[:, 2:] - record.boxes[:, :2]).tolist() == [s["bbox"][2:] for s in item["segments_info"]]
            crowd = [bool(s["iscrowd"]) for s in item["segments_info"]]
            assert (record.iscrowd if record.iscrowd is not None else np.zeros(len(crowd), bool)).tolist() == crowd
    name = "000000000139"
    rgb = np.asarray(Image.open(folder / "panoptic_val2017" / f"{name}.png").convert("RGB")).astype(int)
    ids = rgb @ [1, 256, 65536]
    info = next(a for a in json.loads((folder / "panoptic_val2017.json").read_text())["annotations"] if a["file_name"].startswith(name))
    for segment, stated in zip(records[name].segments, info["segments_info"], strict=True):
        assert np.array_equal(rasterize(segment, records[name].size), ids == stated["id"])


def test_T1_panoptic_coco128_things_alone_and_boxes_alone(real, whole):
    things = coco_panoptic.read(real("coco128"), outlines=False)
    assert len(things.classes) == 80
    assert len(things) == 124
    assert things.records[0].segments is None
    for a, b in zip(whole.records, things.records, strict=True):
        keep = [whole.extra["categories"][whole.classes[k]]["isthing"] == 1 for k in a.labels]
        assert np.array_equal(a.boxes[keep], b.boxes)
        assert [whole.classes[k] for k in a.labels[keep]] == [things.classes[k] for k in b.labels]


def test_T1_panoptic_coco128_written_and_read_again(real, whole, tmp_path):
    part = Dataset(whole, whole.splits["val"][:6], split="val")
    assert write_data(part, tmp_path / "out", "panoptic") == []
    again = coco_panoptic.read(tmp_path / "out", stuff=True)
    assert again.problems == []
    assert again.extra == whole.extra
    assert (again.classes, again.category_ids) == (whole.classes, whole.category_ids)
    for k, b in enumerate(again.records):
        same(part.record(k), b)


def test_T1_panoptic_images_above_the_folder_are_not_read(real):
    with pytest.raises(DataError, match="not one usable image"):
        coco_panoptic.read(real("coco128") / "panoptic_segmentation")


# ------------------------------------------------------------------------------------------------------- what it means


def test_T1_panoptic_what_it_means(tmp_path):
    index = coco_panoptic.read(make(tmp_path))
    assert index.problems == []
    assert (index.format, index.tasks, index.classes, index.category_ids) == ("panoptic", ("detect",), ["person", "cat"], [1, 17])
    (record,) = index.records
    assert record.boxes.tolist() == [[2, 1, 6, 3], [7, 0, 8, 1]]
    assert record.labels.tolist() == [1, 0]
    assert record.iscrowd.tolist() == [False, True]
    assert np.array_equal(rasterize(record.segments[0], (6, 8)), IDS == 70000)
    assert np.array_equal(rasterize(record.segments[1], (6, 8)), IDS == 5)
    both = coco_panoptic.read(tmp_path, stuff=True)
    assert both.classes == ["person", "cat", "grass"]
    assert both.extra["categories"]["grass"] == {"isthing": 0, "supercategory": "plant"}
    masks = Dataset(both)[0].target["masks"].numpy()
    assert masks.sum(0).max() == 1  # segments never overlap


def test_T1_panoptic_ids_that_do_not_match_are_reported(tmp_path):
    ids = IDS.copy()
    ids[IDS == 70000] = 70001
    index = coco_panoptic.read(make(tmp_path, ids=ids))
    assert len(index.records[0].boxes) == 1
    texts = [one_line(p) for p in index.problems]
    assert any("without a pixel in the PNG: [70000]" in t for t in texts)
    assert any("that the JSON lacks: [70001]" in t for t in texts)


def test_T1_panoptic_runs_are_pycocotools():
    from pycocotools import mask as oracle

    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 9), (9, 1), (5, 7), (60, 80)):
        ids = rng.integers(0, 4, shape)
        for number, (starts, ends) in rle.id_runs(ids).items():
            theirs = oracle.encode(np.asfortranarray(ids == number, dtype=np.uint8))
            assert rle.runs_code(starts, ends, shape)["counts"] == theirs["counts"].decode()
            x, y, w, h = oracle.toBbox(theirs).tolist()
            assert rle.runs_box(starts, ends, shape[0]) == [x, y, x + w, y + h]
            assert (ends - starts).sum() == oracle.area(theirs)


def test_T1_panoptic_sniff(tmp_path):
    assert coco_panoptic.sniff(tmp_path) is None
    root = make(tmp_path / "p")
    assert "panoptic_train.json" in coco_panoptic.sniff(root)
    assert coco_panoptic.sniff(root / "annotations" / "panoptic_train.json")
    assert coco.sniff(root) is None
    assert coco.sniff(root / "annotations" / "panoptic_train.json") is None
    assert detect_format(root)[0] == "panoptic"
    instances = {"images": VALID["images"], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    (root / "annotations" / "instances_train.json").write_text(json.dumps(instances))
    assert detect_format(root)[0] == "coco"  # beside instances it is not asked for by itself
    assert len(coco_panoptic.read(root).records[0].boxes) == 2


def test_T1_panoptic_a_grey_png_holds_the_ids(tmp_path):
    ids = np.where(IDS == 70000, 7, 0)
    data = changed(*INFO, value=[{"id": 7, "category_id": 17, "bbox": [2, 1, 4, 2]}])
    index = coco_panoptic.read(make(tmp_path, data, raw_png=png(ids)))
    assert index.problems == []
    assert index.records[0].extra["area"].tolist() == [8]


# ------------------------------------------------------------------------------------------------------------- bad files

PNG_NAME = ("annotations", 0, "file_name")
BROKEN = {
    "empty": b"", "cut off": json.dumps(VALID).encode()[:200], "bytes": bytes(range(256)), "a list": b"[]", "null": b"null",
    "deep": b"[" * 100_000, "huge number": b'{"images": [' + b"9" * 9999 + b"]}", "no images": changed("images", value=[]),
    "images a word": changed("images", value="x"), "annotations a dict": changed("annotations", value={}),
    "no annotations": changed("annotations", value=[]), "no categories": changed("categories", value=DELETE),
    "categories a number": changed("categories", value=4), "categories empty": changed("categories", value=[]),
    "image outside": changed("images", 0, "file_name", value="../../a.jpg"),
    "image unknown": changed("images", 0, "file_name", value="z.jpg"), "png outside": changed(*PNG_NAME, value="../../../etc/passwd"),
    "png missing": changed(*PNG_NAME, value="z.png"), "png a number": changed(*PNG_NAME, value=5),
    "png is the folder": changed(*PNG_NAME, value="."), "annotation a number": changed("annotations", 0, value=3),
    "annotation of no image": changed("annotations", 0, "image_id", value=DELETE),
    "image id a list": changed("annotations", 0, "image_id", value=[1]), "another size": changed("images", 0, "height", value=7),
    "segments a word": changed(*INFO, value="x"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_T1_panoptic_a_broken_file_is_one_line(tmp_path, name):
    make(tmp_path, BROKEN[name])
    with pytest.raises(DataError) as caught:
        coco_panoptic.read(tmp_path / "annotations" / "panoptic_train.json")
    assert "annotations" in one_line(caught.value)


FLAWED = {
    "id a word": ((*INFO, 0, "id"), "x", 1, "without a positive id"),
    "id zero": ((*INFO, 0, "id"), 0, 1, "without a positive id"),
    "id twice": ((*INFO, 0, "id"), 5, 1, "without a positive id"),
    "id too large": ((*INFO, 0, "id"), 2**40, 1, "without a pixel"),
    "segment a number": ((*INFO, 0), 9, 1, "without a positive id"),
    "unknown category": ((*INFO, 0, "category_id"), 4, 1, "unknown category"),
    "category a list": ((*INFO, 0, "category_id"), [17], 1, "unknown category"),
    "no bbox": ((*INFO, 0, "bbox"), DELETE, 2, "that of its pixels"),
    "bbox NaN": ((*INFO, 0, "bbox"), [float("nan"), 1, 4, 2], 2, "that of its pixels"),
    "bbox empty": ((*INFO, 0, "bbox"), [2, 1, 0, 2], 2, "that of its pixels"),
    "bbox outside": ((*INFO, 0, "bbox"), [2, 1, 40, 2], 2, "that of its pixels"),
    "bbox huge": ((*INFO, 0, "bbox"), [2, 1, 10**400, 2], 2, "that of its pixels"),
    "area a word": ((*INFO, 0, "area"), "x", 2, ""),
    "area negative": ((*INFO, 0, "area"), -3, 2, ""),
    "crowd a list": ((*INFO, 0, "iscrowd"), [1], 2, ""),
    "isthing missing": (("categories", 1, "isthing"), DELETE, 2, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAWED)
def test_T1_panoptic_a_flaw_is_reported_and_the_rest_is_read(tmp_path, name):
    path, value, objects, message = FLAWED[name]
    index = coco_panoptic.read(make(tmp_path, changed(*path, value=value)))
    (record,) = index.records
    assert len(record.boxes) == objects
    texts = [one_line(p) for p in index.problems]
    assert any(message in t and "panoptic_train.json" in t for t in texts) if message else not texts
    if objects == 2:
        assert record.boxes[0].tolist() == [2, 1, 6, 3]
        assert record.extra["area"][0] == 8


def test_T1_panoptic_noise_and_huge_pngs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(coco_panoptic, "MAX_PIXELS", 40)
    with pytest.raises(DataError, match="more than 0 million"):
        coco_panoptic.read(make(tmp_path))
    with pytest.raises(ValueError, match="more than 10 runs"):
        rle.id_runs(np.arange(64).reshape(8, 8), most=10)


def test_T1_panoptic_a_broken_png_drops_its_image_alone(tmp_path):
    data = json.loads(json.dumps(VALID))
    data["images"].append({"id": 2, "file_name": "b.jpg", "height": 6, "width": 8})
    data["annotations"].append({**data["annotations"][0], "image_id": 2, "file_name": "b.png"})
    make(tmp_path, data)
    (tmp_path / "images" / "b.jpg").write_bytes(png(np.zeros((6, 8, 3))))
    (tmp_path / "annotations" / "panoptic_train" / "b.png").write_bytes(ids_png(IDS)[:60])
    index = coco_panoptic.read(tmp_path)
    assert [r.path for r in index.records] == ["images/a.jpg"]
    assert "b.png" in one_line(index.problems[0])
    assert index.splits["train"].tolist() == [0]


@FUZZ
@given(st.tuples(st.integers(0, 900), st.binary(max_size=4), st.integers(0, 3)), st.booleans())
def test_T1_panoptic_any_bytes_give_data_or_one_line(tmp_path_factory, change, in_png):
    at, new, gone = change
    raw = ids_png(IDS) if in_png else json.dumps(VALID).encode()
    at = at % len(raw)
    raw = raw[:at] + new + raw[at + gone :]
    folder = tmp_path_factory.mktemp("fuzz")
    root = make(folder, raw_png=raw) if in_png else make(folder, raw)
    coco_panoptic.sniff(root)
    try:
        index = coco_panoptic.read(root / "annotations" / "panoptic_train.json", stuff=True)
    except DataError as error:
        one_line(error)
        return
    for problem in index.problems:
        one_line(problem)
    for k in range(len(index)):
        target = Dataset(index)[k].target
        assert len(target["masks"]) == len(target["boxes"]) == len(target["labels"])


# ------------------------------------------------------------------------------------------------------ write then read


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(st.integers(0, 3), min_size=48, max_size=48), min_size=1, max_size=2), st.booleans(), st.integers(0, 2**24 - 4))
def test_T1_panoptic_write_then_read_gives_the_same(tmp_path_factory, maps, crowd, base):
    folder = tmp_path_factory.mktemp("write")
    records = []
    for k, flat in enumerate(maps):
        (folder / f"p{k}.png").write_bytes(png(np.zeros((6, 8, 3))))
        runs = rle.id_runs(np.reshape(flat, (6, 8)))
        numbers = [n for n in sorted(runs) if n]
        flags = np.array([crowd and n == 1 for n in numbers], bool)
        records.append(Record(
            f"p{k}.png", str(base + k), (6, 8), boxes=np.array([rle.runs_box(*runs[n], 6) for n in numbers], np.float32).reshape(-1, 4),
            labels=np.array([n - 1 for n in numbers], np.int64), iscrowd=flags if flags.any() else None,
            segments=[rle.runs_code(*runs[n], (6, 8)) for n in numbers], extra={"area": np.array([float(n) for n in numbers])},
        ))  # fmt: skip
    index = DataIndex("made", folder, ["a", "b", "c"], PackedRecords(records), tasks=("detect",), category_ids=[2, 40, 200],
                      splits={"val": np.arange(len(records))})  # fmt: skip
    assert write_data(Dataset(index), folder / "out", "panoptic") == []
    again = coco_panoptic.read(folder / "out")
    assert again.problems == []
    assert (again.classes, again.category_ids) == (index.classes, index.category_ids)
    assert again.splits["val"].tolist() == list(range(len(records)))
    for a, b in zip(records, again.records, strict=True):
        assert a.image_id == b.image_id
        same(a, b)


def same(a, b):
    assert a.size == b.size
    assert np.array_equal(a.boxes, b.boxes)
    assert np.array_equal(a.labels, b.labels)
    assert np.array_equal(a.extra["area"], b.extra["area"])
    assert (a.iscrowd is None) == (b.iscrowd is None)
    assert a.iscrowd is None or np.array_equal(a.iscrowd, b.iscrowd)
    assert a.segments == b.segments


def test_T1_panoptic_write_names_what_is_lost(tmp_path):
    (tmp_path / "a.png").write_bytes(png(np.zeros((6, 8, 3))))
    square = [np.array([[0, 0], [4, 0], [4, 4], [0, 4]], np.float32)]
    made = [Record("a.png", "3", (6, 8), boxes=np.array([[0, 0, 4, 4], [0, 0, 4, 4], [1, 1, 2, 2]], np.float32),
                   labels=np.array([0, 0, 0]), segments=[square, square, None])]  # fmt: skip
    index = DataIndex("made", tmp_path, ["cat"], PackedRecords(made), tasks=("detect",))
    losses = write_data(Dataset(index), tmp_path / "out", "panoptic")
    assert any(t.startswith("1 objects without a usable outline") for t in losses)
    assert any(t.startswith("1 objects lose pixels") for t in losses)
    assert "2 polygons become pixels" in losses
    assert len(coco_panoptic.read(tmp_path / "out").records[0].boxes) == 1
