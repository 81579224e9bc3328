"""Write the gallery of image operations: ``python docs/gallery.py`` makes gallery.md and images/gallery/*.webp.

Every picture shows what goes in and what the line below it gives: the line is evaluated as it stands. The picture is drawn by
``synthetic:cells``. All is committed; a test says that the page is what this script makes.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DOCS = Path(__file__).resolve().parent
PICTURES = DOCS / "images" / "gallery"
SIDE, GAP, LARGEST = 160, 6, 15 * 1024

ROWS = {
    "I1": "Sampling and resolution",
    "I2": "Quantisation",
    "I3": "Channels and colour",
    "I4": "Neighbours",
    "I5": "Point operations and histograms",
    "I6": "Linear filters",
    "I7": "Rank filters",
    "I8": "Derivatives",
    "I9": "Edges",
    "I10": "Noise",
    "I11": "Denoising and its measures",
    "I12": "Frequencies, Hough, morphology",
    "I13": "Geometry and pyramids",
    "S1": "Thresholds",
    "D7": "Graph segmentation",
}

LINES = {
    "resize": "image.resize(f, (20, 20), antialias=True)",
    "downsample": "image.downsample(rings, 2, prefilter=False)",
    "upsample": "image.upsample(image.crop(f, 100, 0, 40, 40), 4)",
    "quantize": "image.quantize(f, 4)",
    "quantization_error": "image.quantization_error(f, 4)",
    "merge": "image.merge(image.split(f)[::-1])",
    "gray_to_rgb": "image.gray_to_rgb(g)",
    "hsv_to_rgb": "image.hsv_to_rgb(image.rgb_to_hsv(f))",
    "lab_to_rgb": "image.lab_to_rgb(image.rgb_to_lab(f))",
    "ycbcr_to_rgb": "image.ycbcr_to_rgb(image.rgb_to_ycbcr(f))",
    "n4": "image.n4(f, 0, 80)",
    "n8": "image.n8(f, 0, 80)",
    "neighbour_planes": "image.neighbour_planes(image.crop(g, 105, 15, 16, 16), 4)",
    "slice_levels": "image.slice_levels(g, 0.4, 0.6)",
    "equalize": "image.equalize(g)",
    "correlate": "image.correlate(f, [[1, 0, 0], [0, 0, 0], [0, 0, -1]], output='float')",
    "mean": "image.mean(f, size=9)",
    "gaussian": "image.gaussian(f, sigma=2.0)",
    "median": "image.median(salted, size=3)",
    "minimum": "image.minimum(f, size=7)",
    "maximum": "image.maximum(f, size=7)",
    "bilateral": "image.bilateral(noisy, sigma_color=0.5)",
    "non_local_means": "image.non_local_means(noisy)",
    "wiener": "image.wiener(blurred, 'motion:9:45', 0.01)",
    "adaptive_wiener": "image.adaptive_wiener(noisy)",
    "wavelet_shrinkage": "image.wavelet_shrinkage(noisy)",
    "total_variation": "image.total_variation(noisy)",
    "estimate_sigma": "image.estimate_sigma(noisy)",
    "mse": "image.mse(noisy, f)",
    "psnr": "image.psnr(noisy, f)",
    "ssim": "image.ssim(noisy, f)",
    "match_histogram": "image.match_histogram(f, image.invert(f))",
    "high_pass": "image.high_pass(f, output='float')",
    "band_pass": "image.band_pass(f, output='float')",
    "laplacian": "image.laplacian(f, output='float')",
    "laplacian_of_gaussian": "image.laplacian_of_gaussian(f, output='float')",
    "sobel": "image.sobel(f, output='float')",
    "prewitt": "image.prewitt(f, output='float')",
    "scharr": "image.scharr(f, output='float')",
    "roberts": "image.roberts(f, output='float')",
    "prewitt_edges": "image.stretch(image.prewitt_edges(f))",
    "sobel_edges": "image.stretch(image.sobel_edges(f))",
    "scharr_edges": "image.stretch(image.scharr_edges(f))",
    "roberts_edges": "image.stretch(image.roberts_edges(f))",
    "laplacian_edges": "image.stretch(image.laplacian_edges(f))",
    "top_hat": "image.stretch(image.top_hat(f))",
    "black_hat": "image.stretch(image.black_hat(f))",
    "morphological_gradient": "image.stretch(image.morphological_gradient(f))",
    "marr_hildreth": "image.marr_hildreth(g, threshold=0.01)",
    "gamma": "image.gamma(f, 2.5)",
    "log_transform": "image.log_transform(dark)",
    "crop": "image.crop(f, 90, 0, 60, 60)",
    "frame": "image.frame(f, 20, 20, 20, 20)",
    "shift": "image.shift(f, 20, 35, border='wrap')",
    "affine": "image.affine(f, [[0.8, 0.3, 0], [-0.1, 0.9, 20]])",
    "perspective": "image.perspective(f, homography([(0, 0), (159, 0), (159, 159), (0, 159)], [(30, 20), (130, 0), (159, 159), (0, 130)]))",
    "graph_segments": "image.graph_segments(f, k=150)",
    "graph_regions": "image.graph_regions(f, k=150)",
    "otsu": "image.otsu(g)",
    "otsu_level": "image.otsu_level(g)",
    "fixed_threshold": "image.fixed_threshold(g, 0.7)",
    "adaptive_threshold": "image.adaptive_threshold(g)",
    "canny": "image.canny(g)",
    "canny_stages": "image.canny_stages(g)",
    "find_lines": "image.find_lines(board, votes=90)",
    "hough_lines": "image.hough_lines(board, votes=90)",
    "find_circles": "image.find_circles(g)",
    "hough_circles": "image.hough_circles(g)",
    "opening": "image.opening(image.otsu(g, inverse=True), size=5)",
    "closing": "image.closing(image.otsu(g, inverse=True), size=5)",
    "erode": "image.erode(image.otsu(g, inverse=True), size=5)",
    "dilate": "image.dilate(image.otsu(g, inverse=True), size=5)",
}
"""The code line of operations that need more than a picture."""


def names() -> dict[str, Any]:
    """What the code lines may use: ``image``, the picture ``f``, its grey ``g``, spoilt ones, ``rings`` and a turned chess ``board``."""
    import saccade
    from saccade.image.geometry import homography
    from saccade.image.sampling import zone_plate

    f = saccade.load_data(f"synthetic:cells?count=1&size={SIDE}")[0].image.permute(1, 2, 0).numpy().copy()
    noisy = saccade.image.gaussian_noise(f, sigma=0.08)
    return {
        "image": saccade.image,
        "homography": homography,
        "f": f,
        "g": saccade.image.rgb_to_gray(f),
        "noisy": noisy,
        "salted": saccade.image.salt_and_pepper(f),
        "blurred": saccade.image.correlate(f, "motion:9:45"),
        "dark": saccade.image.gamma(f, 6.0),
        "rings": zone_plate(SIDE),
        "board": saccade.image.rotate(np.kron(np.indices((4, 4)).sum(0) % 2, np.full((40, 40), 120, np.uint8)).astype(np.uint8), 20),
    }


def line_of(name: str) -> str:
    """The code line that shows an operation."""
    return LINES.get(name, f"image.{name}(f)")


def shown(value: np.ndarray) -> Image.Image:
    """An RGB picture of a result: floats that are no image with zero in the middle, at most SIDE pixels."""
    from saccade.workflows.image import viewable

    picture = Image.fromarray(viewable(value)).convert("RGB")
    if max(picture.size) <= 24:  # so small that one would not see it
        factor = SIDE // max(picture.size)
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture.thumbnail((SIDE, SIDE))
    return picture


def row_of(pictures: list[Image.Image]) -> Image.Image:
    """Pictures side by side, in the middle of cells of SIDE pixels."""
    out = Image.new("RGB", (len(pictures) * (SIDE + GAP) - GAP, SIDE), (255, 255, 255))
    for k, picture in enumerate(pictures):
        out.paste(picture, (k * (SIDE + GAP) + (SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    return out


def picture_of(name: str, known: dict[str, Any]) -> Image.Image | None:
    """Input and result side by side; None for a result that is no picture."""
    from saccade.image import operations
    from saccade.workflows.image import histogram_picture

    line = line_of(name)
    first = re.findall(r"\b(?:f|g|noisy|salted|blurred|dark|rings|board)\b", line)[0]
    result = eval(line, dict(known))  # our own lines, above
    if name == "histogram":
        return row_of([shown(known[first]), histogram_picture(known[first], size=(SIDE, 2 * SIDE)).resize((SIDE, SIDE // 2))])
    if operations()[name].gives == "value":
        return None
    results = result if isinstance(result, list) else [result]
    return row_of([shown(known[first]), *(shown(r) for r in results[:5])])


def encoded(picture: Image.Image) -> bytes:
    """WebP of at most LARGEST bytes, as good as that allows."""
    for quality in (60, 45, 30, 15, 5):
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=quality, method=6)
        if buffer.tell() <= LARGEST:
            break
    return buffer.getvalue()


def answer(value: Any) -> str:
    """A value in short, numbers to four digits."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {answer(v)}" for k, v in value.items())
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, (list, tuple)):
        texts = [answer(v) for v in value[:4]]
        return "(" + ", ".join(texts) + (", ..." if len(value) > 4 else "") + ")"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def page(known: dict[str, Any]) -> str:
    """The page's text."""
    from saccade.image import operations

    lines = [
        "# Gallery of image operations",
        "",
        "Made by `docs/gallery.py`: each line of code is what made the picture above it, the input on the left. `f` is drawn by",
        "`synthetic:cells`, `g` is its grey; `noisy` has Gaussian noise of sigma 0.08, `salted` salt and pepper, `blurred` a motion blur",
        "of 9 pixels; `dark` is `f` to the power of 6, `rings` is `saccade.image.sampling.zone_plate`, `board` a turned chess board.",
        "Signed results are shown with zero as mid-grey.",
        "What an image is, and the command line: [Images](image.md).",
    ]
    row = ""
    for name, entry in operations().items():
        if entry.row != row:
            row = entry.row
            lines += ["", f"## {ROWS.get(row, row)} ({row})"]
        summary = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", entry.summary).replace("*", r"\*")
        lines += ["", f"### {name}", "", summary, ""]
        if entry.gives != "value" or name == "histogram":
            lines += [f"![{name}: input and result](images/gallery/{name}.webp)", ""]
        lines += [f"`{entry.formula}`", "", f"`{line_of(name)}`"]
        if entry.gives == "value" and name != "histogram":
            lines[-1] += f" gives {answer(eval(line_of(name), dict(known)))}"
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page and the pictures; pictures of operations that are gone are removed."""
    from saccade.image import operations

    known = names()
    PICTURES.mkdir(parents=True, exist_ok=True)
    made = set()
    for name in operations():
        picture = picture_of(name, known)
        if picture is not None:
            (PICTURES / f"{name}.webp").write_bytes(encoded(picture))
            made.add(f"{name}.webp")
    for old in PICTURES.glob("*.webp"):
        if old.name not in made:
            old.unlink()
    (DOCS / "gallery.md").write_text(page(known), encoding="utf-8")


if __name__ == "__main__":
    main()
