"""A first detector: drawn blood cells, found in images that the model has never seen."""

from pathlib import Path

import saccade

# %% Data: 120 drawn scenes with boxes, split into train, val and test by themselves
DATA = "synthetic:cells?count=120&size=96"
train, test = saccade.load_data(DATA, "train"), saccade.load_data(DATA, "test")
print(
    f"{len(train)} images to learn from, {len(test)} to test on; "
    f"{train.classes} occur {train.class_counts().tolist()} times"
)

# %% Train. A handful of epochs is enough to see it work; on your own images leave `epochs` out
# and the recipe decides.
run = saccade.train(
    "ssdlite",
    DATA,
    epochs=6,
    out="runs",
    options={"model.size": 96, "recipe.batch_size": 8},
    workers=0,
)
print(f"validation: mAP@.5 {run.metrics['map50']:.3f}; everything lies in {run.folder}")

# %% Measure on the test split: the one number to quote, and the numbers of each class
metrics = saccade.evaluate(run.folder, DATA, split="test", workers=0)
print(f"test: mAP@.5 {metrics['map50']:.3f}, mAP@[.5:.95] {metrics['map']:.3f}")
for name in test.classes:
    print(f"  {name:<12} {metrics[f'map50/{name}']:.3f}")

# %% Look: draw what it finds. A score threshold is a choice; report.html shows what each choice
# costs.
out = Path("found")
out.mkdir(exist_ok=True)
model = saccade.load(run.folder)
for number in range(3):
    (prediction,) = model.predict(test[number].image, score=0.3)
    prediction.draw().save(out / f"{number}.png")
    surest = ", ".join(f"{score:.2f}" for score in prediction.scores[:3])
    print(f"{out / f'{number}.png'}: {len(prediction)} cells, the surest {surest}")
print(
    f"open {run.folder / 'report.html'} in a browser: curves, errors by kind, calibration, "
    "best and worst images"
)
