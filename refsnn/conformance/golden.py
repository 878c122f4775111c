"""Golden bundles: the cases with their answers, as files that a program in any language can read.

A bundle is a folder of safetensors, one a case (``neurons/ties.safetensors``), and ``manifest.json``. A file holds the
case's inputs (``input/NAME``), its answer (``output/NAME``) and its numeric settings (``constant/NAME``): real numbers
as float64, networks' spikes as bytes. The manifest says what made them, what each case is, how far an answer may lie
from each quantity in each precision, and when an answer is unique. The numbers follow from suite and seed alone, so
that a bundle can be verified by computing it anew. ``docs/golden.md`` has more.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import scipy

from .._version import __version__
from ..errors import InputError
from ..files import existing, load_tensors, new_folder, read_json, save_tensors, write_json
from ..ops import Array
from ..schema import checked, fits
from . import reference
from .cases import SUITES, VERSION, Case, call, cases, parts
from .judge import certified, expectation, first_wrong
from .requirements import PAGE

__all__ = ["SCHEMA", "Difference", "manifest", "verify_bundle", "write_bundle"]

SCHEMA = "refsnn.golden/1"

UNIQUE = {
    "exact": "all numbers are dyadic and no sum rounds in these precisions: every correct program agrees bit for bit",
    "tolerance": "values agree within the tolerance, relative to the quantity's scale (its largest entry, or what is "
    "stated); scores at or below -1000 are masked, and agree each by itself",
    "certificate": "spikes are not unique: at structural ties rounding decides. A record is right if every decision is "
    "consistent with the equations within rounding; docs/certificates.md derives the bound. The spikes given are one "
    "right answer, with ties decided by u >= V_th in float64",
}


def manifest(suite: str, seed: int, chosen: list[Case], version: int = VERSION) -> dict[str, Any]:
    """Describe a bundle.

    Parameters
    ----------
    suite : str
    seed : int
    chosen : list of Case
    version : int
        Of the suite.

    Returns
    -------
    manifest : dict
    """
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return {
        "schema": SCHEMA,
        "suite": suite,
        **({"version": version} if version > 1 else {}),  # the first said nothing of it
        "seed": seed,
        "sizes": SUITES[suite],
        "generator": {
            "refsnn": __version__,
            "commit": _commit(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
            "python": platform.python_version(),
        },
        "layout": {
            "axes": {
                "spikes": "T, B, N, width",
                "rates": "B, N, width",
                "scores": "B, heads, N, N",
                "weights": "out, in",
            },
            "order": "C (the last axis is contiguous), little-endian",
            "real": "float64",
            "requirement": f"id of the equation, in {PAGE}",
            "unique": UNIQUE,
        },
        "cases": {case.id: _entry(case) for case in chosen},
    }


def _entry(case: Case) -> dict[str, Any]:
    expected = expectation(case)
    kind = "certificate" if case.function in ("neurons", "simulate") else "tolerance"
    by_value = case.dtypes if kind == "tolerance" else ()
    return {
        "file": f"{case.id}.safetensors",
        "level": case.level,
        "note": case.note,
        "function": case.function,
        "requirement": case.requirement,
        "settings": case.settings,
        **_solver(case),
        "unique": {dtype: "exact" if dtype in case.exact else kind for dtype in case.dtypes},
        "outputs": {
            name: {
                "requirement": case.requirement_of(name),
                "scale": expected.scales[name],
                "sensitivity": _short(expected.sensitivity[name]),
                "tolerance": {dtype: _short(expected.tolerance(name, dtype)) for dtype in by_value},
            }
            for name in expected.values
        },
    }


def _solver(case: Case) -> dict[str, Any]:
    """Say what the solvers did in a case with feedback: sweeps of the search, products of the adjoint, residual."""
    if case.function != "gradients" or not case.settings["config"].get("feedback"):
        return {}
    found: dict[str, float] = {}

    def gradients(*arguments: Any) -> dict[str, Any]:
        answer, statistics = reference.solved(*arguments)
        found.update(statistics)
        return answer

    call(SimpleNamespace(gradients=gradients), case, case.inputs, "float64")
    limits = {"search_tolerance": reference.SEARCH["float64"], "adjoint_tolerance": reference.SOLVE["float64"]}
    return {"solver": {**limits, **{name: _short(value) for name, value in found.items()}}}


#: Settings that no formula needs; sizes are the arrays' own.
UNNEEDED = ("initializer_range", "max_position_embeddings", "n_positions", "n_embd", "n_layer", "n_inner")


def _short(x: float) -> float:
    return float(f"{x:.3g}")


def _commit() -> str | None:
    """Return the checkout's commit, where there is one."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _constants(settings: Mapping[str, Any]) -> dict[str, Array]:
    """Flatten the numbers among a case's settings, so that a program needs no JSON."""
    found: dict[str, Array] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _constants(value)
        elif isinstance(value, (int, float)) and not name.endswith("_size") and name not in UNNEEDED:
            found[name] = np.asarray(float(value))
    return found


def _tensors(case: Case) -> dict[str, Array]:
    tensors = {f"input/{name}": value for name, value in case.inputs.items()}
    tensors |= {f"constant/{name}": value for name, value in _constants(case.settings).items()}
    # Networks' spikes are bytes; those of single neurons have their currents' type, for the simplest of readers.
    signed = "polarity" in case.settings.get("config", {})
    kind = (np.int8 if signed else np.uint8) if case.function == "simulate" else np.float64
    return tensors | {f"output/{name}": value.astype(kind) for name, value in expectation(case).values.items()}


def write_bundle(folder: str | os.PathLike, suite: str = "tiny", seed: int = 0, version: int = VERSION) -> int:
    """Write a golden bundle.

    Parameters
    ----------
    folder : path
    suite : {"tiny", "base", "odd", "signed", "gpt"}
    seed : int
    version : int
        Of the suite.

    Returns
    -------
    size : int
        Bytes written.
    """
    folder = new_folder(folder)
    chosen = cases(suite, seed, version)
    paths = [folder / "manifest.json"]
    for case in chosen:
        paths.append(folder / f"{case.id}.safetensors")
        paths[-1].parent.mkdir(exist_ok=True)
        save_tensors(paths[-1], _tensors(case), {"schema": SCHEMA, "case": case.id})
    write_json(paths[0], manifest(suite, seed, chosen, version))  # last: a bundle with a manifest is complete
    return sum(path.stat().st_size for path in paths)


@dataclass(frozen=True)
class Difference:
    """A quantity of a bundle that is not what is computed now.

    Attributes
    ----------
    case, tensor : str
    message : str
    """

    case: str
    tensor: str
    message: str

    def __str__(self) -> str:
        return f"{self.case}, {self.tensor}: {self.message}"


def verify_bundle(folder: str | os.PathLike) -> tuple[int, float, list[Difference]]:
    """Compute a bundle's cases anew and compare every number.

    What the manifest says must be what is said of these cases now, its tolerances too, and the names of cases, files
    and arrays those that belong there. Inputs, constants, exact answers and the spikes of single neurons must be the
    same bits; other values agree within their float64 tolerance, and networks' spikes are certified.

    Parameters
    ----------
    folder : path

    Returns
    -------
    tensors : int
        How many were compared.
    worst : float
        Largest difference in units of its tolerance.
    differences : list of Difference

    Raises
    ------
    InputError
        The folder holds no bundle, one of another schema, or a damaged one.
    """
    folder = existing(folder, "the bundle")
    said = _manifest(folder)
    suite, seed, version = said["suite"], said["seed"], said.get("version", 1)
    chosen = cases(suite, seed, version)
    listed = said["cases"]
    differences = [Difference("manifest", *found) for found in _told(said, manifest(suite, seed, chosen, version))]
    known = {f"{case.id}.safetensors" for case in chosen}
    for path in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")):
        if path not in known:
            differences.append(Difference(path, "file", "belongs to no case"))
    compared, worst = 0, 0.0
    for case in chosen:
        if case.id not in listed:
            continue
        found, about = load_tensors(folder / f"{case.id}.safetensors")
        if about not in ({}, wanted_about := {"schema": SCHEMA, "case": case.id}):  # or said nothing
            differences.append(Difference(case.id, "metadata", f"{about} found, {wanted_about} expected"))
        wanted = _tensors(case)
        for name in sorted(set(found) ^ set(wanted)):
            differences.append(Difference(case.id, name, "not expected" if name in found else "missing"))
        if case.function == "simulate":  # structural ties may fall otherwise on another machine
            spikes = parts(found, "output")
            if wrong := _wrong_spikes(case, spikes):
                differences.append(Difference(case.id, "spikes", wrong))
            compared += len(spikes)
            wanted = {name: value for name, value in wanted.items() if not name.startswith("output/")}
        for name in sorted(set(found) & set(wanted)):
            compared += 1
            ratio, message = _compare(case, name, found[name], wanted[name])
            worst = max(worst, ratio)
            if message:
                differences.append(Difference(case.id, name, message))
    return compared, worst, differences


def _manifest(folder: Path) -> dict[str, Any]:
    """Read a manifest that says what a bundle is to be computed from."""
    path = folder / "manifest.json"
    said = read_json(path)
    if said.get("schema") != SCHEMA:
        raise InputError(f"{folder} holds a bundle of schema {said.get('schema')!r}, but {SCHEMA!r} was expected")
    kinds = {
        "schema": str,
        "suite": Literal["tiny", "base", "odd", "signed", "gpt"],
        "seed": int,
        "cases": dict[str, dict],
    }
    checked(path, said, kinds, "", kinds, closed=False)
    if said.get("version", 1) not in range(1, VERSION + 1):
        raise InputError(
            f"{path}: the suite's version is {said['version']!r:.40}, but this refsnn knows 1 to {VERSION}"
        )
    if said["seed"] < 0:
        raise InputError(f"{path}: the seed is {said['seed']}, but it must be at least 0")
    return said


def _told(said: Any, wanted: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Compare what a manifest says with what it should: tolerances are ours, and every name is there once.

    Yields the place and what is wrong there. What made the bundle may be anything, and the solvers' counts and
    residuals, which rounding decides, are not compared; sensitivities, and the tolerances that follow from them, agree
    to the few digits that they are written with.
    """
    if isinstance(wanted, dict) and isinstance(said, dict):
        for key in sorted(said.keys() | wanted.keys(), key=str):
            where = f"{place}/{key}".lstrip("/")
            if key not in wanted or key not in said:
                yield where, "is not expected" if key in said else "is missing"
            elif where != "generator" and key not in ("sweeps", "products", "residual"):
                yield from _told(said[key], wanted[key], where)
    elif isinstance(wanted, float) and fits(said, float):
        if abs(said - wanted) > 0.02 * abs(wanted):
            yield place, f"is {said}, but {wanted} was expected"
    elif type(said) is not type(wanted) or said != wanted:
        yield place, f"is {str(said)[:60]!r}, but {str(wanted)[:60]!r} was expected"


def _wrong_spikes(case: Case, spikes: Mapping[str, Array]) -> str:
    """Say what is wrong with a network's spikes, or that they cannot be judged; empty where nothing is."""
    try:
        return first_wrong(certified(case, spikes, "float64"))
    except InputError as error:
        return str(error)


def _compare(case: Case, name: str, found: Array, wanted: Array) -> tuple[float, str]:
    group, _, quantity = name.partition("/")
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return 0.0, f"{found.dtype} {found.shape} found, {wanted.dtype} {wanted.shape} expected"
    if group != "output" or "float64" in case.exact or case.function == "neurons":
        same = np.array_equal(found, wanted)
        return 0.0, "" if same else f"{int((found != wanted).sum())} of {wanted.size} entries differ, all must agree"
    expected = expectation(case)
    off = float(np.abs(found - wanted).max(initial=0)) / expected.scales[quantity]
    ratio = off / expected.tolerance(quantity, "float64")
    ok = bool(ratio <= 1)
    return ratio, "" if ok else f"differs by {off:.1e} of its scale, {ratio:.2g} times the tolerance"
