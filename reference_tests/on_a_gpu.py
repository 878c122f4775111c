"""The conformance kit on the GPU at hand, in a few minutes: the PyTorch and JAX adapters, every precision, every suite.

    python reference_tests/on_a_gpu.py [--device cuda] [--out results]

Prints the lines of docs/conformance-results.md. With no GPU it says so and does nothing; `--device cpu` tries it
without.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: Adapter, suite, precisions, settings: cheap and telling ones first.
RUNS = (
    ("backends.torch_backend", "tiny", ("float64", "float32", "bfloat16", "float16", "tf32"), {}),
    ("backends.torch_backend", "odd", ("float32", "tf32"), {}),
    ("backends.torch_backend", "base", ("float32",), {}),
    ("backends.torch_backend", "tiny", ("float32",), {"REFSNN_FORCE_TF32": "1"}),  # claimed, and not kept: must fail
    ("backends.jax_backend", "tiny", ("float32",), {}),
)


def device_name(device: str) -> str:
    """What the device is called; empty where there is none."""
    if device == "cpu":
        return "CPU"
    try:
        import torch
    except ImportError:
        return ""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""


def run(adapter: str, suite: str, dtypes, settings, device: str, out: Path) -> list[str]:
    """Put a suite to an adapter; the lines of the table, one a precision."""
    path = out / f"{adapter.rpartition('.')[2]}-{suite}{'-forced' if settings else ''}.json"
    command = [sys.executable, "-m", "refsnn", "conform", adapter, "--suite", suite, "--json", str(path), "--jobs", "4"]
    env = os.environ | {"REFSNN_DEVICE": device, "OMP_NUM_THREADS": "1", **settings}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH")]))
    ran = subprocess.run([*command, "--dtype", *dtypes], env=env, capture_output=True, text=True, cwd=HERE)
    if not path.exists():
        return [f"| {adapter} | {suite} | {', '.join(dtypes)} | not run: {ran.stderr.strip().splitlines()[-1]} | |"]
    report = json.loads(path.read_text(encoding="utf-8"))
    lines = []
    for dtype in dtypes:
        own = [r for r in report["results"] if r["dtype"] == dtype]
        failed = [r["case"] for r in own if r["status"] == "failed"]
        passed = sum(r["status"] == "passed" for r in own)
        about = (
            f"{adapter}{' (TF32 left on)' if settings else ''} | v{report['version']} {suite} {report['cases_hash']}"
        )
        undecided = max((r["undecidable"] for r in own), default=0.0)
        lines.append(f"| {about} | {dtype} | {passed} of {len(own)} | {' '.join(failed)} | {undecided:.1%} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try it (default: cuda)")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder for the JSON reports")
    options = parser.parse_args()
    name = device_name(options.device)
    if not name:
        print("no GPU that PyTorch can use is here; nothing was tested")
        return 2
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    print(f"device: {name}\n\n| backend | suite, hash | precision | passed | failed by id | undecidable, at most |")
    print("|---|---|---|---|---|---|", flush=True)
    for adapter, suite, dtypes, settings in RUNS:
        print("\n".join(run(adapter, suite, dtypes, settings, options.device, out)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
