"""The bake-off on real images: ``python -m benchmarks.compare NAME...|all [--out FOLDER]``.

Systems of a task, three seeds where not said otherwise, a small wall-clock budget of training a run, through ``saccade compare``.
Interrupted, the same command goes on in the same ``--out``. What it leaves is copied to results/compare/NAME/: the table (Markdown, CSV,
JSON), the page, and plan.json, the epochs that the budget came to on that machine; put into a new ``--out``, it makes a run reproducible
to the digit.

* bccd: five detectors at 192 pixels, 60 seconds; train 205, val 87, measured on the 72 images of test. The fitted and staged systems have
  their own length; faster_rcnn has a ResNet-18, rcnn fewer proposals than by default.
* bccd_line: the one-stage detectors from YOLOv1 to YOLOv5, SSD and RetinaNet, and ssdlite, on the same images at 224 pixels, 60 seconds
  on one core each (two runs at once), in bfloat16 where the machine computes in it. All but yolov5n and ssdlite narrower than published;
  priors come from the data where there are any. raccoon: five of them, 30 seconds, on 90 pictures of one class (measured on 19). coco128:
  two of them, one seed, 128 pictures of 80 classes: a check that many classes work and no measurement of the systems.
* wbc: U-Net in three forms, 30 seconds; benchmarks.accuracy's split of 240 and 60 images.
* facial_keypoints: 68 points of a face by landmark_net with four losses, and on a ResNet-18, 30 seconds; 71 pictures, measured on 30.
* Classifiers, ten networks from scratch (the wide ones narrowed, all at small sizes) and five classical pipelines, two runs at once, 30
  seconds each: mnist (a quarter of 20 000 digits, measured on the official 10 000), cifar10_jpg (5 000 images of 32 pixels, measured on
  1 000), orl_faces (40 people, 400 pictures), dtd10 (10 textures, 200 pictures), hymenoptera (ants or bees, 96 pictures). Sets that state
  no splits are split at random, the same for all.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.accuracy import RESULTS, wbc_split
from benchmarks.common import ROOT

DATA = Path(os.environ.get("SACCADE_DATA", ROOT.parent / "shared" / "datasets"))

COMPARISONS: dict[str, dict[str, Any]] = {
    "bccd": {
        "data": "set:bccd",
        "models": ["ssdlite", "ssdlite320", "faster_rcnn", "hog_svm", "rcnn"],
        "options": {
            "ssdlite": {"model.size": 192},
            "ssdlite320": {"model.size": 192},
            "faster_rcnn": {"model.backbone": "resnet18", "model.min_size": 192, "model.max_size": 256},
            "rcnn": {"model.max_proposals": 300},
        },
        "budget": "60s",
    },
    "wbc": {
        "data": "set:wbc",
        "models": ["unet", "unet16=unet", "dice_focal=unet"],
        "options": {"unet16": {"model.width": 16}, "dice_focal": {"recipe.loss": "dice+focal"}},
        "budget": "30s",
    },
}  # fmt: skip

LINE: dict[str, dict[str, Any]] = {
    "ssdlite": {},
    "yolov1_tiny": {"model.width": 0.5, "model.size": 256},  # a multiple of 64
    "yolov2_tiny": {"model.width": 0.5, "model.priors": "auto"},
    "yolov2": {"model.width": 0.25, "model.priors": "auto"},
    "yolov3_tiny": {"model.width": 0.5, "model.priors": "auto"},
    "yolov3": {"model.width": 0.25, "model.priors": "auto"},
    "yolov4_tiny": {"model.width": 0.5, "model.priors": "auto"},
    "yolov4": {"model.width": 0.25, "model.priors": "auto"},
    "yolov4_csp": {"model.width": 0.25, "model.priors": "auto"},
    "yolov5n": {"model.priors": "auto"},
    "ssd300": {"model.width": 0.25, "model.norm": "batch", "recipe.optimizer": "adamw", "recipe.lr": 2e-3},
    "retinanet": {
        "model.backbone": "resnet18", "model.head_norm": "group", "model.channels": 64, "recipe.optimizer": "adamw", "recipe.lr": 1e-3,
        "recipe.batch_size": 8,
    },
}  # fmt: skip


def line(size: int, *names: str) -> dict[str, Any]:
    """The one-stage detectors (those named, or all) at an input of ``size`` pixels."""
    shown = {name: {"model.size": size} | LINE[name] for name in names or LINE if name != "retinanet"}
    if "retinanet" in (names or LINE):
        anchors = [size * share for share in (0.05, 0.1, 0.2, 0.4, 0.8)]
        shown["retinanet"] = LINE["retinanet"] | {"model.min_size": size * 3 // 4, "model.max_size": size, "model.anchor_sizes": anchors}
    return {"models": list(shown), "options": shown | {"*": {"recipe.precision": "auto"}}, "jobs": 2}


COMPARISONS |= {
    "bccd_line": {"data": "set:bccd", "budget": "60s"} | line(224),
    "raccoon": {"data": str(DATA / "raccoon"), "budget": "30s"} | line(224, "ssdlite", "yolov3_tiny", "yolov5n", "ssd300", "retinanet"),
    "coco128": {"data": str(DATA / "coco128"), "budget": "60s", "seeds": 1} | line(224, "ssdlite", "yolov5n"),
    "facial_keypoints": {
        "data": str(DATA / "facial_keypoints"),
        "models": [f"{loss}=landmark_net" for loss in ("wing", "l1", "smooth_l1", "l2")] + ["wing_resnet18=landmark_net"],
        "options": {"*": {"model.between": "36,45"}, "wing_resnet18": {"model.backbone": "resnet18"}}
        | {loss: {"recipe.loss": loss} for loss in ("wing", "l1", "smooth_l1", "l2")},
        "budget": "30s",
        "jobs": 2,
    },
}


def networks(size: int, grey: bool = False) -> dict[str, dict[str, Any]]:
    """Ten networks at an input of ``size`` pixels (LeNet-5 at its 32, AlexNet not below 67), the wide ones at a fraction of their width."""
    options: dict[str, dict[str, Any]] = {
        "lenet5": {"model.in_chans": 3},
        "course_cnn": {"model.size": size, "model.in_chans": 3},
        "alexnet": {"model.size": 67, "model.width": 0.5},
        "vgg11_bn": {"model.size": size, "model.dense": 256},
        "nin": {"model.size": size, "model.width": 0.5},
        "bn_inception": {"model.size": size, "model.width": 0.5},
        "resnet18": {"model.size": size},
        "darknet19": {"model.size": size, "model.width": 0.5},
        "mobilenet_v1": {"model.rho": size / 224},
        "efficientnet_b0": {"model.size": size},
    }
    return {name: given | ({"model.in_chans": 1} if grey else {}) for name, given in options.items()}


CLASSICAL = {
    "knn_pixels=knn": {"model.features": "pixels"},
    "svm_hog=svm": {"model.features": "hog"},
    "svm_bow=svm": {"model.features": "sift_bow"},
    "forest_lbp=random_forest": {"model.features": "lbp"},
    "boosting_hog=boosting": {"model.features": "hog"},
}

CLASSIFIERS: dict[str, dict[str, Any]] = {
    "mnist": {
        "data": "set:mnist",
        "size": 32,
        "grey": True,
        "budget": "30s",
        "recipe": {"recipe.hflip": 0.0, "recipe.crop": 1.0},
        "share": 0.25,
    },
    "cifar10_jpg": {"data": str(DATA / "cifar10_jpg"), "size": 32, "budget": "30s", "recipe": {"recipe.crop": 0.8}},
    "orl_faces": {"data": str(DATA / "orl_faces"), "size": 64, "grey": True, "budget": "30s", "recipe": {"recipe.crop": 0.8}},
    "dtd10": {"data": str(DATA / "dtd10"), "size": 64, "budget": "30s", "recipe": {}},
    "hymenoptera": {"data": str(DATA / "hymenoptera"), "size": 64, "budget": "30s", "recipe": {}},
}
for name, of in CLASSIFIERS.items():
    shown = networks(of["size"], of.get("grey", False))
    COMPARISONS[name] = {
        "data": of["data"],
        "models": [*shown, *CLASSICAL],
        "options": shown | {label.partition("=")[0]: given for label, given in CLASSICAL.items()} | {"*": of["recipe"]},
        "budget": of["budget"],
        "jobs": 2,
        "data_sizes": (of.get("share", 1.0),),
    }
LEAKS = dict.fromkeys(("bccd", "bccd_line", "wbc"), False)
"""The other sets have the same picture twice here and there (MNIST, ORL); the found pairs are told."""


def smaller(picture: re.Match[str], side: int) -> str:
    """A picture of a page at ``side`` pixels: a repository is no place for megabytes."""
    image = Image.open(io.BytesIO(base64.b64decode(picture[1])))
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "WEBP", quality=60)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def keep(made: Path, target: Path) -> None:
    """Copy what is committed, with this command in it; the page with smaller pictures, without its links to the runs' reports."""
    target.mkdir(parents=True, exist_ok=True)
    called = f"python -m benchmarks.compare {target.name}"
    texts = {
        "table.md": ("* command: python\n", f"* command: {called}\n"),
        "table.json": ('"command": "python"', f'"command": "{called}"'),
        "index.html": ('>command</th><td class="text">python<', f'>command</th><td class="text">{called}<'),
    }
    for name in (*texts, "table.csv", "plan.json"):
        if (made / name).is_file():
            text = (made / name).read_text(encoding="utf-8").replace(*texts.get(name, ("", "")))
            text = text.replace(f"{DATA}/", "SACCADE_DATA/")
            text = re.sub(r'<a href="runs/[^"]*">([^<]*)</a>', r"\1", text)
            side = 320 if text.count("data:image/") <= 80 else 128  # many models times twelve images
            pictures = re.compile(r"data:image/\w+;base64,([^\"]+)")
            (target / name).write_text(pictures.sub(partial(smaller, side=side), text), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=[*COMPARISONS, "all"])
    parser.add_argument("--seeds", type=int, help="instead of three (coco128: one)")
    parser.add_argument("--budget", help="instead of each one's own")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="where the runs go; given again, it goes on")
    arguments = parser.parse_args()
    import saccade

    for name in COMPARISONS if "all" in arguments.names else arguments.names:
        settings, out = COMPARISONS[name], arguments.out / name
        out.mkdir(parents=True, exist_ok=True)
        made = saccade.compare(
            settings["models"], settings["data"], options=settings["options"], seeds=arguments.seeds or settings.get("seeds", 3), out=out,
            budget=arguments.budget or settings["budget"], split_file=wbc_split(out) if name == "wbc" else None,
            allow_leaks=LEAKS.get(name, True), jobs=settings.get("jobs", 1), data_sizes=settings.get("data_sizes", (1.0,)),
        )  # fmt: skip
        keep(out, RESULTS / "compare" / name)
        print((out / "table.md").read_text(encoding="utf-8"), file=sys.stdout)
        for model, error in made.failures.items():
            print(f"{name}: {model}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
