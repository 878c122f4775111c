"""Plans: what is distilled and evaluated, from which teacher and text, as a TOML file says it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

from ..data.tasks import TASKS
from ..errors import InputError
from ..files import read_text
from ..readings.simulate import Rule
from ..schema import checked
from ..storage.recipe import Recipe

__all__ = [
    "Made",
    "Plan",
    "read_plan",
]


@dataclass(frozen=True)
class Made:
    """Text, and a BERT trained from scratch on some of it, for a plan that is given none.

    Attributes
    ----------
    train, dev : int
        Labelled examples of each task.
    paragraphs : int
        Of unlabelled text, for the vocabulary and the general stage.
    vocabulary : int
        Tokens at most.
    pretraining, epochs : int
        What stands for pretraining: labelled sentences of the same kind, none of them in a dev split.
    lr : float
    width, layers, heads : int
        Of the teacher.
    """

    train: int = 4000
    dev: int = 400
    paragraphs: int = 1000
    vocabulary: int = 900
    pretraining: int = 8000
    epochs: int = 5
    lr: float = 3e-4
    width: int = 64
    layers: int = 2
    heads: int = 4


@dataclass(frozen=True)
class Evaluation:
    """How every student is evaluated.

    Attributes
    ----------
    t_conv : list of int
        Timesteps after which the spikes are read.
    rules : list of {"inst", "running"}
        Integration rules; the pages of single runs show the first.
    """

    t_conv: list[int]
    rules: list[Rule]


@dataclass(frozen=True)
class Plan:
    """What `refsnn reproduce` does.

    Attributes
    ----------
    source : str
        The file, for messages.
    tasks : dict
        Task -> its recipe, for the first seed.
    seeds : list of int
    general : Recipe
        Of the general stage.
    evaluation : Evaluation
    data, teacher : str or None
    corpus : list of str
    made : Made or None
    """

    source: str
    tasks: dict[str, Recipe]
    seeds: list[int]
    general: Recipe
    evaluation: Evaluation
    data: str | None
    teacher: str | None
    corpus: list[str]
    made: Made | None


#: Keys of a plan's file and the types of their values; tables are looked into further down.
KEYS = {
    "tasks": list[str],
    "seeds": list[int],
    "data": str,
    "teacher": str,
    "corpus": list[str],
    "recipe": dict,
    "general": dict,
    "task": dict,
    "evaluation": dict,
    "made": dict,
}

#: Tasks that text can be made for, and what `refsnn.data.corpora` calls them.
MADE = {"sst2": "sentiment", "rte": "pairs"}


def read_plan(config: str | os.PathLike, tasks: Sequence[str] = ()) -> Plan:
    """Read a plan.

    Parameters
    ----------
    config : path or str
        A TOML file; or ``paper``, ``small``, ``converted``, ``deep``, ``few-steps`` or ``tiny``, which come
        with the package.
    tasks : sequence of str
        Instead of the plan's.

    Returns
    -------
    plan : Plan

    Raises
    ------
    InputError
        The file is missing or no TOML, or a key or value in it cannot be used.

    Examples
    --------
    >>> plan = read_plan("paper")
    >>> plan.general.encoders, plan.general.batch_size, plan.tasks["sst2"].vth
    (4, 128, 1.0)
    """
    source, text = _plan_text(config)
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source} is not valid TOML ({error})") from None
    checked(source, given, KEYS)
    recipe_types = {name: kind for name, kind in get_type_hints(Recipe).items() if name not in ("task", "seed")}
    shared = checked(source, given.get("recipe", {}), recipe_types, "recipe")
    general = checked(source, given.get("general", {}), recipe_types, "general")
    checked(source, given.get("task", {}), dict.fromkeys(TASKS, dict), "task")
    own = {
        name: checked(source, values, recipe_types, f"task.{name}") for name, values in given.get("task", {}).items()
    }
    evaluation = _fill(source, "evaluation", given.get("evaluation", {}), Evaluation)
    if not evaluation.t_conv or min(evaluation.t_conv) < 1:
        raise InputError(f"{source}: t_conv in [evaluation] is {evaluation.t_conv}, but a simulation takes a step")
    if not evaluation.rules:
        raise InputError(f"{source}: rules in [evaluation] is empty, but at least one rule is needed")
    names, seeds = list(dict.fromkeys(tasks or given.get("tasks", []))), list(dict.fromkeys(given.get("seeds", [0])))
    if not names or not seeds:
        raise InputError(f"{source} has no {'seeds' if names else 'tasks'}; name at least one")
    if unknown := [name for name in names if name not in TASKS]:
        raise InputError(f"{source}: the task {unknown[0]!r} is none of {', '.join(TASKS)}")
    if min(seeds) < 0:
        raise InputError(f"{source}: seeds is {seeds}, but a seed is 0 or more")
    if "encoders" not in shared:
        raise InputError(f"{source}: [recipe] has no encoders; say how many the student should have")

    def recipe(where: str, task: str, values: Mapping[str, Any]) -> Recipe:
        try:
            return Recipe(**{"task": task, "seed": seeds[0], **shared, **values})
        except InputError as error:
            raise InputError(f"{source}, {where}: {error}") from None

    return Plan(
        source,
        {name: recipe(f"task {name}", name, own.get(name, {})) for name in names},
        seeds,
        recipe("general stage", names[0], {"max_length": shared.get("max_length", 128), **general}),
        evaluation,
        given.get("data"),
        given.get("teacher"),
        given.get("corpus", []),
        _fill(source, "made", given["made"], Made) if "made" in given else None,
    )


def _plan_text(config: str | os.PathLike) -> tuple[str, str]:
    path = Path(config)
    known = sorted(
        file.name for file in resources.files("refsnn.reproduction.plans").iterdir() if file.name.endswith(".toml")
    )
    name = f"{str(config).removesuffix('.toml')}.toml"
    if not path.is_file() and name in known:
        return name, (resources.files("refsnn.reproduction.plans") / name).read_text(encoding="utf-8")
    if not path.is_file():
        raise InputError(f"there is no plan {path}; name a TOML file, or one of {', '.join(known)}")
    return str(path), read_text(path)


def _fill(source: str, where: str, given: Mapping[str, Any], into: type) -> Any:
    values = checked(source, given, get_type_hints(into), where)
    missing = [field.name for field in fields(into) if field.default is MISSING and field.name not in values]
    if missing:
        raise InputError(f"{source}: [{where}] has no {missing[0]}")
    for name, value in values.items():
        if isinstance(value, int | float) and value <= 0:
            raise InputError(f"{source}: {name} in [{where}] is {value}, but it must be more than 0")
    return into(**values)
