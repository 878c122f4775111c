"""The full count of operations against a machine that computes one number at a time and counts as it goes."""

import dataclasses
import json
import math
import re
from collections import Counter

import numpy as np
import pytest
from conftest import ROOT, random_parameters
from test_report import edit, evaluated, plain, run  # noqa: F401

from refsnn.commands.cli import main
from refsnn.distillation.student import logits
from refsnn.errors import InputError
from refsnn.model.batch import Batch
from refsnn.model.families import bert, spiking_bert
from refsnn.model.network import INPUT
from refsnn.model.neurons import Neuron
from refsnn.model.shapes import BertConfig
from refsnn.pages.figures.energy import SPENT, spent
from refsnn.pages.report import write_report
from refsnn.pages.tables import break_even, results_table
from refsnn.readings.energy import Energies, by_kind, count, full_count, read_energies
from refsnn.readings.rate_map import rate_map
from refsnn.readings.simulate import spike_blocks
from refsnn.storage.checkpoints import load_student

TINY = BertConfig(
    vocab_size=9,
    hidden_size=4,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=6,
    max_position_embeddings=5,
)
CLASSES = 3
HEADS = {"classifier.weight": (CLASSES, 4), "classifier.bias": (CLASSES,)}
SENTENCE = Batch(np.array([[2, 7, 4]]), np.array([[0, 1, 1]]), np.ones((1, 3), int))
PLACES = range(3)


# ---------------------------------------------------------------------------------------------------------------------
# The machine


class Machine:
    """Arithmetic on single numbers; each operation is noted under the population and term being worked on."""

    def __init__(self):
        self.noted = Counter()

    def at(self, population, term):
        self.place = (population, term)

    def note(self, kind):
        self.noted[(*self.place, kind)] += 1

    def accumulate(self, total, x):
        self.note("accumulate")
        return total + x

    def multiply_accumulate(self, total, x, y):
        self.note("multiply_accumulate")
        return total + x * y

    def add(self, x, y):
        self.note("add")
        return x + y

    def multiply(self, x, y):
        self.note("multiply")
        return x * y

    def divide(self, x, y):
        self.note("divide")
        return x / y

    def at_least(self, x, y):
        self.note("compare")
        return x >= y

    def square_root(self, x):
        self.note("square_root")
        return math.sqrt(x)

    def exponential(self, x):
        self.note("exponential")
        return math.exp(x)

    def gelu(self, x):
        self.note("gelu")
        return x * 0.5 * math.erfc(-x / math.sqrt(2))

    def read(self, x, kind="read"):
        self.note(kind)
        return x

    def write(self, x):
        self.note("write")
        return x


def weighted_sum(m, start, weights, values, spikes):
    """Start + Σ w·x; nothing is done where no spike arrives."""
    total = start
    for w, x in zip(weights, values, strict=True):
        if not spikes:
            total = m.multiply_accumulate(total, m.read(w), x)
        elif x:
            total = m.accumulate(total, x * m.read(w))  # x is 1 or −1: added or taken off
    return total


def layer_norm(m, x, gamma, beta, eps):
    total = 0.0
    for value in x:
        total = m.add(total, value)
    mean = m.multiply(total, 1 / len(x))
    centred = [m.add(value, -mean) for value in x]
    total = 0.0
    for value in centred:
        total = m.multiply_accumulate(total, value, value)
    variance = m.add(m.multiply(total, 1 / len(x)), eps)
    scale = m.divide(1.0, m.square_root(variance))
    x_hat = [m.multiply(value, scale) for value in centred]
    return [m.multiply_accumulate(m.read(b), m.read(g), v) for g, b, v in zip(gamma, beta, x_hat, strict=True)]


def softmax(m, x):
    top = -math.inf
    for value in x:
        top = value if m.at_least(value, top) else top
    powers = [m.exponential(m.add(value, -top)) for value in x]
    total = 0.0
    for power in powers:
        total = m.add(total, power)
    inverse = m.divide(1.0, total)
    return [m.multiply(power, inverse) for power in powers]


def attend(m, name, query, keys, values, spikes):
    """Context of one token; the query is scaled already."""
    context = []
    size = len(query) // TINY.num_attention_heads
    for head in range(TINY.num_attention_heads):
        features = range(head * size, (head + 1) * size)
        m.at(name, "attention")
        scores = []
        for key in keys:
            total = 0.0
            for f in features:
                if not spikes:
                    total = m.multiply_accumulate(total, query[f], m.read(key[f]))
                elif key[f]:
                    total = m.accumulate(total, key[f] * m.read(query[f]))
            scores.append(total)
        m.at(name, "softmax")
        weights = softmax(m, scores)
        m.at(name, "attention")
        for f in features:
            total = 0.0
            for p, value in zip(weights, values, strict=True):
                if not spikes:
                    total = m.multiply_accumulate(total, p, m.read(value[f]))
                elif value[f]:
                    total = m.accumulate(total, value[f] * m.read(p))
            context.append(total)
    return context


class Walk:
    """A network computed by loops: time, populations, tokens, neurons, inputs."""

    def __init__(self, params, neuron, feedback, rule):
        self.m = Machine()
        self.params = {name: value.tolist() for name, value in params.items()}
        scale = math.sqrt(TINY.hidden_size // TINY.num_attention_heads)
        for name, value in params.items():
            if ".query." in name:  # prepared beforehand
                self.params[name] = (value / scale).tolist()
        self.neuron, self.feedback, self.rule = neuron, feedback, rule
        self.spiking = neuron is not None
        self.kept = {}

    def embed(self):
        m, tables = (
            self.m,
            [self.params[f"embeddings.{t}_embeddings.weight"] for t in ("word", "position", "token_type")],
        )
        m.at(INPUT, "embeddings")
        x = []
        for place in PLACES:
            rows = [SENTENCE.input_ids[0, place], place, SENTENCE.token_type_ids[0, place]]
            total = []
            for feature in range(TINY.hidden_size):
                word, position, kind = (table[row][feature] for table, row in zip(tables, rows, strict=True))
                total.append(m.add(m.add(m.read(word, "dram_read"), m.read(position)), m.read(kind)))
            x.append([m.write(v) for v in self.normalise(total, "embeddings.LayerNorm")])
        self.x = x

    def normalise(self, x, name):
        gamma, beta = self.params[f"{name}.weight"], self.params[f"{name}.bias"]
        return layer_norm(self.m, x, gamma, beta, TINY.layer_norm_eps)

    def read_values(self, name, values):
        """Fetch what an analogue unit reads; spikes are there by themselves."""
        if not self.spiking:
            self.m.at(name, "activations")
            values = [self.m.read(value) for value in values]
        return values

    def linear(self, name, place, term, prefix, values, residual=None, means=False):
        """``W a + b``, or, of running means, the mean of all ``W a`` so far, + b."""
        m, key = self.m, (name, place)
        weight, bias = self.params[f"{prefix}.weight"], self.params[f"{prefix}.bias"]
        values = self.read_values(name, values)
        residual = None if residual is None else self.read_values(name, residual)
        out = []
        for i, (row, b) in enumerate(zip(weight, bias, strict=True)):
            m.at(name, term)
            start = m.read(b)
            if means:
                m.at(name, "running means")
                start = m.read(self.kept.setdefault((*key, "sum"), [0.0] * len(bias))[i])
            m.at(name, term)
            total = weighted_sum(m, start, row, values, self.spiking)
            m.at(name, "residual")
            if residual is not None and not self.spiking:
                total = m.add(total, residual[i])
            elif residual is not None and residual[i]:
                synapses = self.params.get(prefix.replace("dense", "residual") + ".weight")
                weight = 1.0 if synapses is None else m.read(synapses[i])
                total = m.accumulate(total, residual[i] * weight)
            if means:
                m.at(name, "running means")
                self.kept[(*key, "sum")][i] = m.write(total)
                total = m.add(m.multiply(total, 1 / self.t), b)
            out.append(total)
        return out

    def difference(self, name, place, current):
        """``t·f − `` what it was a step ago."""
        m, before = self.m, self.kept.get((name, place, "integral"), [0.0] * len(current))
        m.at(name, "running means")
        integral = [m.multiply(value, float(self.t)) for value in current]
        self.kept[name, place, "integral"] = [m.write(value) for value in integral]
        return [m.add(value, -m.read(old)) for value, old in zip(integral, before, strict=True)]

    def means(self, name, read, spikes):
        """Running means of the spikes of every neuron that attention reads."""
        m, found = self.m, []
        m.at(name, "running means")
        for place in PLACES:
            counts = self.kept.setdefault((name, place, read), [0.0] * len(spikes[place]))
            for i, s in enumerate(spikes[place]):
                number = m.read(counts[i])
                counts[i] = m.write(m.accumulate(number, s) if s else number)
            found.append([m.write(m.multiply(number, 1 / self.t)) for number in counts])
        return found

    def units(self, name, currents):
        """Spikes of a population, or, of analogue units, the currents themselves."""
        m, out = self.m, []
        for place, current in enumerate(currents):
            if not self.spiking:
                m.at(name, "activations")
                out.append([m.write(i) for i in current])
                continue
            potentials = self.kept.setdefault((name, place), [self.neuron.u0 * self.neuron.vth] * len(current))
            counts = self.kept.setdefault((name, place, "net"), [0.0] * len(current))
            spikes = []
            for i, drive in enumerate(current):
                own = self.threshold(name, i)
                m.at(name, "membrane")
                v = m.read(potentials[i])
                if self.neuron.leak != 1:
                    v = m.multiply(v, self.neuron.leak)
                v = m.add(v, drive / own)
                s = self.fires(name, v, counts, i)
                m.at(name, "membrane")
                potentials[i] = m.write(m.add(v, -self.neuron.vth * s) if s else v)
                spikes.append(s)
            out.append(spikes)
        return out

    def threshold(self, name, i):
        """A neuron's own threshold, in units of V_th: a current is measured in it for nothing, as levels would be."""
        _, e, kind = name.split(".") if "." in name else ("", "", name)
        which = {"context": "attention.self", "intermediate": "intermediate"}.get(kind)
        thresholds = self.params.get(f"encoder.layer.{e}.{which}.threshold")
        if thresholds is None:
            return 1.0
        self.m.at(name, "thresholds")
        return self.m.read(thresholds[i])

    def fires(self, name, v, counts, i):
        m, vth, polarity = self.m, self.neuron.vth, self.neuron.polarity
        due = 0.5 if polarity == "ternary" else 1.0
        s = float(m.at_least(v, vth * (due - 1e-9)))
        if polarity == "unsigned":
            return s
        below = not m.at_least(v, vth * (due - 1 - 1e-9))
        if polarity == "ternary":
            return -1.0 if below else s
        m.at(name, "net count")
        none = m.at_least(0.0, m.read(counts[i]))
        s = -1.0 if below and not none else s
        if s:
            counts[i] = m.write(m.add(counts[i], s))
        return s

    def step(self, t, last):
        """One time step, or the one pass of an analogue network; `last` is what the last population gave before."""
        m, self.t, found = self.m, t, {}
        means = self.rule == "running"
        currents = []
        for place in PLACES:
            returned = self.read_values("embeddings", last[place]) if self.feedback else []
            m.at("embeddings", "linear")
            rows = self.params["feedback.weight"] if self.feedback else [[]] * TINY.hidden_size
            starts = [m.read(x) for x in self.x[place]]
            sums = [weighted_sum(m, x, row, returned, self.spiking) for x, row in zip(starts, rows, strict=True)]
            currents.append(sums)
        h = found["embeddings"] = self.units("embeddings", currents)
        for e in range(TINY.num_hidden_layers):
            self.encoder(e, h, found, means)
            h = found[f"encoder.{e}.output"]
        return found

    def encoder(self, e, h, found, means):
        m = self.m

        def settle(name, currents):
            if means and name.rpartition(".")[2] not in ("key", "value"):
                currents = [self.difference(name, place, current) for place, current in enumerate(currents)]
            found[name] = self.units(name, currents)
            return found[name]

        prefix = f"encoder.layer.{e}"
        keys, values = (
            settle(name, [self.linear(name, i, "linear", f"{prefix}.attention.self.{which}", h[i]) for i in PLACES])
            for which in ("key", "value")
            for name in [f"encoder.{e}.{which}"]
        )
        name = f"encoder.{e}.context"
        if means:
            keys, values = self.means(name, "key", keys), self.means(name, "value", values)
        context = []
        for i in PLACES:
            query = self.linear(name, i, "query", f"{prefix}.attention.self.query", h[i], means=means)
            context.append(attend(m, name, query, keys, values, self.spiking and not means))
        context = settle(name, context)
        attended = self.add_norm(settle, e, "attention_output", f"{prefix}.attention.output", context, h, means)
        name = f"encoder.{e}.intermediate"
        inner = [
            self.linear(name, i, "linear", f"{prefix}.intermediate.dense", attended[i], means=means) for i in PLACES
        ]
        m.at(name, "gelu")
        inner = settle(name, [[m.gelu(z) for z in row] for row in inner])
        self.add_norm(settle, e, "output", f"{prefix}.output", inner, attended, means)

    def add_norm(self, settle, e, which, prefix, values, residual, means):
        name = f"encoder.{e}.{which}"
        currents = []
        for i in PLACES:
            z = self.linear(name, i, "linear", f"{prefix}.dense", values[i], residual[i], means)
            self.m.at(name, "normalisation")
            currents.append(self.normalise(z, f"{prefix}.LayerNorm"))
        return settle(name, currents)

    def count_cls(self, spikes):
        self.m.at("classifier", "read-out")
        counts = self.kept.setdefault("counts", [0.0] * len(spikes))
        for i, s in enumerate(spikes):
            counts[i] = self.m.write(self.m.add(self.m.read(counts[i]), s))

    def classify(self, cls):
        m = self.m
        m.at("classifier", "read-out")
        active = [m.read(x) for x in cls]
        if self.neuron is None or self.neuron.polarity != "ternary":
            active = [x if m.at_least(x, 0.0) else 0.0 for x in active]
        weight, bias = self.params["classifier.weight"], self.params["classifier.bias"]
        return [weighted_sum(m, m.read(b), row, active, False) for row, b in zip(weight, bias, strict=True)]

    def simulate(self, t_conv):
        """Spikes of every population, class scores."""
        self.embed()
        record, last = [], [[0.0] * TINY.hidden_size] * len(PLACES)
        for t in range(1, t_conv + 1):
            record.append(self.step(t, last))
            last = record[-1][f"encoder.{TINY.num_hidden_layers - 1}.output"]
            self.count_cls(last[0])
        self.m.at("classifier", "read-out")
        z = self.classify([self.m.multiply(number, 1 / t_conv) for number in self.kept["counts"]])
        return {name: np.array([step[name] for step in record]) for name in record[0]}, z


def per_token(machine):
    return {key: number / len(PLACES) for key, number in machine.noted.items()}


def without_zeros(counts):
    return {key: number for key, number in counts.items() if number}


# ---------------------------------------------------------------------------------------------------------------------
# The counts


@pytest.mark.parametrize("feedback", [False, True], ids=["forward", "feedback"])
@pytest.mark.parametrize(
    "neuron",
    [Neuron(u0=0.5), Neuron(vth=0.8, leak=0.9), Neuron(u0=0.5, polarity="retractable"), Neuron(polarity="ternary")],
    ids=["IF", "LIF", "retractable", "ternary"],
)
@pytest.mark.parametrize("rule", ["inst", "running"])
def test_count_is_that_of_a_machine_that_computes_the_same_spikes(rule, neuron, feedback):
    t_conv = 7
    params = random_parameters(TINY, 6, feedback, extra=HEADS, per_feature=neuron.signed)
    network = spiking_bert(TINY, neuron, feedback, per_feature=neuron.signed)
    walk = Walk(params, neuron, feedback, rule)
    spikes, scores = walk.simulate(t_conv)

    # The machine computes what it says it does:
    blocks = [dict(block) for _, block in spike_blocks(network, params, SENTENCE, t_conv, rule)]
    for name, found in spikes.items():
        wanted = np.concatenate([block[name] for block in blocks])[:, 0]
        np.testing.assert_array_equal(found, wanted, err_msg=name)
    last = spikes[network.readouts[-1]].mean(axis=0)
    np.testing.assert_allclose(scores, logits(params, last[None], network.rectified)[0][0], rtol=1e-12)
    fired = {name: np.abs(s) for name, s in spikes.items()}
    assert all(0 < s.mean() < 1 for s in fired.values())  # so that a rate taken for another would be seen

    if feedback:  # the count lets the last step's spikes return too, though no step follows
        returned = TINY.hidden_size * fired[network.readouts[-1]][-1].sum()
        walk.m.noted["embeddings", "linear", "accumulate"] += returned
        walk.m.noted["embeddings", "linear", "read"] += returned
    rates = {name: s.mean() for name, s in fired.items()}
    counted = full_count(network, rates, len(PLACES), CLASSES, rule)
    assert without_zeros(counted.spiking(t_conv)) == pytest.approx(per_token(walk.m), rel=1e-12)

    # The paper's count is what it says it is: the accumulates of the synapses among these.
    paper = count(network, rates, t_conv, len(PLACES), rule)
    synaptic = [
        number
        for (_, term, kind), number in per_token(walk.m).items()
        if kind == "accumulate" and term in ("linear", "query", "attention", "residual")
    ]
    assert paper.accumulates == pytest.approx(sum(synaptic), rel=1e-12)


@pytest.mark.parametrize("feedback", [False, True], ids=["forward", "feedback"])
def test_count_of_the_ordinary_network_is_that_of_a_machine_that_computes_its_activations(feedback):
    params = random_parameters(TINY, 6, feedback, extra=HEADS)
    walk = Walk(params, None, feedback, None)
    walk.embed()
    nothing = [[0.0] * TINY.hidden_size] * len(PLACES)
    units = walk.step(1, nothing)
    walk.classify(units["encoder.1.output"][0])
    wanted, _ = rate_map(bert(TINY), params, SENTENCE)
    for name, found in units.items():
        np.testing.assert_allclose(found, wanted[name][0], rtol=1e-11, atol=1e-13, err_msg=name)
    network = spiking_bert(TINY, Neuron(), feedback)
    counted = full_count(network, dict.fromkeys(units, 0.3), len(PLACES), CLASSES)
    assert without_zeros(counted.ordinary) == pytest.approx(per_token(walk.m), rel=1e-12)


def test_energy_of_one_encoder_by_hand():
    """The formulas of docs/energy.md, written out a second time."""
    config = dataclasses.replace(TINY, num_hidden_layers=1)
    d, m, h, n, k, t = 4, 6, 2, 5, CLASSES, 10
    network = spiking_bert(config)
    rates = {p.name: 0.1 * (i + 1) for i, p in enumerate(network.populations)}
    e, key, value, context, attended, inner, output = rates.values()
    counted = full_count(network, rates, n, k)

    norm = 0.9 * (2 * d + 1) + 3.7 * (d + 2) + 4.6 * 2 * d + 26.3 + 26.3
    softmax = h * n * (0.9 + 2 * 0.9 + 32.2 + 3.7) + 26.3 * h
    accumulates = 3 * d * d * e + n * d * (key + value) + (d * d * context + d * e)
    accumulates += d * m * attended + (m * d * inner + d * attended)
    neurons, spikes = 6 * d + m, d * (e + key + value + context + attended + output) + m * inner
    membrane = 0.9 * (neurons + spikes) + 0.9 * neurons
    step = 0.9 * accumulates + softmax + 2 * norm + 92 * m + membrane + 0.9 * d / n
    once = 0.9 * 2 * d + norm + (3.7 * d + 0.9 * d + 4.6 * k * d) / n
    ordinary = 4.6 * (4 * d * d + 2 * n * d + 2 * d * m) + 0.9 * 2 * d + softmax + 2 * norm + 92 * m
    ordinary += 0.9 * 2 * d + norm + (0.9 * d + 4.6 * k * d) / n

    energies = Energies().without_memory()
    assert counted.gain(t, energies) == pytest.approx(ordinary / (once + t * step), rel=1e-12)
    assert counted.break_even(energies) == pytest.approx((ordinary - once) / step, rel=1e-12)


@pytest.mark.parametrize("rule", ["inst", "running"])
def test_break_even_is_where_a_search_finds_it(rule):
    config = dataclasses.replace(TINY, hidden_size=64, intermediate_size=256)
    network = spiking_bert(config)
    rates = {p.name: 0.02 + 0.001 * i for i, p in enumerate(network.populations)}
    counted = full_count(network, rates, 20, 2, rule)
    for energies in (Energies(), Energies().without_memory(), Energies(exponential=1.0, gelu=1.0)):
        saving = [t for t in range(1, 200) if counted.gain(t, energies) >= 1]
        assert saving == list(range(1, math.floor(counted.break_even(energies)) + 1))
    gains = [count(network, rates, t, 20, rule).gain for t in range(1, 400)]
    wanted = count(network, rates, 7, 20, rule).break_even(7)
    assert sum(gain >= 1 for gain in gains) == math.floor(wanted) > 0


def test_silent_network_still_costs_its_nonlinear_functions():
    network = spiking_bert(TINY)
    silent = dict.fromkeys((p.name for p in network.populations), 0.0)
    assert count(network, silent, 8, 3).gain == math.inf
    step = by_kind(full_count(network, silent, 3, CLASSES).step)
    assert step["intermediate"]["gelu"]["gelu"] == TINY.num_hidden_layers * TINY.intermediate_size
    assert not any(kinds.get("accumulate") for terms in step.values() for kinds in terms.values())


def test_units_without_spikes_are_refused():
    with pytest.raises(InputError, match="analogue"):
        full_count(bert(TINY), dict.fromkeys((p.name for p in bert(TINY).populations), 0.0), 3, CLASSES)


# ---------------------------------------------------------------------------------------------------------------------
# The table of energies


def test_counts_name_operations_that_have_an_energy():
    network = spiking_bert(TINY, Neuron(leak=0.9), feedback=True)
    rates = dict.fromkeys((p.name for p in network.populations), 0.2)
    kinds = set()
    for rule in ("inst", "running"):
        counted = full_count(network, rates, 3, CLASSES, rule)
        kinds |= {kind for _, _, kind in (*counted.spiking(2), *counted.ordinary)}
    assert kinds == {field.name for field in dataclasses.fields(Energies)}


def test_a_table_replaces_what_it_names(tmp_path):
    path = tmp_path / "energies.json"
    path.write_text('{"accumulate": 0.03, "multiply_accumulate": 0.23, "read": 0}', encoding="utf-8")
    assert read_energies(path) == dataclasses.replace(Energies(), accumulate=0.03, multiply_accumulate=0.23, read=0)


def test_the_page_has_the_table_and_its_example_can_be_read(tmp_path):
    page = (ROOT / "docs" / "energy.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", page, re.MULTILINE)
    assert {name: float(value) for name, value in rows} == dataclasses.asdict(Energies())
    path = tmp_path / "energies.json"
    path.write_text(re.search(r"```json\n(.*?)```", page, re.DOTALL)[1], encoding="utf-8")
    assert read_energies(path) == Energies(accumulate=0.1, multiply_accumulate=0.3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"acumulate": 1}', "'acumulate', but the operations are accumulate, "),
        ('{"add": -0.1}', "-0.1 for add, but an energy is a number of picojoules"),
        ('{"add": "0.9"}', "'0.9' for add"),
        ('{"add": true}', "True for add"),
        ('{"add": NaN}', "nan for add"),
        ('{"add": Infinity}', "inf for add"),
        ('{"add": null}', "None for add"),
        ("[0.9]", "holds a JSON list"),
        ('{"add": 0.9', "not valid JSON"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, text, message):
    path = tmp_path / "energies.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_energies(path)


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_energies(tmp_path / "nothing.json")


# ---------------------------------------------------------------------------------------------------------------------
# Results, table and page of a run


def test_results_hold_the_full_count_of_every_t(evaluated):  # noqa: F811
    results = json.loads((evaluated / "results-inst.json").read_text(encoding="utf-8"))
    config, _ = load_student(evaluated)
    charged = Energies(**results["energies"]).without_memory()
    assert results["energies"] == dataclasses.asdict(Energies()) and results["memory"] is False
    for row in results["spikes"]:
        counted = full_count(config.network, row["firing_rates"], results["mean_tokens"], config.classes)
        assert row["full"]["operations"] == by_kind(counted.spiking(row["t"]))
        assert results["ordinary"]["operations"] == by_kind(counted.ordinary)
        spent, ordinary = (
            sum(sum(terms.values()) for terms in of["picojoules"].values()) for of in (row["full"], results["ordinary"])
        )
        assert row["full"]["gain"] == pytest.approx(ordinary / spent, rel=1e-12)
        assert counted.gain(row["full"]["break_even"], charged) == pytest.approx(1, rel=1e-12)
        assert row["break_even"] == pytest.approx(row["t"] * row["energy_gain"], rel=1e-12)
        assert f"{row['full']['gain']:.2f}x" in results_table(results)


@pytest.mark.usefixtures("plain")
def test_command_takes_a_table_and_memory(evaluated, run, capsys):  # noqa: F811
    path = run / "energies.json"
    path.write_text('{"read": 3, "gelu": 4.6}', encoding="utf-8")
    words = ["evaluate", str(run), "--data", str(evaluated.parent / "data"), "--t-conv", "2", "--energies", str(path)]
    assert main([*words, "--memory"]) == 0
    results = json.loads((run / "results-inst.json").read_text(encoding="utf-8"))
    assert results["memory"] is True and results["energies"] == dataclasses.asdict(Energies(read=3, gelu=4.6))
    gelu = results["spikes"][0]["full"]["picojoules"]["intermediate"]["gelu"]
    assert gelu == pytest.approx(2 * 2 * 32 * 4.6)  # steps, encoders, neurons
    assert results["ordinary"]["picojoules"]["key"]["activations"] > 0
    assert "memory traffic included" in capsys.readouterr().out
    before = (run / "results-inst.json").read_bytes()
    path.write_text('{"reed": 3}', encoding="utf-8")
    assert main(words) == 2
    assert "gives an energy for 'reed'" in capsys.readouterr().err
    assert (run / "results-inst.json").read_bytes() == before


def test_page_shows_what_energy_is_spent_on(run):  # noqa: F811
    page = write_report(run).read_text(encoding="utf-8")
    results = json.loads((run / "results-inst.json").read_text(encoding="utf-8"))
    totals = [sum(spent(of["picojoules"]).values()) for of in (results["spikes"][-1]["full"], results["ordinary"])]
    assert f'<th scope="row">sum</th><td>{totals[0] / 1e6:.3f}</td><td>{totals[1] / 1e6:.3f}</td>' in page
    assert break_even(results["spikes"][-1]).replace("'", "’") in page
    terms = {term for terms in results["spikes"][-1]["full"]["picojoules"].values() for term in terms}
    assert terms | {"running means", "activations"} == {term for _, names, _ in SPENT for term in names}
    assert spent({"key": {"linear": 2.0, "silu": 3.0}, "value": {"linear": 1.0}}) == {"linear maps": 3.0, "other": 3.0}


def test_results_from_before_the_full_count_still_have_a_page(run):  # noqa: F811
    def older(results):
        for name in ("energies", "memory", "ordinary"):
            results.pop(name)
        for row in results["spikes"]:
            row.pop("full")
            row.pop("break_even")

    edit(run / "results-inst.json", older)
    page = write_report(run).read_text(encoding="utf-8")
    assert "have no full count" in page and "Where the energy goes" not in page


@pytest.mark.parametrize(
    ("paper", "full", "text"),
    [
        (19.04, 9.36, "T = 19.0 by the paper's count, T = 9.4 by the full count"),
        (3.0, 0.4, "T = 3.0 by the paper's count, T < 1 by the full count"),
        (None, -0.5, "no T by the paper's count, T < 1 by the full count"),
    ],
)
def test_break_even_in_words(paper, full, text):
    assert break_even({"break_even": paper, "full": {"break_even": full}}) == text
