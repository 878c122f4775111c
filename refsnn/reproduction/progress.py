"""How far a plan has come, and how long the rest will take."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..data.examples import Examples
from ..distillation.stages import Announce
from ..files import json_lines, write_text
from ..schema import fits
from ..storage.recipe import Stage
from ..storage.run import Run

__all__ = ["Progress", "Step", "duration", "time_left"]


class Step(NamedTuple):
    """One stage of the plan.

    Attributes
    ----------
    run : Path
    stage : str
        What the run's log and timings call it; of an evaluation ``"evaluation RULE"``.
    title : str
    steps : int
        Training steps; 1 for an evaluation. 0 while it is not known.
    work : float
        What the time should be proportional to: words of text times epochs, or times timesteps.
    """

    run: Path
    stage: str
    title: str
    steps: int
    work: float


#: Stages that cost about the same for a word of text: what is known of one serves for another until it is measured.
ALIKE = {
    "internal": ("general",),
    "prediction": ("internal", "general"),
    "teacher": ("pretraining",),
    "evaluation inst": ("evaluation running",),
    "evaluation running": ("evaluation inst",),
}


def time_left(states: Sequence[tuple[str, float, float, float]]) -> tuple[float, list[str]]:
    """Estimate the seconds that a plan still takes, from what its finished parts took.

    Parameters
    ----------
    states : sequence of (str, float, float, float)
        Of each stage: its kind, its work, the fraction of it that is done, the seconds that this took.

    Returns
    -------
    seconds : float
        Of all that is left and of a kind that was measured, or of one much like it.
    unknown : list of str
        Kinds of the stages that are left besides, one for each.

    Examples
    --------
    >>> time_left([("general", 100, 1, 50), ("internal", 30, 0.5, 9), ("internal", 40, 0, 0), ("evaluation", 5, 0, 0)])
    (33.0, ['evaluation'])
    """
    rates: dict[str, float] = {}
    for kind in dict.fromkeys(state[0] for state in states):
        done = sum(work * fraction for other, work, fraction, _ in states if other == kind)
        if done:
            rates[kind] = sum(spent for other, _, _, spent in states if other == kind) / done
    seconds, unknown = 0.0, []
    for kind, work, fraction, _ in states:
        known = [rates[other] for other in (kind, *ALIKE.get(kind, ())) if other in rates]
        if known:
            seconds += work * (1 - fraction) * known[0]
        elif fraction < 1:
            unknown.append(kind)
    return seconds, unknown


def duration(seconds: float) -> str:
    """Write a duration as one would say it.

    Parameters
    ----------
    seconds : float

    Returns
    -------
    words : str

    Examples
    --------
    >>> [duration(x) for x in (0.4, 75, 1000, 10_000, 1e6)]
    ['1 s', '75 s', '17 min', '2.8 h', '11.6 days']
    """
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min")):
        if seconds < limit:
            return f"{max(1, seconds / unit):.0f} {name}"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"


class Progress:
    """Say which stage of the plan begins, and what is left; keep that as ``log.jsonl``."""

    def __init__(self, out: Path, steps: Sequence[Step]) -> None:
        self.log, self.steps = out / "log.jsonl", list(steps)
        kinds = {"title": str, "steps": int, "work": float}
        entries = [e for e in json_lines(self.log) if all(fits(e.get(name), kind) for name, kind in kinds.items())]
        write_text(self.log, "".join(json.dumps(entry) + "\n" for entry in entries))  # without half a line
        for entry in entries:
            self._learn(entry["title"], entry["steps"], entry["work"])

    def _learn(self, title: str, steps: int, work: float) -> None:
        """Take up what only reading the text tells: how much there is of the general stage."""
        self.steps = [
            step._replace(steps=steps, work=work) if step.title == title and not step.steps else step
            for step in self.steps
        ]

    def _number(self, run: Path, stage: str) -> int:
        return next(i for i, step in enumerate(self.steps) if (step.run, step.stage) == (run, stage))

    def announce(self, run: Path) -> Announce:
        """Return what `refsnn.distillation.stages.distill` tells of the stages of one run."""

        def begin(stage: Stage, text: Examples) -> None:
            if stage.epochs:
                title = self.steps[self._number(run, stage.name)].title
                self._learn(title, stage.steps(len(text)), float(len(text.tokens)) * stage.epochs)
                self.begin(run, stage.name)

        return begin

    def state(self, step: Step) -> tuple[str, float, float, float]:
        """Return what `time_left` needs."""
        kind = "pretraining" if step.run.name == "pretrained" else step.stage
        if kind.startswith("evaluation"):
            results = Run(step.run).results(kind.split()[1])
            return kind, step.work, float(results is not None), results["seconds"] if results else 0.0
        logged = Run(step.run).log().get(step.stage)
        spent = Run(step.run).timings().get(step.stage, 0.0)
        fraction = min(1.0, logged[-1]["step"] / step.steps) if logged and step.steps else 0.0
        return kind, step.work, fraction if spent else 0.0, spent

    def begin(self, run: Path, stage: str) -> None:
        """Say that a stage begins, unless it is finished already."""
        number = self._number(run, stage)
        states = [self.state(step) for step in self.steps]
        if states[number][2] == 1:
            return
        seconds, unknown = time_left(states)
        step = self.steps[number]
        print(f"\nstage {number + 1} of {len(self.steps)}: {step.title}; {_left(seconds, unknown)}", flush=True)
        entry = {"title": step.title, "number": number + 1, "of": len(self.steps)}
        self._note(entry | {"steps": step.steps, "work": step.work}, seconds, unknown)

    def _note(self, entry: dict[str, Any], seconds: float, unknown: list[str]) -> None:
        entry |= {
            "seconds_left": round(seconds, 1),
            "unknown": list(dict.fromkeys(unknown)),
            "at": round(time.time(), 1),
        }
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")

    def begin_tasks(self, count: int) -> None:
        """Say that so many tasks are handed to workers, who say nothing themselves."""
        self.tasks, self.done, self.started, self.spent = count, 0, time.monotonic(), self._spent()
        if count:
            print(f"\n{count} tasks (each of one seed) are with the workers", flush=True)

    def _spent(self) -> float:
        return sum(self.state(step)[3] for step in self.steps)

    def finished(self, run: Path) -> None:
        """Say that a worker has finished a task, and what is left at the pace of all workers so far."""
        self.done += 1
        seconds, unknown = time_left([self.state(step) for step in self.steps])
        # Seconds of work in a second. One worker at least does the rest.
        pace = max((self._spent() - self.spent) / (time.monotonic() - self.started), 1.0)
        title = next(step.title for step in self.steps if step.run == run).rpartition(", ")[0]
        left = f"; {_left(seconds / pace, unknown)}" if self.done < self.tasks else ""
        print(f"finished {self.done} of {self.tasks}: {title}{left}", flush=True)
        entry = {"title": title, "number": self.done, "of": self.tasks, "steps": 0, "work": 0.0}
        self._note(entry, seconds / pace, unknown)


def _left(seconds: float, unknown: Sequence[str]) -> str:
    """Say what is left; where stages of some kinds have never run here, that it is more."""
    if not seconds:
        return "time left not known yet"
    if not unknown:
        return f"about {duration(seconds)} left"
    stages = f"{len(unknown)} stage{'s' * (len(unknown) > 1)} not timed yet"
    return f"at least {duration(seconds)} left; {stages} ({', '.join(dict.fromkeys(unknown))})"
