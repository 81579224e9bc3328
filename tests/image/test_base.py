"""The convention of saccade.image: what is taken, what comes back; and every operation by it."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
import torch
from scipy import ndimage

import saccade.image as room
from saccade.image import base
from saccade.types.errors import UsageError

OPERATIONS = room.operations()

ARGUMENTS = {
    "resize": {"size": (5, 7)},
    "n4": {"row": 0, "column": 0},
    "n8": {"row": 0, "column": 0},
    "slice_levels": {"low": 0.2, "high": 0.6},
    "crop": {"top": 0, "left": 0, "height": 1, "width": 1},
    "affine": {"matrix": [[1, 0.1, 0], [0, 1, 0]]},
    "perspective": {"matrix": [[1, 0.1, 0], [0, 1, 0], [0, 0.01, 1]]},
    "correlate": {"kernel": [[0.0, 0.5, 0.5]]},
}
"""What an operation must be told."""

COLOUR_ONLY = {n for n in OPERATIONS if n.startswith(("rgb_to_", "hsv_", "lab_", "ycbcr_")) and n != "rgb_to_gray"}
GREY_ONLY = {"merge"}
LARGER_ONLY = {"ssim", "gaussian_pyramid", "laplacian_pyramid"}
"""What one pixel has not: a window of 11, two levels."""


def picture(dtype="uint8", channels=3, shape=(17, 23), seed=0):
    """A smooth picture with a bright square, HW or HWC."""
    random = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(random.random((*shape, channels or 1)), (2, 2, 0))
    values = (values - values.min()) / max(np.ptp(values), 1e-9)
    values[shape[0] // 3 : shape[0] // 2, shape[1] // 3 : shape[1] // 2] = 0.95
    values = values if channels else values[..., 0]
    top = base.WHITE[dtype]
    return (np.rint(values * top) if top > 1 else values).astype(dtype)


def channels_of(operation):
    if operation.name in GREY_ONLY:
        return None
    return 3


def call(operation, image, **more):
    images = [image, image] if operation.inputs == 0 else [image] * operation.inputs
    arguments = ARGUMENTS.get(operation.name, {}) | more
    return operation.function(images, **arguments) if operation.inputs == 0 else operation.function(*images, **arguments)


def equal(a, b):
    """Equal whatever the type: arrays, tensors (as HWC), numbers, dicts, lists."""
    if isinstance(a, torch.Tensor):
        a = a.numpy()
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        return all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.ndim == 3 and a.shape != b.shape:
        b = b[None] if b.ndim == 2 else b.transpose(2, 0, 1)
    return np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f")


# ------------------------------------------------------------------------------------------------------- every operation


@pytest.mark.parametrize("name", OPERATIONS)
def test_I_every_operation_says_what_it_does(name):
    operation = OPERATIONS[name]
    assert len(operation.summary) > 15
    assert operation.formula
    assert re.fullmatch("[A-Z][0-9]+", operation.row)
    assert getattr(room, name) is operation.function
    assert name not in room.MODULES  # the module would hide it
    for parameter in operation.parameters:
        assert parameter.annotation is not inspect.Parameter.empty, parameter.name
        if not parameter.required:
            assert parameter.check(parameter.default) == parameter.default or parameter.default is None


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_I_every_operation_keeps_dtype_layout_and_range(name, dtype):
    operation = OPERATIONS[name]
    image = picture(dtype, channels_of(operation))
    before = image.copy()
    result = call(operation, image)
    assert np.array_equal(image, before), "the input was written to"
    if operation.gives == "image":
        assert isinstance(result, np.ndarray)
        assert result.dtype == image.dtype
        assert result.ndim in (2, 3)
        assert result.flags.c_contiguous
        assert not np.shares_memory(result, image)
        assert result.min() >= 0
        assert result.max() <= base.WHITE[dtype]
    assert equal(call(operation, image), result), "not the same twice"


@pytest.mark.parametrize("name", OPERATIONS)
def test_I_a_tensor_gives_what_the_array_gives_and_a_batch_what_its_images_give(name):
    operation = OPERATIONS[name]
    image = picture("uint8", channels_of(operation))
    array = call(operation, image)
    tensor = torch.from_numpy(image if image.ndim == 2 else image.transpose(2, 0, 1).copy())
    result = call(operation, tensor)
    assert equal(result, array)
    if operation.gives == "image":
        assert isinstance(result, torch.Tensor)
        assert result.dtype == torch.uint8
    if tensor.ndim == 2:
        tensor = tensor[None]
    batch = call(operation, torch.stack([tensor, tensor.flip(-1).contiguous()]))
    second = tensor.flip(-1).contiguous()
    if "seed" in {p.name for p in operation.parameters}:
        second_result = call(operation, second, seed=operation.parameter("seed").default + 1)
    else:
        second_result = call(operation, second)
    first_result = call(operation, tensor)
    if operation.gives == "images":
        assert all(equal(b[0], a) and equal(b[1], c) for b, a, c in zip(batch, first_result, second_result, strict=True))
    else:
        assert equal(batch[0], first_result)
        assert equal(batch[1], second_result)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [n for n in OPERATIONS if OPERATIONS[n].gives == "image"])
def test_I_white_stays_in_range_so_that_the_next_operation_takes_it(name, dtype):
    """Weights in floats may sum to a little more than 1."""
    for shape in ((17, 23), (100, 97)):
        result = call(OPERATIONS[name], np.ones((*shape, 3) if channels_of(OPERATIONS[name]) else shape, dtype))
        assert 0 <= result.min() <= result.max() <= 1


@pytest.mark.parametrize("name", OPERATIONS)
def test_I_one_pixel_works_or_says_why_not(name):
    operation = OPERATIONS[name]
    for dtype in ("uint8", "float64"):
        image = np.full((1, 1) if channels_of(operation) is None else (1, 1, 3), 100 if dtype == "uint8" else 0.4, dtype)
        try:
            result, problem = call(operation, image), ""
        except UsageError as error:
            result, problem = None, str(error)
        assert ("1x1" in problem) if name in LARGER_ONLY else not problem
        if operation.gives == "image" and not problem:
            assert result.dtype == image.dtype


@pytest.mark.parametrize("name", [n for n in OPERATIONS if OPERATIONS[n].gives == "images"])
@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (6, 7)])
def test_I_several_results_share_no_memory(name, shape):
    """Nor with each other: rows of one array are contiguous, and need no copy to be so."""
    image = picture("float32", None, shape)
    results = call(OPERATIONS[name], image)
    for k, result in enumerate(results):
        assert not any(np.shares_memory(result, other) for other in (image, *results[:k]))


@pytest.mark.parametrize("name", [n for n in OPERATIONS if n not in COLOUR_ONLY])
def test_I_every_operation_takes_grey_in_both_shapes(name):
    operation = OPERATIONS[name]
    flat = picture("uint8", None)
    result = call(operation, flat)
    cube = call(operation, flat[..., None])
    if operation.gives == "image":
        assert equal(cube[..., 0] if result.ndim == 2 else cube, result)
        assert cube.ndim == 3
    elif operation.gives == "value":
        assert equal(cube, result)


@pytest.mark.parametrize("name", OPERATIONS)
def test_I_alpha_is_kept_applied_or_refused(name):
    operation = OPERATIONS[name]
    channels = 2 if operation.name in GREY_ONLY else 4
    image = picture("uint8", channels)
    if operation.alpha == "refuse":
        with pytest.raises(UsageError, match="takes no alpha"):
            call(operation, image)
        return
    result = call(operation, image)
    if operation.gives != "image":
        return
    if operation.alpha == "keep":
        assert np.array_equal(result[..., -1], image[..., -1])
        alone = call(operation, np.ascontiguousarray(image[..., :-1]))
        assert equal(result[..., :-1] if alone.ndim == 3 else result[..., 0], alone)
    else:
        assert result.shape[2] == channels


@pytest.mark.parametrize("name", OPERATIONS)
def test_I_wrong_input_is_a_usage_error_that_says_what_is_accepted(name):
    operation = OPERATIONS[name]
    image = picture("uint8", channels_of(operation))
    wrong = {
        "uint8, uint16, float32": [
            image.astype(np.int64),
            image.astype(np.complex64),
            image.astype(np.float16),
            image.tolist(),
            "a.png",
            None,
        ],
        "of shape": [image.ravel(), np.zeros((4, 4, 5), np.uint8), np.zeros((2, 3, 4, 3), np.uint8)],
        "no pixels": [image[:0], np.zeros((0, 5), np.uint8)],
        "NaN": [np.full((4, 4), np.nan, np.float32), np.array([[0.5, np.inf]])],
        "0..1": [np.array([[0.5, 1.5]]), np.array([[-0.1, 0.5]], np.float32)],
    }
    for message, images in wrong.items():
        for value in images:
            with pytest.raises(UsageError, match=message.replace(".", r"\.")) as caught:
                call(operation, value)
            assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="has no parameter 'nonsense'"):
        call(operation, image, nonsense=1)


def test_I_no_operation_loads_more_than_it_needs():
    code = (
        "import sys, saccade.image as i; i.operations(); import numpy as np\n"
        "i.crop(np.zeros((2, 2), np.uint8), 0, 0, 1, 1)\n"
        "print([m for m in ('torch', 'cv2', 'skimage', 'scipy', 'sklearn', 'matplotlib', 'pywt') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["base", *room.MODULES])
def test_I_worked_numbers_in_the_docstrings(module):
    result = doctest.testmod(importlib.import_module(f"saccade.image.{module}"))
    assert result.failed == 0
    assert result.attempted or module not in ("base", "sampling", "color", "neighbours", "point", "geometry")


# ------------------------------------------------------------------------------------------------------------ the wrapper


@pytest.fixture
def registered():
    """Registers operations for one test."""
    before = dict(base.OPERATIONS)

    def register(function, **options):
        return base.operation(**({"row": "I0", "formula": "g = f"} | options))(function)

    yield register
    base.OPERATIONS.clear()
    base.OPERATIONS.update(before)


def test_I_the_function_sees_plain_arrays(registered):
    seen = []

    def spy(image: np.ndarray) -> np.ndarray:
        seen.append(image)
        return image

    spy = registered(spy)
    for image, shape in [
        (np.zeros((2, 3), np.uint8), (2, 3)),
        (np.zeros((2, 3, 1), np.uint8), (2, 3)),
        (np.zeros((2, 3, 2), np.uint8), (2, 3)),
        (np.zeros((2, 3, 3), np.uint8)[:, ::-1], (2, 3, 3)),
        (np.zeros((2, 3, 4), np.uint8), (2, 3, 3)),
        (np.zeros((2, 3), ">u2"), (2, 3)),
        (torch.zeros(2, 3), (2, 3)),
        (torch.zeros(1, 2, 3), (2, 3)),
        (torch.zeros(4, 2, 3), (2, 3, 3)),
    ]:
        result = spy(image)
        assert seen[-1].shape == shape
        assert seen[-1].flags.c_contiguous
        assert seen[-1].dtype.isnative
        assert tuple(result.shape) == tuple(image.shape)
        assert not np.may_share_memory(np.asarray(result), np.asarray(image))


def test_I_a_batch_counts_the_seed_up(registered):
    def draw(image: np.ndarray, seed: int = 7) -> np.ndarray:
        return np.full_like(image, seed)

    draw = registered(draw)
    batch = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    assert draw(batch)[:, 0, 0, 0].tolist() == [7, 8, 9]
    assert draw(batch, seed=1)[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert draw(batch[0])[0, 0, 0] == 7


def test_I_pairs_are_of_one_kind_and_masks_are_taken_where_said(registered):
    def both(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.maximum(a, b)

    pair = registered(both, inputs=2, masks=True)
    a = np.array([[True, False]])
    assert pair(a, ~a).tolist() == [[True, True]]
    assert pair(a, a).dtype == bool
    for wrong in (torch.zeros(1, 2), np.zeros((1, 2), np.uint8)):
        with pytest.raises(UsageError, match="one kind and dtype"):
            pair(a, wrong)
    with pytest.raises(UsageError, match=r"mask\.astype"):
        room.invert(a)
    with pytest.raises(UsageError, match="missing a required argument: 'b'"):
        pair(a)


def test_I_two_operations_cannot_have_one_name(registered):
    def invert(image: np.ndarray) -> np.ndarray:
        return image

    with pytest.raises(ValueError, match="called invert"):
        registered(invert)


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, [(3, 3), (np.int64(4), 4)], [3.0, True, "3", None, np.nan]),
        (float, [(3, 3.0), (np.float32(0.5), 0.5)], [True, "3", float("nan"), float("inf"), None]),
        (bool, [(True, True), (np.bool_(False), False)], [1, "true", None]),
        (str, [("a", "a")], [1]),
        (Literal["a", 4], [("a", "a"), (4, 4)], ["b", 4.0, True]),
        (float | None, [(None, None), (1, 1.0)], ["none"]),
        (tuple[int, int], [((1, 2), (1, 2)), ([1, 2], (1, 2)), (np.array([1, 2]), (1, 2))], [(1,), (1.5, 2), 3]),
        (Sequence[Sequence[float]], [([[1, 2], [3, 4]], [[1.0, 2.0], [3.0, 4.0]]), (np.eye(2), [[1.0, 0.0], [0.0, 1.0]])], [[1, 2], "x"]),
    ],
)
def test_I_arguments_are_checked_by_the_signature(annotation, good, bad):
    parameter = base.Parameter("x", annotation, None)
    for given, value in good:
        assert parameter.check(given) == value
        assert type(parameter.check(given)) is type(value)
    for value in bad:
        with pytest.raises(UsageError, match=r"^x is "):
            parameter.check(value)


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, "3", 3),
        (float, "1e-2", 0.01),
        (bool, "False", False),
        (float | None, "none", None),
        (float | None, "2", 2.0),
        (Literal[4, 8], "8", 8),
        (tuple[int, int], "4, 5", (4, 5)),
        (Sequence[Sequence[float]], "1,0;0,1.5", [[1.0, 0.0], [0.0, 1.5]]),
        (Sequence[Sequence[float]] | str, "1,0;0,1", [[1.0, 0.0], [0.0, 1.0]]),
        (Sequence[Sequence[float]] | str, "sharpen", "sharpen"),
    ],
)
def test_I_arguments_are_read_from_text(annotation, text, value):
    assert base.Parameter("x", annotation, None).read(text) == value


@pytest.mark.parametrize(
    ("annotation", "text"), [(int, "3.5"), (bool, "yes"), (float, "nan"), (tuple[int, int], "4"), (Literal["near"], "neer")]
)
def test_I_wrong_text_says_what_is_wanted(annotation, text):
    with pytest.raises(UsageError, match=f"x is .*not '{text}'"):
        base.Parameter("x", annotation, None).read(text)


def test_I_numbers_that_no_library_holds_are_wrong_use():
    for annotation in (int, float):
        for call in (lambda p: p.check(10**400), lambda p: p.read("9" * 400)):
            with pytest.raises(UsageError, match=r"^x is "):
                call(base.Parameter("x", annotation, None))


# ------------------------------------------------------------------------------------------------------------ the helpers


def test_I_to_float_and_back_is_exact_for_every_level():
    for dtype in (np.uint8, np.uint16):
        levels = np.arange(int(base.WHITE[np.dtype(dtype).name]) + 1, dtype=dtype)[None]
        assert base.to_float(levels).dtype == np.float32
        assert np.array_equal(base.from_float(base.to_float(levels), dtype), levels)
    assert base.from_float(np.array([np.nan, -1, 2, np.inf]), np.float32).tolist() == [0, 0, 1, 1]
    assert base.in_range(np.array([0.5, 1.5, 2.5]), np.uint8).tolist() == [0, 2, 2]  # ties to even
    assert base.in_range(np.array([-3, 300, 7]), np.uint8).tolist() == [0, 255, 7]


@pytest.mark.parametrize("border", base.BORDERS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_I_border_names_mean_the_same_in_numpy_scipy_and_opencv(border, dtype):
    row = picture(dtype, None, (3, 5))
    names = base.border_names(border)
    padded = base.pad(row, (2, 1), (4, 7), border)  # also wider than the image
    assert np.array_equal(padded, np.pad(row, ((2, 1), (4, 7)), mode=names.numpy))
    if border != "constant":
        scipy_mode = "grid-wrap" if border == "wrap" else names.scipy
        shifted = ndimage.shift(row.astype(float), (0, 2), order=0, mode=scipy_mode)
        assert np.array_equal(shifted, padded[2:5, 2:7])
    assert base.pad(row, (0, 0), (1, 0), "constant", 1.0)[0, 0] == base.WHITE[dtype]


def test_I_unknown_border_size_and_range_are_usage_errors():
    with pytest.raises(UsageError, match="did you mean 'reflect'"):
        base.border_names("reflekt")
    for size in (0, -3, 4):
        with pytest.raises(UsageError, match="odd"):
            base.odd(size)
    with pytest.raises(UsageError, match="greater than 0"):
        base.within(0, 0, float("inf"), "sigma", open_low=True)
    with pytest.raises(UsageError, match=r"0\.\.1"):
        base.within(2, 0, 1, "value")


def test_I_seeds_are_from_0_and_whole_numbers_are_what_the_libraries_hold():
    assert base.Parameter("seed", int, 0).check(2**40) == 2**40
    for name, value in (("seed", -1), ("most", 2**31), ("most", -(2**40))):
        with pytest.raises(UsageError, match=f"^{name} lies in"):
            base.Parameter(name, int, 0).check(value)
    with pytest.raises(UsageError, match="factor lies in 1"):
        room.downsample(picture("uint8"), factor=10**9)
    with pytest.raises(UsageError, match="sigma lies in 0"):
        room.downsample(picture("uint8"), sigma=1e9)
    with pytest.raises(UsageError, match="factor lies in 1"):
        room.pixelate(picture("uint8"), factor=10**9)


def test_I_names_of_numpy_and_tensors_with_a_negative_bit_are_taken():
    image = picture()
    assert np.array_equal(room.sharpen(image, neighbours=np.int64(8)), room.sharpen(image, neighbours=8))
    assert np.array_equal(room.mean(image, border=np.str_("wrap")), room.mean(image, border="wrap"))
    values = torch.imag(torch.complex(torch.zeros(5, 6), -torch.rand(5, 6)).conj())
    assert values.is_neg()
    assert torch.equal(room.mirror(values), values.flip(-1))


def test_I_a_message_does_not_repeat_a_long_value():
    for value in (list(range(10_000)), "9" * 5000, 10**400, 10**5000):
        with pytest.raises(UsageError, match="size") as error:
            room.median(picture(), size=value)
        assert len(str(error.value)) < 200


def test_I_tensors_without_values_are_refused_and_a_gradient_gives_no_warning(recwarn):
    for tensor, word in ((torch.empty(3, 4, 4, device="meta"), "without values"), (torch.zeros(4, 4).to_sparse(), "sparse")):
        with pytest.raises(UsageError, match=word):
            room.invert(tensor)
    assert room.invert(torch.zeros(3, 4, 4, requires_grad=True)).min() == 1
    assert not len(recwarn)


def test_I_luma_is_bt601():
    rgb = picture("float64")
    assert np.allclose(base.luma(rgb), rgb @ [0.299, 0.587, 0.114], rtol=0, atol=1e-15)
    for dtype, scale in (("uint8", 255), ("uint16", 65535), ("float32", 1)):
        image = picture(dtype)
        assert np.abs(base.luma(image) - image.astype(float) @ [0.299, 0.587, 0.114]).max() <= {255: 0.51, 65535: 1.5, 1: 1e-6}[scale]


SLIPS = [
    ("median", {"size": 999}), ("weighted_mean", {"size": 0}), ("weighted_mean", {"size": -1}), ("weighted_mean", {"size": 999}),
    ("mean", {"size": 2**31 - 1}), ("non_local_means", {"patch": 999}), ("bilateral", {"size": 99_999}), ("gamma", {"gamma": 1e300}),
    ("gaussian", {"sigma": 1e-300}), ("laplacian_of_gaussian", {"sigma": 1e-300}), ("wiener", {"sigma": 0.0}),
    ("total_variation", {"weight": 1e-300}), ("correlate", {"kernel": "gaussian:5000"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given"), SLIPS, ids=lambda value: str(value))
def test_I6_numbers_beyond_reason_are_wrong_use(name, given):
    with pytest.raises(UsageError, match=next(iter(given))):
        getattr(room, name)(np.zeros((9, 11), np.uint8), **given)
