"""The resolved settings of a run: model, model options, recipe, data. YAML and ``--set`` only override fields."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from saccade.engine.files import plain, write_text
from saccade.models.index import Entry
from saccade.models.registry import check_options, default_recipe, find
from saccade.types.coerce import coerce
from saccade.types.errors import DataError, UsageError, suggest
from saccade.types.recipe import Recipe

RECIPE_FIELDS = {f.name: f for f in dataclasses.fields(Recipe)}
RECIPE_HINTS = typing.get_type_hints(Recipe)

# Ranges of the recipe's numbers; "[)" leaves the upper end out. What is not here lies in [0, 1e6].
BOUNDS: dict[str, tuple[float, float, str]] = (
    dict.fromkeys(("epochs", "batch_size", "accumulate", "validate_every"), (1, 1e6, "[]"))
    | dict.fromkeys(("momentum", "ema", "betas", "label_smoothing", "lr_gamma"), (0, 1, "[)"))
    | dict.fromkeys(("lr_final", "hflip", "vflip", "blur", "erase", "mosaic", "translate", "close_augment"), (0, 1, "[]"))
    | {"self_adversarial": (0, 1, "[]"), "multi_scale": (0.1, 10, "[]")}
    | {"lr_steps": (0, 1, "(]"), "layer_decay": (0, 1, "(]"), "cached_views": (0, 1e3, "[]")}
)


@dataclass
class RunConfig:
    """Everything that decides a run's result, and nothing else."""

    model: str
    data: str
    model_options: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=Recipe)
    format: str | None = None
    split_file: str | None = None
    train_split: str = "train"
    val_split: str = "val"
    seed: int = 0
    pretrained: bool = False
    weights: str | None = None
    devices: int = 1
    accelerator: str = "auto"
    strategy: str = "auto"
    workers: int | None = None
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be from 0 to 2**63 - 1, not {self.seed}")
        if self.devices < 1 or (self.workers or 0) < 0:
            raise UsageError(f"devices must be at least 1 and workers at least 0, not {self.devices} and {self.workers}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to config.yaml."""
        return plain(dataclasses.asdict(self))

    def save(self, path: Path) -> None:
        """Write config.yaml."""
        write_text(path, yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True))

    @classmethod
    def load(cls, path: Path) -> RunConfig:
        """Read a run's config.yaml."""
        values = read_yaml(path)
        hints = typing.get_type_hints(cls)
        try:
            recipe = Recipe(**{name: recipe_value(name, value) for name, value in values.pop("recipe").items()})
            checked = {}
            for name, value in values.items():
                if name not in hints:
                    raise UsageError(f"unknown field {name!r}{suggest(name, hints)}")
                try:
                    checked[name] = coerce(value, hints[name])
                except ValueError as error:
                    raise UsageError(f"{name}={value!r}: {error}") from None
            settings = cls(recipe=recipe, **checked)
            settings.model_options = check_options(find(settings.model), settings.model_options)
        except (UsageError, KeyError, TypeError, AttributeError) as error:
            raise DataError(path, f"is not a run's config.yaml: {error}") from None
        return settings


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML mapping, or DataError."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(path, "does not exist") from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:  # ValueError: no UTF-8, or no such date
        raise DataError(path, f"cannot be read as YAML: {error}") from None
    if not isinstance(values, dict):
        raise DataError(path, "holds no mapping at its top level", hint="write 'model:' and 'recipe:' sections")
    return values


def parse_sets(items: Iterable[str]) -> dict[str, Any]:
    """``["model.size=320", "recipe.lr=1e-3"]`` to a mapping; values are YAML scalars or lists."""
    out: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {item!r}: write it as model.NAME=VALUE or recipe.NAME=VALUE")
        try:
            out[key.strip()] = yaml.safe_load(text) if text.strip() else ""
        except (ValueError, yaml.YAMLError, RecursionError):
            out[key.strip()] = text
    return out


def resolve(
    entry: Entry, overrides: Mapping[str, Any] | None = None, config: str | Path | None = None, **recipe_changes: Any
) -> tuple[dict[str, Any], Recipe]:
    """Model options and recipe of a run: the model's own defaults, then the YAML file, then ``--set``.

    Args:
        entry: the system.
        overrides: dotted keys, "model.NAME" or "recipe.NAME".
        config: YAML file with ``model:`` and ``recipe:`` mappings.
        recipe_changes: recipe fields by name; None is no change.

    Raises:
        UsageError: an unknown key (with a suggestion) or a value of the wrong type.
    """
    flat: dict[str, Any] = {}
    if config is not None:
        for section, values in read_yaml(config).items():
            if section not in ("model", "recipe") or not isinstance(values, dict):
                raise DataError(config, f"has a section {section!r}", hint="known: model, recipe, each a mapping")
            flat |= {f"{section}.{key}": value for key, value in values.items()}
    flat |= overrides or {}
    flat |= {f"recipe.{key}": value for key, value in recipe_changes.items() if value is not None}
    model_options: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    for key, value in flat.items():
        section, dot, name = key.partition(".")
        if section == "model" and dot:
            model_options[name] = value
        elif section == "recipe" and dot:
            changes[name] = recipe_value(name, value)
        else:
            hint = difflib.get_close_matches(key, [f"recipe.{n}" for n in RECIPE_FIELDS], n=1, cutoff=0.3)
            raise UsageError(f"unknown option {key!r}: it starts with model. or recipe." + (f"; did you mean {hint[0]!r}?" if hint else ""))
    return check_options(entry, model_options), default_recipe(entry).replace(**changes)


def recipe_value(name: str, value: Any) -> Any:
    """A recipe field's value, typed and in range."""
    if name not in RECIPE_FIELDS:
        raise UsageError(f"the recipe has no {name!r}{suggest(name, RECIPE_FIELDS)}")
    try:
        typed = coerce(value, RECIPE_HINTS[name])
    except ValueError as error:
        raise UsageError(f"recipe.{name}={value!r}: {error}") from None
    low, high, inside = BOUNDS.get(name, (0, 1e6, "[]"))
    for number in typed if isinstance(typed, tuple) else (typed,):
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            above = number > low if inside[0] == "(" else number >= low
            below = number < high if inside[1] == ")" else number <= high
            if not (above and below):
                least, most = "above" if inside[0] == "(" else "at least", "below" if inside[1] == ")" else "at most"
                raise UsageError(f"recipe.{name}={value!r}: must be {least} {low} and {most} {high:g}")
    if typed == () != getattr(Recipe, name):
        raise UsageError(f"recipe.{name} needs at least one number")
    return typed
