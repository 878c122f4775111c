"""How many small faults do the tests find? `make mutants` samples some, and prints which live.

    python reference_tests/mutants.py --count 40 --seed 0 [--only readings/ --only optim]

A mutant is the package with one operator, comparison or constant of a core module changed. The tests and the examples
of that module run on a copy of the checkout, the fastest first, until one fails. A mutant that they all pass lives: it
wants a test, unless it is the same program by another name, as those in `SAME` are.

    caught    a test failed, or the mutant ran so long that it was stopped
    same      a mutant of `SAME`, which is not run
    LIVES     every test passed
"""

import argparse
import ast
import collections
import copy
import importlib
import json
import math
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import hypothesis
import pytest
from hypothesis import Phase

ROOT = Path(__file__).resolve().parents[1]

#: Module -> the tests that are about it, by file or by name; the examples in its own docstrings run as well.
TESTS = {
    "ops/attention.py": "test_ops.py",
    "ops/dense.py": "test_ops.py",
    "ops/fast.py": "test_ops.py",
    "ops/losses.py": "test_ops.py",
    "ops/rounding.py": "test_rounding.py test_certify.py",
    "model/batch.py": "test_batch.py test_network.py test_inputs.py",
    "model/dropout.py": "test_network.py",
    "model/families.py": "test_network.py test_energy.py test_inputs.py",
    "model/network.py": "test_network.py test_values.py test_inputs.py",
    "model/gpt.py": "test_gpt.py test_language.py",
    "model/neurons.py": "test_neurons.py test_inputs.py",
    "model/parameters.py": "test_network.py test_inputs.py test_cores.py",
    "model/projections.py": (
        "test_inputs.py test_network.py test_implicit.py test_rounding.py test_energy.py test_gpt.py"
    ),
    "model/shapes.py": "test_network.py test_inputs.py test_architectures.py",
    "model/student.py": "test_initialise.py test_checkpoints.py test_inputs.py",
    "readings/adjoint.py": "test_implicit.py test_inputs.py",
    "readings/certify.py": "test_certify.py test_inputs.py test_certify_gpt.py",
    "readings/energy.py": "test_energy.py test_inputs.py test_energy_gpt.py",
    "readings/equilibrium.py": "test_implicit.py test_inputs.py",
    "readings/implicit.py": "test_implicit.py test_inputs.py",
    "readings/inputs.py": "test_inputs.py",
    "readings/rate_map.py": "test_implicit.py test_network.py test_inputs.py",
    "readings/simulate.py": (
        "test_network.py test_inputs.py test_cores.py "
        "test_initialise.py::test_currents_of_one_population_are_those_of_the_simulation "
        "test_training.py::test_firing_rates_are_those_of_the_spikes_of_real_tokens"
    ),
    "readings/solution.py": "test_implicit.py test_inputs.py",
    "data/language.py": "test_language.py",
    "distillation/initialise.py": "test_initialise.py",
    "distillation/initialise_gpt.py": "test_language.py",
    "distillation/language.py": "test_language.py",
    "distillation/optim.py": "test_training.py::test_bert_adam_follows_its_formula test_errata.py test_process.py",
    "distillation/student.py": "test_student.py test_errata.py",
    "evaluation/generate.py": "test_language.py test_gpt_pages.py",
    "evaluation/ngrams.py": "test_language.py",
    "evaluation/perplexity.py": "test_language.py",
    "storage/gpt2.py": "test_gpt.py",
    "conformance/ask.py": "test_fooled.py",
    "conformance/difference.py": "test_difference.py",
    "conformance/judge.py": "test_conformance.py test_fooled.py",
    "parallel.py": "test_process.py",
}

#: Mutants that are the same program: (module, the line without its indentation, the change) -> why.
SAME = {
    (
        "data/language.py",
        "if tokenizer.decode(tokenizer.encode(PROBE, add_special_tokens=False).ids) != PROBE:",
        "False → True",
    ): "what a tokenizer adds around a text is skipped when it is decoded",
    (
        "evaluation/perplexity.py",
        "nats, likeliest = by_batches(examples, partial(_by_rates, network), params, 512, 0, label)",
        "0 → 1",
    ): "whatever stands in padding is not read",
    (
        "evaluation/generate.py",
        "logits: Array = next_token_logits(params, rates if keep_all else rates[:, -1:])[0][0]",
        "1 → 2",
    ): "one row more, and the last is read",
    ("ops/fast.py", "guarded = ~((total[..., 0] >= 1) & (total[..., 0] < 1e30))  # NaN too", "Lt → LtE"): (
        "a sum of exactly 1e30 is divided by as well as it is guarded"
    ),
    ("ops/rounding.py", "centred = x.value - mean(x.value)", "Sub → Add"): (
        "the mean of what is left is subtracted next, whatever it is"
    ),
    (
        "readings/adjoint.py",
        "if operator.trace[-1] <= tolerance or not operator.trace[-1] <= 1e12:",
        "1000000000000.0 → 1000000000001.0",
    ): "a series that diverges passes one limit as soon as the other",
    ("readings/certify.py", "times = np.arange(1.0, len(current) + 1)", "1 → 2"): "only the first time is read",
    ("readings/certify.py", "close |= (np.abs(under) <= bound) & back", "LtE → Lt"): (
        "no rounded potential is off by exactly its bound"
    ),
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


def mutants(tree):
    """Every mutant of a module's tree: (line, column, what is changed, the node's number, that of its change)."""
    return [
        (getattr(node, "lineno", 0), getattr(node, "col_offset", 0), name, place, which)
        for place, node in enumerate(ast.walk(tree))
        for which, (name, _) in enumerate(changes(node))
        if name != "Not gone"  # `not x` has no operator that leaves x alone
    ]


def mutated(tree, place, which):
    """Source of a mutant."""
    tree = copy.deepcopy(tree)
    node = next(node for i, node in enumerate(ast.walk(tree)) if i == place)
    list(changes(node))[which][1](node)
    return ast.unparse(tree)


class Fastest:
    """A plugin of pytest: it runs the fastest tests first, and notes how long each takes and which one fails first."""

    def __init__(self, times):
        self.known, self.seen, self.failed = times, collections.Counter(), None

    def pytest_collection_modifyitems(self, items):
        # By powers of four of the time, and within each in the files' order, so that what they share is made seldom.
        items.sort(key=lambda item: round(math.log(max(self.known.get(item.nodeid, 1.0), 1e-3), 4)))

    def pytest_collectreport(self, report):
        if report.failed:
            self.failed = self.failed or report.nodeid

    def pytest_runtest_logreport(self, report):
        self.seen[report.nodeid] += report.duration
        if report.failed:
            self.failed = self.failed or report.nodeid


def tested(folder, arguments, times, answer):
    """Run pytest in this process, a child, on a copy of the checkout; write down what the plugin noted."""
    output = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1), os.dup2(output, 2)
    os.chdir(folder)
    sys.path[:0] = [str(folder)]
    os.environ["PYTHONPATH"] = str(folder)  # of what tests start
    # A failure is enough: a smaller example of it costs time and changes nothing.
    hypothesis.settings.register_profile("mutants", phases=(Phase.explicit, Phase.generate), database=None)
    hypothesis.settings.load_profile("mutants")
    plugin = Fastest(times)
    code = int(pytest.main(arguments, [plugin]))
    answer.write_text(json.dumps([code, plugin.failed, plugin.seen]), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)


class Checkout:
    """A copy of the checkout in which modules are broken and their tests run."""

    def __init__(self, folder, timeout=None):
        self.folder, self.timeout = folder, timeout
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", ".venv*", "_build", "__pycache__", "runs"))
        self.files = {}  # what was run without a fault -> how long that took
        self.times = {}  # test -> seconds
        self.alone = {}  # test that failed of a mutant -> whether it passes without one, alone

    def run(self, tests, timeout=None, without=()):
        """Run tests in a fork of this process, which has imported what all of them need.

        Return pytest's exit code and the test that failed; None and a reason where it did not come to its end.
        """
        answer = self.folder / "answer.json"
        answer.unlink(missing_ok=True)
        arguments = ["-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-m", "not slow", *tests]
        arguments += [f"--deselect={test}" for test in without]
        fork = multiprocessing.get_context("fork")
        child = fork.Process(target=tested, args=(self.folder, arguments, self.times, answer))
        child.start()
        child.join(timeout)
        if child.exitcode is None:
            child.kill()
            child.join()
            return None, "stopped: too slow"
        if not answer.exists():
            return None, "the process ended"
        code, failed, seen = json.loads(answer.read_text(encoding="utf-8"))
        self.times = {**seen, **self.times}
        return code, failed

    def ready(self, tests):
        """Run tests without a fault where that was not done: those that fail anyway say nothing. Return the seconds."""
        for test in tests:
            if test not in self.files:
                start = time.monotonic()
                code, failed = self.run([test])
                if code not in (0, 5):  # 5: a module without examples
                    said = (self.folder / "said.txt").read_text(encoding="utf-8", errors="replace")
                    sys.exit(f"{failed or test} fails without any fault:\n{said}")
                self.files[test] = time.monotonic() - start
        return sum(self.files[test] for test in tests)

    def outcome(self, module, source):
        """Run a module's tests on a mutant: "caught" or "LIVES", and the test that failed."""
        tests = [f"refsnn/{module}", *(f"reference_tests/{name}" for name in TESTS[module].split())]
        seconds = self.ready(tests)
        limit = self.timeout or 60 + 4 * seconds
        path = self.folder / "refsnn" / module
        before = path.read_text(encoding="utf-8")
        while True:
            self.write(path, source)
            try:
                code, failed = self.run(tests, limit, [test for test, passes in self.alone.items() if not passes])
            finally:
                self.write(path, before)
            if code == 0:
                return "LIVES", ""
            if code is None or failed is None or failed in tests:  # it hangs, or cannot even be imported
                return "caught", failed or "pytest ended"
            # A test may depend on those before it, and their order is another one here: then it says nothing.
            if failed not in self.alone:
                self.alone[failed] = self.run([failed])[0] == 0
            if self.alone[failed]:
                return "caught", failed

    def write(self, path, source):
        """Change a module, and forget its bytecode, which a change of the same length in the same second would keep."""
        path.write_text(source, encoding="utf-8")
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
            compiled.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=40, help="mutants (default: 40)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], help="modules whose path contains this; may be repeated")
    parser.add_argument("--timeout", type=float, help="seconds for one (default: 60, and four times the sound tests')")
    options = parser.parse_args()
    modules = [module for module in TESTS if not options.only or any(part in module for part in options.only)]
    sources = {module: (ROOT / "refsnn" / module).read_text(encoding="utf-8") for module in modules}
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    for name in ("numpy", "scipy.special", "scipy.sparse.linalg", "hypothesis.strategies"):
        importlib.import_module(name)  # once, for all tests of all mutants
    trees = {module: ast.parse(source) for module, source in sources.items()}
    every = [(module, *mutant) for module, tree in trees.items() for mutant in mutants(tree)]
    chosen = random.Random(options.seed).sample(every, min(options.count, len(every)))
    counts = collections.Counter()
    with tempfile.TemporaryDirectory() as temporary:
        checkout = Checkout(Path(temporary) / "checkout", options.timeout)
        for module, line, column, name, *at in sorted(chosen):
            text = sources[module].splitlines()[line - 1].strip() if line else ""
            if (module, text, name) in SAME:
                found, why = "same", SAME[module, text, name]
            else:
                found, why = checkout.outcome(module, mutated(trees[module], *at))
            counts[found] += 1
            print(f"{found:<6} {module}:{line}:{column:<4} {name:<14} {text if found == 'LIVES' else why}", flush=True)
    other = len(chosen) - counts["same"]
    print(f"\n{counts['caught']} of {other} caught ({100 * counts['caught'] / max(other, 1):.1f} %), "
          f"{counts['same']} the same program, {counts['LIVES']} alive; seed {options.seed}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
