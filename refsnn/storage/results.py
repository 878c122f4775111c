"""What `refsnn evaluate` writes, checked when it is read again: pages and tables are made from nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..schema import checked

__all__ = ["checked_results"]

METRICS = dict[str, float | None]

#: After one T; "full" is the full count of operations.
ROW = {
    "t": int,
    "accuracy": float | None,
    "metrics": METRICS,
    "agreement": float | None,
    "classes_answered": int | None,
    "firing_rate": float,
    "firing_rates": dict[str, float],
    "norm_ops": float,
    "energy_gain": float | None,
    "break_even": float | None,
    "full": dict,
}
COUNT = {"picojoules": dict[str, dict[str, float]], "operations": dict[str, dict[str, dict[str, float]]]}
FULL = {"gain": float | None, "break_even": float | None} | COUNT

#: Of one split.
PART = {
    "split": str,
    "examples": int,
    "mean_tokens": float,
    "teacher_accuracy": float | None,
    "rate_accuracy": float | None,
    "metrics": dict[str, METRICS],
    "majority": dict | None,
    "classes_answered": dict[str, int | None],
    "equilibrium": dict[str, float] | None,
    "spikes": list[dict],
    "ordinary": dict,
}
#: Of a run, and of the sentence that its pictures show.
RESULTS = PART | {
    "task": str,
    "rule": Literal["inst", "running"],
    "metric": str,
    "others": list[dict],
    "energies": dict[str, float],
    "memory": bool,
    "example": dict,
    "seconds": float,
    "peak_memory_mb": float | None,
    "versions": dict[str, str],
}
EXAMPLE = {"text": str, "label": str | float | None, "ids": list[int], "kinds": list[int]}
#: What refsnn 0.1 did not write, or not from its beginning.
NEW = ("majority", "classes_answered", "energies", "memory", "ordinary", "full", "break_even")


def _always(kinds: Mapping[str, Any]) -> list[str]:
    """List what every version wrote."""
    return [name for name in kinds if name not in NEW]


def checked_results(source: object, values: Any) -> dict[str, Any]:
    """Make sure that results are what `refsnn.evaluation.evaluate.evaluate_run` writes.

    Parameters
    ----------
    source : object
        The file, for messages.
    values : object
        What was read.

    Returns
    -------
    results : dict

    Raises
    ------
    InputError
        The first entry that is missing or of another type.
    """
    results = checked(source, values, RESULTS, "", _always(RESULTS), closed=False)
    checked(source, results["example"], EXAMPLE, "example", EXAMPLE)
    for part in (results, *results["others"]):
        checked(source, part, PART, part.get("split", "others"), _always(PART), closed=False)
        if "ordinary" in part:
            checked(source, part["ordinary"], COUNT, "ordinary", COUNT)
        for row in part["spikes"]:
            checked(source, row, ROW, "spikes", _always(ROW), closed=False)
            if "full" in row:
                checked(source, row["full"], FULL, "full", FULL)
    return results
