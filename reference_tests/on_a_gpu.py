"""The conformance kit on the GPU at hand, in under five minutes: PyTorch's and JAX's adapters, every precision.

    python reference_tests/on_a_gpu.py [--device cuda] [--out results] [--suite tiny]

Prints the lines of docs/conformance-results.md and writes them to results/table.md, beside a JSON report of each run. A
run that fails or takes too long is one line, and the others go on. With no GPU it says so and does nothing; `--device
cpu` tries it without.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

HERE = Path(__file__).resolve().parent


class Run(NamedTuple):
    """One ``refsnn conform``."""

    name: str  #: of its report
    adapter: str
    dtypes: tuple[str, ...]
    suite: str = "tiny"
    only: str = "*"  #: pattern of the cases
    settings: Mapping[str, str] = MappingProxyType({})  #: of the adapter, by environment
    about: str = ""  #: what these are, in words


COMPILE = {"REFSNN_COMPILE": "1"}
#: Cheap and telling ones first. What leaves TF32 on claims a precision that it does not keep, and must fail.
RUNS = (
    Run("torch-tiny", "torch_backend", ("float64", "float32", "bfloat16", "float16", "tf32")),
    Run("torch-forced", "torch_backend", ("float32",), settings={"REFSNN_FORCE_TF32": "1"}, about="TF32 left on"),
    Run("torch-odd", "torch_backend", ("float32", "tf32"), "odd"),
    Run("torch-compiled", "torch_backend", ("float32",), "tiny", "rate_map/*", COMPILE, "torch.compile"),
    Run("jax-compiled", "jax_backend", ("float32",), "tiny", "[rg]*", COMPILE, "jit"),  # rate maps and gradients
    Run("jax-tiny", "jax_backend", ("float32",)),
    Run("torch-base", "torch_backend", ("float32",), "base"),
)
#: Seconds that one run may take, and all of them.
EACH, ALL = 75.0, 270.0
#: Seconds in which a run that is told to end writes what it has.
LAST = 10.0


def device_name(device: str) -> str:
    """What the device is called; empty where there is none."""
    if device == "cpu":
        return "CPU"
    try:
        import torch
    except ImportError:
        return ""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""


def descendants(pid: int) -> list[int]:
    """All processes that one has started, and those that they have: adapters run in sessions of their own."""
    found = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, listed.read_text().split()):
                found += [child, *descendants(child)]
    return found


def ended(command: list[str], env: dict[str, str], seconds: float) -> tuple[str, bool]:
    """Run a command; what it wrote to standard error, and whether it had to be stopped."""
    with tempfile.TemporaryFile("w+") as said:  # no pipe: who is left of a run would keep it open
        process = subprocess.Popen(command, env=env, cwd=HERE, stdout=subprocess.DEVNULL, stderr=said)
        stopped = False
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            stopped = True
            process.send_signal(signal.SIGINT)  # it then reports what it has judged
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LAST)
            for pid in [process.pid, *descendants(process.pid)] if process.poll() is None else []:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        return said.read(), stopped


def lines_of(run: Run, device: str, out: Path, seconds: float) -> list[str]:
    """Put a suite to an adapter; the lines of the table, one a precision."""
    called = f"{run.adapter}{f' ({run.about})' if run.about else ''}"
    path = out / f"{run.name}.json"
    command = [sys.executable, "-m", "refsnn", "conform", f"backends.{run.adapter}", "--suite", run.suite]
    command += ["--only", run.only, "--json", str(path), "--jobs", "4", "--dtype", *run.dtypes]
    env = os.environ | {"REFSNN_DEVICE": device, "OMP_NUM_THREADS": "1", **run.settings}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH")]))
    path.unlink(missing_ok=True)  # an earlier one would pass for this run's
    began = time.monotonic()
    said, stopped = ended(command, env, seconds)
    took = f"{time.monotonic() - began:.0f} s{', stopped' if stopped else ''}"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        lines = said.strip().splitlines() or ["it wrote no report"]
        why = next((line for line in lines if line.startswith("refsnn: ")), lines[-1]).replace("|", "/")
        return [f"| {called} | {run.suite} | {', '.join(run.dtypes)} | not run: {why:.300} | | | {took} |"]
    asked = f"v{report['version']} {run.suite}{'' if run.only == '*' else f' {run.only}'} {report['cases_hash']}"
    lines = []
    for dtype in run.dtypes:
        own = [r for r in report["results"] if r["dtype"] == dtype]
        failed = " ".join(r["case"] for r in own if r["status"] == "failed")
        passed = sum(r["status"] == "passed" for r in own)
        undecided = max((r["undecidable"] for r in own), default=0.0)
        lines.append(f"| {called} | {asked} | {dtype} | {passed} of {len(own)} | {failed} | {undecided:.1%} | {took} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try it (default: cuda)")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder for the reports")
    parser.add_argument("--suite", help="only the runs of this suite")
    parser.add_argument("--each", type=float, default=EACH, help="seconds for one run (default: %(default)g)")
    parser.add_argument("--all", type=float, default=ALL, help="seconds for all of them (default: %(default)g)")
    options = parser.parse_args()
    device = device_name(options.device)
    if not device:
        print("no GPU that PyTorch can use is here; nothing was tested")
        return 2
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    table = ["| backend | suite, cases, hash | precision | passed | failed by id | undecidable, at most | took |"]
    table += ["|---|---|---|---|---|---|---|"]
    print("\n".join([f"device: {device}", "", *table]), flush=True)
    end = time.monotonic() + options.all
    for run in RUNS:
        if options.suite not in (None, run.suite):
            continue
        left = min(options.each, end - time.monotonic())
        if left < LAST:
            lines = [f"| {run.adapter} | {run.suite} | {', '.join(run.dtypes)} | not run: no time is left | | | |"]
        else:
            lines = lines_of(run, options.device, out, left)
        print("\n".join(lines), flush=True)
        table += lines
        (out / "table.md").write_text("\n".join([f"Device: {device}", "", *table, ""]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
