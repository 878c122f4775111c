"""Text in: GLUE files, tokenizers, and batches of token ids.

`tokenizers` and `datasets` are imported where they are used.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .files import existing, require
from .network import Batch
from .ops import Array

__all__ = [
    "TASKS",
    "Examples",
    "Task",
    "epoch_batches",
    "length_batches",
    "load_tokenizer",
    "read_corpus",
    "read_task",
    "tokenise",
]


@dataclass(frozen=True)
class Task:
    """A GLUE task: where its files are and which columns they have.

    Attributes
    ----------
    folder : str
        Name of its folder in the official archive.
    sentences : tuple of str
        One or two columns of text.
    labels : tuple of str
        The labels as the files spell them; their places are the class indices.
    max_length : int
        Default limit in tokens, [CLS] and [SEP] included.
    """

    folder: str
    sentences: tuple[str, ...]
    labels: tuple[str, ...]
    max_length: int = 128


TASKS = {
    "sst2": Task("SST-2", ("sentence",), ("0", "1"), max_length=64),
    "rte": Task("RTE", ("sentence1", "sentence2"), ("entailment", "not_entailment")),
}


@dataclass(frozen=True)
class Examples:
    """Tokenised examples of differing lengths, end to end.

    Attributes
    ----------
    tokens, kinds : (total,) integer arrays
        Token ids and token types of all examples.
    starts : (n + 1,) integer array
        Example i is ``tokens[starts[i]:starts[i+1]]``.
    labels : (n,) integer array
        Class indices; −1 where there is none.
    """

    tokens: Array
    kinds: Array
    starts: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Array:
        """Number of tokens of each example."""
        return np.diff(self.starts)

    def batch(self, rows: Array, pad_token_id: int = 0) -> Batch:
        """Pad some examples to the longest of them.

        Parameters
        ----------
        rows : (B,) integer array
        pad_token_id : int

        Returns
        -------
        batch : Batch
        """
        lengths = self.lengths[rows]
        columns = np.arange(lengths.max())
        mask = columns < lengths[:, None]  # (B, N)
        places = np.where(mask, self.starts[rows][:, None] + columns, 0)
        return Batch(
            np.where(mask, self.tokens[places], pad_token_id), np.where(mask, self.kinds[places], 0), mask.astype(int)
        )


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
    from .files import read_json

    settings = folder / "tokenizer_config.json"
    return bool(read_json(settings).get("do_lower_case", True)) if settings.exists() else True


def read_task(data: str | os.PathLike, task: Task, split: str) -> Any:
    """Read one split of a GLUE task from its official TSV file.

    Parameters
    ----------
    data : path
        The task's folder, or the one above it that holds all tasks.
    task : Task
    split : {"train", "dev"}

    Returns
    -------
    dataset : datasets.Dataset
        The task's text columns and ``label``, a class index.

    Raises
    ------
    InputError
        No such file, a missing column, a malformed row or unknown label (with its line), or no rows.
    """
    data = existing(data, "the data folder")
    path = data / task.folder / f"{split}.tsv"
    if not path.exists():
        path = existing(data / f"{split}.tsv", f"the {split} split of {task.folder}, neither in {path.parent} nor as")
    columns: dict[str, list] = {name: [] for name in (*task.sentences, "label")}
    with open(path, encoding="utf-8", newline="") as file:
        try:
            rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)  # GLUE's quotes are part of the text
            header = next(rows, [])
            missing = [name for name in columns if name not in header]
            if missing:
                raise InputError(f"{path} has the columns {header}, but {', '.join(missing)} was expected")
            places = {name: header.index(name) for name in columns}
            for row in rows:
                if len(row) != len(header):
                    raise InputError(
                        f"{path}, line {rows.line_num}: {len(row)} fields, but the header has {len(header)}"
                    )
                if row[places["label"]] not in task.labels:
                    raise InputError(
                        f"{path}, line {rows.line_num}: label {row[places['label']]!r} is none of {list(task.labels)}"
                    )
                for name in task.sentences:
                    columns[name].append(row[places[name]])
                columns["label"].append(task.labels.index(row[places["label"]]))
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    if not columns["label"]:
        raise InputError(f"{path} has no rows, so there is nothing to learn or evaluate")
    return require("datasets").Dataset.from_dict(columns)


def read_corpus(path: str | os.PathLike) -> Any:
    """Read unlabelled text: paragraphs separated by blank lines.

    Parameters
    ----------
    path : path

    Returns
    -------
    dataset : datasets.Dataset
        One column, ``text``.
    """
    path = existing(path, "the corpus")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    paragraphs = [paragraph for paragraph in paragraphs if paragraph]
    if not paragraphs:
        raise InputError(f"{path} has no text, so there is nothing to learn from")
    return require("datasets").Dataset.from_dict({"text": paragraphs})


def tokenise(dataset: Any, columns: Sequence[str], tokenizer: Any) -> Examples:
    """Turn the text columns of a dataset into token ids.

    Parameters
    ----------
    dataset : datasets.Dataset
    columns : sequence of str
        One or two text columns.
    tokenizer : tokenizers.Tokenizer

    Returns
    -------
    examples : Examples
        Labels are −1 where the dataset has none.
    """

    def encode(rows: dict[str, list]) -> dict[str, list]:
        texts = [rows[name] for name in columns]
        encodings = tokenizer.encode_batch(texts[0] if len(texts) == 1 else list(zip(*texts, strict=True)))
        return {"ids": [e.ids for e in encodings], "kinds": [e.type_ids for e in encodings]}

    labels = np.array(dataset["label"]) if "label" in dataset.column_names else np.full(len(dataset), -1)
    encoded = dataset.map(
        encode, batched=True, remove_columns=dataset.column_names, keep_in_memory=True, desc="tokenise"
    )
    ids, kinds = encoded["ids"], encoded["kinds"]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in ids])])
    return Examples(np.concatenate([*ids]), np.concatenate([*kinds]), starts, labels)


def length_batches(lengths: Array, size: int) -> list[Array]:
    """Cut examples into batches of like lengths, for evaluation: little padding, no randomness.

    Parameters
    ----------
    lengths : (n,) array
    size : int

    Returns
    -------
    batches : list of integer arrays
    """
    order = np.argsort(lengths, kind="stable")
    return [order[i : i + size] for i in range(0, len(order), size)]


def epoch_batches(lengths: Array, size: int, seed: Sequence[int]) -> Iterator[Array]:
    """Shuffle examples into the batches of one epoch; each batch holds examples of like lengths.

    The order is a function of the seed alone, so that an interrupted epoch can be taken up again.

    Parameters
    ----------
    lengths : (n,) array
    size : int
        The last batch may be smaller.
    seed : sequence of int
        Seed, stage and epoch.

    Yields
    ------
    rows : integer array

    Examples
    --------
    >>> sorted(np.concatenate(list(epoch_batches(np.arange(10), 4, [0, 1]))).tolist()) == list(range(10))
    True
    """
    rng = np.random.default_rng(list(seed))
    order = rng.permutation(len(lengths))
    pool = size * 50  # sorted within pools, so that batches stay random but little is padded
    for i in range(0, len(order), pool):
        part = order[i : i + pool]
        order[i : i + pool] = part[np.argsort(lengths[part], kind="stable")]
    starts = rng.permutation(range(0, len(order), size))
    for start in starts:
        yield order[start : start + size]
