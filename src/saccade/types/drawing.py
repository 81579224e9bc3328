"""Drawing on pictures with Pillow: boxes with labels, coloured masks, key points, captions, sheets."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]


def color(index: int) -> Color:
    """A distinct colour for a class: hues by the golden ratio, the first ones far apart."""
    hue = (0.02 + index * 0.61803398875) % 1.0
    value = (0.95, 0.75, 0.85)[index % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def ink_on(background: Color) -> Color:
    """Black or white, whichever is readable on the colour (relative luminance)."""
    red, green, blue = background
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font: the same picture on every machine."""
    return ImageFont.load_default(size=max(size, 8))


def to_pil(image: object) -> Image.Image:
    """An RGB picture from a PIL image, a (C, H, W) uint8 tensor, or an (H, W[, C]) uint8 array."""
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[0] in (1, 3) and type(image).__module__.split(".")[0] != "numpy":
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.dtype != np.uint8:
        raise TypeError(f"an image to draw on is uint8, not {array.dtype}")
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")


def label(draw: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, background: Color, size: int) -> None:
    """A text on a filled plate whose lower left corner is at ``xy``, moved inside the picture."""
    face = font(size)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=face)
    width, height = right - left + 4, bottom - top + 4
    x = min(max(xy[0], 0), max(draw.im.size[0] - width, 0))
    y = max(xy[1] - height, 0)
    draw.rectangle((x, y, x + width, y + height), fill=background)
    draw.text((x + 2 - left, y + 2 - top), text, fill=ink_on(background), font=face)


def boxes(
    image: Image.Image,
    xyxy: np.ndarray,
    labels: Sequence[int],
    texts: Sequence[str],
    *,
    colors: Sequence[Color] | None = None,
    width: int | None = None,
) -> Image.Image:
    """A copy with boxes (N, 4) in pixels, a colour a class and a text each."""
    image = image.copy()
    draw = ImageDraw.Draw(image)
    size = text_size(image)
    width = width or max(1, round(max(image.size) / 320))
    for i, (x1, y1, x2, y2) in enumerate(np.asarray(xyxy, dtype=float).reshape(-1, 4)):
        shade = colors[i] if colors is not None else color(int(labels[i]))
        x1, y1, x2, y2 = x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)  # edges to the last pixel inside
        draw.rectangle((x1, y1, x2, y2), outline=shade, width=width)
        if texts[i]:
            label(draw, (x1, y1), texts[i], shade, size)
    return image


def mask(image: Image.Image, classes: np.ndarray, *, alpha: float = 0.45, background: int | None = 0) -> Image.Image:
    """A copy with a class map (H, W) laid over it; pixels below 0 and of class ``background`` are left alone."""
    classes = np.asarray(classes)
    palette = np.array([color(i) for i in range(int(classes.max(initial=0)) + 1)], dtype=np.float32)
    shown = classes >= 0
    if background is not None:
        shown &= classes != background
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32).copy()
    pixels[shown] = (1 - alpha) * pixels[shown] + alpha * palette[classes[shown]]
    return Image.fromarray(pixels.round().astype(np.uint8))


def keypoints(
    image: Image.Image,
    xy: np.ndarray,
    visible: np.ndarray | None = None,
    index: int = 0,
    *,
    names: Sequence[str] | None = None,
    shade: Color | None = None,
    outline: Color | None = (255, 255, 255),
) -> Image.Image:
    """A copy with points (K, 2) in pixels as dots of one colour, with ``names`` beside them; those that are no numbers are left out."""
    image = image.copy()
    draw = ImageDraw.Draw(image)
    radius, size = max(2, max(image.size) // 200), text_size(image)
    shade = color(index) if shade is None else shade
    for k, (x, y) in enumerate(np.asarray(xy, dtype=float)):
        if (visible is None or visible[k] > 0) and math.isfinite(x) and math.isfinite(y):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=shade, outline=outline)
            if names is not None:
                label(draw, (x + radius + 1, y - radius), names[k], shade, size)
    return image


def shifts(image: Image.Image, xy: np.ndarray, truth: np.ndarray) -> Image.Image:
    """A copy with a line from each true point (K, 2) to the one that was found (K, 2), and a dot at both: green and red."""
    image = image.copy()
    draw = ImageDraw.Draw(image)
    for (x, y), (u, v) in zip(np.asarray(xy, dtype=float), np.asarray(truth, dtype=float), strict=True):
        if all(map(math.isfinite, (x, y, u, v))):
            draw.line((x, y, u, v), fill=(255, 255, 255), width=max(1, max(image.size) // 400))
    return keypoints(keypoints(image, truth, shade=(40, 190, 70), outline=None), xy, shade=(235, 40, 35), outline=None)


def text_size(image: Image.Image) -> int:
    """A readable letter height for the picture."""
    return max(10, round(max(image.size) / 45))


def caption(image: Image.Image, text: str, background: Color = (30, 30, 30)) -> Image.Image:
    """The picture with a strip of text below it."""
    size = max(10, round(image.width / 22))
    strip = size + 8
    out = Image.new("RGB", (image.width, image.height + strip), background)
    out.paste(image, (0, 0))
    ImageDraw.Draw(out).text((4, image.height + 3), text, fill=ink_on(background), font=font(size))
    return out


def sheet(images: Sequence[Image.Image], *, columns: int = 0, cell: int = 240, gap: int = 6) -> Image.Image:
    """Pictures in a grid, each fitted into a square of ``cell`` pixels; a row is as high as its highest."""
    if not images:
        raise ValueError("a sheet needs at least one picture")
    columns = columns or math.ceil(math.sqrt(len(images)))
    fitted = []
    for image in images:
        factor = min(cell / image.width, cell / image.height)
        how = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST
        fitted.append(image.convert("RGB").resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))), how))
    rows = [fitted[i : i + columns] for i in range(0, len(fitted), columns)]
    heights = [max(image.height for image in row) for row in rows]
    out = Image.new("RGB", (columns * (cell + gap) + gap, sum(heights) + gap * (len(rows) + 1)), (245, 245, 245))
    y = gap
    for row, height in zip(rows, heights, strict=True):
        for i, image in enumerate(row):
            out.paste(image, (gap + i * (cell + gap) + (cell - image.width) // 2, y + (height - image.height) // 2))
        y += height + gap
    return out
