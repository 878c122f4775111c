"""A run's folder, as a type: what it was made from, its models, its text, its log, its results.

run.json                settings, fingerprints of what they name, versions
stages/NAME.safetensors a stage's checkpoint
stages/constants.json   thresholds and initial potentials of single populations that a student's training began with
log.jsonl, timings.json losses over the steps, seconds of the stages
teacher/                the fine-tuned teacher
config.json, model.safetensors, the tokenizer's files       the student
results-RULE.json       what `refsnn evaluate` found by an integration rule
.lock, .holder          the lock of whoever trains in the folder, and who that is
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from .._version import __version__
from ..data.examples import Examples, tokenise
from ..data.reading import read_task
from ..data.tasks import Task, column_names, splits
from ..data.tokenizer import load_tokenizer
from ..errors import InputError
from ..files import existing, json_lines, named, new_folder, read_json, require, write_json, write_text
from ..model.batch import Batch
from ..model.parameters import Params
from ..model.shapes import BertConfig
from ..model.student import StudentConfig
from ..readings.simulate import Rule
from ..schema import checked, fits
from .checkpoints import WEIGHTS, load_student, load_teacher
from .recipe import Recipe
from .results import checked_results

__all__ = ["Run", "Stored", "run_settings", "versions"]

#: What `run.json` holds beside its recipe.
RECORD = {"settings": dict, "digests": dict[str, str], "versions": dict}
SETTINGS = {
    "recipe": dict,
    "data": str | None,
    "teacher": str | dict,
    "corpus": str | None,
    "columns": list[str] | None,
    "general": str | None,
    "converted": str,
}


def run_settings(
    recipe: Recipe,
    data: Any,
    teacher: Any,
    corpus: Sequence[str | os.PathLike] = (),
    columns: Sequence[str] = (),
    general: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Describe a run, as `run.json` remembers it and a resumed run must have it.

    Parameters
    ----------
    recipe, data, teacher, corpus, columns, general
        As for `refsnn.distillation.stages.distill`.

    Returns
    -------
    settings : dict
    """
    return {
        "recipe": recipe.to_dict(),
        "data": None if data is None else str(data),
        "teacher": teacher[0].to_dict() if isinstance(teacher, tuple) else str(teacher),
        "corpus": ", ".join(map(str, corpus)) or None,
        "columns": list(columns) or None,
        "general": None if general is None else str(general),
    }


def versions() -> dict[str, str]:
    """Versions of all that computes, for the record of a run.

    Returns
    -------
    versions : dict
    """
    from importlib.metadata import PackageNotFoundError, version

    found = {"refsnn": __version__, "python": platform.python_version()}
    found |= {"numpy": np.__version__, "scipy": version("scipy"), "machine": platform.machine()}
    for package in ("tokenizers", "datasets", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Run:
    """A run's folder. Nothing is read before it is asked for, and everything that is read is checked.

    Attributes
    ----------
    folder : Path

    Raises
    ------
    InputError
        By whatever reads: the folder, or a file of it, is missing or damaged, in one sentence.
    """

    folder: Path

    def __init__(self, folder: str | os.PathLike) -> None:
        object.__setattr__(self, "folder", named(folder))

    def __str__(self) -> str:
        return str(self.folder)

    def __fspath__(self) -> str:
        return str(self.folder)

    # What it was made from

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run, finished or not."""
        return (self.folder / "run.json").exists()

    @cached_property
    def record(self) -> dict[str, Any]:
        """All that `run.json` says: settings and versions."""
        path = existing(existing(self.folder, "the run") / "run.json", "the run's settings")
        record = checked(path, read_json(path), RECORD, required=["settings"], closed=False)
        checked(path, record["settings"], SETTINGS, "settings", ["recipe"], closed=False)
        return record

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe, and where data, teacher, corpus and columns were, as they were given."""
        return self.record["settings"]

    @cached_property
    def recipe(self) -> Recipe:
        """All that decides the run's numbers, data and teacher aside."""
        if (family := self.settings.get("family")) is not None:
            raise InputError(f"{self} holds a run of the family {family!r}, which `refsnn {family}` reads")
        return Recipe.from_dict(self.settings["recipe"], self.folder / "run.json")

    @property
    def task(self) -> Task:
        """The task."""
        return self.recipe.definition

    def begin(self, settings: Mapping[str, Any], digests: Mapping[str, str] | None = None) -> None:
        """Write down what the run is, or make sure that it is what was written down before.

        Parameters
        ----------
        settings : mapping
            As from `run_settings`.
        digests : mapping, optional
            Setting -> fingerprint of what it names, as from `refsnn.storage.digests`.

        Raises
        ------
        InputError
            The folder holds a run with other settings, or what they name has changed.
        """
        digests = digests or {}
        if not self.exists:
            record = {"settings": settings, "digests": dict(digests), "versions": versions()}
            write_json(self.folder / "run.json", record)
        elif changed := self.differences(settings):
            raise InputError(
                f"{self} holds a run with other settings ({'; '.join(changed)}); "
                "name another folder, or the same settings to go on with it"
            )
        self.check_digests(digests)

    def check_digests(self, digests: Mapping[str, str]) -> None:
        """Make sure that what the settings name is still what it was when the run began.

        Parameters
        ----------
        digests : mapping
            As for `begin`. What an older version did not write down is not compared.

        Raises
        ------
        InputError
            Something has changed.
        """
        before = self.record.get("digests", {})
        if changed := [name for name, digest in digests.items() if before.get(name, digest) != digest]:
            name = changed[0]
            place = self.settings.get(name)
            place = f", {place}," if isinstance(place, str) else ""
            raise InputError(
                f"the {name}{place} is not what it was when {self} was begun: the path is the same, the contents are "
                "others; put the old contents back to go on, or name another folder"
            )

    @contextmanager
    def held(self, what: str = "", wait: float = 0.0) -> Iterator[None]:
        """Keep every other process from training in the folder; the lock of a process that ends is free.

        Parameters
        ----------
        what : str
            Instead of everything that training writes, what else is held by itself, such as the results by a rule.
        wait : float
            Seconds to wait for another process to let go.

        Raises
        ------
        InputError
            Another process holds the folder.
        """
        filelock = require("filelock")
        part = what and f"-{what}"
        lock = filelock.FileLock(new_folder(self.folder) / f".lock{part}", timeout=wait)
        holder = self.folder / f".holder{part}"
        try:
            lock.acquire()
        except filelock.Timeout:
            try:
                who = holder.read_text(encoding="utf-8").strip()
            except OSError:  # it has only just begun, or is about to end
                who = "another process"
            held = f"the {what} of {self}" if what else str(self)
            raise InputError(f"{held} is in use by {who}; wait until that has ended, or name another folder") from None
        try:
            write_text(holder, f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def differences(self, settings: Mapping[str, Any]) -> list[str]:
        """Say what settings differ from the run's.

        Parameters
        ----------
        settings : mapping
            As from `run_settings`.

        Returns
        -------
        differences : list of str
            Empty where the run is what is wanted.
        """
        before = _flat(self.settings)
        return [
            f"{name} was {before.get(name)!r} and is {value!r}"
            for name, value in _flat(settings).items()
            if before.get(name) != value
        ]

    # Its models

    @property
    def finished(self) -> bool:
        """Whether the student is there."""
        return (self.folder / "config.json").exists()

    @property
    def teacher_folder(self) -> Path:
        """Folder of the fine-tuned teacher."""
        return self.folder / "teacher"

    def student(self) -> tuple[StudentConfig, Params]:
        """Read the student.

        Returns
        -------
        config : StudentConfig
        params : dict
        """
        return load_student(existing(self.folder, "the run"))

    def teacher(self) -> tuple[BertConfig, Params]:
        """Read the fine-tuned teacher, with pooler and classifier.

        Returns
        -------
        config : BertConfig
        params : dict
        """
        return load_teacher(existing(existing(self.folder, "the run") / "teacher", "the fine-tuned teacher"))

    def tokenizer(self) -> Any:
        """Load the tokenizer, with the limit of length that the run was trained with.

        Returns
        -------
        tokenizer : tokenizers.Tokenizer
        """
        config = StudentConfig.from_dict(read_json(self.folder / "config.json"), self.folder / "config.json")
        return load_tokenizer(self.folder, config.bert.vocab_size, self.recipe.limit)

    # Its text

    def data(self, given: str | os.PathLike | None = None) -> str:
        """Where the run's data are: as given, or else as remembered.

        Parameters
        ----------
        given : path, optional

        Returns
        -------
        data : str
            As `refsnn.data.reading.read_task` takes it.
        """
        if given is not None:
            return str(given)
        remembered = self.settings.get("data")
        if remembered is None:
            raise InputError(f"{self} does not remember any data; say where they are with `data`")
        if os.path.isfile(remembered):
            raise InputError(
                f"{self} was made from the file {remembered}, which is no split to evaluate; name one with `data`"
            )
        return remembered

    def split(
        self, split: Literal["train", "dev", "test"], data: str | os.PathLike | None = None, columns: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Read a split of the run's task.

        Parameters
        ----------
        split : {"train", "dev", "test"}
        data : path, optional
            Where the run's data were by default.
        columns : sequence of str
            Pairs ``name=column``; those that the run was made with by default.

        Returns
        -------
        parts : dict
            Part of the split -> datasets.Dataset; two for MNLI's dev and test, one for every other.
        """
        place = self.data(data)
        names = column_names(self.task, columns or self.settings.get("columns") or ())
        parts = [split] if split == "train" else splits(self.task, place, split)
        return {part: read_task(place, self.task, part, names) for part in parts}

    def examples(
        self,
        split: Literal["dev", "test"],
        data: str | os.PathLike | None = None,
        columns: Sequence[str] = (),
        samples: int | None = None,
    ) -> dict[str, tuple[Any, Examples]]:
        """Read a split of the run's task and turn it into token ids.

        Parameters
        ----------
        split, data, columns
            See `split`.
        samples : int, optional
            So many examples, evenly spaced over the split; all by default.

        Returns
        -------
        parts : dict
            Part of the split -> (datasets.Dataset, Examples).
        """
        if samples is not None and samples < 1:
            raise InputError(f"`samples` is {samples}, but at least one example is needed")
        found = {}
        for part, dataset in self.split(split, data, columns).items():
            if samples is not None and samples < len(dataset):
                dataset = dataset.select([i * len(dataset) // samples for i in range(samples)])
            found[part] = dataset, tokenise(dataset, self.task.sentences, self.tokenizer())
        return found

    def sample(
        self, samples: int, data: str | os.PathLike | None = None, columns: Sequence[str] = ()
    ) -> tuple[Examples, Batch]:
        """Read the first sentences of the dev split.

        Parameters
        ----------
        samples : int
        data, columns
            See `split`.

        Returns
        -------
        examples : Examples
        batch : Batch
            All of them, padded to the longest.
        """
        if samples < 1:
            raise InputError(f"`samples` is {samples}, but at least one sentence is needed")
        dataset = next(iter(self.split("dev", data, columns).values()))
        chosen = dataset.select(range(min(samples, len(dataset))))
        examples = tokenise(chosen, self.task.sentences, self.tokenizer())
        return examples, examples.batch(np.arange(len(examples)), self.student()[0].bert.pad_token_id)

    # What happened

    def stage_checkpoint(self, stage: str) -> Path:
        """Name the file of a stage's checkpoint."""
        return self.folder / "stages" / f"{stage}.safetensors"

    def as_begun(self, student: StudentConfig) -> StudentConfig:
        """Set the constants that a student's training began with: its parameters were trained with no others.

        A conversion chooses constants of single populations, from text and by sums that another version, or another
        machine, need not do alike.

        Parameters
        ----------
        student : StudentConfig
            As it would begin now.

        Returns
        -------
        student : StudentConfig
            The same, until a stage after the teacher's has left a checkpoint.

        Raises
        ------
        InputError
            An older version began the training, and did not write its constants down.
        """
        path = self.folder / "stages" / "constants.json"
        if not any(self.stage_checkpoint(stage).exists() for stage in ("general", "internal", "prediction")):
            if student.populations:
                write_json(path, {"populations": {name: dict(own) for name, own in student.populations.items()}})
            return student
        if path.exists():
            begun = checked(path, read_json(path), {"populations": dict}, required=["populations"])
            return StudentConfig.from_dict(student.to_dict() | begun, path)
        if student.populations:
            raise InputError(
                f"an older version began to train the student in {self}, and did not write down its thresholds and "
                f"initial potentials ({path} is missing); go on with that version, or name another folder"
            )
        return student

    def log(self) -> dict[str, list[dict[str, float]]]:
        """Read the training log.

        Returns
        -------
        log : dict
            Stage -> its lines, each with ``"step"``, ``"lr"`` and the losses. Empty where there is no log; half a
            line, as a kill leaves it, is skipped.
        """
        log: dict[str, list[dict[str, float]]] = {}
        for entry in json_lines(self.folder / "log.jsonl"):
            try:
                stage, step = str(entry.pop("stage")), float(entry.pop("step"))
                values = {"step": step} | {name: float(value) for name, value in entry.items()}
            except (ValueError, TypeError, KeyError):
                continue
            log.setdefault(stage, []).append(values)
        return log

    def append_log(self, entry: Mapping[str, Any]) -> None:
        """Add a line to the training log.

        Parameters
        ----------
        entry : mapping
            With ``"stage"`` and ``"step"``.
        """
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")

    def forget_log_after(self, stage: str, step: int) -> None:
        """Drop what an interrupted attempt logged after its last checkpoint; the steps are taken again.

        Parameters
        ----------
        stage : str
        step : int
        """
        path = self.folder / "log.jsonl"
        if path.exists():
            lines = [entry for entry in json_lines(path) if fits(entry.get("step"), float) and "stage" in entry]
            kept = [entry for entry in lines if entry["stage"] != stage or entry["step"] <= step]
            write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))

    def timings(self) -> dict[str, float]:
        """Read how many seconds each stage took.

        Returns
        -------
        seconds : dict
        """
        path = self.folder / "timings.json"
        seconds = read_json(path) if path.exists() else {}
        return checked(path, seconds, dict.fromkeys(seconds, float))

    def add_timing(self, stage: str, seconds: float) -> None:
        """Write down how long a stage took.

        Parameters
        ----------
        stage : str
        seconds : float
        """
        write_json(self.folder / "timings.json", self.timings() | {stage: round(seconds, 1)})

    # What was found

    def results_file(self, rule: str) -> Path:
        """Name the file of the results by an integration rule."""
        return self.folder / f"results-{rule}.json"

    def results(self, rule: str) -> dict[str, Any] | None:
        """Read the results by an integration rule.

        Parameters
        ----------
        rule : {"inst", "running"}

        Returns
        -------
        results : dict or None
            As `refsnn.evaluation.evaluate.evaluate_run` wrote them; None where the run was not evaluated by that rule.
        """
        if (path := self._results_path(rule)) is None:
            return None
        try:
            return checked_results(path, read_json(path))
        except InputError as error:
            raise InputError(f"{error}; evaluate the run again by rule {rule} to write it again") from None

    def _results_path(self, rule: str) -> Path | None:
        if (path := self.results_file(rule)).exists():
            return path
        old = self.folder / "results.json"  # the only results that refsnn 0.1 kept
        return old if old.exists() and read_json(old).get("rule") == rule else None

    def evaluated(self) -> list[Rule]:
        """List the integration rules that the run was evaluated by.

        Returns
        -------
        rules : list of str
        """
        return [rule for rule in get_args(Rule) if self._results_path(rule) is not None]


class Stored(dict[str, Any]):
    """Parameters of a run, which go to another process as the name of their folder, and are read there, once.

    Parameters
    ----------
    run : Run
    which : {"student", "teacher"}
    """

    def __init__(self, run: Run, which: Literal["student", "teacher"]) -> None:
        super().__init__((run.student() if which == "student" else run.teacher())[1])
        self.source = os.path.abspath(run.folder), which, _stamp(run, which)

    def __reduce__(self) -> tuple[Any, ...]:
        return _stored, self.source


def _stamp(run: Run, which: str) -> tuple[Any, ...]:
    """Return what tells that a model was written again: files, times and sizes."""
    folder = run.folder if which == "student" else run.teacher_folder
    found = [(name, (folder / name).stat()) for name in (*WEIGHTS, "config.json") if (folder / name).exists()]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in found)


@lru_cache(maxsize=2)
def _stored(folder: str, which: Literal["student", "teacher"], stamp: tuple[Any, ...]) -> Stored:
    run = Run(existing(folder, "the run"))
    if _stamp(run, which) != stamp:
        raise InputError(f"the {which} of {run} was written again while it was being evaluated; do it again")
    return Stored(run, which)


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as one table; what an older version's recipe lacks has today's default."""
    recipe = {("targets" if name == "labels" else name): value for name, value in settings["recipe"].items()}
    defaults = {field.name: field.default for field in fields(Recipe) if field.default is not MISSING}
    return {name: value for name, value in settings.items() if name != "recipe"} | defaults | recipe
