"""Damaged files and nearly right options: every command answers with status 0 or 2, and with one sentence.

    python reference_tests/fuzz.py --trials 4000          # or: make fuzz

A trial copies a small workspace (a run, its teacher and data, a spike record, a golden bundle, a plan, …), damages one
file that a command reads or one option that it takes, and runs the command in a child process with little memory and
time. Everything follows from the seed and the trial's number: ``--only N`` repeats one, and says what it did.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent

#: Values that a file or an option should not have, or only just may.
NUMBERS = [-1, 0, 1, 2, 3, 10**9, 10**22, -(10**22), 0.5, -0.5, 1e308, 1e-320]
HOSTILE = [None, True, False, *NUMBERS, "", "x", "ü\u0000", "../..", "[a-z]*", "x" * 10000, [], {}, [None], {"": 0}]
RAW = ["NaN", "Infinity", "1e400", "9" * 5000, "[" * 100000, '{"a":' * 50000, '"\\ud800"']
WORDS = ["", "-1", "0", "1", "3", "nan", "inf", "1e9", "1000000000", "9" * 22, "9" * 5000, "x", "nowhere", ".", "run"]
WORDS += ["bert", "data", "record.safetensors", "data/dev.tsv", "empty", "x" * 5000, "a\nb", "ü", "*", "run[1]", "hub"]
#: Of text: what spreadsheets, editors and transfers do to it.
TEXT = ["", "\ufeff", "\r\n", "\n\n", "\t", '"', ",", "\0", "\x1b[2J", "x\t" * 50, "ü" * 200000, "\u2028", "\n" * 1000]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"

#: Seconds and bytes that a command may take.
LIMIT, MEMORY = 60, 6 << 30


# ---------------------------------------------------------------------------------------------------------------------
# Damage


def damage_json(path: Path, rng: random.Random) -> str:
    """Change one entry of a JSON file, somewhere."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        lines = text.splitlines()
        at = rng.randrange(len(lines))
        said, lines[at] = _damaged_value(json.loads(lines[at]), rng)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return f"line {at + 1}: {said}"
    said, text = _damaged_value(json.loads(text), rng)
    path.write_text(text, encoding="utf-8")
    return said


def _damaged_value(value: Any, rng: random.Random) -> tuple[str, str]:
    places: list[tuple[Any, Any, str]] = [({"": value}, "", "the whole")]

    def walk(inner: Any, where: str) -> None:
        for key in inner if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ():
            places.append((inner, key, f"{where}/{key}"))
            walk(inner[key], f"{where}/{key}")

    walk(value, "")
    # Half of all changes are near the top: tensors' names and log lines are many.
    holder, key, where = rng.choice(places[: max(2, len(places) // 8)] if rng.random() < 0.5 else places)
    root = places[0][0]
    act = rng.randrange(4)
    if act == 0 and isinstance(holder, dict) and holder is not root:
        del holder[key]
        return f"{where} is left out", json.dumps(root[""])
    if act == 1 and isinstance(holder[key], dict):
        holder[key]["surplus"] = rng.choice(HOSTILE)
        return f"{where} has a surplus entry", json.dumps(root[""])
    if act == 2:
        holder[key] = "@@"
        raw = rng.choice(RAW)
        return f"{where} is {raw[:30]}", json.dumps(root[""]).replace('"@@"', raw)
    holder[key] = rng.choice(HOSTILE)
    return f"{where} is {str(holder[key])[:30]!r}", json.dumps(root[""])


def damage_text(path: Path, rng: random.Random) -> str:
    """Put something into a text file, take something out, or do so to one of its lines."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    at, what, row = rng.randrange(len(text) + 1), rng.choice(TEXT), rng.randrange(len(lines))
    act = rng.randrange(6)
    if act == 0:
        said, text = f"{what[:10]!r} at {at}", text[:at] + what + text[at:]
    elif act == 1:
        said, text = f"line {row + 1} is left out", "".join(lines[:row] + lines[row + 1 :])
    elif act == 2:
        said, text = f"line {row + 1} is there twice", "".join([*lines[: row + 1], *lines[row:]])
    elif act == 3:
        fields = lines[row].rstrip("\n").split("\t")
        fields = fields[:-1] if rng.random() < 0.5 else [*fields, "surplus"]
        said, text = (
            f"line {row + 1} has {len(fields)} fields",
            "".join([*lines[:row], "\t".join(fields) + "\n", *lines[row + 1 :]]),
        )
    elif act == 4:
        said, text = (
            f"line {row + 1} begins with {what[:10]!r}",
            "".join([*lines[:row], what + lines[row], *lines[row + 1 :]]),
        )
    else:
        words = re.findall(r"\w+", text)
        old, new = rng.choice(words), rng.choice(WORDS)
        said, text = f"{old} is {new[:10]!r}", text.replace(old, new, 1)
    path.write_text(text, encoding="utf-8", newline="")
    return said


def damage_bytes(path: Path, rng: random.Random) -> str:
    """Cut a file, fill it with something else, or change a byte."""
    data, act = path.read_bytes(), rng.randrange(8)
    at = rng.randrange(len(data)) if data else 0
    if act == 0:
        said, data = f"cut after {at} bytes", data[:at]
    elif act == 1:
        said, data = "empty", b""
    elif act == 2:
        said, data = "a pointer of Git LFS", POINTER.encode()
    elif act == 3:
        said, data = "random bytes", rng.randbytes(1000)
    elif act == 4:
        said, data = "not UTF-8", data[:at] + b"\xff\xfe\x00" + data[at:]
    elif act == 5:
        said, data = "a byte order mark first", b"\xef\xbb\xbf" + data
    elif act == 6:
        said, data = "JSON's null", b"null"
    else:
        said, data = f"byte {at} is another", data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    path.write_bytes(data)
    return said


def damage_place(path: Path, rng: random.Random) -> str:
    """Put something else than a file in a file's place."""
    path.unlink()
    act = rng.randrange(4)
    if act == 0:
        return "missing"
    if act == 1:
        path.mkdir()
        return "a folder"
    if act == 2:
        path.symlink_to("nowhere")
        return "a link to nothing"
    path.write_bytes(b"")
    path.chmod(0)
    return "not to be read"


def damage_tensors(path: Path, rng: random.Random) -> str:
    """Change one tensor, or the header, of a safetensors file; or one array of an .npz."""
    from safetensors.numpy import load, save

    if path.suffix == ".npz":
        arrays = dict(np.load(path))
        said = _damaged_array(arrays, rng)
        np.savez(path, **arrays)
        return said
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    if rng.random() < 0.4:
        said, text = _damaged_value(json.loads(data[8 : 8 + size]), rng)
        header = text.encode("utf-8", "replace")
        path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
        return f"header: {said}"
    arrays = load(data)
    said = _damaged_array(arrays, rng)
    metadata = json.loads(data[8 : 8 + size]).get("__metadata__")
    path.write_bytes(save({name: np.ascontiguousarray(value) for name, value in arrays.items()}, metadata))
    return said


def _damaged_array(arrays: dict[str, Any], rng: random.Random) -> str:
    name = rng.choice(sorted(arrays))
    value, act = arrays[name], rng.randrange(9)
    if act == 0:
        del arrays[name]
        return f"{name} is left out"
    if act == 1:
        arrays[f"{name}.surplus"] = value
        return f"{name} is there under two names"
    if act == 2:
        arrays[name] = value.reshape(-1)[:31]
        return f"{name} has 31 numbers"
    if act == 3:
        arrays[name] = value[None]
        return f"{name} has an axis more"
    if act == 4:
        arrays[name] = np.zeros_like(value, dtype=rng.choice([np.int64, np.bool_, np.float64, np.float16, np.uint8]))
        return f"{name} is of type {arrays[name].dtype}"
    if act == 5 and value.dtype.kind == "f" and value.size:
        arrays[name] = value.copy()
        arrays[name].flat[rng.randrange(value.size)] = rng.choice([np.nan, np.inf, -np.inf])
        return f"{name} holds what is not finite"
    if act == 6:
        arrays[name] = value[:0]
        return f"{name} is empty"
    if act == 7:
        arrays[name] = value.T
        return f"{name} is transposed"
    with np.errstate(all="ignore"):
        arrays[name] = (value * np.array(1e30)).astype(value.dtype)
    return f"{name} is huge"


KINDS: dict[str, list[Callable[[Path, random.Random], str]]] = {
    ".json": [damage_json, damage_json, damage_json, damage_bytes, damage_place],
    ".jsonl": [damage_json, damage_json, damage_bytes],
    ".safetensors": [damage_tensors, damage_tensors, damage_bytes, damage_place],
    ".npz": [damage_tensors, damage_tensors, damage_bytes, damage_place],
    ".bin": [damage_bytes, damage_place],
}
OTHER = [damage_text, damage_text, damage_text, damage_bytes, damage_place]


# ---------------------------------------------------------------------------------------------------------------------
# The workspace, and what is run in it


@dataclass(frozen=True)
class Case:
    """A command that works, and the files that it reads.

    Attributes
    ----------
    words : list of str
    files : list of str
        Patterns within the workspace.
    status : tuple of int
        What it may end with: 1 is for verdicts alone.
    weight : float
        How often it is drawn; slow commands less often.
    """

    words: list[str]
    files: list[str]
    status: tuple[int, ...] = (0, 2)
    weight: float = 1.0


QUICK = "--max-length 16 --epochs-teacher 1 --epochs-general 1 --epochs-internal 1 --epochs-prediction 1".split()
DISTILL = ["distill", "--task", "sst2", "--data", "data", "--teacher", "bert", "--encoders", "2", *QUICK]
RUN = ["run/run.json", "run/config.json", "run/model.safetensors", "run/vocab.txt"]
TEACHER = ["run/teacher/config.json", "run/teacher/model.safetensors"]
DEV = ["data/dev.tsv"]
UNFINISHED = ["*.json*", "stages/*", "teacher/*"]
CASES = [
    Case(["predict", "run", "the film is good", "--t-conv", "4"], RUN),
    Case(["predict", "run", "--file", "texts.txt", "--json"], ["texts.txt"]),
    Case(["evaluate", "run", "--t-conv", "2", "4", "--samples", "6"], [*RUN, *TEACHER, *DEV]),
    Case(["evaluate", "run", "--t-conv", "2", "--energies", "energies.json"], ["energies.json"], weight=0.5),
    Case(
        ["evaluate", "run", "--t-conv", "2", "--rule", "running"],
        ["run/log.jsonl", "run/timings.json", "run/results-inst.json"],
        weight=2,
    ),
    Case(["sweep", "run", "--over", "t", "--t-conv", "2", "4"], ["run/sweep.json", *RUN, *TEACHER, *DEV]),
    Case(["inspect", "run", "--text", "the film is good", "--t-conv", "4", "--out", "page.html"], [*RUN, *TEACHER]),
    Case(["submit", "run", "--out", "answers.tsv"], [*RUN, "data/test.tsv"]),
    Case(["record", "run", "--out", "new.safetensors", "--samples", "1", "--t-conv", "4"], [*RUN, *DEV]),
    Case(["certify", "record.safetensors", "--json", "verdicts.json"], ["record.safetensors"], (0, 1, 2), 3),
    Case(["golden", "verify", "golden"], ["golden/manifest.json", "golden/*.safetensors"], (0, 1, 2), 0.3),
    Case(
        ["conform", "adapter", "--only", "neurons/*", "--skips", "skips.txt", "--xfails", "xfails.txt"],
        ["skips.txt", "xfails.txt", "adapter.py"],
        (0, 1, 2),
        0.5,
    ),
    Case(["evaluate", "teacher", "--data", "data"], ["teacher/*", *DEV]),
    Case(["parity", "case.npz"], ["case.npz"], (0, 1, 2)),
    Case([*DISTILL, "--out", "new"], ["data/train.tsv", "bert/*"], weight=2),
    Case([*DISTILL, "--corpus", "corpus.txt", "--out", "new"], ["corpus.txt"], weight=0.5),
    Case([*DISTILL, "--out", "unfinished"], [f"unfinished/{f}" for f in UNFINISHED], weight=2),
    Case(
        ["distill", "--labels", "low", "high", "--data", "own", "--columns", "sentence=text", "label=mood"]
        + ["--teacher", "bert", "--encoders", "1", *QUICK, "--out", "new"],
        ["own/train.csv"],
    ),
    Case(["reproduce", "--config", "plan.toml", "--out", "plan", "--data", "glue", "--teacher", "bert"]
         + ["--corpus", "corpus.txt"], ["plan.toml"], weight=0.5),
    Case(["convert", "run", "authors", "--to", "authors"], RUN),
    Case(["convert", "authors-run", "new", "--to", "refsnn", "--task", "sst2"], ["authors-run/*"]),
    Case(["solvers", "feedback", "--samples", "2"], ["feedback/*.json", "feedback/*.safetensors"], weight=0.5),
]  # fmt: skip
PLAN = """
tasks = ["sst2"]
seeds = [0]

[recipe]
encoders = 1
max_length = 12
batch_size = 8
epochs_teacher = 1
epochs_general = 1
epochs_internal = 1
epochs_prediction = 1

[general]
max_length = 16

[evaluation]
t_conv = [4, 2]
rules = ["inst"]
"""


def make_workspace(folder: Path) -> None:
    """Fill a folder with all that the commands read."""
    sys.path.insert(0, str(HERE))
    from test_training import write_task, write_teacher

    from refsnn.commands.cli import main
    from refsnn.readings.energy import Energies

    def run(*words: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            status = main(list(words))
        assert status == 0, (words, said.getvalue())

    folder.mkdir(parents=True)
    with contextlib.chdir(folder):
        write_task(Path("data"), 24)
        rows = Path("data/dev.tsv").read_text(encoding="utf-8").splitlines()[1:7]
        test = "".join(f"{i}\t{row.split(chr(9))[0]}\n" for i, row in enumerate(rows))
        Path("data/test.tsv").write_text("index\tsentence\n" + test, encoding="utf-8")
        write_task(Path("glue/SST-2"), 16)
        write_teacher(Path("bert"))
        Path("own").mkdir()
        for split in ("train", "dev"):
            own = "".join(f'"the film, {i}, is good",{"low high".split()[i % 2]}\n' for i in range(12))
            Path(f"own/{split}.csv").write_text(f"text,mood\n{own}", encoding="utf-8")
        Path("corpus.txt").write_text("the film is good. the plot is bad.\n\nthe cast is fine.\n" * 6, encoding="utf-8")
        Path("texts.txt").write_text('the film is good\n{"text": "the plot is bad"}\nthe cast\n', encoding="utf-8")
        from dataclasses import asdict

        Path("energies.json").write_text(json.dumps(asdict(Energies())), encoding="utf-8")
        Path("skips.txt").write_text("neurons/ties/*  # not yet\n", encoding="utf-8")
        Path("xfails.txt").write_text("neurons/bits/*  # known\n", encoding="utf-8")
        Path("adapter.py").write_text("from refsnn.conformance.reference import *\n", encoding="utf-8")
        Path("plan.toml").write_text(PLAN, encoding="utf-8")
        Path("empty").mkdir()
        run(*DISTILL, "--out", "run")
        shutil.copytree("run", "unfinished")
        for name in ("config.json", "model.safetensors", "stages/prediction.safetensors"):
            Path("unfinished", name).unlink()
        run(*DISTILL, "--feedback", "0.1", "--out", "feedback")
        run("evaluate", "run", "--t-conv", "2", "4", "--samples", "6")
        run("sweep", "run", "--over", "t", "--t-conv", "2", "4")
        run("record", "run", "--out", "record.safetensors", "--samples", "2", "--t-conv", "6")
        shutil.copytree("run/teacher", "teacher")
        run("convert", "run", "authors-run", "--to", "authors")
        shutil.copytree(HERE / "golden" / "tiny", "golden")
        shared = Path(os.environ.get("REFSNN_CASES", HERE.parents[1] / "shared" / "authors_cases"))
        authors = shared / "case_pred.npz"
        if authors.exists():
            shutil.copy(authors, "case.npz")


def damaged_words(words: list[str], rng: random.Random) -> tuple[list[str], str]:
    """Change one word of a command line, leave one out, or add an option that another command has."""
    words, at = list(words), rng.randrange(1, len(words))
    act = rng.randrange(4)
    if act == 0:
        return words[:at] + words[at + 1 :], f"without {words[at]!r}"
    if act == 1:
        option = rng.choice([w for case in CASES for w in case.words if w.startswith("--")])
        word = rng.choice(WORDS)
        return [*words, option, word], f"with {option} {word[:20]!r}"
    values = [i for i in range(1, len(words)) if not words[i].startswith("--")]
    at, word = rng.choice(values), rng.choice(WORDS)
    return [*words[:at], word, *words[at + 1 :]], f"{words[at]!r} is {word[:20]!r}"


@dataclass(frozen=True)
class Trial:
    """What was done and what came of it."""

    number: int
    words: list[str]
    did: str
    status: int | None  # None: killed by a signal or the clock
    complaint: str  # what breaks the promise; empty if nothing does


def cases_of(workspace: Path) -> list[Case]:
    """List the cases, that of the authors' program only where its data are."""
    return [case for case in CASES if case.words[0] != "parity" or (workspace / "case.npz").exists()]


def trial(number: int, seed: int, workspace: Path, scratch: Path) -> Trial:
    """Damage something, run a command on it, and judge."""
    rng = random.Random(f"{seed}, {number}")
    cases = cases_of(workspace)
    case = rng.choices(cases, [case.weight for case in cases])[0]
    home = scratch / f"trial-{number}"
    shutil.copytree(workspace, home, symlinks=True)
    words, did = case.words, ""
    try:
        if rng.random() < 0.35:
            words, did = damaged_words(case.words, rng)
        else:
            found = sorted(p for pattern in case.files for p in home.glob(pattern) if p.is_file())
            assert found, f"{case.files}: there is nothing to damage"
            path = rng.choice(found)
            how = rng.choice(KINDS.get(path.suffix, OTHER))
            try:
                did = f"{path.relative_to(home)}: {how(path, rng)}"
            except UnicodeEncodeError:  # half a surrogate cannot be written
                did = f"{path.relative_to(home)}: as it was"
        status, out, err = answer(words, home)
        return Trial(number, words, did, status, judged(case, status, out, err, home))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def answer(words: list[str], home: Path) -> tuple[int | None, str, str]:
    """Run a command in a child process; all that is imported already need not be again."""
    out, err = home / ".out", home / ".err"
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.setsid()
            os.chdir(home)
            for path, number in ((out, 1), (err, 2)):
                os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
            sys.stdin = io.StringIO("the film\n")
            sys.path.insert(0, str(home))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            from refsnn.commands.cli import main

            status = main(words)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 0 if error.code is None else 71
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    deadline = time.monotonic() + LIMIT
    while True:
        done, code = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            code = None
            break
        time.sleep(0.002)
    status = None if code is None or os.WIFSIGNALED(code) else os.WEXITSTATUS(code)
    texts = [path.read_text(encoding="utf-8", errors="replace") if path.exists() else "" for path in (out, err)]
    return status, *texts


def judged(case: Case, status: int | None, out: str, err: str, home: Path) -> str:
    """Say what of the promise is broken, if anything."""
    if status is None:
        return "killed: a crash, or no end within a minute"
    if "Traceback" in err or status not in case.status:
        last = (err.strip().splitlines() or ["nothing was said"])[-1]
        return f"status {status}: {last[:300]}"
    said = [line for line in err.splitlines() if re.match(r"refsnn( \w+)*: ", line)]
    if status == 2 and len(said) != 1:
        return f"status 2, and {len(said)} sentences: {err[-300:]!r}"
    if status == 2 and len(said[0]) > 1500:
        return f"a sentence of {len(said[0])} characters"
    if status != 2 and said:
        return f"status {status}, but: {said[0][:300]}"
    if left := [str(p.relative_to(home)) for p in home.rglob("*.part")]:
        return f"left behind: {left[0]}"
    return ""


def trials(count: int, seed: int, numbers: list[int] | None = None) -> Iterator[Trial]:
    """Make the workspace and run trials in it."""
    for module in (
        "refsnn.distillation.stages",
        "refsnn.evaluation.sweep",
        "refsnn.pages.report",
        "refsnn.pages.sweep",
    ):
        __import__(module)
    for module in (
        "refsnn.pages.inspect",
        "refsnn.storage.records",
        "refsnn.conformance.golden",
        "datasets",
        "scipy.stats",
    ):
        __import__(module)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        make_workspace(workspace)
        if numbers is None:
            for case in cases_of(workspace):  # else every trial would end with status 2, as promised
                home = Path(folder) / "undamaged"
                shutil.copytree(workspace, home)
                status, _, err = answer(case.words, home)
                assert status == 0, f"{case.words}, with nothing damaged: {err}"
                shutil.rmtree(home)
        for number in range(count) if numbers is None else numbers:
            yield trial(number, seed, workspace, Path(folder))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=4000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="repeat trials by their numbers")
    options = parser.parse_args()
    from tqdm import tqdm

    os.environ.setdefault("TQDM_DISABLE", "1")
    found, broken = Counter(), []
    total = len(options.only) if options.only else options.trials
    for one in tqdm(trials(options.trials, options.seed, options.only), total=total, disable=False):
        found[one.words[0], "killed" if one.status is None else str(one.status)] += 1
        if one.complaint:
            broken.append(one)
        if one.complaint or options.only:
            tqdm.write(f"{one.number}: {' '.join(one.words)[:160]}\n    {one.did}\n    {one.complaint or one.status}")
    for name in dict.fromkeys(name for name, _ in sorted(found)):
        statuses = ", ".join(f"{count} × {status}" for (n, status), count in sorted(found.items()) if n == name)
        print(f"{name:12}{statuses}")
    kept = total - len(broken)
    print(f"{kept} of {total} inputs answered as promised ({100 * kept / total:.2f} %), seed {options.seed}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
