"""Every figure of docs/errata.md, measured anew.

    python reference_tests/errata.py            print the figures
    python reference_tests/errata.py --write    put them into the page

In the page a figure is followed by a comment that names it: ``0.0123<!-- name -->``. Each function below is one
experiment and returns its figures by name; the network is the small one of the tests (two encoders, width 12, random
parameters), where nothing else is said.
"""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from conftest import SMALL, random_batch, random_parameters

from refsnn import ops
from refsnn.distillation.optim import BertAdam, clipped
from refsnn.distillation.student import Scheme, internal_gradients, layer_pairs, prediction_gradients
from refsnn.distillation.teacher import encode
from refsnn.model.batch import Batch, attention_mask
from refsnn.model.families import bert, spiking_bert
from refsnn.model.neurons import Neuron, asr, fire
from refsnn.model.projections import AddNorm, Attention, Embeddings
from refsnn.model.shapes import BertConfig, network_shapes
from refsnn.model.student import StudentConfig
from refsnn.readings.energy import Energy
from refsnn.readings.equilibrium import equilibrium
from refsnn.readings.implicit import adjoint, within_spectral_norm
from refsnn.readings.rate_map import rate_map
from refsnn.readings.simulate import simulate, spike_blocks

PAGE = Path(__file__).resolve().parents[1] / "docs" / "errata.md"
FIGURE = re.compile(r"(?P<shown>[−-]?[\d][\d.,]*(?:e[−-]?\d+)?)<!-- (?P<name>\S+) -->")
LAST = "encoder.1.output"
#: The paper's student.
PUBLISHED = BertConfig(num_hidden_layers=4)
BATCH = 32 * 128 * 768  # entries of a hidden state: sentences, positions, features


@cache
def setting():
    """Network, parameters, batch of six sentences of up to five tokens, and the equilibrium's rates."""
    network, params, batch = spiking_bert(SMALL), random_parameters(SMALL, 0), random_batch(SMALL, 0, size=6)
    return network, params, batch, rate_map(network, params, batch)[0]


@cache
def distillation():
    """A student with `fit` and a classifier of three classes, and random parameters of a teacher of its size."""
    student = StudentConfig(SMALL, SMALL.hidden_size, 3)
    extra = {name: shape for name, shape in student.shapes.items() if name.startswith(("fit", "classifier"))}
    return random_parameters(SMALL, 1, extra=extra), random_parameters(SMALL, 2)


def targets(batch: Batch):
    """Hidden states and scores of the teacher that belong to the student's."""
    pairs = layer_pairs(2, 2)
    found = encode(SMALL, distillation()[1], batch)
    return [found.hidden[i] for i in pairs], [found.scores[i - 1] for i in pairs[1:]]


def apart(a, b) -> float:
    """Mean absolute difference."""
    return float(np.abs(a - b).mean())


def relative(ours: Mapping, reference: Mapping) -> float:
    """Norm of the difference of two gradients over the norm of the second."""
    names = ours.keys() | reference.keys()
    difference = sum(((ours.get(n, 0) - reference.get(n, 0)) ** 2).sum() for n in names)
    return float(np.sqrt(difference / sum((value**2).sum() for value in reference.values())))


# --- Neurons and read-out ---------------------------------------------------------------------------------------------


def leaky_average() -> dict[str, float]:
    current = np.linspace(0.01, 0.99, 99)
    found = {}
    for leak in (0.9, 0.99):
        spikes, _ = fire(np.repeat(current[None], 1000, axis=0), Neuron(leak=leak))
        plain, weighted = asr(spikes), asr(spikes, leak)
        found[f"lif-averages-{leak}"] = apart(plain, weighted)
        found[f"lif-plain-bias-{leak}"] = float((plain - current).mean())
        found[f"lif-weighted-bias-{leak}"] = float((weighted - current).mean())
    return found


def ties() -> dict[str, float]:
    # The first half of the value features always fires: the structural case.
    _, params, batch, _ = setting()
    half = SMALL.hidden_size // 2
    bias = np.where(np.arange(SMALL.hidden_size) < half, 9.0, params["encoder.layer.0.attention.self.value.bias"])
    params = params | {"encoder.layer.0.attention.self.value.bias": bias}
    context, last = [], []
    for tie in (None, 0.0):
        _, spikes = next(spike_blocks(spiking_bert(SMALL, Neuron(tie=tie)), params, batch, 64, block=64))
        context.append(spikes["encoder.0.context"][..., :half])
        last.append(spikes[LAST])
    return {
        "ties-silenced": float((context[0] != context[1]).mean()),
        "ties-last-spikes": float((last[0] != last[1]).mean()),
        "ties-last-rate": apart(last[0].mean(axis=0), last[1].mean(axis=0)),
    }


def initial_potential() -> dict[str, float]:
    current = np.random.default_rng(0).uniform(0, 1, 4000)
    found = {}
    for name, u0 in (("floor", 0.0), ("rounding", 0.5)):
        error = asr(fire(np.repeat(current[None], 16, axis=0), Neuron(u0=u0))[0]) - current
        found |= {f"start-{name}-bias": float(error.mean()), f"start-{name}-error": float(np.abs(error).mean())}
    return found


# --- Simulation and rate map ------------------------------------------------------------------------------------------


def plateau() -> dict[str, float]:
    network, params, batch, rates = setting()
    return {
        f"plateau-{rule}-{t}": apart(simulated[LAST], rates[LAST])
        for rule in ("inst", "running")
        for t, simulated in simulate(network, params, batch, [125, 2000], rule, block=125, keep=[LAST]).items()
    }


def silent() -> dict[str, float]:
    network, params, batch, rates = setting()
    simulated, rate = simulate(network, params, batch, 16, keep=[LAST])[16][LAST][:, 0], rates[LAST][:, 0]
    return {
        "silent-rate": float((rate == 0).mean()),
        "silent-simulated": float((simulated == 0).mean()),
        "silent-only-simulated": float(((simulated == 0) & (rate > 0)).mean()),
    }


# --- Feedback and gradient --------------------------------------------------------------------------------------------


@cache
def fed_back(norm: float = 0.1):
    params = random_parameters(SMALL, 0, feedback=True)
    params["feedback.weight"] = within_spectral_norm(params["feedback.weight"], norm)
    return params, equilibrium(spiking_bert(SMALL, feedback=True), params, setting()[2])


def feedback() -> dict[str, float]:
    params, found = fed_back()
    without, _ = rate_map(spiking_bert(SMALL), params, setting()[2])
    return {
        "feedback-rate": apart(found.rates[LAST], without[LAST]),
        "feedback-idle": float(PUBLISHED.hidden_size**2),
    }


def solvers() -> dict[str, float]:
    _, found = fed_back()
    g = {LAST: np.random.default_rng(0).normal(size=found.rates[LAST].shape)}
    _, gradient, _ = adjoint(found.linearisation, g)

    def returned(v):
        return found.linearisation.substitute({LAST: v})[1][LAST]

    averaged = g[LAST]
    for _ in range(30):  # λ ← (λ + (Jᵀλ − λ + g))/2, whose fixed point solves (2I − Jᵀ)λ = g
        averaged = (averaged + returned(averaged) - averaged + g[LAST]) / 2
    *_, trapped = found.linearisation.substitute({LAST: averaged})
    *_, one_step = found.linearisation.substitute(g)

    network, params, batch, _ = setting()
    linearisation = equilibrium(network, params, batch).linearisation
    solved, plain = adjoint(linearisation, g)[1], rate_map(network, params, batch)[1](g)
    return {
        "solver-vacuous": relative(solved, plain),
        "solver-averaged": relative(trapped, gradient),
        "solver-one-step": relative(one_step, gradient),
        "solver-zero-below": 2e-10 * np.sqrt(BATCH),
    }


def modes() -> dict[str, float]:
    network, _, batch, _ = setting()
    params, _ = distillation()
    hidden, scores = targets(batch)
    simulated = simulate(network, params, batch, 32)[32]
    exact, reference, _ = internal_gradients(network, params, batch, hidden, scores)
    found = {}
    for name, at in (("released", "equilibrium"), ("simulated", "simulated")):
        losses, gradient, _ = internal_gradients(network, params, batch, hidden, scores, simulated, Scheme(at))
        found[f"mode-{name}-gradient"] = relative(gradient, reference)
    return found | {"mode-hidden": float(losses["hidden"] / exact["hidden"])}


def edges() -> dict[str, float]:
    network, _, batch, _ = setting()
    params, _ = distillation()
    bias = np.where(np.arange(SMALL.hidden_size) < SMALL.hidden_size // 2, 50.0, -50.0)
    params = params | {"encoder.layer.0.attention.self.value.bias": bias}  # context currents of exactly 1 and 0

    def loss(z):
        return z.sum(), lambda dz: np.full_like(z, dz)

    schemes = Scheme(edge_derivative=0.0), Scheme(edge_derivative=1.0)
    ours, other = (prediction_gradients(network, params, batch, loss, scheme=scheme)[1] for scheme in schemes)
    reads = rate_map(network, params, batch)[0]
    context = network["encoder.0.context"]
    mask = attention_mask(batch, np.dtype(float))
    current, _ = context.projection(params, tuple(reads[name] for name in context.reads), mask)
    difference = relative(other, ours)
    return {
        "edges-share": float((np.minimum(np.abs(current), np.abs(current - 1)) < 1e-12).mean()),
        "edges-gradient": difference if difference > 1e-13 else 0.0,  # rounding, where the structure holds
    }


# --- Losses -----------------------------------------------------------------------------------------------------------


def padded(batch: Batch, positions: int) -> Batch:
    """The same sentences with more padding."""
    width = ((0, 0), (0, positions - batch.input_ids.shape[1]))
    return Batch(*(np.pad(array, width) for array in batch))


def padding() -> dict[str, float]:
    network, _, batch, _ = setting()
    params, _ = distillation()
    losses = []
    for b in (batch, padded(batch, 9)):
        hidden, scores = targets(b)
        losses.append(internal_gradients(network, params, b, hidden, scores)[0])
    tokens = [1 - b.attention_mask.mean() for b in (batch, padded(batch, 9))]
    return {
        "padding-share-5": float(tokens[0]),
        "padding-share-9": float(tokens[1]),
        "padding-hidden": float(losses[1]["hidden"] / losses[0]["hidden"]),
        "padding-attention": float(losses[1]["attention"] / losses[0]["attention"]),
    }


def probabilities() -> dict[str, float]:
    network, _, batch, _ = setting()
    params, _ = distillation()
    hidden, scores = targets(batch)
    right = internal_gradients(network, params, batch, hidden, scores)
    wrong = internal_gradients(network, params, batch, hidden, [ops.softmax(s)[0] for s in scores])
    return {
        "probabilities-loss": float(wrong[0]["attention"] / right[0]["attention"]),
        "probabilities-gradient": relative(wrong[1], right[1]),
    }


def soft_labels() -> dict[str, float]:
    student, teacher = np.random.default_rng(0).normal(0, 2, (2, 64, 3))
    gradient = {t: np.linalg.norm(ops.soft_cross_entropy(student, teacher, t)[1](1.0)[0]) for t in (1.0, 4.0)}
    p, log_q = ops.softmax(teacher)[0], ops.log_softmax(student)
    usual = -(p * log_q).sum(axis=-1).mean()
    return {
        "soft-classes-3": float(ops.soft_cross_entropy(student, teacher)[0] / usual),
        "soft-temperature-4": float(gradient[4.0] / gradient[1.0]),
        "soft-temperature-4-scaled": float(16 * gradient[4.0] / gradient[1.0]),
    }


# --- Programs and frameworks ------------------------------------------------------------------------------------------


def dropped(x, rng, share: float = 0.1):
    """Dropout as training programs do it: entries set to 0, the others divided by what is kept."""
    return x * (rng.random(x.shape) >= share) / (1 - share)


@dataclass(frozen=True, kw_only=True)
class DroppedEmbeddings(Embeddings):
    rng: np.random.Generator

    def __call__(self, params, batch):
        return dropped(super().__call__(params, batch)[0], self.rng), None


@dataclass(frozen=True, kw_only=True)
class DroppedAddNorm(AddNorm):
    rng: np.random.Generator

    def __call__(self, params, reads, mask):
        a, residual = reads
        linear, _ = ops.linear(a, params[f"{self.dense}.weight"], params[f"{self.dense}.bias"])
        gamma, beta = params[f"{self.norm}.weight"], params[f"{self.norm}.bias"]
        return ops.layer_norm(dropped(linear, self.rng) + residual, gamma, beta, self.eps)[0], None


@dataclass(frozen=True, kw_only=True)
class DroppedAttention(Attention):
    rng: np.random.Generator

    def __call__(self, params, reads, mask):
        weights, _ = ops.softmax(self.scores(params, reads, mask)[0])
        return ops.mix(dropped(weights, self.rng), reads[2])[0], None


def with_dropout(network, rng):
    """The network as both programs train it: dropout on embeddings, attention weights and dense outputs."""
    kinds = {AddNorm: DroppedAddNorm, Attention: DroppedAttention}
    populations = tuple(
        replace(p, projection=kinds[type(p.projection)](**vars(p.projection), rng=rng))
        if type(p.projection) in kinds
        else p
        for p in network.populations
    )
    return replace(network, drive=DroppedEmbeddings(**vars(network.drive), rng=rng), populations=populations)


def dropout() -> dict[str, float]:
    network, _, batch, _ = setting()
    params, teacher = distillation()
    rng = np.random.default_rng(0)
    plain, _ = rate_map(bert(SMALL), teacher, batch)
    squares = []
    for _ in range(50):
        noisy, _ = rate_map(with_dropout(bert(SMALL), rng), teacher, batch)
        squares.append([((noisy[name] - plain[name]) ** 2).mean() for name in network.readouts])
    exact = simulate(network, params, batch, 32, keep=[LAST])[32][LAST]
    drawn = [simulate(with_dropout(network, rng), params, batch, 32, keep=[LAST])[32][LAST] for _ in range(10)]
    return {
        "dropout-teacher": float(np.mean(squares, axis=0).sum()),
        "dropout-teacher-states": float(sum(plain[name].var() for name in network.readouts)),
        "dropout-student": float(np.mean([apart(rates, exact) for rates in drawn])),
    }


def batches() -> dict[str, float]:
    examples = {"sst2": 67_349, "rte": 2_490, "stsb": 5_749}
    return {f"batches-{task}": float(n % 32) for task, n in examples.items()}


def optimiser() -> dict[str, float]:
    gradient = {"w": np.ones(1)}
    params, adam = {"w": np.zeros(1)}, BertAdam(weight_decay=0.0)
    state, found = adam.initial(params), {}
    for step in range(1, 1001):
        before = params["w"].copy()
        adam.step(params, gradient, state, lr=1.0)
        if step in (1, 10, 100, 1000):  # bias correction makes every one of these steps 1
            found[f"optimiser-step-{step}"] = float((before - params["w"])[0])
    network, _, batch, _ = setting()
    gradients = internal_gradients(network, distillation()[0], batch, *targets(batch))[1]
    together = np.sqrt(sum((clipped(g, 1.0) ** 2).sum() for g in gradients.values()))
    norm = 1 - 5e-7
    return found | {
        "optimiser-clip-small": float(together),
        "optimiser-clip-tensors": float(len(network_shapes(PUBLISHED)) + 2),
        "optimiser-clip-most": float(np.sqrt(len(network_shapes(PUBLISHED)) + 2)),
        "optimiser-clip-edge": float(clipped(np.array([norm]), 1.0)[0] / norm - min(1.0, 1 / (norm + 1e-6))),
    }


def sizes() -> dict[str, float]:
    def count(shapes):
        return float(sum(np.prod(shape) for shape in shapes.values()))

    d = PUBLISHED.hidden_size
    student = count(network_shapes(PUBLISHED))
    heads = d * d + d  # fit; the pooler has as many
    general = 2 * (student + d * d) + heads  # the network and its copy for the solver, each with a feedback matrix
    teacher = count(network_shapes(BertConfig())) + heads
    return {
        "size-student": student / 1e6,
        "size-student-fit": (student + heads) / 1e6,
        "size-logged": general / 1e6,
        "size-teacher": teacher / 1e6,
    }


def energy() -> dict[str, float]:
    found = {f"energy-{t}": Energy(t * 0.144, 0.0, 1.0).gain for t in (16, 80, 125)}
    return found | {"energy-break-even": 4.6 / 0.9}


def numbers() -> dict[str, float]:
    paper = (86.82, 78.10, 88.19, 85.20, 66.06, 79.17, 82.20)
    logged = np.array([767, 762, 766, 764, 761, 764, 758, 762, 761, 760, 769]) / 872  # correct of 872 sentences
    return {
        "paper-mean-off": 80.83 - float(np.mean(paper)),
        "log-best": 100 * float(logged.max()),
        "log-mean": 100 * float(logged.mean()),
        "log-least": 100 * float(logged.min()),
        "log-gain": 100 * float(logged.max() - logged.mean()),
    }


def masks() -> dict[str, float]:
    network, params, batch, rates = setting()
    name = "encoder.0.context"
    reads = tuple(rates[read] for read in network[name].reads)
    mask = attention_mask(batch, np.dtype(float))
    currents = [
        network[name].projection(params, reads, np.where(mask < 0, hidden, 0.0))[0] for hidden in (-10000.0, -np.inf)
    ]
    weights, _ = ops.softmax(np.array([3.0, 1.0, 2.0]) - 10000.0)
    return {
        "mask-current": float(np.abs(currents[0] - currents[1]).max()),
        "mask-all-padded": float(weights.max()),
    }


def layer_norm() -> dict[str, float]:
    _, params, batch, rates = setting()
    other, _ = rate_map(spiking_bert(replace(SMALL, layer_norm_eps=1e-5)), params, batch)
    row = 1e-3 * np.random.default_rng(0).normal(size=(1, 768))
    ones, zeros = np.ones(768), np.zeros(768)
    narrow = [ops.layer_norm(row, ones, zeros, eps)[0].std() for eps in (1e-12, 1e-5)]
    return {
        "norm-rate": float(np.abs(other[LAST] - rates[LAST]).max()),
        "norm-narrow": float(narrow[1] / narrow[0]),
    }


def gelu() -> dict[str, float]:
    x = np.linspace(-6, 6, 120_001)
    approximate = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    error = np.abs(ops.gelu(x)[0] - approximate)
    return {"gelu-error": float(error.max()), "gelu-at": float(np.abs(x[error.argmax()]))}


EXPERIMENTS = (leaky_average, ties, initial_potential, plateau, silent, feedback, solvers, modes, edges, padding,
               probabilities, soft_labels, dropout, batches, optimiser, sizes, energy, numbers, masks, layer_norm,
               gelu)  # fmt: skip


def shown(value: float) -> str:
    """Three significant digits, four from 10 on; whole numbers in full."""
    if value == int(value):
        return f"{int(value):,}"
    return (f"{value:.4g}" if abs(value) >= 10 else f"{value:.3g}").replace("e-0", "e-").replace("-", "−")


def read(text: str) -> float:
    """Undo `shown`."""
    return float(text.replace("−", "-").replace(",", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description="the figures of the errata ledger")
    parser.add_argument("--write", action="store_true", help=f"put them into {PAGE.name}")
    figures = {name: value for experiment in EXPERIMENTS for name, value in experiment().items()}
    if not parser.parse_args().write:
        for name, value in figures.items():
            print(f"{shown(value):>12}  {name}")
        return
    text = PAGE.read_text(encoding="utf-8")
    text = FIGURE.sub(lambda found: f"{shown(figures[found['name']])}<!-- {found['name']} -->", text)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
