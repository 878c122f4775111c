"""Sweeps: a finished run's student under other settings than it was trained with, and several runs compared.

One simulation gives the answers after every T of a grid. What else can be varied is the integration rule, the initial
potential, the threshold and the leak; each setting is one more simulation. What is finished is kept in the run's
folder, with all that decided it, and not computed again.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from .._version import __version__
from ..data.examples import Examples
from ..data.metrics import Spread, agreement, defined, spread, task_metrics
from ..distillation.predict import predict_rates, predict_spikes, predict_teacher
from ..errors import InputError, NotConverged, one_of
from ..files import read_json, write_json
from ..model.neurons import Neuron
from ..readings.simulate import Rule, reading_times
from ..schema import checked
from ..storage.digests import array_digest
from ..storage.run import Run, versions
from ..workers import carried
from .anytime import confidences, curve

__all__ = [
    "AXES",
    "TIMES",
    "Setting",
    "grid_settings",
    "group",
    "own_setting",
    "spreads",
    "sweep",
    "sweep_run",
]

#: What can be swept. T always is: one simulation gives them all.
AXES = ("t", "rule", "u0", "vth", "leak")

#: The grid of T, eight or four to an octave: check points of early stopping, too.
TIMES = (*range(1, 9), *range(10, 17, 2), *range(20, 33, 4), *range(40, 65, 8), *range(80, 129, 16), 160, 192, 224, 256)

#: Thresholds, relative to the one trained with, and leaks.
SCALES = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)

LEAKS = (1.0, 0.99, 0.95, 0.9)


@dataclass(frozen=True)
class Setting:
    """How a student is simulated.

    Attributes
    ----------
    rule : {"inst", "running"}
    vth, leak, u0 : float
        Of every neuron; see `refsnn.model.neurons.Neuron`.
    """

    rule: Rule
    vth: float
    leak: float
    u0: float

    def __str__(self) -> str:
        parts = [self.rule, f"V_th {self.vth:g}", f"leak {self.leak:g}", f"u0 {self.u0:g}"]
        return ", ".join(parts)


def grid_settings(neuron: Neuron, over: Sequence[str], rule: Rule = "inst") -> list[Setting]:
    """List the settings of a sweep, that of the run itself first.

    Rules and initial potentials are combined with each other; thresholds and leaks are varied one at a time.

    Parameters
    ----------
    neuron : Neuron
        Of the student as it was trained.
    over : sequence of str
        Of `AXES`.
    rule : {"inst", "running"}
        Of the first setting, and of all others where the rule is not varied.

    Returns
    -------
    settings : list of Setting

    Raises
    ------
    InputError
        An axis or the rule is unknown.

    Examples
    --------
    >>> [str(setting) for setting in grid_settings(Neuron(), ["rule"])]
    ['inst, V_th 1, leak 1, u0 0', 'running, V_th 1, leak 1, u0 0']
    >>> len(grid_settings(Neuron(), AXES))
    13
    """
    if unknown := [axis for axis in over if axis not in AXES]:
        raise InputError(f"`over` has {', '.join(unknown)}, but {', '.join(AXES)} was expected")
    one_of("rule", rule, get_args(Rule))
    rules: dict[Rule, None] = dict.fromkeys((rule, "inst", "running") if "rule" in over else (rule,))
    starts = (neuron.u0, 0.0, 0.5) if "u0" in over and neuron.due > 0.5 else (neuron.u0,)  # ternary: 0 rounds already
    found = [Setting(rule, neuron.vth, neuron.leak, u0) for rule in rules for u0 in starts]
    if "vth" in over:
        found += [replace(found[0], vth=neuron.vth * scale) for scale in SCALES]
    if "leak" in over:
        found += [replace(found[0], leak=leak) for leak in LEAKS]
    return list(dict.fromkeys(found))


def sweep_run(
    run: str | os.PathLike,
    data: str | os.PathLike | None,
    over: Sequence[str] = ("t", "rule"),
    t_conv: Sequence[int] = TIMES,
    samples: int | None = None,
    columns: Sequence[str] = (),
    executor: Executor | None = None,
    rule: Rule = "inst",
) -> dict[str, Any]:
    """Evaluate a run's student over a sweep's settings, keeping each that is finished in the run's ``sweep.json``.

    Of MNLI's two dev splits it is the first, the matched one.

    Parameters
    ----------
    run, data : path
    over : sequence of str
        Of `AXES`.
    t_conv : sequence of int
        The grid of T.
    samples : int, optional
        So many examples, evenly spaced over the dev split; all by default.
    columns : sequence of str
        As for `refsnn.evaluation.evaluate.evaluate_run`.
    executor : concurrent.futures.Executor, optional
        What computes the settings, as `refsnn.workers.executor` opens it; by default this process, one after the other.
    rule : {"inst", "running"}
        See `grid_settings`.

    Returns
    -------
    results : dict
        The run's settings, the teacher's metrics (None for a run without), and for each setting the metrics of its
        rate map (None, with the reason in ``"unsolved"``, where no equilibrium was found), of the spikes after each T
        with agreement and firing rates, and early stopping.

    Raises
    ------
    InputError
        The run is not finished, the data cannot be read, or T or the number of samples is not positive.
    """
    return _swept([Run(run)], data, over, rule, t_conv, samples, columns, executor)[0]


class _Job(NamedTuple):
    """A part of a sweep: where it is kept, what decides it, what computes it."""

    kept: Path
    inputs: dict[str, Any]
    compute: Callable[[], dict[str, Any]]
    title: str


def _computed(job: _Job) -> dict[str, Any]:
    return job.compute()


class _Sweep(NamedTuple):
    """A run to be swept: its jobs, and what is reported beside what they find."""

    run: Run
    teacher: _Job | None
    settings: list[tuple[Setting, _Job]]
    about: dict[str, Any]

    @property
    def jobs(self) -> list[_Job]:
        return [*([self.teacher] if self.teacher else []), *(job for _, job in self.settings)]


def _swept(
    runs: Sequence[Run],
    data: str | os.PathLike | None,
    over: Sequence[str],
    rule: Rule,
    t_conv: Sequence[int],
    samples: int | None,
    columns: Sequence[str],
    executor: Executor | None,
) -> list[dict[str, Any]]:
    """Sweep runs: one after the other here, or all of them at once by an executor."""
    together = [[run] for run in runs] if executor is None else [list(runs)]
    found = []
    for several in together:
        sweeps = [_prepared(run, data, over, rule, t_conv, samples, columns) for run in several]
        with ExitStack() as stack:
            for sweep in sweeps:
                stack.enter_context(sweep.run.held("sweep"))
                _forget(sweep)
            _fill([job for sweep in sweeps for job in sweep.jobs], executor)
            found += [_gathered(sweep) for sweep in sweeps]
    return found


def _prepared(
    run: Run,
    data: str | os.PathLike | None,
    over: Sequence[str],
    rule: Rule,
    t_conv: Sequence[int],
    samples: int | None,
    columns: Sequence[str],
) -> _Sweep:
    """Read a run and its text, and list what is to be computed."""
    times = reading_times(t_conv)
    config, params = run.student()
    split, (_, examples) = next(iter(run.examples("dev", data, columns, samples).items()))
    text = array_digest((examples.tokens, examples.kinds, examples.starts, examples.labels))
    known: dict[str, Any] = {"refsnn": __version__, "examples": text}
    kept = run.folder / "sweep.json"
    weights, teacher = array_digest(params.values(), config.to_dict()), None
    if run.teacher_folder.exists():
        bert, tuned = run.teacher()
        inputs = {"weights": array_digest(tuned.values(), bert.to_dict()), **known}
        teacher = _Job(kept, inputs, partial(_ask_teacher, run, examples), f"{run}: the teacher")
    settings = []
    chosen = grid_settings(config.neuron, over, rule)
    for number, setting in enumerate(chosen, 1):
        inputs = {"weights": weights, **known, **asdict(setting), "t_conv": times}
        title = f"{run}: simulating {number} of {len(chosen)}: {setting}"
        settings.append((setting, _Job(kept, inputs, partial(_simulate, run, examples, setting, times), title)))
    about = {
        "run": str(run),
        "task": run.task.folder,
        "split": split,
        "metric": run.task.metrics[0],
        "regression": not run.task.labels,
        "examples": len(examples),
        "trained": run.settings,
        "versions": versions(),
    }
    return _Sweep(run, teacher, settings, about)


def _fill(jobs: Sequence[_Job], executor: Executor | None) -> None:
    """Compute what is not known yet, and keep each as soon as it is there."""
    left = [job for job in jobs if _known(job) is None]
    if executor is None:
        for job in left:
            print(job.title, file=sys.stderr)
            _keep(job, job.compute())
        return
    for done, (number, found) in enumerate(carried(executor, _computed, left), 1):
        _keep(left[number], found)
        print(f"finished {done} of {len(left)}: {left[number].title}", file=sys.stderr)
    for kept in dict.fromkeys(job.kept for job in left):  # whoever was first, the file is that of one process
        order = [job.inputs for job in left if job.kept == kept]
        entries = sorted(_entries(kept), key=lambda e: order.index(e["inputs"]) if e["inputs"] in order else -1)
        write_json(kept, {"entries": entries})


def _gathered(sweep: _Sweep) -> dict[str, Any]:
    teacher = None if sweep.teacher is None else _known(sweep.teacher)
    settings = [asdict(setting) | (_known(job) or {}) for setting, job in sweep.settings]
    return sweep.about | {"teacher": teacher, "settings": settings}


def _ask_teacher(run: Run, examples: Examples) -> dict[str, Any]:
    return task_metrics(run.task, predict_teacher(*run.teacher(), examples), examples.labels)


def _simulate(run: Run, examples: Examples, setting: Setting, times: Sequence[int]) -> dict[str, Any]:
    """All that is reported of one setting, as JSON has it."""
    started = time.monotonic()
    task, (config, params) = run.task, run.student()
    config = config.varied(setting.vth, setting.leak, setting.u0)
    populations = config.network.populations
    neurons = sum(population.width for population in populations)
    rates, unsolved = None, None
    try:
        rates = predict_rates(config, params, examples)
    except NotConverged as error:  # with feedback, another threshold may leave no equilibrium to be found
        unsolved = str(error)
    spikes = predict_spikes(config, params, examples, times, setting.rule)
    rows = []
    for t, result in spikes.items():
        rows.append(
            {
                "t": t,
                "metrics": task_metrics(task, result.logits, examples.labels),
                "agreement": None if rates is None else agreement(result.logits, rates),
                "firing_rate": sum(result.firing_rates[p.name] * p.width for p in populations) / neurons,
                "firing_rates": result.firing_rates,
            }
        )
    logits = np.stack([result.logits for result in spikes.values()])  # (times, n, classes)
    early = {
        name: [
            {key: defined(value) for key, value in asdict(point).items()}
            for point in curve(logits, times, examples.labels, task.metrics[0], confidence)
        ]
        for name, confidence in confidences(logits, times).items()
    }
    return {
        "rate": None if rates is None else task_metrics(task, rates, examples.labels),
        "unsolved": unsolved,
        "rows": rows,
        "early": early,
        "seconds": round(time.monotonic() - started, 1),
    }


def _entries(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        entries = checked(path, read_json(path), {"entries": list[dict]}, required=["entries"])["entries"]
        for entry in entries:
            checked(path, entry, {"inputs": dict, "found": dict}, "entries", ("inputs", "found"))
            checked(path, entry["inputs"], {"weights": str}, "inputs", ["weights"], closed=False)
            if "rule" in entry["inputs"]:
                _checked_setting(path, entry["found"])
            else:
                checked(path, entry["found"], dict.fromkeys(entry["found"], float | None), "found")
    except InputError as error:
        raise InputError(f"{error}; it was not written by `refsnn sweep`, or damaged: move it away") from None
    return entries


def _checked_setting(path: Path, found: Any) -> None:
    """Make sure that what was found for a setting is what `_simulate` gives."""
    metrics = dict[str, float | None]
    kinds = {"rate": metrics | None, "rows": list[dict], "early": dict[str, list[dict[str, float | None]]]}
    checked(path, found, kinds | {"seconds": float, "unsolved": str | None}, "found", kinds)
    row = {"t": int, "metrics": metrics, "agreement": float | None, "firing_rate": float}
    for one in found["rows"]:
        checked(path, one, row | {"firing_rates": dict[str, float]}, "rows", row)


def _known(job: _Job) -> dict[str, Any] | None:
    """Look up what was found for the same inputs."""
    return next((entry["found"] for entry in _entries(job.kept) if entry["inputs"] == job.inputs), None)


def _keep(job: _Job, found: dict[str, Any]) -> None:
    write_json(job.kept, {"entries": [*_entries(job.kept), {"inputs": job.inputs, "found": found}]})


def _forget(sweep: _Sweep) -> None:
    """Drop what was found for other weights than the run has now."""
    kept, weights = sweep.jobs[0].kept, {job.inputs["weights"] for job in sweep.jobs}
    entries = _entries(kept)
    current = [entry for entry in entries if entry["inputs"]["weights"] in weights]
    if len(current) < len(entries):
        print(f"{kept}: left out {len(entries) - len(current)} results of other weights", file=sys.stderr)
        write_json(kept, {"entries": current})


def sweep(
    runs: Sequence[str | os.PathLike],
    data: str | os.PathLike | None,
    over: Sequence[str] = ("t", "rule"),
    t_conv: Sequence[int] = TIMES,
    samples: int | None = None,
    columns: Sequence[str] = (),
    executor: Executor | None = None,
    rule: Rule = "inst",
) -> list[dict[str, Any]]:
    """Sweep several runs of one task, after looking whether all of them can be.

    Parameters
    ----------
    runs : sequence of paths
    data, over, t_conv, samples, columns, executor, rule
        As for `sweep_run`.

    Returns
    -------
    results : list of dict
        One for each run.

    Raises
    ------
    InputError
        As `sweep_run`, or the runs are of different tasks.
    """
    found = [Run(run) for run in {os.path.abspath(run): run for run in runs}.values()]
    for run in found:
        run.student()
    if len({run.task.name for run in found}) > 1:
        said = ", ".join(f"{run} of {run.task.folder}" for run in found)
        raise InputError(f"the runs are of different tasks ({said}); compare runs of one task")
    return _swept(found, data, over, rule, t_conv, samples, columns, executor)


def group(results: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Put runs together that differ by their seed alone, and name each group by what sets it apart.

    Folders of data, teachers and text count by their own name, whatever lies above them.

    Parameters
    ----------
    results : sequence of dict
        As from `sweep_run`.

    Returns
    -------
    groups : dict
        Label -> its runs, in the order given.

    Examples
    --------
    >>> def run(**recipe): return {"task": "SST-2", "trained": {"recipe": recipe, "data": "glue"}}
    >>> found = group([run(seed=0, feedback=0.0), run(seed=1, feedback=0.0), run(seed=0, feedback=0.1)])
    >>> {label: len(runs) for label, runs in found.items()}
    {'feedback 0.0': 2, 'feedback 0.1': 1}
    """

    def described(result: Mapping[str, Any]) -> dict[str, str]:
        trained = result["trained"]
        paths = {k: v if v is None else Path(str(v)).name for k, v in trained.items() if k not in ("recipe", "columns")}
        recipe = {k: v for k, v in trained["recipe"].items() if k != "seed"}
        return {k: "none" if v is None else str(v) for k, v in (recipe | paths).items()}

    descriptions = [described(result) for result in results]
    keys = dict.fromkeys(key for description in descriptions for key in description)
    apart = [key for key in keys if len({description.get(key) for description in descriptions}) > 1]
    found: dict[str, list[Mapping[str, Any]]] = {}
    for result, description in zip(results, descriptions, strict=True):
        label = ", ".join(f"{key} {description.get(key, '–')}" for key in apart)
        found.setdefault(label or result["task"], []).append(result)
    return found


def spreads(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and range over runs of one recipe: of teacher, rate map, and the spikes after each T by each rule.

    Parameters
    ----------
    results : sequence of dict
        As from `sweep_run`, swept over the same axes.

    Returns
    -------
    spreads : dict
        ``"teacher"`` and ``"rate"`` hold a Spread; ``"spikes"`` maps a rule to T -> Spread, and ``"agreement"`` does
        so for the agreement with the rate map.
    """
    metric = results[0]["metric"]
    own = {rule: [own_setting(result, rule) for result in results] for rule in ("inst", "running")}
    own = {rule: found for rule, found in own.items() if all(found)}

    def over_runs(found: Sequence[Any], value: Callable[[Mapping[str, Any]], float | None]) -> dict[int, Spread]:
        rows = zip(*(setting["rows"] for setting in found), strict=True)
        return {same[0]["t"]: spread([value(row) for row in same]) for same in rows}

    return {
        "teacher": spread([(result["teacher"] or {}).get(metric) for result in results]),
        "rate": spread([(result["settings"][0]["rate"] or {}).get(metric) for result in results]),
        "spikes": {rule: over_runs(found, lambda row: row["metrics"][metric]) for rule, found in own.items()},
        "agreement": {rule: over_runs(found, lambda row: row["agreement"]) for rule, found in own.items()},
    }


def own_setting(result: Mapping[str, Any], rule: str) -> Mapping[str, Any] | None:
    """Find what was measured with the constants that a run was trained with, under one rule.

    Parameters
    ----------
    result : dict
        As from `sweep_run`.
    rule : {"inst", "running"}

    Returns
    -------
    setting : dict or None
    """
    first = result["settings"][0]
    for setting in result["settings"]:
        if setting["rule"] == rule and all(setting[key] == first[key] for key in ("vth", "leak", "u0")):
            return setting
    return None
