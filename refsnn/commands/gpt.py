"""`refsnn gpt`: a GPT from scratch, its spiking student, how well both predict, and a text written by spikes."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from .command import Command, add_fields, add_rule, add_save_every, seed

__all__ = ["COMMANDS"]

#: What each field of a recipe is.
TRAIN_HELP = {
    "seed": "one seed fixes everything",
    "vocab_size": "tokens of the byte-level vocabulary",
    "positions": "tokens of a sequence",
    "n_embd": "width",
    "n_layer": "blocks",
    "n_head": "attention heads",
    "epochs": "passes over the text",
    "batch_size": "sequences per step",
    "lr": "peak learning rate",
    "dropout": "probability of dropout",
    "initializer_range": "standard deviation of the matrices at first",
}
DISTIL_HELP = {
    "seed": "one seed fixes everything",
    "t_conv": "T: the student learns by its spikes after T/2 and after T steps",
    "rule": "integration rule",
    "polarity": "spikes of every neuron",
    "u0": "initial membrane potential, in units of the threshold",
    "clipped": "fraction of each feature's activities that the conversion lets fall outside the rates' range",
    "epochs": "passes over its share of the text; 0 only converts",
    "fraction": "share of the sequences that it learns from",
    "batch_size": "sequences per step",
    "positions": "tokens of a sequence (default: all that the teacher embeds)",
    "lr": "peak learning rate",
    "hidden_weight": "weight of the loss of the residual streams, beside the next token's",
    "attention_weight": "likewise of the attention scores",
}


def _text(parser: argparse.ArgumentParser, many: str, help: str) -> None:
    parser.add_argument("text", nargs=many, default=[], metavar="TEXT", help=help)


TEXT = (
    "text files, paragraphs between blank lines; a speech's title or address begins a document, and one of ten is held "
    "out"
)


def _options(parser: argparse.ArgumentParser) -> None:
    from ..storage.language import DistilRecipe, TrainRecipe

    actions = parser.add_subparsers(dest="action", required=True, metavar="train | distil | evaluate | generate")
    train = actions.add_parser("train", help="train a GPT from scratch", description="Train a GPT from scratch.")
    _text(train, "+", TEXT)
    train.add_argument("--out", required=True, metavar="RUN", help="folder for everything; becomes a GPT-2 checkpoint")
    add_save_every(train)
    add_fields(train, TrainRecipe, TRAIN_HELP)

    distil = actions.add_parser(
        "distil", help="make its spiking student", description="Convert a GPT into spiking neurons and distil it."
    )
    distil.add_argument("teacher", metavar="GPT", help="folder that `refsnn gpt train` filled, or a GPT-2 checkpoint")
    _text(distil, "*", TEXT + " (default: the teacher's)")
    distil.add_argument("--out", required=True, metavar="RUN", help="folder for everything")
    add_save_every(distil)
    add_fields(distil, DistilRecipe, DISTIL_HELP)

    evaluate = actions.add_parser(
        "evaluate", help="perplexity of held-out text", description="Perplexity on documents that were held out."
    )
    evaluate.add_argument("run_folder", metavar="RUN", help="what `refsnn gpt train` or `refsnn gpt distil` made")
    evaluate.add_argument("--t-conv", nargs="+", type=int, default=[4, 8, 16, 32], metavar="T", help="timesteps")
    evaluate.add_argument("--split", choices=("dev", "test", "train"), default="test", help="default: %(default)s")
    evaluate.add_argument("--text", nargs="+", default=[], metavar="TEXT", help="another text, the whole of it")
    evaluate.add_argument("--samples", type=int, metavar="N", help="only so many sequences (default: all)")
    add_rule(evaluate, default="running")

    generate = actions.add_parser("generate", help="let it write", description="Continue a prompt by spikes.")
    generate.add_argument("run_folder", metavar="RUN", help="what `refsnn gpt distil` made")
    generate.add_argument("--prompt", default="My fellow citizens:", metavar="TEXT", help="default: %(default)r")
    generate.add_argument("--length", type=int, default=32, metavar="N", help="tokens at most (default: %(default)s)")
    generate.add_argument("--t-conv", type=int, default=16, metavar="T", help="timesteps (default: %(default)s)")
    generate.add_argument(
        "--temperature", type=float, default=0.8, metavar="X", help="0 takes the likeliest (default: %(default)s)"
    )
    generate.add_argument("--top-k", type=int, metavar="N", help="only of so many likeliest tokens (default: of all)")
    generate.add_argument("--seed", type=seed, default=0, metavar="N", help="default: 0")
    generate.add_argument("--record", metavar="FILE", help="write the spikes, which `refsnn certify FILE` checks")
    generate.add_argument("--html", metavar="FILE", help="write a page that replays the sentence with its spikes")
    add_rule(generate, default="running")


def _train(options: Any) -> int:
    from ..distillation.gpt import train_gpt
    from ..storage.language import TrainRecipe

    train_gpt(_recipe(TrainRecipe, options), options.text, options.out, options.save_every)
    print(f"wrote {options.out}; next: refsnn gpt distil {options.out} --out {options.out}-spiking")
    return 0


def _distil(options: Any) -> int:
    from ..distillation.gpt import distil_gpt
    from ..storage.language import DistilRecipe

    distil_gpt(_recipe(DistilRecipe, options), options.teacher, options.text, options.out, options.save_every)
    print(f"wrote {options.out}; next: refsnn gpt evaluate {options.out}")
    return 0


def _recipe(kind: type, options: Any) -> Any:
    return kind(**{field.name: getattr(options, field.name) for field in fields(kind)})


def _evaluate(options: Any) -> int:
    from ..evaluation.perplexity import evaluate_gpt
    from ..pages.language import text_table

    found = evaluate_gpt(options.run_folder, options.t_conv, options.rule, options.split, options.text, options.samples)
    print(text_table(found))
    return 0


def _generate(options: Any) -> int:
    from ..evaluation.generate import Choice, write_text

    choice = Choice(options.temperature, options.top_k)
    story = write_text(
        options.run_folder,
        options.prompt,
        options.length,
        options.t_conv,
        options.rule,
        choice,
        options.seed,
        bool(options.record or options.html),
        lambda piece: print(piece, end="", flush=True),
    )
    print()
    if options.record:
        story.record(options.record)
        print(f"wrote {options.record}; check it with: refsnn certify {options.record}")
    if options.html:
        from ..pages.language import write_page

        write_page(options.html, story)
        print(f"wrote {options.html}; open it in a browser")
    return 0


def _run(options: Any) -> int:
    actions = {"train": _train, "distil": _distil, "evaluate": _evaluate, "generate": _generate}
    return actions[options.action](options)


COMMANDS = (
    Command(
        "gpt",
        "a GPT and its spiking student: train, distil, evaluate, generate",
        "Train a small GPT on a text, turn it into a network of spiking neurons, measure how well both predict text "
        "that was held out, and let the spikes write. Training is safe to interrupt: run the same command again to "
        "resume.",
        _options,
        _run,
        "docs/gpt.md explains the family; example: refsnn gpt train speeches.txt --out runs/gpt; refsnn gpt distil "
        "runs/gpt --out runs/spiking-gpt; refsnn gpt evaluate runs/spiking-gpt; refsnn gpt generate runs/spiking-gpt",
        {
            "perplexity": "exp of the mean surprisal of a token; lower is better",
            "bits/char": "the same in bits per character, whatever the vocabulary",
            "as teacher": "how often the likeliest next token is the teacher's",
            "firing": "spikes per neuron and step",
            "gain": "how many times less energy than the ordinary GPT, by the paper's count; below 1: more",
            "full": "the same by the full count, memory left out",
        },
    ),
)
