"""How many small faults do the tests find? `make mutants` samples some, and prints which live.

    python reference_tests/mutants.py --count 40 --seed 0 [--only readings/simulate]

A mutant is the package with one operator, comparison or constant of a core module changed. The tests of that module run
on a copy of the checkout; a mutant that they all pass lives, and wants a test, unless it is the same program by another
name.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Module -> the files of tests that are about it.
TESTS = {
    "ops/attention.py": "test_ops.py",
    "ops/rounding.py": "test_rounding.py test_accelerators.py test_certify.py",
    "model/neurons.py": "test_neurons.py",
    "model/projections.py": "test_network.py test_implicit.py test_rounding.py",
    "model/network.py": "test_network.py test_values.py",
    "readings/rate_map.py": "test_implicit.py test_network.py",
    "readings/equilibrium.py": "test_implicit.py",
    "readings/adjoint.py": "test_implicit.py",
    "readings/implicit.py": "test_implicit.py",
    "readings/simulate.py": "test_network.py test_conformance.py",
    "readings/certify.py": "test_certify.py",
    "readings/energy.py": "test_energy.py",
    "distillation/optim.py": "test_training.py test_conformance.py",
    "distillation/student.py": "test_implicit.py test_conformance.py",
    "conformance/judge.py": "test_conformance.py test_fooled.py",
    "conformance/ask.py": "test_fooled.py",
    "conformance/difference.py": "test_difference.py",
}

SWAPS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
    ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def changes(node):
    """Yield what may be done to one node: (what it is called, a function that does it in place)."""
    if isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in SWAPS:
        new = SWAPS[type(node.op)]
        yield f"{type(node.op).__name__} → {new.__name__}", lambda n: setattr(n, "op", new())
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        new = SWAPS[type(node.ops[0])]
        yield f"{type(node.ops[0]).__name__} → {new.__name__}", lambda n: n.ops.__setitem__(0, new())
    elif isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
        value = (not node.value) if type(node.value) is bool else node.value + 1
        yield f"{node.value} → {value}", lambda n: setattr(n, "value", value)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        name = type(node.op).__name__
        yield f"{name} gone", lambda n: setattr(n, "op", ast.UAdd() if name == "USub" else ast.Not())


def mutants(source):
    """Every mutant of a module: (line, what was changed, its source)."""
    tree = ast.parse(source)
    found = []
    for place, node in enumerate(ast.walk(tree)):
        for name, change in changes(node):
            if name == "Not gone":
                continue  # `not x` has no operator that leaves x alone
            mutated = copy.deepcopy(tree)
            change(next(other for i, other in enumerate(ast.walk(mutated)) if i == place))
            found.append((getattr(node, "lineno", 0), name, mutated))
    return found


def outcome(folder, module, source, timeout):
    """Run a module's tests on a mutant: "killed", "crashed" (no assertion failed), "slow" or "LIVES"."""
    path = folder / "refsnn" / module
    before = path.read_text(encoding="utf-8")
    path.write_text(source, encoding="utf-8")
    files = [f"reference_tests/{name}" for name in TESTS[module].split()]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", "-m", "not slow"]
    env = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    try:
        ran = subprocess.run([*command, *files], cwd=folder, env=env, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return "slow"
    finally:
        path.write_text(before, encoding="utf-8")
    if ran.returncode == 0:
        return "LIVES"
    return "killed" if "AssertionError" in ran.stdout or "DID NOT RAISE" in ran.stdout else "crashed"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=40, help="mutants (default: 40)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="modules whose path contains this")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for the tests of one (default: 600)")
    options = parser.parse_args()
    modules = [module for module in TESTS if options.only in module and (ROOT / "refsnn" / module).exists()]
    every = [(m, *mutant) for m in modules for mutant in mutants((ROOT / "refsnn" / m).read_text(encoding="utf-8"))]
    chosen = random.Random(options.seed).sample(every, min(options.count, len(every)))
    counts = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "checkout"
        skipped = shutil.ignore_patterns(".git", ".venv*", "_build", "__pycache__", "runs")
        shutil.copytree(ROOT, folder, ignore=skipped)
        for module, line, name, tree in sorted(chosen, key=lambda mutant: mutant[:3]):
            found = outcome(folder, module, ast.unparse(tree), options.timeout)
            counts[found] = counts.get(found, 0) + 1
            print(f"{found:<8} {module}:{line:<5} {name}", flush=True)
    caught = sum(n for found, n in counts.items() if found != "LIVES")
    print(f"\n{caught} of {len(chosen)} caught ({', '.join(f'{n} {found}' for found, n in counts.items())}); "
          "look at each that lives: it wants a test, or is the same program by another name")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
