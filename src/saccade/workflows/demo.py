"""The main job from end to end on scenes that saccade draws itself."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from saccade.data.load import load_data
from saccade.engine.evaluator import evaluate_model
from saccade.types import drawing
from saccade.types.prediction import Detection
from saccade.workflows.predict import Writer, load, predict
from saccade.workflows.train import train

DATA = "synthetic:cells?count=400&size=160&seed=0"
EPOCHS, SIZE = 10, 160


def demo(out: str | Path = "runs/demo", data: str | None = None, epochs: int | None = None) -> dict[str, Any]:
    """Train ssdlite on ``synthetic:cells``, score it on the test split, draw predictions, write the report.

    Args:
        out: folder; an earlier demo in it is replaced, anything else is left alone.
        data: other detection data.
        epochs: of training.

    Returns:
        The test metrics and the files written.
    """
    out = Path(out)
    run_folder = out / "run"
    if (run_folder / "config.yaml").is_file():
        shutil.rmtree(run_folder)
    source = data or DATA
    began = time.perf_counter()
    test = load_data(source, "test", task="detect")
    run = train("ssdlite", source, folder=run_folder, options={"model.size": SIZE, "recipe.epochs": epochs or EPOCHS})
    model = load(run.folder)
    result = evaluate_model(model, test)
    print(f"test: mAP@.5 {result.metrics['map50']:.3f}, mAP@[.5:.95] {result.metrics['map']:.3f}", file=sys.stderr)
    images = [test.image(test.record(i)) for i in range(min(12, len(test)))]
    predictions = list(predict(model, images))
    Writer(out / "predictions", "json").write_all(predictions)
    pictures = [(p, p.picture()) for p in predictions if isinstance(p, Detection)]
    enlarged = [p.draw(picture.resize((480, round(480 * picture.height / picture.width)))) for p, picture in pictures]
    sheet = drawing.sheet(enlarged, columns=4, cell=480)
    sheet.save(out / "sheet.png")
    print(f"{time.perf_counter() - began:.0f} s; look at {out / 'sheet.png'} and {run.folder / 'report.html'}", file=sys.stderr)
    return {"metrics": result.metrics, "sheet": str(out / "sheet.png"), "report": str(run.folder / "report.html"), "run": str(run.folder)}
