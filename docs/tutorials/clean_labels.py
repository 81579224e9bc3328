"""Clean labels: copies and wrong labels are found before they cost a training. Here both are
planted, so that one sees it work.
"""

import shutil
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

import saccade
from saccade.workflows.dedupe import dedupe
from saccade.workflows.labels import find_label_errors

# %% A folder of handwritten digits by class, in which we put twelve images into a wrong class
# and store two twice
FOLDER = Path("digits")
source = load_digits()
planted = set()
for number, (pixels, label) in enumerate(zip(source.images[:600], source.target, strict=False)):
    wrong = number % 50 == 7
    path = FOLDER / str((label + 3) % 10 if wrong else label) / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * 15.9).astype("uint8")).resize((24, 24)).save(path)
    planted |= {path.as_posix()} if wrong else set()
for path in sorted(FOLDER.rglob("*1.png"))[:2]:
    shutil.copy(path, path.with_name(f"copy_of_{path.name}"))

# %% Copies: equal pixels here; without near=False also edited ones (resized, recompressed,
# mirrored). Nothing is deleted.
copies = dedupe(FOLDER, near=False, workers=0)
print(f"{len(copies.drop)} images can go: {[copies.found.names[i] for i in copies.drop]}")

# %% Likely label errors: each image is judged by a model that has learnt from the others ("hog"
# is fitted in seconds)
errors = find_label_errors(FOLDER, "hog", out="suspects")
suspects = [f"digits/{issue.path}" for issue in errors.issues]
print(
    f"{len(planted)} planted, {len(suspects)} suspects, "
    f"{len(planted & set(suspects))} of them planted"
)
for issue in errors.issues[:3]:
    print(f"  {issue.path}: labelled {issue.given}, looks like {issue.suggested}")

# %% Look at suspects/report.html. Then `saccade data labels digits/ --write imagefolder` writes
# them out to be corrected.
print(f"{len(saccade.load_data(FOLDER))} images before, and none was changed")
