"""Your own folder: from pictures in folders by class to a measured classifier, with a look
at the data first.
"""

import json
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

import saccade

# %% A folder as you would have it: digits/0/17.png, digits/7/4.png ... (scikit-learn's
# handwritten digits; put your own path instead)
FOLDER = Path("digits")
source = load_digits()
for number, (pixels, label) in enumerate(zip(source.images[:600], source.target, strict=False)):
    path = FOLDER / str(label) / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * 15.9).astype("uint8")).resize((24, 24)).save(path)

# %% Look before you train: every image is opened once; what is wrong is said with the file's
# name
found = saccade.inspect(FOLDER, out="digits.html", workers=0)
print(
    f"{found.facts['images']} images; pictures in digits.html; "
    f"findings: {[finding.kind for finding in found.findings] or 'none'}"
)

# %% Divide once and keep the file, so that every model is judged by the same images
splits = {"train": [], "val": [], "test": []}
for number, path in enumerate(sorted(FOLDER.rglob("*.png"))):
    splits["val" if number % 6 == 0 else "test" if number % 6 == 3 else "train"].append(
        path.relative_to(FOLDER).as_posix()
    )
Path("splits.json").write_text(json.dumps(splits))

# %% Train: LeNet-5 takes small grey pictures and learns these in seconds
run = saccade.train(
    "lenet5", FOLDER, split_file="splits.json", epochs=15, out="runs", workers=0
)

# %% Read the evidence: the score, how sure it is with so few images, and which classes are
# taken for one another
metrics = saccade.evaluate(
    run.folder, FOLDER, split="test", workers=0
)  # a run remembers its split file
print(f"test accuracy {metrics['accuracy']:.3f} on {len(splits['test'])} images")
evidence = json.loads((run.folder / "metrics.json").read_text())
low, high = evidence["intervals"]["accuracy"]
print(
    f"validation accuracy {evidence['metrics']['accuracy']:.3f}, "
    f"95 % interval over the images {low:.3f} to {high:.3f}"
)
print(
    f"open {run.folder / 'report.html'}: the confusion matrix, the misclassified images, "
    "calibration"
)
