"""The public surface: names, import cost, the rooms' order."""

import subprocess
import sys

import pytest

import saccade

HEAVY = ("torch", "torchvision", "lightning", "timm", "sklearn", "skimage", "matplotlib", "scipy", "cv2", "pandas")


def loaded(code):
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*[m for m in {HEAVY} if m in sys.modules])"], capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    return out.stdout.splitlines()[-1].split()


@pytest.mark.parametrize(
    "code",
    [
        "import saccade",
        "import saccade; saccade.list_models(); dir(saccade); saccade.DataError",
        "import sys; sys.argv = ['saccade', '--help']\nfrom saccade.cli.main import main\ntry: main()\nexcept SystemExit: pass",
        "import sys; sys.argv = ['saccade', 'train', '--help']\nfrom saccade.cli.main import main\ntry: main()\nexcept SystemExit: pass",
        "import sys; sys.argv = ['saccade', 'models']\nfrom saccade.cli.main import main\ntry: main()\nexcept SystemExit: pass",
    ],
)
def test_import_and_help_load_nothing_heavy(code):
    assert loaded(code) == []


def test_image_command_loads_opencv_alone(tmp_path):
    """Torch takes seconds and half a gigabyte, also in every worker of a folder."""
    from PIL import Image

    for k in range(3):
        Image.new("RGB", (20, 10)).save(tmp_path / f"{k}.jpg")
    main = "from saccade.cli.main import main\ntry: main()\nexcept SystemExit as stop: assert not stop.code, stop.code"
    for words in (["gaussian", f"{tmp_path}/0.jpg", f"{tmp_path}/o.png"], ["median", str(tmp_path), f"{tmp_path}/out", "--workers", "2"]):
        assert loaded(f"import sys; sys.argv = {['saccade', 'image', *words]}\n{main}") == ["cv2"]
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert loaded("import saccade.workflows.image") == []  # what the workers begin with


def test_features_of_key_points_load_opencv_alone(tmp_path):
    from PIL import Image
    from skimage.data import camera

    Image.fromarray(camera()).save(tmp_path / "a.png")
    Image.fromarray(camera()[:400, 60:]).save(tmp_path / "b.png")
    main = "from saccade.cli.main import main\ntry: main()\nexcept SystemExit as stop: assert not stop.code, stop.code"
    a, b, out = (f"{tmp_path}/{name}.png" for name in "abo")
    assert loaded(f"import sys; sys.argv = ['saccade', 'features', 'list']\n{main}") == []
    for words in (["extract", "surf", a, out], ["match", a, b, out, "--kind", "orb"], ["panorama", a, b, out]):
        assert loaded(f"import sys; sys.argv = {['saccade', 'features', *words]}\n{main}") == ["cv2"], words


def test_public_names_are_these():
    assert saccade.__all__ == [
        "DataError", "Dataset", "Recipe", "Run", "SaccadeError", "UsageError", "check", "compare", "create_model", "evaluate",
        "inspect", "list_models", "load", "load_darknet", "load_data", "mix", "model_info", "model_shape", "open_run", "predict", "resume",
        "train",
    ]  # fmt: skip
    assert len(saccade.__all__) <= 30
    for name in saccade.__all__:
        assert getattr(saccade, name).__doc__, name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = saccade.trian


def test_model_names_are_suggested():
    with pytest.raises(saccade.UsageError, match="did you mean 'ssdlite'"):
        saccade.create_model("ssdlight", 3)
    with pytest.raises(saccade.UsageError, match="no models for task 'detekt'; did you mean 'detect'"):
        saccade.list_models("detekt")


def test_model_info_counts():
    info = saccade.model_info("lenet5")
    assert info["parameters"] == 61_706
    # By hand: C1 28*28*6*25, C3 10*10*16*150, C5 120*400, F6 84*120, output 10*84.
    assert info["macs"] == 28 * 28 * 6 * 25 + 100 * 16 * 150 + 48_000 + 10_080 + 840
    assert info["year"] == 1998
    assert info["file"].endswith("lenet5.py")
