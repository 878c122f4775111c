"""Benchmarks: refsnn beside backends and beside the matrix products alone, in one run.

Machines are noisy, so nothing here is an absolute time. Contestants take turns, each in a process of its own, and what
counts is the ratio of their medians. The *floor* is the time of the same matrix products on this machine's BLAS and
nothing else, on all cores: no program that multiplies these matrices is faster. On so many cores only as are asked for,
all of this shows how the cores are used.

A backend is named by its adapter (`refsnn.conformance`). Of the contract's functions ``gradients`` and ``neurons``
are timed, and for simulations ``rates_after(config, params, batch, t_conv, rule, dtype) -> {population: rates}``,
which need not keep spikes; an adapter without it is timed by ``simulate``. An evaluation gives it batches of 32
sentences, all padded to the limit of length, as the official programs do. A teacher is timed by
``teacher(config, params, batch) -> logits`` on batches padded to their longest sentence, and its training step by
``teacher_gradients(config, params, batch, labels) -> gradients``.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..data.examples import Examples, length_batches
from ..distillation.predict import predict_spikes, predict_teacher
from ..distillation.student import internal_gradients, true_loss
from ..distillation.teacher import classify
from ..distillation.training import in_shares
from ..errors import InputError, whole
from ..files import atomic
from ..model.batch import Batch
from ..model.families import spiking_bert
from ..model.neurons import Neuron, fire
from ..model.parameters import initial_parameters
from ..model.shapes import BertConfig, head_shapes, network_shapes
from ..model.student import StudentConfig
from ..ops import Array
from ..parallel import CORES, cores
from ..process import peak_memory, prepare
from ..readings.simulate import ROWS, Rule, simulate

__all__ = [
    "LONG",
    "WORKS",
    "Outcome",
    "Work",
    "bench_table",
    "cores_table",
    "decisions",
    "measure",
    "plot_ratios",
    "plot_scaling",
    "products",
    "scaling",
    "timings",
]

#: The functions of an adapter that are timed.
TIMED = ("neurons", "simulate", "rates_after", "gradients", "teacher", "teacher_gradients")

#: refsnn, and the products alone: threads over sequences, or within BLAS, whichever is faster here.
OURS, FLOORS = "refsnn", ("floor", "floor, BLAS threads")


@dataclass(frozen=True)
class Work:
    """Something to be timed: float32, random parameters, every position a real token.

    Attributes
    ----------
    title : str
    kind : {"simulate", "evaluate", "step", "teacher", "teacher-step", "neurons", "certify", "distill"}
    t, batch, positions, width, encoders : int
        `positions` are all real tokens, but for whole sets of sentences, of whose lengths they are the limit.
    rule : {"inst", "running"}
    feedback : bool
    """

    title: str
    kind: str
    t: int = 1
    batch: int = 8
    positions: int = 32
    width: int = 384
    encoders: int = 4
    rule: Rule = "inst"
    feedback: bool = False


WORKS = {
    "simulate": Work("simulate 4 encoders × 384, T = 100, 8 × 32 tokens", "simulate", t=100),
    "simulate-768": Work("simulate 4 encoders × 768, T = 50, 4 × 64 tokens", "simulate", 50, 4, 64, 768),
    "simulate-64": Work("simulate 4 encoders × 384, T = 16, 64 × 32 tokens", "simulate", 16, 64),
    "running": Work(
        "simulate by rule running, 4 encoders × 384, T = 50, 8 × 32 tokens", "simulate", 50, rule="running"
    ),
    "long": Work("simulate 4 encoders × 384, T = 1000, 8 × 32 tokens", "simulate", t=1000),
    "evaluate": Work("class scores by spikes, 4 encoders × 384, T = 16, 64 sentences", "evaluate", 16, 64, 64),
    "teacher": Work("class scores of BERT, 6 encoders × 384, 256 sentences", "teacher", 1, 256, 64, encoders=6),
    "step": Work("internal-distillation step by rate map, 4 encoders × 384, 32 × 32 tokens", "step", batch=32),
    "feedback": Work("the same step with feedback, 4 encoders × 384, 8 × 32 tokens", "step", feedback=True),
    "teacher-step": Work("training step of BERT, 6 encoders × 384, 32 × 32 tokens", "teacher-step", 1, 32, encoders=6),
    "certify": Work("certify 4 encoders × 384, T = 16, 2 × 32 tokens", "certify", 16, 2),
    "neurons": Work("neurons alone, (100, 256, 1536)", "neurons", t=100, batch=256, width=1536),
    "distill": Work("the whole of distill, 2 encoders × 128, 6400 sentences", "distill", 1, 6400, 64, 128, 2),
}

#: What is timed only where it is asked for: it takes minutes.
LONG = ("long", "distill")


#: Lengths in tokens of the sentences of SST-2's dev split, at every sixteenth of them from the shortest to the longest.
LENGTHS = (4, 10, 13, 15, 17, 19, 21, 23, 25, 26, 28, 30, 32, 35, 39, 42, 55)


def _sentences(work: Work) -> Examples:
    """Make a set of sentences as long as SST-2's."""
    rng = np.random.default_rng(2)
    lengths = np.interp(rng.random(work.batch) * 16, np.arange(17), LENGTHS).astype(int)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Examples(rng.integers(1, 1000, starts[-1]), np.zeros(starts[-1], int), starts, np.zeros(work.batch, int))


def _padded(work: Work, size: int = 32) -> list[Batch]:
    """Batches in the order of the set, all padded to the limit of length."""
    examples = _sentences(work)
    batches = [examples.batch(rows) for rows in np.split(np.arange(work.batch), range(size, work.batch, size))]
    return [Batch(*(np.pad(ids, ((0, 0), (0, work.positions - ids.shape[1]))) for ids in batch)) for batch in batches]


def _model(work: Work) -> tuple[BertConfig, dict[str, Array], Batch]:
    config = BertConfig(
        hidden_size=work.width,
        num_hidden_layers=work.encoders,
        num_attention_heads=work.width // 32,
        intermediate_size=4 * work.width,
        vocab_size=1000,
    )
    rng = np.random.default_rng(0)
    shapes = network_shapes(config, work.feedback)
    shapes |= {"fit.weight": (work.width, work.width), "fit.bias": (work.width,)}
    ids = rng.integers(1, 1000, (work.batch, work.positions))
    params = initial_parameters(shapes, rng, 0.05)
    if work.feedback:
        from ..readings.implicit import within_spectral_norm

        # Of a random network the sweeps contract only where little is fed back.
        params["feedback.weight"] = within_spectral_norm(params["feedback.weight"], 0.01)
    if work.kind in ("evaluate", "teacher", "teacher-step"):
        params |= initial_parameters(head_shapes(config, 2), np.random.default_rng(3), 0.05)
    return config, params, Batch(ids, np.zeros_like(ids), np.ones_like(ids))


def _targets(work: Work, config: BertConfig) -> dict[str, list[Array]]:
    """Draw what a teacher might have said."""
    rng = np.random.default_rng(1)
    tokens = (work.batch, work.positions)
    hidden = [rng.normal(0, 1, (*tokens, work.width)) for _ in range(work.encoders + 1)]
    scores = [rng.normal(0, 1, (work.batch, config.num_attention_heads, *2 * tokens[1:])) for _ in range(work.encoders)]
    return {"hidden": [h.astype(np.float32) for h in hidden], "scores": [s.astype(np.float32) for s in scores]}


def _currents(work: Work) -> Array:
    return np.random.default_rng(0).normal(0.3, 1, (work.t, work.batch, work.width)).astype(np.float32)


def _ours(work: Work) -> Callable[[], Any]:
    if work.kind == "neurons":
        current = _currents(work)
        return lambda: fire(current, Neuron())
    if work.kind == "distill":
        return lambda: _distill(work)
    config, params, batch = _model(work)
    if work.kind == "teacher":
        return lambda: predict_teacher(config, params, _sentences(work))
    if work.kind == "evaluate":
        student = StudentConfig(config, work.width, 2)
        return lambda: predict_spikes(student, params, _sentences(work), [work.t], activity=False)[work.t].logits
    network = spiking_bert(config, feedback=work.feedback)
    rows = np.arange(work.batch)
    if work.kind == "step":
        targets = _targets(work, config)

        def objective(params: dict[str, Array], batch: Batch, rows: Array):
            hidden, scores = ([target[rows] for target in targets[part]] for part in ("hidden", "scores"))
            return internal_gradients(network, params, batch, hidden, scores)

        step = in_shares(objective)
        return lambda: step(params, batch, rows)
    if work.kind == "teacher-step":

        def taught(params: dict[str, Array], batch: Batch, rows: Array):
            scores, pullback = classify(config, params, batch)
            loss, loss_pullback = true_loss(scores, _labels(work)[rows])
            return {"loss": loss}, pullback(loss_pullback(1.0)), {}

        teach = in_shares(taught)
        return lambda: teach(params, batch, rows)
    if work.kind == "certify":
        from ..readings.certify import certify
        from ..storage.records import record

        spikes = record(network, params, batch, work.t)
        return lambda: certify(network, params, batch, spikes, precision="float32")
    return lambda: simulate(network, params, batch, work.t, work.rule, threads=cores())


def _labels(work: Work) -> Array:
    return np.random.default_rng(4).integers(0, 2, work.batch)


def decisions(work: Work) -> int:
    """Count the spike decisions of a record.

    Parameters
    ----------
    work : Work

    Returns
    -------
    count : int

    Examples
    --------
    >>> decisions(Work("", "certify", t=2, batch=1, positions=3, width=64, encoders=1))
    3840
    """
    network = spiking_bert(_model(replace(work, batch=1, positions=1))[0])
    return work.t * work.batch * work.positions * sum(population.width for population in network.populations)


def _distill(work: Work) -> None:
    """Distil from a BERT that is drawn at random, on made-up text: all stages, an epoch each, and what they write."""
    from ..data.corpora.writing import paragraphs, train_vocabulary, write_glue_layout
    from ..distillation.stages import distill
    from ..storage.recipe import Recipe

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "SST-2"
        write_glue_layout(data, "sentiment", 0, work.batch, 100)
        train_vocabulary(paragraphs(1000, 0), 900, data / "vocab.txt")
        rows = len((data / "vocab.txt").read_text(encoding="utf-8").splitlines())
        config = replace(_model(work)[0], vocab_size=rows)
        recipe = Recipe(
            "sst2",
            encoders=work.encoders,
            max_length=work.positions,
            epochs_teacher=1,
            epochs_general=1,
            epochs_internal=1,
            epochs_prediction=1,
        )
        distill(recipe, data, (config, data), Path(folder) / "run")


def _theirs(work: Work, adapter: Any) -> Callable[[], Any] | None:
    """Do the same with an adapter, or None where it lacks the function."""
    if work.kind == "neurons":
        current, neuron = _currents(work), {"vth": 1.0, "leak": 1.0, "u0": 0.0, "tie": 0.0}
        neurons = getattr(adapter, "neurons", None)
        return neurons and (lambda: neurons(current, neuron, "float32"))
    if work.kind in ("certify", "distill"):
        return None  # nobody else does these
    config, params, tokens = _model(work)
    described = StudentConfig(config, neuron=Neuron(tie=1e-5), feedback=work.feedback).to_dict()
    batch = tokens._asdict()
    if work.kind == "step":
        targets, gradients = _targets(work, config), getattr(adapter, "gradients", None)
        return gradients and (lambda: gradients(described, params, batch, targets, None, "float32"))
    if work.kind == "teacher":
        classify = getattr(adapter, "teacher", None)
        examples = _sentences(work)
        batches = [examples.batch(rows)._asdict() for rows in length_batches(examples.lengths, 32)]
        return classify and (lambda: [classify(config.to_dict(), params, batch) for batch in batches])
    if work.kind == "teacher-step":
        teach = getattr(adapter, "teacher_gradients", None)
        return teach and (lambda: teach(config.to_dict(), params, batch, _labels(work)))
    run = getattr(adapter, "rates_after", None) or getattr(adapter, "simulate", None)
    if work.kind == "evaluate":
        padded = [batch._asdict() for batch in _padded(work)]
        return run and (lambda: [run(described, params, batch, work.t, "inst", "float32") for batch in padded])
    return run and (lambda: run(described, params, batch, work.t, work.rule, "float32"))


def _floor_arrays(work: Work, threads: int) -> list[tuple[list[tuple[Array, Array]], Array, int]]:
    """Share the matrix products of a step and an encoder among threads: six linear maps and the two of attention.

    Each thread has its rows (tokens) and its heads, of as many steps at once as refsnn takes, and the number of times
    that all of it is multiplied in the simulation. Together they multiply everything exactly once (see `products`).
    """
    d, n = work.width, work.positions
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 1, shape).astype(np.float32) for shape in [(d, d)] * 4 + [(4 * d, d), (d, 4 * d)]]
    found = []
    rows, heads = work.batch * n, work.batch * (d // 32)
    for own_rows, own_heads in zip(_divided(rows, threads), _divided(heads, threads), strict=True):
        steps = math.gcd(work.t, max(ROWS // max(own_rows, 1), 1))
        spikes = {k: (rng.random((own_rows * steps, k)) < 0.2).astype(np.float32) for k in (d, 4 * d)}
        own = rng.random((own_heads * steps, n, 32)).astype(np.float32)
        found.append(([(spikes[w.shape[1]], w) for w in weights], own, work.encoders * work.t // steps))
    return found


def _divided(count: int, parts: int) -> list[int]:
    return [(i + 1) * count // parts - i * count // parts for i in range(parts)]


def _floor(work: Work, threads: int) -> Callable[[], Any] | None:
    """Return the matrix products of a simulation, and nothing else."""
    if work.kind != "simulate":
        return None

    def products(share: tuple[list[tuple[Array, Array]], Array, int]) -> None:
        linear, heads, times = share
        for _ in range(times):
            for spikes, weight in linear:
                spikes @ weight.T
            (heads @ heads.swapaxes(-1, -2)) @ heads

    shares = _floor_arrays(work, threads)
    if threads == 1:
        return lambda: products(shares[0])
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(products, shares))


def _worker(work: Work, contestant: str) -> None:
    """Time one contestant whenever a line comes in; answer with seconds and the peak of memory so far."""
    if contestant == OURS:
        prepare()  # as the command does; NumPy has been loaded, but has allocated next to nothing yet
        run: Callable[[], Any] | None = _ours(work)
    elif contestant in FLOORS:
        run = _floor(work, cores() if contestant == FLOORS[0] else 1)
    else:
        from .child import load_adapter

        run = _theirs(work, load_adapter(contestant, TIMED))
    print(json.dumps(run is not None), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        assert run is not None
        run()
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "bytes": peak_memory() or math.nan}), flush=True)


@dataclass(frozen=True)
class Outcome:
    """What one contestant took for one work.

    Attributes
    ----------
    work, contestant : str
    seconds : list of float
        In the order of the turns.
    peak : float
        Most memory its process had at once, in bytes, the interpreter and its libraries included, but not processes
        that it started; NaN where the system does not say.
    cores : int
        That it could use; 0 for all of them.
    """

    work: str
    contestant: str
    seconds: list[float]
    peak: float
    cores: int = 0

    @property
    def median(self) -> float:
        """Seconds, the middle one of all turns."""
        return median(self.seconds)


@contextmanager
def _only(count: int) -> Iterator[None]:
    """Let processes that are started within have the first cores only, where the system can say so."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class _Contestant:
    """A process that takes its turn when told to."""

    def __init__(self, work: str, name: str, count: int) -> None:
        self.work, self.name = work, name
        # Threads over sequences leave the products one thread each; everyone else has all cores.
        blas = "1" if name in (OURS, FLOORS[0]) else str(count)
        env = os.environ | {"OPENBLAS_NUM_THREADS": blas, "OMP_NUM_THREADS": blas, "MKL_NUM_THREADS": blas}
        env |= {"TQDM_DISABLE": "1", CORES: str(count)}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), env.get("PYTHONPATH")]))
        command = [sys.executable, "-m", "refsnn.conformance.bench", work, name]
        with _only(count):
            self.process = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True, env=env)
        self.seconds: list[float] = []
        self.peak = math.nan
        self.takes_part = bool(self._answer())

    def _answer(self) -> Any:
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        if not line:
            last = (self.process.stderr.read().strip().splitlines() or ["no message"])[-1]
            raise InputError(f"{self.name} could not be timed on {self.work!r} ({last})")
        return json.loads(line)

    def turn(self, counts: bool) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.peak = answer["bytes"]
        if counts:
            self.seconds.append(answer["seconds"])

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(
    works: Sequence[str],
    adapters: Sequence[str] = (),
    repetitions: int = 5,
    progress: Callable[[int], Any] = lambda count: None,
    count: int | None = None,
) -> list[Outcome]:
    """Let contestants take turns at some works.

    Parameters
    ----------
    works : sequence of str
        Keys of `WORKS`.
    adapters : sequence of str
        Modules of backends.
    repetitions : int
        Turns that count; one before them does not.
    progress : callable
        Called with 1 after each round of turns.
    count : int, optional
        Cores that each may use; all by default.

    Returns
    -------
    outcomes : list of Outcome

    Raises
    ------
    InputError
        A work is unknown, or a contestant failed.
    """
    outcomes = []
    repetitions = whole("repetitions", repetitions)
    share = cores() if count is None else whole("cores", count, 1, cores())
    for work in works:
        if work not in WORKS:
            raise InputError(f"the work is {work!r}, but it must be one of {', '.join(WORKS)}")
        with ExitStack() as stack:
            contestants = []
            for name in (OURS, *FLOORS, *adapters):
                contestants.append(_Contestant(work, name, share))
                stack.callback(contestants[-1].close)
            contestants = [c for c in contestants if c.takes_part]
            for repetition in range(repetitions + 1):
                for contestant in contestants:
                    contestant.turn(repetition > 0)
                progress(1)
        outcomes += [Outcome(work, c.name, c.seconds, c.peak, share) for c in contestants]
    return outcomes


#: How the cost of a simulation grows: the work that is varied, and the factors of each of its sizes.
BASE = Work("simulate 2 encoders × 192", "simulate", t=32, batch=4, positions=32, width=192, encoders=2)
FACTORS = {"t": (1, 2, 4, 8, 16), "batch": (1, 2, 4, 8, 16), "positions": (1, 2, 4, 8, 16), "width": (1, 2, 4, 8)}


def products(work: Work) -> float:
    """Multiply-accumulates of a simulation: ``T·B·N·encoders·(12·D² + 2·N·D)``.

    Parameters
    ----------
    work : Work

    Returns
    -------
    count : float

    Examples
    --------
    >>> products(Work("", "simulate", t=1, batch=1, positions=2, width=10, encoders=1))
    2480.0
    """
    d, n = work.width, work.positions
    return float(work.t * work.batch * n * work.encoders * (12 * d**2 + 2 * n * d))


def scaling(repetitions: int = 3, progress: Callable[[int], Any] = lambda count: None) -> dict[str, list[Any]]:
    """Time simulations of growing size, one size at a time.

    Parameters
    ----------
    repetitions : int
        Turns that count; one before them does not.
    progress : callable
        Called with 1 after each round of turns.

    Returns
    -------
    measured : dict
        Size that is varied -> list of (its value, median of the seconds, multiply-accumulates).
    """
    works = {
        axis: [replace(BASE, **{axis: getattr(BASE, axis) * factor}) for factor in factors]
        for axis, factors in FACTORS.items()
    }
    seconds: dict[Work, list[float]] = {}
    for repetition in range(repetitions + 1):
        for work in dict.fromkeys(w for of_axis in works.values() for w in of_axis):
            run = _ours(work)
            started = time.perf_counter()
            run()
            if repetition:
                seconds.setdefault(work, []).append(time.perf_counter() - started)
        progress(1)
    return {
        axis: [(getattr(work, axis), median(seconds[work]), products(work)) for work in of_axis]
        for axis, of_axis in works.items()
    }


def plot_scaling(measured: Mapping[str, Sequence[Sequence[float]]], path: str | os.PathLike) -> None:
    """Draw what `scaling` measured, on logarithmic axes, beside the growth of the counted multiply-accumulates.

    Parameters
    ----------
    measured : mapping
    path : path
        An ``.svg`` file.
    """
    from ..pages.figures.style import COLOUR, figure_legend, figure_style, log_axis, new_figure

    titles = {"t": "timesteps T", "batch": "sequences B", "positions": "tokens N", "width": "width D"}
    with figure_style():
        figure = new_figure(3.6)
        for axes, (axis, rows) in zip(figure.subplots(1, len(measured), sharey=True), measured.items(), strict=True):
            values, seconds, counts = (np.array(column, float) for column in zip(*rows, strict=True))
            # The line is as near to the points as its slope, which is counted and not fitted, allows.
            scale = np.exp(np.mean(np.log(seconds / counts)))
            axes.loglog(values, scale * counts, color=COLOUR["grey"], ls="--", label="counted, scaled to fit")
            axes.loglog(values, seconds, color=COLOUR["blue"], marker="o", ls="none", label="measured")
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.minorticks_off()
            axes.set_xlabel(titles[axis])
        every = [float(row[1]) for rows in measured.values() for row in rows]
        log_axis(figure.axes[0].yaxis, min(every), max(every))
        figure.axes[0].set_ylabel("seconds of a simulation")
        figure_legend(figure)
        with atomic(path) as temporary:
            figure.savefig(temporary, format="svg")


def plot_ratios(outcomes: Sequence[Outcome], path: str | os.PathLike) -> None:
    """Draw refsnn's time and memory relative to every other contestant's, a row for each.

    Parameters
    ----------
    outcomes : sequence of Outcome
    path : path
        An ``.svg`` file.
    """
    from ..pages.figures.style import COLOUR, figure_legend, figure_style, new_figure

    ours = {o.work: o for o in outcomes if o.contestant == OURS}
    others = [o for o in outcomes if o.contestant != OURS][::-1]  # the first on top
    time = [ours[o.work].median / o.median for o in others]
    measured = [(row, o) for row, o in enumerate(others) if o.contestant not in FLOORS and o.peak > 0]
    memory = [(ours[o.work].peak / o.peak, row) for row, o in measured]
    with figure_style():
        figure = new_figure(0.9 + 0.24 * max(len(others), 1))
        axes = figure.subplots()
        axes.axvline(1, color=COLOUR["grey"], lw=1)
        axes.plot(time, range(len(others)), color=COLOUR["blue"], marker="o", ls="none", label="time")
        axes.plot(*zip(*memory, strict=True), color=COLOUR["orange"], marker="s", ls="none", label="peak memory")
        axes.set_xscale("log", base=2)
        low, high = min([1.0, *time, *(x for x, _ in memory)]), max([1.0, *time, *(x for x, _ in memory)])
        ticks = 2.0 ** np.arange(np.floor(np.log2(low)), np.ceil(np.log2(high)) + 1)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_yticks(range(len(others)), [f"{o.work}: {o.contestant.rpartition('.')[2]}" for o in others])
        axes.set_ylim(-0.6, len(others) - 0.4)
        axes.set_xlabel("refsnn relative to it: less is faster, or smaller")
        figure_legend(figure)
        with atomic(path) as temporary:
            figure.savefig(temporary, format="svg")


def bench_table(outcomes: Sequence[Outcome]) -> str:
    """Lay outcomes out: every contestant's median, and refsnn's time and memory relative to it.

    Parameters
    ----------
    outcomes : sequence of Outcome

    Returns
    -------
    text : str
    """
    lines = []
    for work in dict.fromkeys(o.work for o in outcomes):
        rows = [o for o in outcomes if o.work == work]
        ours = next(o for o in rows if o.contestant == OURS)
        lines += ["", WORKS[work].title]
        lines.append(f"{'':4}{'':40}{'seconds':>9}{'range':>17}{'MB':>8}   refsnn / it: time, memory")
        for o in rows:
            spread = f"{min(o.seconds):.3g} … {max(o.seconds):.3g}"
            ratio = "" if o is ours else f"{ours.median / o.median:>11.2f}"
            if not o.contestant.startswith("floor") and o is not ours:
                ratio += f"{ours.peak / o.peak:>8.2f}"
            lines.append(f"{'':4}{o.contestant:<40}{o.median:>9.3g}{spread:>17}{o.peak / 1e6:>8.0f}{ratio}".rstrip())
        if WORKS[work].kind == "certify":
            lines.append(f"{'':4}{decisions(WORKS[work]) / ours.median / 1e6:.1f} million decisions a second")
    return "\n".join(lines).lstrip("\n")


def cores_table(outcomes: Sequence[Outcome]) -> str:
    """Lay out what was measured on several numbers of cores: median seconds, and how often as fast as on the first.

    Parameters
    ----------
    outcomes : sequence of Outcome

    Returns
    -------
    text : str
    """
    counts = list(dict.fromkeys(o.cores for o in outcomes))
    lines = []
    for work in dict.fromkeys(o.work for o in outcomes):
        medians: dict[str, dict[int, float]] = {}
        for o in (o for o in outcomes if o.work == work):
            medians.setdefault("floor" if o.contestant in FLOORS else o.contestant, {})
            row = medians["floor" if o.contestant in FLOORS else o.contestant]
            row[o.cores] = min(row.get(o.cores, math.inf), o.median)  # the faster of the two floors
        lines += ["", WORKS[work].title, f"{'cores':<40}" + "".join(f"{count:>9}" for count in counts)]
        ours = medians[OURS]
        for name, row in medians.items():
            lines.append(f"{name:<40}" + "".join(f"{row[count]:>9.3g}" for count in counts))
            if name == OURS:
                lines.append(f"{'  times as fast':<40}" + "".join(f"{row[counts[0]] / row[c]:>9.2f}" for c in counts))
            else:
                lines.append(f"{'  refsnn / it':<40}" + "".join(f"{ours[c] / row[c]:>9.2f}" for c in counts))
    return "\n".join(lines).lstrip("\n")


def timings(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Outcomes as JSON holds them.

    Parameters
    ----------
    outcomes : sequence of Outcome

    Returns
    -------
    values : dict
    """
    rows: list[Mapping[str, Any]] = [asdict(o) | {"median": o.median} for o in outcomes]
    return {"cores": cores(), "works": {name: asdict(work) for name, work in WORKS.items()}, "outcomes": rows}


if __name__ == "__main__":
    _worker(WORKS[sys.argv[1]], sys.argv[2])
