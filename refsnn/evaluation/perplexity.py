"""How well a GPT and its spiking student predict held-out text: perplexity, bits per character, agreement, energy."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..data.examples import Examples
from ..data.language import Split, Text, windows
from ..distillation.language import next_token_logits, surprisals
from ..distillation.predict import by_batches
from ..errors import InputError, whole
from ..files import write_json
from ..model.batch import Batch
from ..model.gpt import FINAL, gpt
from ..model.network import Network
from ..model.parameters import Params
from ..ops import Array
from ..readings.energy import Energies, count, full_count
from ..readings.rate_map import rate_map
from ..readings.simulate import SHARE, Rule, rates_and_firing, reading_times
from ..storage.language import LanguageRun
from ..storage.run import versions
from .ngrams import trigram_surprisals, unigram_surprisals

__all__ = ["evaluate_gpt", "predicted"]


def _scored(batch: Batch) -> Array:
    return batch.token_type_ids.astype(bool)


def _by_rates(network: Network, params: Params, batch: Batch) -> tuple[Array, ...]:
    """Nats of a sequence's scored tokens, and the likeliest next token everywhere."""
    rates, _ = rate_map(network, params, batch)
    logits, _ = next_token_logits(params, rates[FINAL])
    return (np.where(_scored(batch), surprisals(logits, batch), 0).sum(axis=1), _likeliest(logits))


def _likeliest(logits: Array) -> Array:
    """Likeliest next tokens, one row of objects, since sequences have differing lengths."""
    found = np.empty(len(logits), object)
    found[:] = list(logits.argmax(axis=-1))
    return found


def _by_spikes(
    network: Network, times: Sequence[int], rule: Rule, counted: Sequence[str], params: Params, batch: Batch
) -> tuple[Array, ...]:
    """Read the same after each number of steps, and how often each population fired, summed over positions."""
    found = rates_and_firing(network, params, batch, times, rule, keep=[FINAL], counted=counted)
    parts: list[Array] = []
    real = batch.attention_mask.astype(bool)[..., None]
    for t in times:
        rates, firing = found[t]
        logits, _ = next_token_logits(params, rates[FINAL])
        nats = np.where(_scored(batch), surprisals(logits, batch), 0).sum(axis=1)
        fired = np.stack([np.where(real, firing[name], 0).mean(axis=-1).sum(axis=1) for name in counted], axis=-1)
        parts += [nats, _likeliest(logits), fired]
    return tuple(parts)


def predicted(network: Network, params: Params, examples: Examples, label: str) -> tuple[float, list[Array]]:
    """Predict every token of a text by the rate map, or of an ordinary GPT by its activities.

    Parameters
    ----------
    network : Network
    params : dict
    examples : Examples
        As from `refsnn.data.language.windows`.
    label : str
        For the progress bar.

    Returns
    -------
    nats : float
        Of all scored tokens.
    likeliest : list of (N,) arrays
        The likeliest next token at every position of every sequence.
    """
    nats, likeliest = by_batches(examples, partial(_by_rates, network), params, 512, 0, label)
    return float(nats.sum()), list(likeliest)


def _agreement(one: Sequence[Array], other: Sequence[Array], examples: Examples) -> float:
    """Share of the scored tokens that both would have guessed alike, right or wrong."""
    same = [
        (a[: n - 1] == b[: n - 1])[examples.kinds[start + 1 : start + n] == 1]
        for a, b, n, start in zip(one, other, examples.lengths, examples.starts[:-1], strict=True)
    ]
    return float(np.concatenate(same).mean())


def _measures(nats: float, tokens: int, text: Text) -> dict[str, float]:
    return {"perplexity": math.exp(nats / tokens), "bits_per_character": nats / math.log(2) / text.characters}


def evaluate_gpt(
    run: str | os.PathLike,
    t_conv: Sequence[int] = (4, 8, 16, 32),
    rule: Rule = "running",
    which: Split = "test",
    text: Sequence[str | os.PathLike] = (),
    samples: int | None = None,
) -> dict[str, Any]:
    """Evaluate a run's GPT, and its student where there is one, and write ``language-RULE.json`` into its folder.

    Parameters
    ----------
    run : path
    t_conv : sequence of int
        Timesteps after which the spikes are read.
    rule : {"inst", "running"}
    which : {"train", "dev", "test"}
        Split of the run's own text.
    text : sequence of path, optional
        Another text, the whole of it.
    samples : int, optional
        Only so many sequences, from the beginning.

    Returns
    -------
    results : dict
        As written: perplexity and bits per character of baselines, teacher, rate map and spikes after every T; how
        often the likeliest next token is the teacher's; spikes per neuron and step; gains in energy by the paper's
        count and by the full one, memory left out.
    """
    opened = LanguageRun(run)
    config, teacher = opened.gpt()
    read = opened.text(which, text)
    if samples is not None:
        length = whole("samples", samples) * (config.n_positions // 2) + config.n_positions // 2
        kept = read.ids[:length]
        read = Text(kept, len(opened.tokenizer().decode(kept.tolist(), skip_special_tokens=False)))
    examples = windows(read.ids, config.n_positions)
    tokens = int(examples.kinds.sum())
    trained = opened.text("train").ids
    results: dict[str, Any] = {"split": None if text else which, "rule": rule, "tokens": tokens} | {
        "characters": read.characters,
        "unigram": _measures(float(unigram_surprisals(trained, read.ids, config.vocab_size)[1:].sum()), tokens, read),
        "trigram": _measures(float(trigram_surprisals(trained, read.ids, config.vocab_size)[1:].sum()), tokens, read),
    }
    nats, guesses = predicted(gpt(config), teacher, examples, "teacher")
    results["teacher"] = _measures(nats, tokens, read)
    if opened.spiking:
        student, params = opened.spiking_gpt()
        network, times = student.network, reading_times(t_conv)
        nats, at_rates = predicted(network, params, examples, "rate map")
        results["rate_map"] = _measures(nats, tokens, read) | {"agreement": _agreement(at_rates, guesses, examples)}
        spiking = [p.name for p in network.populations if p.neuron is not None]
        function = partial(_by_spikes, network, times, rule, spiking)
        parts = by_batches(
            examples, function, params, max(SHARE, config.n_positions), 0, f"spikes, {rule}", steps=times[-1]
        )
        positions = int(examples.lengths.sum())
        results["spikes"] = {}
        for i, t in enumerate(times):
            surprise, found, fired = parts[3 * i : 3 * i + 3]
            rates = dict(zip(spiking, (fired.sum(axis=0) / positions).tolist(), strict=True))
            tokens_seen = float(examples.lengths.mean())
            full = full_count(network, rates, tokens_seen, 0, rule, config.vocab_size)
            results["spikes"][str(t)] = _measures(float(surprise.sum()), tokens, read) | {
                "agreement": _agreement(list(found), guesses, examples),
                "firing": float(np.mean(list(rates.values()))),
                "gain": count(network, rates, t, tokens_seen, rule).gain,
                "full_gain": full.gain(t, Energies().without_memory()),
            }
    if not all(math.isfinite(results[name]["perplexity"]) for name in ("teacher", "trigram")):
        raise InputError(f"{opened}: the perplexity is not finite; the parameters overflow on this text")
    write_json(opened.folder / f"language-{rule}.json", results | {"versions": versions()})
    return results
