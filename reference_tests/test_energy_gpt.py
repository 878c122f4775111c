"""Counts of a spiking GPT: by hand, and against a machine that computes one number at a time and counts as it goes."""

import math

import numpy as np
import pytest
from test_certify_gpt import neuron_of, random_gpt_parameters
from test_energy import PLACES, SENTENCE, TINY, Walk, attend, per_token, without_zeros

from refsnn.errors import InputError
from refsnn.model.gpt import FINAL, GptConfig, gpt, spiking_gpt
from refsnn.model.network import INPUT, Network, Population
from refsnn.model.neurons import Neuron
from refsnn.model.projections import Add, Drive, Linear, TokenEmbeddings
from refsnn.readings.energy import Energies, count, full_count
from refsnn.readings.rate_map import rate_map
from refsnn.readings.simulate import spike_blocks

#: As wide as the machine of `test_energy` has it.
CONFIG = GptConfig(
    vocab_size=9,
    n_positions=5,
    n_embd=TINY.hidden_size,
    n_layer=1,
    n_head=TINY.num_attention_heads,
    n_inner=TINY.intermediate_size,
    layer_norm_epsilon=TINY.layer_norm_eps,
)
NEURONS = [p.name for p in spiking_gpt(CONFIG).populations if p.neuron is not None]
WHICH = {"block.0.context": "h.0.attn.threshold", "block.0.intermediate": "h.0.mlp.threshold"}


class GptWalk(Walk):
    """A GPT computed by loops."""

    def embed(self):
        m = self.m
        m.at(INPUT, "embeddings")
        self.x = []
        for place in PLACES:
            rows = self.params["wte.weight"][SENTENCE.input_ids[0, place]], self.params["wpe.weight"][place]
            found = [m.add(m.read(t, "dram_read"), m.read(p)) for t, p in zip(*rows, strict=True)]
            self.x.append([m.write(value) for value in found])

    def threshold(self, name, i):
        if name not in WHICH:
            return 1.0
        self.m.at(name, "thresholds")
        return self.m.read(self.params[WHICH[name]][i])

    def taken(self, name, values):
        """Fetch what analogue units hold."""
        self.m.at(name, "activations")
        return [self.m.read(value) for value in values]

    def held(self, name, values):
        self.m.at(name, "activations")
        return [self.m.write(value) for value in values]

    def norm(self, found, name, prefix, stream):
        m, currents = self.m, []
        for place in PLACES:
            x = self.taken(name, found[stream][place])
            if self.rule == "running":
                m.at(name, "running means")
                total = self.kept.setdefault((name, place, "total"), [0.0] * len(x))
                for i, value in enumerate(x):
                    total[i] = m.write(m.add(m.read(total[i]), value))
                x = [m.multiply(value, 1 / self.t) for value in total]
            m.at(name, "normalisation")
            currents.append(self.normalise(x, prefix))
        found[name] = self.settled(name, currents, True)

    def settled(self, name, currents, curved):
        if self.rule == "running" and curved:
            currents = [self.difference(name, place, current) for place, current in enumerate(currents)]
        return self.units(name, currents)

    def add(self, found, name, prefix, read, stream):
        m, found[name] = self.m, []
        for place in PLACES:
            total = self.linear(name, place, "linear", prefix, found[read][place])
            x = self.taken(name, found[stream][place])
            m.at(name, "residual")
            found[name].append(self.held(name, [m.add(a, b) for a, b in zip(total, x, strict=True)]))

    def step(self, t):
        m, self.t, found, means = self.m, t, {}, self.rule == "running"
        found["embeddings"] = []
        for place in PLACES:
            m.at("embeddings", "linear")
            found["embeddings"].append(self.held("embeddings", [m.read(x) for x in self.x[place]]))
        block = "block.0."
        self.norm(found, h := block + "attention_norm", "h.0.ln_1", "embeddings")
        for which in ("key", "value"):
            name = block + which
            currents = [self.linear(name, i, "linear", f"h.0.attn.{which}", found[h][i]) for i in PLACES]
            found[name] = self.settled(name, currents, False)
        name, keys, values = block + "context", found[block + "key"], found[block + "value"]
        if means:
            keys, values = self.means(name, "key", keys), self.means(name, "value", values)
        context, real = [], not self.spiking or means
        for i in PLACES:
            query = self.linear(name, i, "query", "h.0.attn.query", found[h][i], means=means)
            context.append(attend(m, name, query, keys[: i + 1], values[: i + 1], not real))
        found[name] = self.settled(name, context, True)
        self.add(found, block + "attention_output", "h.0.attn.c_proj", name, "embeddings")
        self.norm(found, h := block + "intermediate_norm", "h.0.ln_2", block + "attention_output")
        name = block + "intermediate"
        inner = [self.linear(name, i, "linear", "h.0.mlp.c_fc", found[h][i], means=means) for i in PLACES]
        m.at(name, "gelu")
        inner = [[self.gelu(z) for z in row] for row in inner]
        found[name] = self.settled(name, inner, True)
        self.add(found, block + "output", "h.0.mlp.c_proj", name, block + "attention_output")
        self.norm(found, FINAL, "ln_f", block + "output")
        return found

    def gelu(self, x):
        self.m.note("gelu")
        return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    def simulate(self, t_conv):
        m, record = self.m, []
        self.embed()
        for t in range(1, t_conv + 1):
            record.append(self.step(t))
            m.at("next token", "read-out")
            for place, spikes in enumerate(record[-1][FINAL]):
                counts = self.kept.setdefault(("counts", place), [0.0] * len(spikes))
                for i, s in enumerate(spikes):
                    counts[i] = m.write(m.add(m.read(counts[i]), s))
        m.at("next token", "read-out")
        weight, bias, logits = self.params["readout.weight"], self.params["readout.bias"], []
        for place in PLACES:
            rates = [m.multiply(m.read(number), 1 / t_conv) for number in self.kept["counts", place]]
            taken = [
                m.multiply_accumulate(m.read(b), m.read(w), a) for b, w, a in zip(bias, weight, rates, strict=True)
            ]
            logits.append(self.scores(taken))
        return {name: np.array([step[name] for step in record]) for name in record[0]}, np.array(logits)

    def scores(self, x):
        found = []
        for row in self.params["wte.weight"]:
            total = 0.0
            for w, value in zip(row, x, strict=True):
                total = self.m.multiply_accumulate(total, self.m.read(w, "dram_read"), value)
            found.append(total)
        return found


def attention_of(counts):
    return {key: n for key, n in counts.items() if key[1] == "attention" and key[2] in ("accumulate", "read")}


@pytest.mark.parametrize("leak", [1.0, 0.9])
@pytest.mark.parametrize("polarity", ["unsigned", "retractable", "ternary"])
@pytest.mark.parametrize("rule", ["inst", "running"])
def test_count_is_that_of_a_machine_that_computes_the_same_spikes(rule, polarity, leak):
    t_conv, neuron = 9, neuron_of(polarity, leak=leak)
    params, network = random_gpt_parameters(CONFIG, 4), spiking_gpt(CONFIG, neuron)
    walk = GptWalk(params, neuron, False, rule)
    found, scores = walk.simulate(t_conv)

    # The machine computes what it says it does:
    blocks = [dict(block) for _, block in spike_blocks(network, params, SENTENCE, t_conv, rule)]
    for name, numbers in found.items():
        wanted = np.concatenate([block[name] for block in blocks])[:, 0]
        np.testing.assert_allclose(numbers, wanted, rtol=1e-12, atol=1e-12 * (name not in NEURONS), err_msg=name)
    taken = found[FINAL].mean(axis=0) * params["readout.weight"] + params["readout.bias"]
    np.testing.assert_allclose(scores, taken @ params["wte.weight"].T, rtol=1e-12, atol=1e-14)
    fired = {name: np.abs(found[name]) for name in NEURONS}
    assert all(0 < s.mean() < 1 for s in fired.values())

    rates = {name: s.mean() for name, s in fired.items()}
    counted = without_zeros(full_count(network, rates, len(PLACES), 0, rule, CONFIG.vocab_size).spiking(t_conv))
    noted = per_token(walk.m)
    if rule == "inst":  # a key is seen by all that come after it; the count takes a rate to be the same everywhere
        seen = np.arange(len(PLACES), 0, -1)[:, None]
        for kind in ("accumulate", "read"):
            gated = [(fired[f"block.0.{which}"] * seen).sum() / len(PLACES) for which in ("key", "value")]
            assert noted.pop(("block.0.context", "attention", kind)) == pytest.approx(sum(gated), rel=1e-12)
            evenly = t_conv * 2 * 4 * (rates["block.0.key"] + rates["block.0.value"])  # 2 of 3 on average, 4 wide
            assert counted.pop(("block.0.context", "attention", kind)) == pytest.approx(evenly, rel=1e-12)
    assert counted == pytest.approx(noted, rel=1e-12)


def test_count_of_the_ordinary_network_is_that_of_a_machine_that_computes_its_activations():
    params = random_gpt_parameters(CONFIG, 4)

    class Ordinary(GptWalk):
        def threshold(self, name, i):
            return 1.0

        def taken(self, name, values):
            return self.read_values(name, values)

    walk = Ordinary(params, None, False, None)
    walk.embed()
    units = walk.step(1)
    walk.m.at("next token", "read-out")
    for place in PLACES:
        walk.scores([walk.m.read(value) for value in units[FINAL][place]])
    wanted, _ = rate_map(gpt(CONFIG), params, SENTENCE)
    for name, numbers in units.items():
        np.testing.assert_allclose(numbers, wanted[name][0], rtol=1e-11, atol=1e-13, err_msg=name)
    counted = full_count(spiking_gpt(CONFIG), dict.fromkeys(NEURONS, 0.3), len(PLACES), 0, "inst", CONFIG.vocab_size)
    assert without_zeros(counted.ordinary) == pytest.approx(per_token(walk.m), rel=1e-12)


@pytest.mark.parametrize("rule", ["inst", "running"])
def test_energy_of_one_block_by_hand(rule):
    """The formulas of docs/energy.md, written out a second time."""
    d, m, h, n, v, t = 4, 6, 2, 5, 9, 10
    network = spiking_gpt(CONFIG)
    rates = {name: 0.1 * (i + 1) for i, name in enumerate(NEURONS)}
    a, key, value, context, b, inner, last = rates.values()
    seen = (n + 1) / 2
    counted = full_count(network, rates, n, 0, rule, v)

    norm = 0.9 * (2 * d + 1) + 3.7 * (d + 2) + 4.6 * 2 * d + 26.3 + 26.3
    softmax = h * seen * (0.9 + 2 * 0.9 + 32.2 + 3.7) + 26.3 * h
    maps = 3 * d * d * a + d * d * context + d * m * b + m * d * inner
    products = seen * d * (key + value)
    membrane = 0.9 * (2 * (6 * d + m) + d * (a + key + value + context + b + last) + m * inner)
    step = 0.9 * maps + softmax + 3 * norm + 92 * m + membrane + 0.9 * 2 * d + 0.9 * d
    if rule == "inst":
        step += 0.9 * products
    else:
        step += 4.6 * 2 * seen * d
        step += 3 * d * (3.7 * 2 + 0.9 * 2)  # LayerNorms: mean, t·f; the stream's sum, the difference
        step += 3.7 * 2 * d + 0.9 * d * (key + value)  # attention's means
        step += (d + m) * (3.7 * 2 + 0.9 * 2)  # context and intermediate
    scores = 4.6 * v * d
    once = 0.9 * d + 3.7 * d + 4.6 * d + scores
    dense = 4 * d * d + 2 * d * m + 2 * seen * d
    ordinary = 0.9 * d + 4.6 * dense + softmax + 3 * norm + 92 * m + 0.9 * 2 * d + scores
    energies = Energies().without_memory()
    assert counted.gain(t, energies) == pytest.approx(ordinary / (once + t * step), rel=1e-12)
    assert counted.break_even(energies) == pytest.approx((ordinary - once) / step, rel=1e-12)

    paper = count(network, rates, t, n, rule)
    means = rule == "running"
    assert paper.dense == pytest.approx(dense)
    assert paper.accumulates == pytest.approx(t * (maps + (0 if means else products)), rel=1e-12)
    assert paper.products == pytest.approx(t * 2 * seen * d * means)


def test_without_a_read_out_the_network_is_counted_alone():
    network, rates = spiking_gpt(CONFIG), dict.fromkeys(NEURONS, 0.2)
    alone, whole = (full_count(network, rates, 3, 0, vocabulary=v) for v in (0, 9))
    for part in ("once", "step", "ordinary"):
        fewer, more = getattr(alone, part), getattr(whole, part)
        assert fewer == {key: n for key, n in more.items() if key[0] != "next token"} != more
        assert {population for population, _, _ in fewer} <= {INPUT, *(p.name for p in network.populations)}


def mixed(neuron):
    """Analogue units that drive a dense map."""
    return Network(
        drive=TokenEmbeddings(),
        populations=(
            Population("embeddings", Drive(), (INPUT,), 4, None),
            Population("key", Linear("h.0.attn.key"), ("embeddings",), 4, neuron),
            Population("stream", Add("h.0.attn.c_proj"), ("key", "embeddings"), 4, None),
        ),
        readouts=("stream",),
        contexts=(),
    )


def test_what_real_numbers_drive_multiplies_at_every_step():
    network = mixed(Neuron())
    paper = count(network, {"key": 0.25}, 8, 3)
    assert (paper.accumulates, paper.products, paper.dense) == (8 * 16 * 0.25, 8 * 16, 32)
    step = full_count(network, {"key": 0.25}, 3, 0).step
    assert step["key", "linear", "multiply_accumulate"] == 16 and step["key", "activations", "read"] == 4
    assert step["stream", "linear", "accumulate"] == 4 and ("stream", "membrane", "add") not in step
    assert (step["stream", "activations", "read"], step["stream", "activations", "write"]) == (4, 4)


def test_rates_are_asked_of_neurons_alone():
    network, rates = spiking_gpt(CONFIG), dict.fromkeys(NEURONS, 0.2)
    stream = {p.name: float("nan") for p in network.populations if p.neuron is None}
    for counting in (lambda r: count(network, r, 4, 3), lambda r: full_count(network, r, 3, 0)):
        assert counting(rates) == counting(rates | stream)
        with pytest.raises(InputError, match=r"the firing rate of block\.0\.key is None"):
            counting({name: rate for name, rate in rates.items() if name != "block.0.key"})
    for counting in (lambda: count(gpt(CONFIG), {}, 4, 3), lambda: full_count(gpt(CONFIG), {}, 3, 0)):
        with pytest.raises(InputError, match="every population has analogue units, so there are no spikes to count"):
            counting()
    with pytest.raises(InputError, match="vocabulary"):
        full_count(network, rates, 3, 0, vocabulary=-1)
