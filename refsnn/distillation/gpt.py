"""A GPT from scratch, and a spiking student of a GPT: two stages of the same resumable loop.

teacher    text      next tokens
distil     text      residual streams, attention and next tokens of the teacher, by the student's spikes
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np

from ..data.examples import Examples
from ..data.language import documents, encoded, load_byte_tokenizer, sequences, split, train_byte_tokenizer
from ..errors import InputError
from ..files import existing, write_text
from ..model.batch import Batch
from ..model.dropout import dropout_masks
from ..model.gpt import SpikingGptConfig, gpt, initial_gpt
from ..model.parameters import Params, accumulate
from ..ops import Array
from ..readings.simulate import simulate
from ..storage.gpt2 import load_gpt
from ..storage.language import DistilRecipe, LanguageRun, TrainRecipe, copy_tokenizer
from ..storage.recipe import Stream
from .initialise_gpt import converted_gpt
from .language import distillation_gradients, language_gradients, target
from .training import Objective, train

__all__ = ["distil_gpt", "train_gpt"]

#: How the names of parameters end that distillation leaves alone: tables, which are read-outs too, and thresholds.
FROZEN = ("wte.weight", "wpe.weight", ".threshold")

#: Sequences that a conversion may look at.
LOOKED_AT = 128


def train_gpt(
    recipe: TrainRecipe, text: Sequence[str | os.PathLike], out: str | os.PathLike, save_every: float = 20.0
) -> None:
    """Train, or resume, a GPT and its byte-level vocabulary from scratch.

    Parameters
    ----------
    recipe : TrainRecipe
    text : sequence of path or str
        See `refsnn.data.language.documents`; one document of ten is held out.
    out : path
        The run's folder, which becomes a GPT-2 checkpoint.
    save_every : float
        Seconds between checkpoints.

    Raises
    ------
    InputError
        Something given cannot be used, or `out` holds a run with other settings.
    """
    run, corpus = LanguageRun(out), documents(text)
    texts = split(corpus, "train")
    with run.held():
        run.begin_language(recipe, text, corpus)
        path = run.folder / "tokenizer.json"
        if not path.exists():
            write_text(path, train_byte_tokenizer(texts, recipe.vocab_size).to_str())
        tokenizer = load_byte_tokenizer(run.folder, recipe.vocab_size)
        examples = sequences(encoded(texts, tokenizer).ids, recipe.positions)
        config, seed = recipe.config, [recipe.seed, int(Stream.TEACHER_STAGE)]
        network = gpt(config)

        def objective(params: Params, batch: Batch, rows: Array):
            if recipe.dropout:
                rng = np.random.default_rng([*seed, *rows.tolist()])
                params = params | dropout_masks(network, batch, recipe.dropout, rng)
            return language_gradients(network, params, batch)

        params = initial_gpt(config, Stream.UNTRAINED_TEACHER.rng(recipe.seed))
        params = train(run, recipe.stage, params, examples, objective, seed, save_every=save_every)
        run.save_gpt(config, params)


def distil_gpt(
    recipe: DistilRecipe,
    teacher: str | os.PathLike,
    text: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    save_every: float = 20.0,
) -> None:
    """Convert a GPT into spiking neurons and distil, or resume distilling, the student.

    Parameters
    ----------
    recipe : DistilRecipe
    teacher : path
        What `train_gpt` made, or any GPT-2 checkpoint with its tokenizer.
    text : sequence of path or str
        As for `train_gpt`; that of the teacher's run where there is none.
    out : path
        The run's folder.
    save_every : float
        Seconds between checkpoints.

    Raises
    ------
    InputError
        Something given cannot be used, or `out` holds a run with other settings.
    """
    source = existing(teacher, "the teacher")
    if not text:
        made = LanguageRun(source)
        text = made.settings.get("text", []) if made.exists else []
    if not text:
        raise InputError(f"{source} does not remember any text; name some to distil on")
    config, tuned = load_gpt(source)
    length = recipe.positions or config.n_positions
    if length > config.n_positions:
        raise InputError(f"`positions` is {length}, but the teacher embeds {config.n_positions} only")
    tokenizer = load_byte_tokenizer(source, config.vocab_size)
    run, corpus = LanguageRun(out), documents(text)
    with run.held():
        run.begin_language(recipe, text, corpus, (source, config, tuned))
        copy_tokenizer(source, run.folder)
        copy_tokenizer(source, run.teacher_folder)
        run.save_gpt(config, tuned, run.teacher_folder)
        examples = sequences(encoded(split(corpus, "train"), tokenizer).ids, length)
        examples = _some(examples, recipe.fraction, Stream.PACKING.rng(recipe.seed))
        student = SpikingGptConfig(config, recipe.neuron)
        looked_at = _batches(examples, Stream.CONVERSION_SAMPLE.rng(recipe.seed))
        student, params = converted_gpt(student, tuned, looked_at, recipe.clipped)
        if recipe.epochs:
            objective = _objective(recipe, student, tuned)
            seed = [recipe.seed, int(Stream.INTERNAL_STAGE)]
            params = train(run, recipe.stage, params, examples, objective, seed, save_every=save_every)
        run.save_spiking_gpt(student, params)


def _some(examples: Examples, fraction: float, rng: np.random.Generator) -> Examples:
    """Take a share of the sequences, drawn at random, in their order."""
    count = max(int(len(examples) * fraction), 1)
    rows = np.sort(rng.permutation(len(examples))[:count])
    parts = [examples.tokens[examples.starts[i] : examples.starts[i + 1]] for i in rows]
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    tokens = np.concatenate(parts)
    return Examples(tokens, np.zeros_like(tokens), starts, examples.labels[rows])


def _batches(examples: Examples, rng: np.random.Generator) -> Iterator[Batch]:
    rows = rng.permutation(len(examples))[:LOOKED_AT]
    return (examples.batch(rows[i : i + 8]) for i in range(0, len(rows), 8))


def _objective(recipe: DistilRecipe, student: SpikingGptConfig, teacher: Params) -> Objective:
    """Mean of the losses after T/2 and after T steps."""
    network = student.network
    times = sorted({max(recipe.t_conv // 2, 1), recipe.t_conv})
    weights = recipe.hidden_weight, recipe.attention_weight, 1.0

    def objective(params: Params, batch: Batch, rows: Array):
        wanted = target(student.gpt, teacher, batch)
        losses: dict[str, Array] = {}
        gradients: Params = {}
        for rates in simulate(network, params, batch, times, recipe.rule).values():
            found, gradient, _ = distillation_gradients(network, params, batch, wanted, rates, weights)
            for name, value in found.items():
                accumulate(losses, name, value / len(times))
            for name in gradient:
                if not name.endswith(FROZEN):
                    accumulate(gradients, name, gradient[name] / len(times))
        return losses, gradients, {}

    return objective
