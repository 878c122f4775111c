"""Cases of the suite `gpt`: GPT-2's operations, its populations, and students of it.

Sizes and judgements are those of the other suites. Rates, spikes and gradients are of networks whose residual stream is
made of analogue units, which the answers to simulations need not hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..model.gpt import GptConfig, SpikingGptConfig, spiking_gpt_shapes
from ..model.neurons import Neuron
from ..model.parameters import initial_parameters
from ..ops import MASKED
from .cases import Arrays, Case, _rng, eight_bits, parts
from .sharper import _op

__all__ = ["gpt_cases"]

ALL = ("float64", "float32", "float16", "bfloat16")

#: The requirement that a population's current or rate shows.
POPULATIONS = {
    "attention_norm": "S-46",
    "key": "S-47",
    "value": "S-47",
    "context": "S-47",
    "attention_output": "S-48",
    "intermediate_norm": "S-46",
    "intermediate": "S-47",
    "output": "S-48",
}

#: How the parameters begin that a kind of population gets. Key and value get each other's too: one may take the wrong.
PARAMETERS = {
    "attention_norm": ("h.0.ln_1.",),
    "key": ("h.0.attn.key.", "h.0.attn.value."),
    "value": ("h.0.attn.key.", "h.0.attn.value."),
    "context": ("h.0.attn.query.", "h.0.attn.threshold"),
    "attention_output": ("h.0.attn.c_proj.",),
    "intermediate_norm": ("h.0.ln_2.",),
    "intermediate": ("h.0.mlp.c_fc.", "h.0.mlp.threshold"),
    "output": ("h.0.mlp.c_proj.",),
}


def gpt_cases(sizes: Mapping[str, int], seed: int) -> Iterator[Case]:
    """Yield the suite's cases.

    Parameters
    ----------
    sizes : mapping
    seed : int

    Yields
    ------
    case : Case
    """
    yield from _ops(sizes, seed)
    yield from _currents(sizes, seed)
    yield from _networks(sizes, seed)
    yield from _gradients(sizes, seed)


def _ops(sizes: Mapping[str, int], seed: int) -> Iterator[Case]:
    rng = _rng(seed, "ops", "gpt")
    d, heads, n = sizes["width"], sizes["heads"], sizes["positions"]
    x = {"x": eight_bits(np.linspace(-3, 3, 97))}  # farther out the usual form of the derivative loses digits
    yield from _op("gelu_tanh", "gelu_tanh", "S-43", x, {}, ALL, "from −3 to 3", rng)
    mask = np.zeros((2, 1, 1, n))
    mask[1, ..., -2:] = MASKED
    for variant, queries, note in (
        ("", n, "the last two keys of the second sequence are padding"),
        ("-last", 2, "fewer queries than keys: those of the last positions"),
    ):
        shapes = {"query": (2, queries, d), "key": (2, n, d), "value": (2, n, d)}
        arrays = {name: eight_bits(rng.normal(size=shape)) for name, shape in shapes.items()} | {"mask": mask}
        yield from _op(
            f"causal_attention{variant}", "causal_attention", "S-44", arrays, {"heads": heads}, ALL, note, rng
        )


def _network(
    sizes: Mapping[str, int], seed: int, name: str, blocks: int | None = None, **neuron: Any
) -> tuple[dict[str, Any], Arrays]:
    """Return configuration, parameters and batch of a random network; none of its parameters can be left out."""
    rng = _rng(seed, "gpt", name)
    config = GptConfig(
        vocab_size=sizes["vocab"],
        n_positions=sizes["positions"] + 2,
        n_embd=sizes["width"],
        n_layer=blocks or sizes["encoders"],
        n_head=sizes["heads"],
        n_inner=sizes["inner"],
        layer_norm_epsilon=2.0**-6,  # as large as shows
    )
    params = initial_parameters(spiking_gpt_shapes(config), rng, 1.0 / np.sqrt(sizes["width"]), np.float64)
    inputs = {f"param/{k}": eight_bits(v + 0.2 * rng.normal(size=v.shape)) for k, v in params.items()}
    lengths = np.maximum(sizes["positions"] - 2 * np.arange(sizes["batch"]), 2)
    mask = (np.arange(sizes["positions"]) < lengths[:, None]).astype(np.int64)
    inputs |= {"batch/input_ids": rng.integers(0, sizes["vocab"], mask.shape), "batch/attention_mask": mask}
    inputs |= {"batch/token_type_ids": np.zeros_like(mask)}
    return SpikingGptConfig(config, Neuron(**({"tie": 0.0} | neuron))).to_dict(), inputs


def _needs(neuron: Mapping[str, Any]) -> tuple[str, ...]:
    """Features that the neurons' constants ask for."""
    found = {
        f"polarity:{neuron.get('polarity')}": "polarity" in neuron,
        "neurons:lif": "leak" in neuron,
        "neurons:u0": "u0" in neuron,
    }
    return ("gpt", *(name for name, needed in found.items() if needed))


def _currents(sizes: Mapping[str, int], seed: int) -> Iterator[Case]:
    config, inputs = _network(sizes, seed, "currents", polarity="ternary")
    params, mask = parts(inputs, "param"), inputs["batch/attention_mask"]
    network = SpikingGptConfig.from_dict(config).network
    for kind, requirement in POPULATIONS.items():
        population = network[f"block.0.{kind}"]
        for what in ("spikes", "rates", *["padding"] * (kind == "context")):
            rng = _rng(seed, "gpt", "currents", kind, what)
            own = {f"param/{k}": v for k, v in params.items() if k.startswith(PARAMETERS[kind])}
            reads = {}
            for i, read in enumerate(population.reads):
                shape = (3, *mask.shape, network[read].width)  # three timesteps
                if network[read].neuron is None:
                    drawn = rng.normal(0, 2, shape)
                else:
                    drawn = rng.uniform(-1, 1, shape) if what == "rates" else rng.integers(-1, 2, shape).astype(float)
                reads[f"read/{i}"] = eight_bits(drawn)
            note = "with padded keys" if what == "padding" else f"driven by signed {what}"
            yield Case(
                f"current/gpt-{kind}-{what}", "population", "S-44" if what == "padding" else requirement, "current",
                ("gpt", "current", f"current:{kind}"), {"config": config, "population": population.name},
                {**reads, **own, "mask": mask if what == "padding" else np.ones_like(mask)}, note=note,
            )  # fmt: skip


def _networks(sizes: Mapping[str, int], seed: int) -> Iterator[Case]:
    ternary: dict[str, Any] = {"polarity": "ternary"}
    for name, blocks, neuron, note in (
        ("block", 1, {"vth": 1.5}, "one block, V_th = 1.5"),
        ("network", None, {}, "all blocks"),
        ("ternary", None, ternary | {"vth": 0.8}, "rates between −1 and 1, V_th = 0.8"),
    ):
        config, inputs = _network(sizes, seed, name, blocks, **neuron)
        named = {f"block.{e}.{kind}": r for e in range(sizes["encoders"]) for kind, r in POPULATIONS.items()}
        named = {"embeddings": "S-45", "final_norm": "S-46", "scores/": "S-44", **_longest_first(named)}
        yield Case(
            f"rate_map/gpt-{name}", "encoder" if blocks else "network", "S-48", "rate_map",
            (*_needs(neuron), "rate_map"), {"config": config}, inputs, named=named, note=note,
        )  # fmt: skip
    for name, rule, neuron in (
        ("inst", "inst", {}),
        ("inst-leak", "inst", {"leak": 0.9, "vth": 0.8}),
        ("inst-ternary", "inst", ternary),
        ("running", "running", {}),
        ("running-charge", "running", {"u0": 0.5, "polarity": "retractable"}),
        ("running-ternary", "running", ternary | {"vth": 0.8}),
    ):
        config, inputs = _network(sizes, seed, name, **neuron)
        yield Case(
            f"simulate/gpt-{name}", "network", "S-48", "simulate",
            (*_needs(neuron), "simulate", f"simulate:{rule}"), {"config": config, "t_conv": sizes["t"], "rule": rule},
            inputs, note=f"rule {rule}, by certificate",
        )  # fmt: skip


def _longest_first(named: Mapping[str, str]) -> dict[str, str]:
    """Put names first that begin as others do: the first that fits counts."""
    return dict(sorted(named.items(), key=lambda item: -len(item[0])))


def _gradients(sizes: Mapping[str, int], seed: int) -> Iterator[Case]:
    for name, neuron in (
        ("unsigned", {"vth": 1.5}),
        ("ternary", {"polarity": "ternary"}),
    ):
        config, inputs = _network(sizes, seed, f"gradients-{name}", **neuron)
        ids, mask = inputs["batch/input_ids"], inputs["batch/attention_mask"]
        labels = np.full_like(ids, -100)
        labels[:, :-1] = np.where(mask[:, 1:] == 1, ids[:, 1:], -100)
        yield Case(
            f"gradients/gpt-{name}", "distillation", "S-49", "gradients",
            (*_needs(neuron), "gradients", "gradients:next"), {"config": config}, {**inputs, "labels": labels},
            dtypes=("float64", "float32"), note="cross-entropy of the next tokens",
        )  # fmt: skip
