"""Made-up text as files: a task in GLUE's layout, paragraphs, a vocabulary."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ...files import require, write_text
from .claims import argument, pairs
from .reviews import review, sentiment

__all__ = [
    "paragraphs",
    "train_vocabulary",
    "write_corpus",
    "write_glue_layout",
]

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def paragraphs(count: int, seed: int) -> list[str]:
    """Write unlabelled paragraphs in the two worlds, half of them about films and half about people and things.

    Parameters
    ----------
    count : int
        How many paragraphs.
    seed : int
        The same seed gives the same paragraphs.

    Returns
    -------
    list of str
        Paragraphs of three to six sentences, each on one line.

    Examples
    --------
    >>> for sentence in paragraphs(1, seed=1)[0].split(". "):
    ...     print(sentence)
    frankly, the sets in this film are silly
    the effects, as expected, are always hollow
    the cast of this drama is quite dull
    frankly, the score seemed remarkably dull
    this western thrilled the whole family, yet hardly anyone admired the songs in this remake
    the jokes never lacked vanity in spite of the lovely second act.
    """
    rng = random.Random(seed)
    return [review(rng) if rng.random() < 0.5 else argument(rng) for _ in range(count)]


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(line + "\n" for line in lines))


def write_glue_layout(directory: str | os.PathLike[str], task: str, seed: int, train: int, dev: int) -> None:
    r"""Write `train.tsv` and `dev.tsv` just as the official GLUE archives lay them out.

    No sentence of the one file is in the other, and with the same seed `dev.tsv` stays the same whatever `train` is.

    Parameters
    ----------
    directory : path
        Where to write; made if need be.
    task : str
        'sentiment' for the layout of SST-2, 'pairs' for that of RTE.
    seed : int
        The same seed gives the same files, byte for byte.
    train, dev : int
        How many examples each file gets.

    Raises
    ------
    ValueError
        If the task is neither of the two, or there are not that many different examples.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     write_glue_layout(directory, "sentiment", seed=4, train=20, dev=1)
    ...     for line in Path(directory, "dev.tsv").read_text().splitlines():
    ...         print(line.split("\t"))
    ['sentence', 'label']
    ['even though i despised the camera work of this thriller, this film charmed me.', '1']
    """
    make: Callable[..., Sequence[tuple[str | int, ...]]]
    if task == "sentiment":
        header, make = "sentence\tlabel", sentiment
    elif task == "pairs":
        header, make = "index\tsentence1\tsentence2\tlabel", pairs
    else:
        raise ValueError(f"there is no built-in task {task!r}; choose 'sentiment' or 'pairs'")
    held_out = make(dev, 2 * seed)
    known = {sentence for row in held_out for sentence in row[:-1]}
    for name, rows in ("dev", held_out), ("train", make(train, 2 * seed + 1, known)):
        numbered = [(index, *row) for index, row in enumerate(rows)] if task == "pairs" else rows
        _write_lines(Path(directory, f"{name}.tsv"), [header, *("\t".join(map(str, row)) for row in numbered)])


def write_corpus(path: str | os.PathLike[str], count: int, seed: int) -> None:
    r"""Write `paragraphs(count, seed)` to a text file, one a line, with an empty line between them.

    Parameters
    ----------
    path : path
        The file.
    count : int
        How many paragraphs.
    seed : int
        The same seed gives the same file, byte for byte.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     write_corpus(Path(directory, "corpus.txt"), 2, seed=1)
    ...     text = Path(directory, "corpus.txt").read_text()
    >>> text.strip().split("\n\n") == paragraphs(2, seed=1)
    True
    """
    _write_lines(Path(path), ["\n\n".join(paragraphs(count, seed))])


def train_vocabulary(texts: Iterable[str], size: int, path: str | os.PathLike[str]) -> None:
    """Learn a lower-casing WordPiece vocabulary from texts and write it as a BERT `vocab.txt`, one token a line.

    The special tokens [PAD], [UNK], [CLS], [SEP] and [MASK] come first, so their ids are 0 to 4.

    Parameters
    ----------
    texts : iterable of str
        The texts; their order does not matter.
    size : int
        How many tokens at most; texts with few different words give fewer.
    path : path
        The file.

    Raises
    ------
    ValueError
        If there is not even room for the characters of the texts.
    InputError
        The package `tokenizers` is not installed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     train_vocabulary(["a dull plot", "a dull score"], 24, Path(directory, "vocab.txt"))
    ...     print(Path(directory, "vocab.txt").read_text().split()[5:])
    ['##c', '##e', '##l', '##o', '##r', '##t', '##u', 'a', 'c', 'd', 'e', 'l', 'o', 'p', 'r', 's', 't', 'u', '##ll']
    """
    require("tokenizers")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    texts = list(texts)
    words = {
        word
        for text in texts
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
    }
    # The trainer numbers the pieces "##a", "##b", ... as it meets them in a hash map whose order differs from process
    # to process, and when two merges are equally frequent the lower numbers win: so the same texts would not give the
    # same vocabulary. Handed over in sorted order among the special tokens, the pieces have their numbers beforehand.
    inner_characters = sorted({"##" + character for word in words for character in word[1:]})
    needed = len(SPECIAL_TOKENS) + len(inner_characters) + len(set("".join(words)))
    if size < needed:
        raise ValueError(
            f"a vocabulary of {size} tokens has no room for the special tokens and the single characters of these "
            f"texts; ask for at least {needed}"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=[*SPECIAL_TOKENS, *inner_characters], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    numbers = tokenizer.get_vocab(with_added_tokens=False)
    _write_lines(Path(path), sorted(numbers, key=numbers.__getitem__))
