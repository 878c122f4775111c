"""Text written by spikes, one token at a time.

A causal network never looks ahead, so what earlier positions fired does not change when a token follows. Of them only
keys and values are read later: their spikes are kept, step by step, and each new token costs one position.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..data.language import END
from ..distillation.language import next_token_logits
from ..errors import InputError, number, whole
from ..model.batch import Batch
from ..model.gpt import FINAL, GptConfig, SpikingGptConfig
from ..model.network import Network, kind_of
from ..model.parameters import Params
from ..model.projections import TokenEmbeddings
from ..ops import Array, log_softmax
from ..readings.simulate import Rule, spike_blocks, timesteps
from ..storage.language import LanguageRun
from ..storage.records import write_record

__all__ = ["Choice", "Guess", "Story", "Written", "choose", "generate", "write_text"]

#: So many of the likeliest next tokens are kept for a picture.
LIKELIEST = 5


@dataclass(frozen=True)
class Choice:
    """How the next token is chosen.

    Attributes
    ----------
    temperature : float
        τ of ``softmax(z/τ)``; 0 takes the likeliest.
    top_k : int or None
        Only so many of the likeliest tokens.
    """

    temperature: float = 1.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        number("temperature", self.temperature, 0.0, 1e6)
        if self.top_k is not None:
            whole("top_k", self.top_k)


def choose(logits: Array, choice: Choice, rng: np.random.Generator) -> int:
    """Choose a token by its score.

    Parameters
    ----------
    logits : (V,) array
    choice : Choice
    rng : numpy.random.Generator

    Returns
    -------
    token : int

    Examples
    --------
    >>> choose(np.array([0.0, 3.0, 1.0]), Choice(temperature=0), np.random.default_rng(0))
    1
    """
    order = np.argsort(-logits, kind="stable")[: choice.top_k]
    if choice.temperature == 0:
        return int(order[0])
    p = np.exp(log_softmax(logits[order].astype(np.float64) / choice.temperature))
    return int(order[rng.choice(len(order), p=p / p.sum())])


class Guess(NamedTuple):
    """A token that may come next.

    Attributes
    ----------
    token : int
    probability : float
        ``softmax(z)``, whatever the temperature of the choice.
    """

    token: int
    probability: float


@dataclass
class Written:
    """A text that is being written.

    Attributes
    ----------
    ids : list of int
        Of the prompt and of what follows.
    spikes : dict
        Population of neurons -> (T, 1, N, width) array of int8, of all positions that were computed: all but the last
        token's. With `keep_all` of every population, else of keys and values alone.
    guesses : list of list of Guess
        With `keep_all`, what was read off at each of these positions: the five likeliest next tokens, the likeliest
        first, and after them the one that came next, if it is not among them.
    """

    ids: list[int]
    spikes: dict[str, Array] = field(default_factory=dict)
    guesses: list[list[Guess]] = field(default_factory=list)


def generate(
    network: Network,
    params: Params,
    config: GptConfig,
    prompt: Sequence[int],
    length: int,
    t_conv: int,
    rule: Rule = "running",
    choice: Choice = Choice(),
    seed: int = 0,
    keep_all: bool = False,
    end: int | None = None,
) -> Iterator[Written]:
    """Continue a text by spikes, yielding it after every token.

    Parameters
    ----------
    network : Network
        Of `refsnn.model.gpt.spiking_gpt`.
    params : dict
    config : GptConfig
    prompt : sequence of int
        Token ids, at least one.
    length : int
        Tokens to write at most; with the prompt no more than the positions that are embedded.
    t_conv : int
        T, after which the next token is read off the rates.
    rule : {"inst", "running"}
    choice : Choice
    seed : int
    keep_all : bool
        Whether all spikes are kept, for a record or a picture, and what was read off at every position.
    end : int, optional
        A token that ends the text.

    Yields
    ------
    written : Written
        The same object, one token longer.

    Raises
    ------
    InputError
        The prompt is empty, or there is no room for so many tokens.
    """
    t_conv, length = timesteps("t_conv", t_conv), whole("length", length)
    ids = [whole("a token of the prompt", one, 0, config.vocab_size - 1) for one in prompt]
    if not ids:
        raise InputError("the prompt is empty, but there must be a token to go on from")
    if len(ids) + length - 1 > config.n_positions:
        raise InputError(
            f"the prompt has {len(ids)} tokens and {length} are to follow, but only {config.n_positions} positions are "
            "embedded; ask for fewer"
        )
    rng = np.random.default_rng(seed)
    written = Written(list(ids))
    new = ids
    for _ in range(length):
        logits = _continued(network, params, written, new, t_conv, rule, keep_all)
        after = [*new[1:], choose(logits[-1], choice, rng)]
        if keep_all:
            written.guesses += map(_guesses, logits, after)
        new = after[-1:]
        written.ids += new
        yield written
        if new[0] == end:
            return


def _continued(
    network: Network, params: Params, written: Written, new: Sequence[int], t_conv: int, rule: Rule, keep_all: bool
) -> Array:
    """Compute positions that are new, keep what they fired, and return scores (n, V) of what follows the last of them.

    With `keep_all` of what follows each.
    """
    neurons = {p.name for p in network.populations if p.neuron is not None}
    read_later = {name for name in neurons if kind_of(name) in ("key", "value")}
    earlier = {name: written.spikes[name] for name in read_later if name in written.spikes}
    first = written.spikes[next(iter(read_later))].shape[2] if earlier else 0
    here = replace(network, drive=TokenEmbeddings(first))
    fired: dict[str, list[Array]] = {}
    total: Array | float = 0.0
    for _, record in spike_blocks(here, params, Batch.of([list(new)]), t_conv, rule, block=t_conv, earlier=earlier):
        for name in neurons if keep_all else read_later:
            fired.setdefault(name, []).append(record[name].astype(np.int8))
        total = total + record[FINAL].sum(axis=0)  # (1, N, D)
    for name, blocks in fired.items():
        train = np.concatenate(blocks)
        written.spikes[name] = train if first == 0 else np.concatenate([written.spikes[name], train], axis=2)
    rates = np.asarray(total) / t_conv
    logits: Array = next_token_logits(params, rates if keep_all else rates[:, -1:])[0][0]
    return logits


def _guesses(logits: Array, followed: int) -> list[Guess]:
    """Take the likeliest next tokens, and the one that followed."""
    p = np.exp(log_softmax(logits.astype(np.float64)))
    order = np.argsort(-p, kind="stable")[:LIKELIEST].tolist()
    return [Guess(token, float(p[token])) for token in dict.fromkeys([*order, followed])]


@dataclass(frozen=True)
class Story:
    """A text that a run's student wrote, and the spikes it wrote it with.

    Attributes
    ----------
    config : SpikingGptConfig
    params : dict
    pieces : list of str
        Text of every token, prompt included.
    guesses : list of list of str
        Text of every token of `Written.guesses`.
    prompt : int
        Tokens of the prompt.
    written : Written
    t_conv : int
    rule : str
    """

    config: SpikingGptConfig
    params: Params
    pieces: list[str]
    guesses: list[list[str]]
    prompt: int
    written: Written
    t_conv: int
    rule: Rule

    def record(self, path: str | os.PathLike) -> None:
        """Write the spikes of all tokens but the last, which nothing was computed for, as a spike record.

        Parameters
        ----------
        path : path
        """
        batch = Batch.of([self.written.ids[:-1]])
        dtype = self.params["wte.weight"].dtype.name
        write_record(path, self.config, batch, self.written.spikes, self.rule, dtype, self.params)


def write_text(
    run: str | os.PathLike,
    prompt: str,
    length: int,
    t_conv: int,
    rule: Rule = "running",
    choice: Choice = Choice(),
    seed: int = 0,
    keep_all: bool = False,
    show: Callable[[str], None] = lambda piece: None,
) -> Story:
    """Let a run's student continue a prompt.

    Parameters
    ----------
    run : path
        What `refsnn.distillation.gpt.distil_gpt` made.
    prompt : str
    length, t_conv, rule, choice, seed, keep_all
        As in `generate`.
    show : callable
        Called with the prompt, and with what every token adds to the text.

    Returns
    -------
    story : Story
    """
    opened = LanguageRun(run)
    if not opened.spiking:
        raise InputError(
            f"{opened} holds an ordinary GPT, which has no spikes; make a student of it with `refsnn gpt distil`"
        )
    config, params = opened.spiking_gpt()
    tokenizer = opened.tokenizer()
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    if not ids:
        raise InputError("`prompt` is empty, but there must be a word to go on from")
    arguments = (config.network, params, config.gpt, ids, length, t_conv, rule, choice, seed, keep_all)
    shown = ""
    written = Written([])
    for written in generate(*arguments, end=tokenizer.token_to_id(END)):
        text = tokenizer.decode(written.ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # half of a character that takes several tokens
            show(text[len(shown) :])
            shown = text
    pieces = _pieces(tokenizer, written.ids)
    guesses = [_pieces(tokenizer, [guess.token for guess in row]) for row in written.guesses]
    return Story(config, params, pieces, guesses, len(ids), written, t_conv, rule)


def _pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Text of every token by itself; joined, they are the whole text but for characters of several tokens."""
    return [tokenizer.decode([one], skip_special_tokens=False) for one in ids]
