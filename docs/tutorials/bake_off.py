"""A bake-off: two classifiers on the same splits, by the same evaluator, with seeds."""

from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

import saccade

# %% Data: scikit-learn's handwritten digits as a folder by class (put your own path instead)
FOLDER = Path("digits")
source = load_digits()
for number, (pixels, label) in enumerate(zip(source.images[:300], source.target, strict=False)):
    path = FOLDER / str(label) / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * 15.9).astype("uint8")).resize((24, 24)).save(path)

# %% Same splits for both. Each run is a process of its own; stop it at any time, call it again,
# and it goes on.
SMALL_RESNET = "timm/test_resnet.r160_in1k"
comparison = saccade.compare(
    ["lenet5", SMALL_RESNET],
    FOLDER,
    seeds=2,
    epochs=10,
    out="compare",
    options={SMALL_RESNET: {"model.size": 32}},
    workers=0,
)

# %% The table, best first. With three seeds or more each number has an interval, and
# differences are paired by seed.
for row in comparison.rows:
    by_seed = [round(value, 3) for value in row["values"].values()]
    print(f"{row['model']:<28} {comparison.metric} {row['value']:.3f} (by seed {by_seed})")
    print(f"  {row['training_seconds']:.1f} s of training, {row['latency_ms']:.1f} ms an image")

# %% Better by how much, and is the difference more than luck? Two seeds cannot say so; the page
# shows where the two disagree.
second = comparison.rows[1]
print(
    f"{second['model']} is {-second['difference']:.3f} behind {comparison.best} "
    "on average over the seeds"
)
print(
    f"open {comparison.folder / 'index.html'}: accuracy against latency, curves, "
    "the same images through both"
)
