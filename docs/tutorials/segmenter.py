"""A segmenter: a class for every pixel, U-Net as in the paper but narrow, and masks written
as files.
"""

from pathlib import Path

import numpy as np
from PIL import Image

import saccade

# %% Data: images and masks. The classes begin with the background, which is predicted and
# scored like any other.
DATA = "synthetic:cells?count=60&size=64&task=segment"
train = saccade.load_data(DATA, "train")
print(
    train.classes,
    "pixels in the first mask:",
    np.bincount(train[0].target["mask"].flatten().numpy(), minlength=len(train.classes)),
)

# %% Train. Cross entropy favours large classes; Dice looks at each class for itself; together
# they are a good start.
options = {
    "model.width": 16,
    "model.size": 64,
    "recipe.loss": "dice+focal",
    "recipe.batch_size": 4,
}
run = saccade.train("unet", DATA, epochs=10, out="runs", options=options, workers=0)

# %% Measure: intersection over union by class, over all pixels of the test images
metrics = saccade.evaluate(run.folder, DATA, split="test", workers=0)
print(f"mean IoU {metrics['mean_iou']:.3f}")
for name in train.classes:
    print(f"  {name:<12} {metrics[f'iou/{name}']:.3f}")

# %% Use: a mask of labels, in the size of the image, and a drawing to look at
model = saccade.load(run.folder)
test = saccade.load_data(DATA, "test")
(prediction,) = model.predict(test[0].image)
Path("masks").mkdir(exist_ok=True)
Image.fromarray(prediction.mask.astype(np.uint8)).save("masks/0.png")
prediction.draw().save("masks/0_drawn.png")
shares = (
    np.bincount(prediction.mask.ravel(), minlength=len(model.classes)) / prediction.mask.size
)
print(
    "share of the picture:",
    {name: round(float(share), 3) for name, share in zip(model.classes, shares, strict=True)},
)
