"""Key points of COCO files: which ones a mirror exchanges, and the 133 points of COCO-WholeBody."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

MOST_POINTS = 1024
"""Most key points of an object that are read."""

BODY = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
    "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
"""COCO's 17 points of a person."""

_PARTS = {"foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}


def mirror_permutation(names: list[str]) -> list[int]:
    """Index of every point's partner under a mirror: ``left`` and ``right`` in the names are swapped.

    >>> mirror_permutation(["nose", "left_eye", "right_eye"])
    [0, 2, 1]
    """
    swap = {"left": "right", "right": "left", "l": "r", "r": "l"}
    lower = [n.lower() for n in names]
    place = {name: k for k, name in reversed(list(enumerate(lower)))}

    def partner(name: str) -> str:
        whole = re.sub(r"left|right", lambda m: swap[m[0]], name)
        return whole if whole != name else re.sub(r"(?<![a-z])[lr](?![a-z])", lambda m: swap[m[0]], name)

    partners = [place.get(partner(name), k) for k, name in enumerate(lower)]
    return [p if partners[p] == k else k for k, p in enumerate(partners)]  # names that stand twice must not lose a point


def whole_body_names() -> list[str]:
    """Names of the 133 points, in order: body 17, feet 6, face 68 (iBUG's, from the subject's right), left hand 21, right hand 21."""
    feet = [f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel")]
    face = [
        *_across("jaw", 8, "chin"),
        *_across("brow", 5),
        *(f"nose_bridge_{k}" for k in range(1, 5)),
        *_across("nostril", 2, "nose_base"),
    ]
    eye = ("outer_corner", "outer_lid", "inner_lid", "inner_corner", "inner_under_lid", "outer_under_lid")
    face += [f"right_eye_{p}" for p in eye] + [f"left_eye_{eye[k]}" for k in (3, 2, 1, 0, 5, 4)]
    for lip, upper, lower in (("outer_lip", 3, 2), ("inner_lip", 2, 1)):
        over, under = _across(f"{lip}_top", upper, f"{lip}_top"), _across(f"{lip}_bottom", lower, f"{lip}_bottom")
        face += over + under[::-1]
    fingers = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
    hand = ["hand_root", *(f"{finger}{k}" for finger in fingers for k in range(1, 5))]
    return [*BODY, *feet, *(f"face_{n}" for n in face), *(f"{side}_{n}" for side in ("left", "right") for n in hand)]


def _across(part: str, count: int, middle: str = "") -> list[str]:
    """Points from the right side over the middle to the left: right_1 ... right_n, middle, left_n ... left_1."""
    right = [f"right_{part}_{k}" for k in range(1, count + 1)]
    return [*right, *([middle] if middle else []), *(name.replace("right", "left", 1) for name in reversed(right))]


def join_whole_body(items: list[Any]) -> bool:
    """Append feet, face and hands to the body's points of every annotation, in place; False when the first one has no such parts."""
    first = next((a for a in items if isinstance(a, dict)), {})
    if not all(part in first for part in _PARTS):
        return False
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("keypoints"), list):
            continue
        parts = [item.pop(part, None) or [0] * (3 * count) for part, count in _PARTS.items()]
        if all(isinstance(p, list) for p in parts):
            item["keypoints"] = [v for part in (item["keypoints"], *parts) for v in part]
    return True


def usual_number(items: list[Any], named: int) -> int:
    """Points an object has: as many as are named, unless no object has that number and most have more.

    0: none has any; or so few have so many that the others' empty rows would fill the memory.
    """
    rows = (a.get("keypoints") for a in items if isinstance(a, dict))
    counts = Counter(len(r) for r in rows if type(r) is list and r and len(r) % 3 == 0 and len(r) <= 3 * MOST_POINTS)
    number = named if not counts or 3 * named in counts else max(named, counts.most_common(1)[0][0] // 3)
    return 0 if number > 133 and len(items) > 50 * counts.total() else number
