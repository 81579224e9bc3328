"""What the pages talk about, tiny: blood/, cells/, digits/, faces/, parts/, photos/, scans/, views/, and finished runs on them."""

import importlib
import importlib.metadata
import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"

TINY = {
    "ssdlite": {"model.size": 64, "model.backbone": "test_resnet.r160_in1k", "model.width": 16, "recipe.batch_size": 4},
    "unet": {"model.size": 32, "model.width": 4, "recipe.batch_size": 4},
    "haar_cascade": {"model.window": 12, "model.stages": 2, "model.stumps": 4, "model.features": 60, "model.others": 60},
    "lenet5": {"recipe.batch_size": 8},
    "random_forest": {"model.trees": 5},
    "localizer": {"model.size": 32, "model.width": 4, "recipe.batch_size": 4},
    "landmark_net": {"model.size": 32, "model.width": 4, "recipe.batch_size": 4},
    "dcgan": {"model.size": 32, "model.width": 8, "model.latent": 16, "recipe.batch_size": 4},
    "yolov3_tiny": {"model.size": 64, "recipe.batch_size": 4},
    "svm": {},
    "tiny_points": {"model.size": 64, "model.width": 4, "recipe.batch_size": 4},
}
"""Settings of each model that the pages train, so that an epoch takes about a second."""


@pytest.fixture(scope="session")
def tiny():
    """TINY, for the tests."""
    return TINY


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The folder from which every page gets a copy."""
    import saccade
    from saccade.data.formats import write_data

    root = tmp_path_factory.mktemp("docs") / "world"
    root.mkdir()
    blood = saccade.load_data("synthetic:cells?count=20&size=64")
    blood.index.classes[:] = ["RBC", "WBC", "Platelets"]
    write_data(blood, root / "blood", "voc")
    write_data(saccade.load_data("synthetic:cells?count=12&size=48&task=segment"), root / "cells", "masks")
    single = saccade.load_data("synthetic:shapes?count=20&size=48&task=landmarks")
    write_data(single, root / "parts", "voc")
    write_data(single, root / "faces", "csvpoints")
    shapes = saccade.load_data("synthetic:shapes?count=20&size=32&task=classify")
    for number, sample in enumerate(shapes[i] for i in range(len(shapes))):
        pixels = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
        kind = f"kind{number % 2}"
        for path in (f"digits/{kind}/{number}.png", f"scans/{kind}/patient{number % 5}_{number}.png", f"photos/{number}.jpg"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            pixels.save(root / path)
    views(root / "views")
    elsewhere(root)
    darknet(root / "models")
    for model, data in (("ssdlite", "blood"), ("lenet5", "digits"), ("unet", "cells")):
        saccade.train(
            model, root / data, folder=root / "runs" / f"{model}-001", epochs=1, options=TINY[model], workers=0, say=lambda _: None
        )  # fmt: skip
    stopped = root / "runs" / "stopped"
    stopped.mkdir()
    shutil.copy(root / "runs" / "ssdlite-001" / "config.yaml", stopped)
    return root


def views(folder):
    """Two pictures of one wall of shapes, which overlap by 96 pixels."""
    import numpy as np

    import saccade

    tiles = saccade.load_data("synthetic:shapes?count=48&size=48")
    rows = [np.concatenate([tiles[8 * row + column].image.numpy() for column in range(8)], 2) for row in range(6)]
    wall = np.moveaxis(np.concatenate(rows, 1), 0, -1)
    folder.mkdir()
    Image.fromarray(np.ascontiguousarray(wall[:, :240])).save(folder / "left.png")
    Image.fromarray(np.ascontiguousarray(wall[:, 144:])).save(folder / "right.png")


def elsewhere(root):
    """Truth and predictions of blood/'s test images as other tools write them: COCO results, and YOLO files with a score."""
    import saccade
    from saccade.data.formats import write_data

    test = saccade.load_data(root / "blood", "test")
    write_data(test, root / "work", "coco")
    truth = root / "work" / "annotations" / "instances_test.json"
    for name in ("truth.json", "instances_val.json"):
        shutil.copy(truth, root / name)
    found = [{k: a[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.9} for a in json.loads(truth.read_text())["annotations"]]
    (root / "predictions.json").write_text(json.dumps(found))
    (root / "yolo_predictions").mkdir()
    for i in range(len(test)):
        record = test.record(i)
        low, high = record.boxes[:, :2] / 64, record.boxes[:, 2:] / 64
        rows = [
            f"{k} {x:.6f} {y:.6f} {w:.6f} {h:.6f} 0.9"
            for k, (x, y), (w, h) in zip(record.labels, (low + high) / 2, high - low, strict=True)
        ]
        (root / "yolo_predictions" / f"{Path(record.path).stem}.txt").write_text("\n".join(rows))
    shutil.rmtree(root / "work")


def darknet(folder):
    """Darknet's files of two names, both of the thirteen convolutions of YOLOv3's small network."""
    from saccade.models.darknet.weights import write_weights
    from saccade.models.registry import create_model

    def conv(maps, kernel, more="batch_normalize=1\nactivation=leaky"):
        return f"[convolutional]\nfilters={maps}\nsize={kernel}\nstride=1\npad=1\n{more}\n"

    anchors = "10,14,23,27,37,58,81,82,135,169,344,319"
    heads = [f"[yolo]\nmask={mask}\nanchors={anchors}\nclasses=80\nnum=6\n" for mask in ("3,4,5", "0,1,2")]
    last = conv(255, 1, "activation=linear")
    lines = ["[net]\nwidth=64\nheight=64\nchannels=3\n"]
    for maps in (16, 32, 64, 128, 256):
        lines += [conv(maps, 3), "[maxpool]\nsize=2\nstride=2\n"]
    lines += [conv(512, 3), "[maxpool]\nsize=2\nstride=1\n", conv(1024, 3), conv(256, 1), conv(512, 3), last, heads[0]]
    lines += ["[route]\nlayers=-4\n", conv(128, 1), "[upsample]\nstride=2\n", "[route]\nlayers=-1,8\n", conv(256, 3), last, heads[1]]
    folder.mkdir()
    for name in ("yolov3", "yolov3-tiny"):
        (folder / f"{name}.cfg").write_text("".join(lines))
        write_weights(create_model("yolov3_tiny", 80, size=64), folder / f"{name}.weights")
    (folder / "coco.names").write_text("".join(f"kind{k}\n" for k in range(80)))


@pytest.fixture(scope="session")
def registered(tmp_path_factory):
    """The worked example as an installed package of its own; gives the folder that is on Python's path."""
    from saccade.models.index import entries

    folder = tmp_path_factory.mktemp("package")
    shutil.copy(TUTORIALS / "tiny_points.py", folder)
    info = folder / "tiny_points-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-points\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[saccade.models]\ntiny_points = tiny_points:ENTRIES\n")
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    entries.cache_clear()
    yield folder
    sys.path.remove(str(folder))
    entries.cache_clear()
