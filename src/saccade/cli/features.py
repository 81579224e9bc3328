"""saccade features: the verbs extract, match, panorama, list."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from saccade.cli import options as o

app = typer.Typer(no_args_is_help=True)

Kind = Annotated[str, typer.Option("--kind", help="Of the key points: sift, surf, orb or brief.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Option of the features, as `features list` shows.")]
Ratio = Annotated[float, typer.Option("--ratio", help="Nearest descriptor against the second nearest; 1: no test.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of RANSAC's samples.")]


@app.callback()
def root() -> None:
    """Key points, descriptors and vectors of images; matching and panoramas.

    Examples:
      saccade features list

      saccade features extract sift views/left.png points.png

      saccade features match views/left.png views/right.png matches.png
    """


@app.command("list")
def list_(as_json: o.Json = False) -> None:
    """All features by name, and the options of the key points."""
    import importlib
    import inspect

    from saccade.features.keypoints import KINDS
    from saccade.workflows.features import list_features

    groups = list_features()
    if as_json:
        o.emit(groups)
        return
    for group, names in groups.items():
        typer.echo(f"{group}:")
        for name in names:
            shown = ""
            if name in KINDS:
                module, _, function = KINDS[name].partition(":")
                parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters.values()
                shown = " ".join(f"{p.name}={p.default}" for p in parameters if p.kind is p.KEYWORD_ONLY)
            typer.echo(f"  {name:<14} {shown}".rstrip())


@app.command("extract")
def extract(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="A name of `features list`; timm/NAME, maps/NAME, pyramid/NAME for networks.")
    ],
    source: Annotated[Path, typer.Argument(metavar="IN", help="Image, or folder of images.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Picture, .npz or .parquet; or a folder.")],
    sets: Set = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="A network's published weights (downloaded).")] = False,
    strict: o.Strict = False,
    device: o.Device = "cpu",
    as_json: o.Json = False,
) -> None:
    """Features of an image or of a folder of images.

    Key points of one image are drawn (.png, .jpg, .webp) or written (.npz, .parquet), of a folder written (.parquet, or a folder of .npz).
    Vectors and maps are arrays over all images (.npz; vectors also .parquet).

    Examples:
      saccade features extract surf views/left.png points.png --set upright=true --set limit=300

      saccade features extract orb photos/ points.parquet

      saccade features extract timm/resnet18 photos/ vectors.npz --pretrained

      saccade features extract pyramid/resnet18 photos/ maps.npz --set mode=fpn
    """
    from saccade.workflows import features as workflow

    def skip(problem: object) -> None:
        print(f"saccade: skipped: {problem}", file=sys.stderr)

    found = workflow.extract(
        with_sets(kind, sets), source, out, pretrained=pretrained, device=o.pick_device(device), skipped=None if strict else skip
    )
    if as_json:
        o.emit(found)
        return
    if "points" in found:
        what = f"{found['points']} points" + (f" with {found['descriptor']} values each" if found["descriptor"] else "")
    else:
        what = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in found["arrays"].items())
    images = "" if found["images"] == 1 else f"{found['images']} images: "
    typer.echo(f"{images}{what} -> {found['out']}")


@app.command("match")
def match(
    a: Annotated[Path, typer.Argument(metavar="A", help="Image.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Image.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Picture of both with lines between, or .npz.")],
    kind: Kind = "sift",
    sets: Set = None,
    ratio: Ratio = 0.8,
    mutual: Annotated[bool, typer.Option("--mutual/--no-mutual", help="Both must be each other's nearest.")] = True,
    threshold: Annotated[float, typer.Option("--threshold", help="Greatest error of an inlier in pixels.")] = 1.5,
    seed: Seed = 0,
    as_json: o.Json = False,
) -> None:
    """Match two images: ratio test, mutual check, a homography by RANSAC. Inliers are green.

    Examples:
      saccade features match views/left.png views/right.png matches.png

      saccade features match views/left.png views/right.png matches.npz --kind orb --set limit=2000 --json
    """
    from saccade.workflows import features as workflow

    found = workflow.match_images(a, b, out, kind=with_sets(kind, sets), ratio=ratio, mutual=mutual, threshold=threshold, seed=seed)
    if as_json:
        o.emit(found.to_dict() | {"out": str(out)})
        return
    typer.echo(f"{found.summary()} -> {out}")


@app.command("panorama")
def panorama(
    images: Annotated[list[Path], typer.Argument(metavar="A B...", help="Two images or more, in any order.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Picture to write.")],
    kind: Kind = "sift",
    sets: Set = None,
    reference: Annotated[int | None, typer.Option("--reference", min=1, help="Number of the image that is not warped.")] = None,
    ratio: Ratio = 0.8,
    threshold: Annotated[float, typer.Option("--threshold", help="Greatest error of an inlier in pixels.")] = 3.0,
    seed: Seed = 0,
    as_json: o.Json = False,
) -> None:
    """Join views of a plane, or of anything from one spot, to one picture; borders are feathered.

    Examples:
      saccade features panorama views/left.png views/right.png wide.jpg
    """
    from saccade.types.errors import UsageError
    from saccade.workflows import features as workflow

    if reference is not None and reference > len(images):
        raise UsageError(f"--reference {reference}: the images are 1 to {len(images)}")
    found = workflow.panorama(
        images, out, kind=with_sets(kind, sets), reference=None if reference is None else reference - 1, ratio=ratio, threshold=threshold,
        seed=seed,
    )  # fmt: skip
    height, width = found.image.shape[:2]
    pairs = {f"{i + 1}-{j + 1}": int(m.inliers.sum()) for (i, j), m in found.pairs.items()}
    if as_json:
        homographies = [matrix.tolist() for matrix in found.homographies]
        o.emit({"size": [height, width], "inliers": pairs, "reference": found.reference + 1, "homographies": homographies, "out": str(out)})
        return
    joined = ", ".join(f"{edge} by {count} inliers" for edge, count in pairs.items())
    typer.echo(f"{width}x{height} of {len(images)} images ({joined}) -> {out}")


def with_sets(kind: str, sets: list[str] | None) -> str:
    """A kind with more options: ``surf`` and ``upright=true`` to ``surf?upright=true``."""
    from saccade.types.errors import UsageError

    for item in sets or ():
        if "=" not in item or "&" in item:
            raise UsageError(f"--set {item!r}: NAME=VALUE")
    return kind if not sets else kind + ("&" if "?" in kind else "?") + "&".join(sets)
