"""Text in: GLUE tasks, tokenizers, and batches of token ids.

`tokenizers` and `datasets` are imported where they are used. `docs/tasks.md` describes the files.
"""

from __future__ import annotations

import csv
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .files import existing, require
from .model.batch import Batch
from .ops import Array

__all__ = [
    "HUB",
    "LARGEST_SCORE",
    "TASKS",
    "Examples",
    "Task",
    "column_names",
    "epoch_batches",
    "length_batches",
    "load_tokenizer",
    "read_corpus",
    "read_task",
    "splits",
    "tokenise",
]

#: What stands for the Hugging Face hub instead of a folder or a file.
HUB = "hub"

#: Scores of sentence similarity lie between 0 and this.
LARGEST_SCORE = 5.0


@dataclass(frozen=True)
class Task:
    """What sets a GLUE task apart.

    Attributes
    ----------
    folder : str
        Name of its folder in the official archive, and of its submission.
    sentences : tuple of str
        One or two columns of text.
    labels : tuple of str
        The labels as the official files spell them; their places are the class indices, in the order of the Hugging
        Face data set. None at all: the label is a score, and the task a regression.
    names : tuple of str
        What that data set calls the classes whose labels are numbers, in the same order.
    max_length : int
        Default limit in tokens, [CLS] and [SEP] included.
    metrics : tuple of str
        GLUE's metrics for the task, functions of `refsnn.metrics`; pictures and headlines show the first.
    aliases : mapping
        What official or Hugging Face's files call a column, where it is neither its name here nor `index` or `idx`.
    header : tuple of str
        Columns of official files that have no header.
    unlabelled : tuple of str
        Labels whose rows are left out of train and dev files; "" also stands for rows of too few or many fields.
    parts : mapping
        Ending of the dev and test splits' names -> ending of the submission's name.
    """

    folder: str
    sentences: tuple[str, ...] = ("sentence1", "sentence2")
    labels: tuple[str, ...] = ("0", "1")
    names: tuple[str, ...] = ()
    max_length: int = 128
    metrics: tuple[str, ...] = ("accuracy",)
    aliases: Mapping[str, str] = field(default_factory=dict)
    header: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=lambda: {"": ""})

    @property
    def name(self) -> str:
        """What the command line and the hub call it."""
        return self.folder.lower().replace("-", "")

    @property
    def outputs(self) -> int:
        """Outputs of a classifier: one for each label, or one that is the score."""
        return len(self.labels) or 1

    @property
    def classes(self) -> tuple[str, ...]:
        """What pages call the classes: names, or else labels, with numbers as "class 0"; empty for a regression."""
        return self.names or tuple(f"class {label}" if label.isdigit() else label for label in self.labels)


ENTAILMENT = ("entailment", "not_entailment")
TASKS = {
    task.name: task
    for task in (
        Task(
            "CoLA",
            ("sentence",),
            names=("unacceptable", "acceptable"),
            max_length=64,
            metrics=("matthews",),
            header=("source", "label", "mark", "sentence"),
        ),
        Task("SST-2", ("sentence",), names=("negative", "positive"), max_length=64),
        Task(
            "MRPC",
            names=("not_equivalent", "equivalent"),
            metrics=("accuracy", "f1"),
            aliases={"sentence1": "#1 String", "sentence2": "#2 String", "label": "Quality"},
        ),
        Task("STS-B", labels=(), metrics=("pearson", "spearman"), aliases={"label": "score"}),
        Task(
            "QQP",
            ("question1", "question2"),
            names=("not_duplicate", "duplicate"),
            metrics=("accuracy", "f1"),
            aliases={"label": "is_duplicate", "index": "id"},
            unlabelled=("",),  # line ends within questions break rows of train.tsv in two
        ),
        Task(
            "MNLI",
            labels=("entailment", "neutral", "contradiction"),
            aliases={"sentence1": "premise", "sentence2": "hypothesis", "label": "gold_label"},
            unlabelled=("-",),  # the annotators did not agree
            parts={"_matched": "-m", "_mismatched": "-mm"},
        ),
        Task("QNLI", ("question", "sentence"), ENTAILMENT),
        Task("RTE", labels=ENTAILMENT),
        Task("WNLI", names=ENTAILMENT[::-1]),
    )
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
    labels : (n,) array
        Class indices, integers, −1 where there is none; or scores, floats.
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


def splits(task: Task, data: str | os.PathLike, split: str) -> list[str]:
    """Name the parts of the dev or test split, as `read_task` wants them: one, but two for MNLI.

    Parameters
    ----------
    task : Task
    data : path
        As for `read_task`; a file is one split by itself.
    split : {"dev", "test"}

    Returns
    -------
    parts : list of str

    Examples
    --------
    >>> splits(TASKS["mnli"], "hub", "dev")
    ['dev_matched', 'dev_mismatched']
    """
    if str(data) != HUB and Path(data).is_file():
        return [split]
    return [split + part for part in task.parts]


def column_names(task: Task, pairs: Sequence[str]) -> dict[str, str]:
    """Read pairs ``name=column``: what the user's files call the task's columns.

    Parameters
    ----------
    task : Task
    pairs : sequence of str

    Returns
    -------
    columns : dict
        Name here -> name in the files.

    Raises
    ------
    InputError
        A pair is none, or its name is not one of the task.

    Examples
    --------
    >>> column_names(TASKS["sst2"], ["sentence=review", "label=stars > 3"])
    {'sentence': 'review', 'label': 'stars > 3'}
    """
    names = (*task.sentences, "label", "index")
    columns = {}
    for pair in pairs:
        name, _, column = pair.partition("=")
        if name not in names or not column:
            raise InputError(
                f"--columns has {pair!r}, but NAME=COLUMN was expected, where NAME is one of {', '.join(names)}"
            )
        columns[name] = column
    return columns


def read_task(data: str | os.PathLike, task: Task, split: str, columns: Mapping[str, str] | None = None) -> Any:
    """Read one split of a GLUE task: an official TSV file, a file of one's own, or the Hugging Face hub's.

    Parameters
    ----------
    data : path
        The task's folder, or the one above it that holds all tasks, with a file named after the split; a file; or
        `HUB`. TSV files are read as GLUE's, whose quotes are part of the text; CSV, JSON, JSON lines and Parquet as
        `datasets` does.
    task : Task
    split : str
        ``"train"``, or of `splits`.
    columns : mapping, optional
        What the files call the task's columns, where they have neither its names nor the official ones.

    Returns
    -------
    dataset : datasets.Dataset
        The task's text columns; and ``label``, a class index or a score, or of a test split ``index``, a string.

    Raises
    ------
    InputError
        No such file or no network, a missing column, a malformed row or unknown label (with its line), or no rows.
    """
    source, unit, rows = _open(data, task, split)
    test = split.startswith("test")
    header = next(rows, (0, ()))[1]
    places = _places(header, task, columns or {})
    missing = [name for name in (*task.sentences, "label") if name not in places and not (test and name == "label")]
    if missing:
        raise InputError(
            f"{source} has the columns {list(header)}, but {', '.join(missing)} was expected; "
            f"say which is meant with --columns {missing[0]}=COLUMN"
        )
    found: dict[str, list] = {name: [] for name in (*task.sentences, "index" if test else "label")}
    left_out = 0
    for number, row in rows:
        where = f"{source}, {unit} {number}"
        whole = len(row) == len(header)
        label = row[places["label"]] if whole and not test else None
        if not test and ("" if label is None else label) in task.unlabelled:
            left_out += 1
            continue
        if not whole:
            raise InputError(f"{where}: {len(row)} fields, but the header has {len(header)}")
        for name in task.sentences:
            if not isinstance(text := row[places[name]], str):
                raise InputError(f"{where}: {name} is {text!r}, but text was expected")
            found[name].append(text)
        if test:
            found["index"].append(str(row[places["index"]] if "index" in places else len(found["index"])))
        else:
            found["label"].append(_target(label, task, where))
    if left_out:
        print(f"{source}: left out {left_out} rows that are broken or have no label", file=sys.stderr)
    if not found[task.sentences[0]]:
        raise InputError(f"{source} has no rows, so there is nothing to learn or evaluate")
    return require("datasets").Dataset.from_dict(found)


#: Rows of a table, each with its number; the first is the header.
Rows = Iterator[tuple[int, Sequence[Any]]]


def _open(data: str | os.PathLike, task: Task, split: str) -> tuple[str, str, Rows]:
    """Find a split: its place and what its rows are called, both for messages, and the rows."""
    if str(data) == HUB:
        return f"the hub's {task.name}", "row", _hub_rows(task, split)
    path = _split_file(existing(data, "the data folder"), task, split)
    if path.suffix == ".tsv":
        return str(path), "line", _tsv_rows(path, task)
    return str(path), "row", _file_rows(path, task)


def _split_file(data: Path, task: Task, split: str) -> Path:
    endings = (".tsv", ".csv", ".json", ".jsonl", ".parquet")
    if data.is_file():
        if data.suffix not in endings:
            raise InputError(f"{data} ends in {data.suffix!r}, but one of {', '.join(endings)} was expected")
        return data
    for folder in (data / task.folder, data):
        for ending in endings:
            if (path := folder / f"{split}{ending}").exists():
                return path
    raise InputError(
        f"neither {data} nor {data / task.folder} has {split}.tsv (or {split}.csv, .json, .jsonl, .parquet); "
        "name the folder that has, or a file"
    )


def _places(header: Sequence[str], task: Task, columns: Mapping[str, str]) -> dict[str, int]:
    """Where each of the task's columns is, as far as it is there."""
    places: dict[str, int] = {}
    for name in (*task.sentences, "label", "index"):
        usual = [name, task.aliases.get(name, name), "idx" if name == "index" else name]
        for known in [columns[name]] if name in columns else usual:
            if known in header:
                places.setdefault(name, header.index(known))
    return places


def _target(label: Any, task: Task, where: str) -> int | float:
    """Class index or score; a class may be spelled as its index, too."""
    if task.labels:
        if isinstance(label, bool) or (isinstance(label, float) and label.is_integer()):
            label = int(label)
        classes = {str(i): i for i in range(len(task.labels))} | {name: i for i, name in enumerate(task.labels)}
        if str(label) not in classes:
            raise InputError(f"{where}: label {label!r} is none of {list(task.labels)}")
        return classes[str(label)]
    try:
        score = float(label)
    except (TypeError, ValueError):
        score = np.nan
    if not 0 <= score <= LARGEST_SCORE:
        raise InputError(f"{where}: score {label!r} is not a number from 0 to {LARGEST_SCORE:g}")
    return score


def _tsv_rows(path: Path, task: Task) -> Rows:
    """Rows of an official file, as they stand: quotes are part of the text, and there may be a byte order mark."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        try:
            for row in rows:
                if rows.line_num == 1 and len(row) == len(task.header) and row[1] in task.labels:
                    yield 0, task.header
                if row:
                    yield rows.line_num, row
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
        except csv.Error as error:
            raise InputError(f"{path}, line {rows.line_num}: {error}; it is not a TSV file") from None


def _dataset_rows(dataset: Any, task: Task) -> Rows:
    """Rows of a `datasets.Dataset`; classes go by their names where it has the task's, perhaps in another order."""
    named = {
        name: feature
        for name, feature in dataset.features.items()
        if task.labels and set(getattr(feature, "names", ())) == set(task.labels)
    }

    def rows() -> Iterator[Sequence[Any]]:
        for batch in dataset.iter(1000):
            for name, feature in named.items():
                batch[name] = [i if i is None or i < 0 else feature.int2str(i) for i in batch[name]]
            yield from zip(*batch.values(), strict=True)

    yield 0, dataset.column_names
    yield from enumerate(rows(), 1)


def _file_rows(path: Path, task: Task) -> Rows:
    """Rows of a CSV, JSON, JSON lines or Parquet file, read by `datasets`."""
    datasets = require("datasets")
    kind = path.suffix[1:]
    try:
        options = _csv_options(path) if kind == "csv" else {}
        read = getattr(datasets.Dataset, "from_" + kind.removesuffix("l"))
        with tempfile.TemporaryDirectory() as cache:  # no copy that stays behind, or is older than the file
            dataset = read(str(path), keep_in_memory=True, cache_dir=cache, **options)
    except Exception as error:  # pandas', pyarrow's, and bare ones
        raise InputError(f"{path} cannot be read as {kind} with named columns and rows ({_reason(error)})") from None
    return _dataset_rows(dataset, task)


def _csv_options(path: str | os.PathLike) -> dict[str, Any]:
    """Have `datasets` read all columns as they stand: a review may be "1984", or "NA"."""
    datasets = require("datasets")
    with open(path, encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    strings = datasets.Features({name: datasets.Value("string") for name in header})
    return {"names": header, "header": 0, "features": strings, "keep_default_na": False}


def _hub_rows(task: Task, split: str) -> Rows:
    datasets = require("datasets")
    try:
        dataset = datasets.load_dataset("nyu-mll/glue", task.name, split=split.replace("dev", "validation"))
    except Exception as error:  # of the network, the cache, the format: there is no common kind
        raise InputError(
            f"GLUE's {task.name} can neither be fetched from the Hugging Face hub nor found in its cache "
            f"({_reason(error)}); connect to the network once, or name a folder with --data"
        ) from None
    return _dataset_rows(dataset, task)


def _reason(error: Exception) -> str:
    """First line of what a library says of a failure."""
    return (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]


def read_corpus(sources: Sequence[str | os.PathLike]) -> Iterator[str]:
    """Read unlabelled text one document at a time, so that a corpus may be larger than memory.

    Parameters
    ----------
    sources : sequence of path or str
        Text files, whose documents are the paragraphs between blank lines; files ``.csv``, ``.json``, ``.jsonl`` or
        ``.parquet``, whose documents are the rows of the column ``text``; or ``hub:NAME`` or ``hub:NAME:CONFIG``, the
        train split of a data set of the Hugging Face hub, likewise.

    Yields
    ------
    document : str
        On one line, its white space single; never empty.

    Raises
    ------
    InputError
        At once where a source is missing, later where it cannot be read, and at the end if there was no text.
    """
    for source in sources:
        if not str(source).startswith(f"{HUB}:"):
            existing(source, "the corpus")
    return _documents(sources)


def _documents(sources: Sequence[str | os.PathLike]) -> Iterator[str]:
    empty = True
    for source in sources:
        read = _hub_texts if str(source).startswith(f"{HUB}:") else _texts if _is_table(source) else _paragraphs
        for text in read(source):
            if document := " ".join(text.split()):
                empty = False
                yield document
    if empty:
        raise InputError(f"{', '.join(map(str, sources))}: there is no text, so there is nothing to learn from")


def _is_table(source: str | os.PathLike) -> bool:
    return Path(source).suffix in (".csv", ".json", ".jsonl", ".parquet")


def _paragraphs(source: str | os.PathLike) -> Iterator[str]:
    lines: list[str] = []
    try:
        with open(source, encoding="utf-8-sig") as file:
            for line in file:
                if line.strip():
                    lines.append(line)
                else:
                    yield "".join(lines)
                    lines = []
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    yield "".join(lines)


def _texts(source: str | os.PathLike) -> Iterator[str]:
    """Rows of a table's column ``text``, without a copy of the table in memory or elsewhere."""
    kind = Path(source).suffix[1:].removesuffix("l")
    try:
        options = _csv_options(source) if kind == "csv" else {}
        rows = require("datasets").load_dataset(kind, data_files=str(source), split="train", streaming=True, **options)
        yield from _column(rows, source)
    except InputError:
        raise
    except Exception as error:  # pandas', pyarrow's, and bare ones
        raise InputError(f"{source} cannot be read as {kind} with a column text ({_reason(error)})") from None


def _hub_texts(source: str | os.PathLike) -> Iterator[str]:
    _, name, *config = str(source).split(":")
    try:
        rows = require("datasets").load_dataset(name, *config, split="train")
    except Exception as error:  # of the network, the cache, the format: there is no common kind
        raise InputError(
            f"the corpus {source} can neither be fetched from the Hugging Face hub nor found in its cache "
            f"({_reason(error)}); connect to the network once, or name a file"
        ) from None
    yield from _column(rows, source)


def _column(rows: Any, source: str | os.PathLike) -> Iterator[str]:
    for number, row in enumerate(rows, 1):
        if not isinstance(text := row.get("text"), str):
            what = f"text is {text!r}" if "text" in row else f"there are the columns {list(row)}"
            raise InputError(f"{source}, row {number}: {what}, but text in a column of this name was expected")
        yield text


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


def length_batches(lengths: Array, size: int, tokens: int | None = None) -> list[Array]:
    """Cut examples into batches of like lengths, for evaluation: little padding, no randomness.

    Parameters
    ----------
    lengths : (n,) array
    size : int
        Examples in a batch at most.
    tokens : int, optional
        Positions in a batch at most, padding included; an example that is longer is a batch by itself.

    Returns
    -------
    batches : list of integer arrays

    Examples
    --------
    >>> length_batches(np.array([9, 2, 3, 3]), 3), length_batches(np.array([9, 2, 3, 3]), 3, tokens=6)
    ([array([1, 2, 3]), array([0])], [array([1, 2]), array([3]), array([0])])
    """
    order = np.argsort(lengths, kind="stable")
    starts = [0]
    for i, row in enumerate(order):
        held = i - starts[-1]
        if held == size or (held and tokens is not None and (held + 1) * lengths[row] > tokens):
            starts.append(i)
    return np.split(order, starts[1:]) if len(order) else []


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
