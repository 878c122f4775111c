"""Commands that convert and pack models."""

from __future__ import annotations

import argparse
from typing import Any

from .command import Command, add_data, add_rule, add_run, add_samples, add_seed

__all__ = ["COMMANDS"]


def _convert_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", help="run, folder of a checkpoint, or its file with config.json beside it"
    )
    parser.add_argument("destination", metavar="DIR", help="folder to write; nothing in it is overwritten")
    parser.add_argument("--to", required=True, choices=("refsnn", "authors", "authors-general", "bert"), help="format")
    parser.add_argument("--task", help="GLUE task: number and order of the classes")
    parser.add_argument("--classes", type=int, metavar="N", help="size of a missing classification head, without task")
    parser.add_argument("--vth", type=float, metavar="X", help="threshold of the authors' student (default: 1)")
    parser.add_argument("--leak", type=float, metavar="X", help="leak of the authors' student (default: 1)")
    parser.add_argument("--feedback", action="store_true", help="keep the feedback of the authors' student")
    add_seed(parser, "fixes heads that are missing")


def _convert(options: Any) -> int:
    from ..storage.convert import convert

    names = ("source", "destination", "to", "task", "classes", "vth", "leak", "feedback", "seed")
    for note in convert(**{name: getattr(options, name) for name in names}):
        print(f"note: {note}")
    print(f"wrote {options.destination}")
    return 0


def _pack_options(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("out", metavar="DIR", help="folder to write, empty or not there yet")
    parser.add_argument(
        "--licence", required=True, metavar="NAME", help="of the weights, as the hub spells it, such as apache-2.0"
    )
    add_data(parser, "dev")
    add_samples(parser, 4)
    parser.add_argument(
        "--t-conv", type=int, default=32, metavar="T", help="timesteps that are certified (default: %(default)s)"
    )
    add_rule(parser, default="running")


def _pack(options: Any) -> int:
    from ..pages.card import pack_run

    names = ("licence", "data", "columns", "samples", "t_conv", "rule")
    pack_run(options.run_folder, options.out, **{name: getattr(options, name) for name in names})
    print(f"wrote {options.out}; next: hf upload YOUR_NAME/YOUR_MODEL {options.out}")
    return 0


COMMANDS = (
    Command(
        "convert",
        "checkpoints of the authors' program and of BERT, in and out",
        "Make a run of a student that the authors' program trained (--to refsnn), a checkpoint for their task or "
        "general program of a student (--to authors, authors-general), or a BERT for Hugging Face's programs and "
        "theirs (--to bert). What kind SOURCE is is seen from its parameters' names.",
        _convert_options,
        _convert,
        "docs/checkpoints.md describes the files; "
        "example: refsnn convert their_output/pytorch_model.bin runs/theirs --to refsnn --task sst2",
    ),
    Command(
        "pack",
        "a student with a model card, as a folder to publish",
        "Write the student of an evaluated run as a folder that refsnn.load and the Hugging Face hub read: "
        "configuration, weights, tokenizer, and a model card with what the run measured and a certificate of some "
        "sentences' spikes.",
        _pack_options,
        _pack,
        "docs/howto/publish.md shows the way to the hub; example: refsnn pack runs/sst2 packed --licence apache-2.0",
    ),
)
