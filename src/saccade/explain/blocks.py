"""From a table of layers to the boxes of a diagram: norms and activations join their layer, repeated blocks stand once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from saccade.explain.shape import LayerRow, Table

MOST_BOXES = 100
"""Beyond, the innermost blocks are drawn as one box each."""
BOX, JOIN, TALL = 168.0, 30.0, 40.0
"""Width of a box, width and height of a plus, height of a box."""
PLAIN = ("Sequential", "ModuleList", "ModuleDict")
"""Containers whose class says nothing."""

WORDS = {
    "BatchNorm1d": "BN", "BatchNorm2d": "BN", "BatchNorm3d": "BN", "BatchNormAct2d": "BN", "FrozenBatchNorm2d": "BN", "batch_norm": "BN",
    "LocalResponseNorm": "LRN", "LayerNorm": "LN", "LayerNorm2d": "LN", "layer_norm": "LN", "GroupNorm": "GN", "group_norm": "GN",
    "InstanceNorm2d": "IN", "relu": "ReLU", "relu6": "ReLU6", "sigmoid": "sigmoid", "Sigmoid": "sigmoid", "Tanh": "tanh", "gelu": "GELU",
    "silu": "SiLU", "softmax": "softmax", "leaky_relu": "LeakyReLU", "mish": "Mish",
}  # fmt: skip
"""Norms and activations, which stand in the box of the layer before them."""
ACTIVATIONS = ("ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "GELU", "SiLU", "Mish", "Hardswish", "Hardsigmoid", "HardSwish", "HardSigmoid",
               "Swish", "Softmax", "Softplus", "LogSoftmax", "GELUTanh", "hardswish", "hardsigmoid", "tanh", "elu")  # fmt: skip
SKIPPED = ("Flatten", "Unflatten", "DropPath", "Identity")
JOINS = {"add": "+", "multiply": "×", "subtract": "−", "maximum": "max"}


@dataclass
class Box:
    """One box: a layer with what follows it, or a block drawn as one.

    Attributes:
        row: its first layer. kind: its colour. title, extra: its words. blocks: (path, class) around it, outermost first.
        rows: numbers of its rows in the table. inputs: number of another box, or -1 for the image, -> shape that comes from there.
        output: shape. parameters, macs: of all its layers.
    """

    row: LayerRow
    kind: str
    title: str
    blocks: tuple[tuple[str, str], ...]
    extra: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    inputs: dict[int, tuple[int, ...]] = field(default_factory=dict)
    output: tuple[int, ...] = ()
    parameters: int = 0
    macs: int = 0

    @property
    def width(self) -> float:
        if self.title not in JOINS.values():
            return BOX
        return JOIN + 9 * len(" ".join(self.extra)) if self.extra else JOIN

    @property
    def height(self) -> float:
        return JOIN if self.title in JOINS.values() else TALL


def condense(table: Table) -> tuple[list[Box], dict[str, int]]:
    """Boxes in order, and how often each repeated block (by path) occurs."""
    boxes = fuse(table)
    boxes, repeats = collapse_repeats(boxes)
    while len(boxes) > MOST_BOXES:
        paths: dict[str, int] = {}
        for box in boxes:
            for path, _ in box.blocks:
                paths[path] = paths.get(path, 0) + 1
        deepest = max((path.count(".") for path, n in paths.items() if n > 1), default=None)
        if deepest is None:
            break
        for path in [p for p, n in paths.items() if n > 1 and p.count(".") == deepest]:
            boxes = as_one(boxes, path, repeats.get(path, 1))
    return boxes, repeats


def fuse(table: Table) -> list[Box]:
    """A box a layer, with the norm and activation after it; what only reshapes is left out."""
    readers: dict[int, set[int]] = {}
    for i, row in enumerate(table.rows):
        for source in row.inputs:
            readers.setdefault(source, set()).add(i)
    boxes: list[Box] = []
    home: dict[int, int] = {-1: -1}  # row -> box
    shapes = {-1: table.input}
    for i, row in enumerate(table.rows):
        word = WORDS.get(row.type) or (row.type if row.type in ACTIVATIONS else "")
        idle = not readers.get(i) and row.type.startswith(("Dropout", "DropPath", *SKIPPED))
        source = row.inputs[0] if row.inputs else -1
        alone = (
            len(row.inputs) == 1 and source >= 0 and len(readers[source] - {j for j in readers[source] if not real(table, readers, j)}) == 1
        )
        if idle or (row.type in SKIPPED and row.inputs):
            home[i], shapes[i] = home[source], row.output
            continue
        if word and alone and boxes and home[source] >= 0:
            box = boxes[home[source]]
            if source in box.rows and belongs(row, box):
                box.extra.append(word)
                box.rows.append(i)
                box.parameters += row.parameters
                box.output = row.output
                home[i], shapes[i] = home[source], row.output
                continue
        kind, title = described(row, word)
        box = Box(row, kind, title, row.blocks, rows=[i], output=row.output, parameters=row.parameters, macs=row.macs)
        box.inputs = {home[s]: shapes[s] for s in row.inputs if s in home}
        boxes.append(box)
        home[i], shapes[i] = len(boxes) - 1, row.output
    return boxes


def belongs(row: LayerRow, box: Box) -> bool:
    """Whether a norm or activation may stand in a box: both in one block, or one in a wrapper; what follows a block's join stays out."""
    shared = min(len(row.blocks), len(box.blocks))
    inside = len(row.blocks) >= len(box.blocks) or box.kind != "join"
    return row.blocks[:shared] == box.blocks[:shared] and inside


def real(table: Table, readers: Mapping[int, set[int]], i: int) -> bool:
    """Whether a row does anything: dropout and the like do not in evaluation."""
    return bool(readers.get(i)) or not table.rows[i].type.startswith(("Dropout", "DropPath", *SKIPPED))


def described(row: LayerRow, word: str) -> tuple[str, str]:
    """Kind (its colour) and title of a layer."""
    channels = row.output[1] if len(row.output) > 1 else row.output[-1]
    window = ("×".join(map(str, row.kernel)) if row.kernel else "") + (f" /{max(row.stride)}" if row.stride and max(row.stride) > 1 else "")
    dilated = f" d{max(row.dilation)}" if row.dilation and max(row.dilation) > 1 else ""
    name = row.type.lower()
    if row.type in JOINS and len(row.inputs) > 1:
        return "join", JOINS[row.type]
    if row.type in ("concatenate", "stack"):
        return "join", "concatenate"
    if row.kernel and row.transposed:
        return "up", f"up-conv {window}{dilated}, {channels}"
    if row.kernel and row.macs:
        if row.groups > 1:
            if row.groups == channels:
                return "depth", f"depthwise {window}{dilated}, {channels}"
            return "depth", f"conv {window}{dilated}, {channels} ({row.groups} groups)"
        return "conv", f"conv {window}{dilated}, {channels}"
    if "pool" in name or row.type == "mean":
        if not row.kernel and "max" not in name and "av" not in name and row.type != "mean":
            return "pool", row.type
        kind = "max pool" if "max" in name else "average pool"
        return "pool", f"{kind} {window}" if row.kernel else f"{kind} to {'×'.join(map(str, row.output[2:])) or '1×1'}"
    if "upsample" in name or "shuffle" in name:
        return "up", f"{'enlarge' if 'upsample' in name else row.type} to {'×'.join(map(str, row.output[2:]))}"
    if "attention" in name or row.type == "matmul":
        return "attend", row.type
    if row.macs and len(row.output) >= 2 and row.type in ("Linear", "linear", "NonDynamicallyQuantizableLinear"):
        return "dense", f"dense {row.output[-1]}"
    return ("join" if row.type in JOINS else "other"), word or row.type


def group(boxes: Sequence[Box]) -> dict[str, list[int]]:
    """Boxes of each block by path, outer before inner."""
    found: dict[str, list[int]] = {}
    for i, box in enumerate(boxes):
        for path, _ in box.blocks:
            found.setdefault(path, []).append(i)
    return found


def signature(boxes: Sequence[Box], members: Sequence[int]) -> tuple[object, ...]:
    """Equal for blocks of the same layers and inner edges; channels count only of layers with weights."""
    place = {n: i for i, n in enumerate(members)}
    return tuple(
        (
            box.title if box.kind in ("conv", "depth", "dense", "up", "pool", "block") else box.kind,
            tuple(box.extra),
            tuple(sorted(place[s] for s in box.inputs if s in place)),
            any(s not in place for s in box.inputs),
            tuple(box.row.output[2:]),
        )
        for box in (boxes[n] for n in members)
    )


def collapse_repeats(boxes: list[Box]) -> tuple[list[Box], dict[str, int]]:
    """Keep the first of equal blocks that follow each other inside the same parent, outer blocks first."""
    repeats: dict[str, int] = {}
    done: set[str] = set()
    while True:
        blocks = group(boxes)
        kinds = {path: kind for box in boxes for path, kind in box.blocks}
        runs: dict[str, list[list[str]]] = {}
        for path, members in blocks.items():
            if len(members) < 2 or members[-1] - members[0] + 1 != len(members) or path in done:
                continue
            siblings = runs.setdefault(path.rpartition(".")[0], [])
            last = siblings[-1][-1] if siblings else ""
            follows = last and blocks[last][-1] + 1 == members[0] and any(s in blocks[last] for s in boxes[members[0]].inputs)
            if follows and kinds[last] == kinds[path] and signature(boxes, blocks[last]) == signature(boxes, members):
                siblings[-1].append(path)
            else:
                siblings.append([path])
        run = next((run for found in runs.values() for run in found if len(run) > 1), None)
        if run is None:
            return boxes, repeats
        repeats[run[0]] = len(run)
        done.add(run[0])
        first = blocks[run[0]]
        twin = {n: first[i] for path in run[1:] for i, n in enumerate(blocks[path])}
        boxes = without(boxes, twin)


def without(boxes: Sequence[Box], twin: Mapping[int, int]) -> list[Box]:
    """Leave out boxes; who read one reads its twin, with the shape that it read."""
    kept = [i for i in range(len(boxes)) if i not in twin]
    number = {old: new for new, old in enumerate(kept)} | {-1: -1}
    out: list[Box] = []
    for i in kept:
        inputs: dict[int, tuple[int, ...]] = {}
        for source, shape in boxes[i].inputs.items():
            there = number[twin.get(source, source)]
            if there < len(out):
                inputs[there] = shape
        out.append(replace(boxes[i], inputs=inputs))
    return out


def as_one(boxes: Sequence[Box], path: str, times: int) -> list[Box]:
    """Draw a block, which occurs so many times, as one box."""
    members = [i for i, box in enumerate(boxes) if any(p == path for p, _ in box.blocks)]
    if len(members) < 2:
        return list(boxes)
    first, last = boxes[members[0]], boxes[members[-1]]
    depth = [p for p, _ in first.blocks].index(path)
    kind = first.blocks[depth][1]
    windows = ["×".join(map(str, boxes[i].row.kernel)) for i in members if boxes[i].row.kernel and boxes[i].macs]
    inputs = {s: shape for i in members for s, shape in boxes[i].inputs.items() if s not in members}
    title = (kind if kind not in PLAIN else path.rpartition(".")[2]) + (f" × {times}" if times > 1 else "")
    one = Box(
        replace(first.row, name=path, type=kind), "block", title, first.blocks[: depth + 1],
        extra=windows[:4] + (["…"] if len(windows) > 4 else []), rows=[r for i in members for r in boxes[i].rows], inputs=inputs,
        output=last.output, parameters=sum(boxes[i].parameters for i in members), macs=sum(boxes[i].macs for i in members),
    )  # fmt: skip
    changed = list(boxes)
    changed[members[-1]] = one  # after all that it reads
    return without(changed, dict.fromkeys(members[:-1], members[-1])) if ordered(changed, members) else list(boxes)


def ordered(boxes: Sequence[Box], members: Sequence[int]) -> bool:
    """Whether nobody between a block's boxes reads from them, so that it may be drawn as one."""
    inside = set(members)
    return not any(s in inside for i in range(members[0], members[-1]) if i not in inside for s in boxes[i].inputs)
