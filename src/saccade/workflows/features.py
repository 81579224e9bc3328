"""Features of images: extracted to files or drawn, two images matched, several joined to a panorama."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.types.errors import DataError, UsageError, suggest

if TYPE_CHECKING:
    import numpy as np

    from saccade.features.keypoints import Keypoints
    from saccade.features.match import Matches
    from saccade.features.panorama import Panorama

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
BATCH = 32


def list_features() -> dict[str, list[str]]:
    """Names of all features, by what they give: key points, one vector an image, maps."""
    from saccade.features.keypoints import KINDS
    from saccade.features.names import VECTORS

    vectors = [f"{name}/NAME" if name == "timm" else name for name in VECTORS]
    return {"keypoints": list(KINDS), "vectors": vectors, "maps": ["maps/NAME", "pyramid/NAME"]}


def extract(
    kind: str,
    source: str | Path,
    out: str | Path,
    *,
    pretrained: bool = False,
    device: str = "cpu",
    skipped: Callable[[DataError], None] | None = None,
) -> dict[str, Any]:
    """Features of an image, or of all images of a folder, as a file.

    =======================  =============================  =========================================================================
    kind                     of one image                   of a folder
    =======================  =============================  =========================================================================
    key points (``sift``)    a drawn picture, ``.npz``      ``.parquet`` with a column ``image``, or a folder of ``NAME.npz``
                             or ``.parquet``
    vectors (``hog``,        ``.npz``: ``images`` (N,) and ``features`` (N, D); ``.parquet``: columns ``image`` and ``features``
    ``timm/resnet18``)
    ``maps/resnet18``        ``.npz``: ``images`` and ``maps`` (N, C, h, w) of the network's last stage
    ``pyramid/resnet18``     ``.npz``: ``images`` and ``stride4`` ... (N, C, h, w) (:mod:`saccade.features.multiscale`)
    =======================  =============================  =========================================================================

    Args:
        kind: name, options after it: ``"surf?upright=true"``, ``"timm/resnet18?size=128"``.
        source: image file or folder (all levels).
        out: file, or folder where its name has no suffix.
        pretrained: download a network's published weights; else they are random.
        device: of networks.
        skipped: sees the error of each broken file; None raises the first.

    Returns:
        What was done: kind, images, what is in the file.

    Raises:
        UsageError: unknown kind or option, or a form of output that the kind does not have.
        DataError: nothing there, or a broken image.
    """
    from saccade.data.images import find_images
    from saccade.features.keypoints import KINDS
    from saccade.features.names import VECTORS

    name = kind.partition("?")[0].partition("/")[0]
    if name not in (*KINDS, *VECTORS, "maps", "pyramid"):
        known = [text for group in list_features().values() for text in group]
        raise UsageError(f"there are no features {name!r}{suggest(name, known)}")
    target, paths = Path(out), list(find_images([source]))
    one = len(paths) == 1 and not Path(source).is_dir()
    _check_form(name, target, one, points=name in KINDS)
    _keep(target, paths)
    skipped = None if one else skipped  # nothing would be left
    if name in KINDS:
        if pretrained:
            raise UsageError(f"no weights are published for the features {kind!r}: leave pretrained off")
        return _extract_points(kind, paths, target, one, Path(source), skipped)
    return _extract_arrays(kind, paths, target, pretrained, device, skipped)


def match_images(a: str | Path, b: str | Path, out: str | Path, *, kind: str = "sift", **options: Any) -> Matches:
    """Match two images; write a picture of both with lines between their matches, or ``.npz``.

    Args:
        a, b: image files. out: ``.png``, ``.jpg``, ``.webp`` or ``.npz``.
        kind: of the key points, with options.
        options: of :func:`saccade.features.match.match`.

    Raises:
        UsageError: unknown kind or option, key points without descriptors, another suffix.
        DataError: a broken image.
    """
    from saccade.data.images import read_rgb
    from saccade.features.keypoints import detect
    from saccade.features.match import draw_matches, match

    target = Path(out)
    if target.suffix.lower() not in (*PICTURES, ".npz"):
        raise UsageError(f"matches are written as {', '.join(PICTURES)} or .npz, not {target.name!r}")
    _keep(target, [str(a), str(b)])
    left, right = read_rgb(a), read_rgb(b)
    found = match(detect(left, kind), detect(right, kind), **options)
    if target.suffix.lower() == ".npz":
        found.save(target)
    else:
        _save_picture(draw_matches(left, right, found), target)
    return found


def panorama(images: Sequence[str | Path], out: str | Path, **options: Any) -> Panorama:
    """Join views to one picture.

    Args:
        images: two image files or more, in any order. out: ``.png``, ``.jpg`` or ``.webp``.
        options: of :func:`saccade.features.panorama.make_panorama`.

    Raises:
        UsageError: fewer than two images, an unknown kind or option, another suffix.
        DataError: a broken image, or one that does not belong to the others.
    """
    from saccade.data.images import read_rgb
    from saccade.features.panorama import make_panorama

    target = Path(out)
    if target.suffix.lower() not in PICTURES:
        raise UsageError(f"a panorama is written as {', '.join(PICTURES)}, not {target.name!r}")
    _keep(target, [str(path) for path in images])
    found = make_panorama([read_rgb(path) for path in images], names=[str(path) for path in images], **options)
    _save_picture(found.image, target)
    return found


def _extract_points(
    kind: str, paths: Sequence[str], target: Path, one: bool, source: Path, skipped: Callable[[DataError], None] | None
) -> dict[str, Any]:
    import numpy as np

    from saccade.features.keypoints import detect, write_parquet
    from saccade.features.pixels import in_threads

    base = source if source.is_dir() else Path(os.path.commonpath([Path(path).parent.absolute() for path in paths]))
    rows: dict[str, list[Any]] = {}
    count = images = width = 0
    for names, batch in _batches(paths, skipped):
        for name, image, points in zip(names, batch, in_threads(lambda image: detect(image, kind), batch), strict=True):
            count, images, width = count + len(points), images + 1, points.descriptors.shape[1]
            if one:
                _write_points(points, image, target)
            elif target.suffix.lower() == ".parquet":
                for column, values in ({"image": np.full(len(points), name)} | points.columns()).items():
                    rows.setdefault(column, []).append(values)
            else:
                points.save(target / f"{os.path.relpath(name, base)}.npz")
    if not images:
        raise DataError(source, "holds no image that can be read")
    if rows:
        write_parquet(target, {column: np.concatenate(parts) for column, parts in rows.items()}, {"kind": kind})
    return {"kind": kind, "images": images, "points": count, "descriptor": width, "out": str(target)}


def _write_points(points: Keypoints, image: Any, target: Path) -> None:
    if target.suffix.lower() in PICTURES:
        _save_picture(points.draw(image), target)
    else:
        points.save(target)


def _extract_arrays(
    kind: str, paths: Sequence[str], target: Path, pretrained: bool, device: str, skipped: Callable[[DataError], None] | None
) -> dict[str, Any]:
    import numpy as np

    function = _array_function(kind, paths, pretrained, device)
    names: list[str] = []
    parts: dict[str, list[Any]] = {}
    for some, batch in _batches(paths, skipped):
        names += some
        for column, values in function(batch).items():
            parts.setdefault(column, []).append(values)
    if not names:
        raise DataError(paths[0], "none of the images can be read")
    arrays = {column: np.concatenate(values) for column, values in parts.items()}
    if target.suffix.lower() == ".parquet":
        from saccade.features.keypoints import write_parquet

        write_parquet(target, {"image": np.array(names)} | arrays, {"kind": kind})
    else:
        from saccade.types.files import atomic

        with atomic(target) as temporary, temporary.open("wb") as file:
            columns: dict[str, Any] = {"images": np.array(names), "kind": np.array(kind)} | arrays
            np.savez(file, **columns)
    shapes = {column: list(values.shape) for column, values in arrays.items()}
    return {"kind": kind, "images": len(names), "arrays": shapes, "out": str(target)}


def _array_function(kind: str, paths: Sequence[str], pretrained: bool, device: str) -> Callable[[Sequence[Any]], Mapping[str, np.ndarray]]:
    """Arrays by name of a batch of images."""
    from saccade.features.base import create_features
    from saccade.features.names import read_options

    name, _, query = kind.partition("?")
    prefix, _, architecture = name.partition("/")
    if prefix == "pyramid":
        from saccade.features.multiscale import MultiscaleMaps

        if not architecture:
            raise UsageError("multi-scale maps are of a network: pyramid/NAME, such as pyramid/resnet18")
        options = read_options(query, MultiscaleMaps, text=kind, leave=("architecture", "in_chans", "pretrained"))
        pyramid = MultiscaleMaps(architecture=architecture, pretrained=pretrained, **options).to(device)
        return pyramid.maps
    if prefix == "maps":
        if not architecture:
            raise UsageError("maps are of a network: maps/NAME, such as maps/resnet18")
        backbone: Any = create_features("timm" + kind.removeprefix("maps"), pretrained=pretrained).to(device)
        return lambda batch: {"maps": backbone.maps(batch)}
    extractor = create_features(kind, pretrained=pretrained).to(device)
    if extractor.fitted_buffers:
        extractor.fit(lambda: (batch for _, batch in _batches(paths, lambda problem: None)))
    return lambda batch: {"features": extractor(batch)}


def _batches(paths: Sequence[str], skipped: Callable[[DataError], None] | None) -> Iterator[tuple[list[str], list[Any]]]:
    """Names and (H, W, 3) uint8 images, :data:`BATCH` at a time, without the broken ones."""
    from saccade.data.images import read_rgb

    for start in range(0, len(paths), BATCH):
        names, images = [], []
        for path in paths[start : start + BATCH]:
            try:
                images.append(read_rgb(path))
                names.append(path)
            except DataError as problem:
                if skipped is None:
                    raise
                skipped(problem)
        if names:
            yield names, images


def _check_form(name: str, target: Path, one: bool, *, points: bool) -> None:
    """UsageError when the features are not written in that form."""
    suffix = target.suffix.lower()
    if not points:
        known = [".npz"] if name in ("maps", "pyramid") else [".npz", ".parquet"]
        if suffix not in known:
            raise UsageError(f"features {name!r} are written as {' or '.join(known)}, not {target.name!r}")
    elif one and suffix not in (*PICTURES, ".npz", ".parquet"):
        raise UsageError(f"key points are drawn as {', '.join(PICTURES)}, or written as .npz or .parquet, not {target.name!r}")
    elif not one and (suffix not in ("", ".parquet") or (not suffix and target.is_file())):
        raise UsageError(f"key points of a folder are written as .parquet or into a folder, not {target.name!r}")


def _keep(target: Path, paths: Sequence[str]) -> None:
    """UsageError when the output is one of the inputs."""
    if target.exists() and any(target.samefile(path) for path in paths if Path(path).exists()):
        raise UsageError(f"the output {target} is one of the images; give another name")


def _save_picture(pixels: np.ndarray, target: Path) -> None:
    from PIL import Image

    from saccade.types.files import atomic
    from saccade.workflows.image import check_sides

    check_sides(target, pixels.shape)
    with atomic(target) as temporary:
        Image.fromarray(pixels).save(temporary, quality=92)  # PNG has none
