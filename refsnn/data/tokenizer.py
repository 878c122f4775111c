"""A checkpoint's own WordPiece tokenizer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import existing, read_json, require

__all__ = [
    "load_tokenizer",
]


def load_tokenizer(folder: str | os.PathLike, vocab_size: int, max_length: int) -> Any:
    """Load a checkpoint's own WordPiece tokenizer: `tokenizer.json`, or else `vocab.txt`.

    Parameters
    ----------
    folder : path
    vocab_size : int
        Rows of the word embedding; every token id must have one.
    max_length : int
        Longer inputs are cut, the longer sentence of a pair first.

    Returns
    -------
    tokenizer : tokenizers.Tokenizer

    Raises
    ------
    InputError
        There is no tokenizer, it lacks BERT's special tokens, or it does not fit the word embedding.
    """
    tokenizers = require("tokenizers")
    folder = existing(folder, "the tokenizer's folder")
    try:
        if (folder / "tokenizer.json").exists():
            source = folder / "tokenizer.json"
            tokenizer = tokenizers.Tokenizer.from_file(str(source))
        elif (folder / "vocab.txt").exists():
            source = folder / "vocab.txt"
            lower = _lower_case(folder)
            tokenizer = tokenizers.BertWordPieceTokenizer(str(source), lowercase=lower)._tokenizer
        else:
            raise InputError(
                f"{folder} has neither tokenizer.json nor vocab.txt; copy the checkpoint's tokenizer there"
            )
    except InputError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        raise InputError(f"{source} cannot be read as a tokenizer ({error})") from None
    missing = [token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if tokenizer.token_to_id(token) is None]
    if missing:
        raise InputError(f"{source} lacks BERT's special tokens {', '.join(missing)}; it is not a BERT vocabulary")
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if largest >= vocab_size:
        raise InputError(
            f"{source} has token ids up to {largest}, but the checkpoint embeds only {vocab_size}: "
            "it is another model's vocabulary"
        )
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=max_length, strategy="longest_first")
    return tokenizer


def _lower_case(folder: Path) -> bool:
    settings = folder / "tokenizer_config.json"
    return bool(read_json(settings).get("do_lower_case", True)) if settings.exists() else True
