"""Small labelled English corpora, made on the spot from grammars written for this package.

They let a whole experiment run without a network, through the same code that reads the official GLUE files. There are
two worlds: the talk of film-goers (`reviews`) and claims that follow from each other or do not (`claims`).

Only `random.Random.random` is drawn from: it is the one source of chance that Python promises to keep the same on every
platform and in every later version, so a seed gives the same text everywhere.
"""

from .claims import pairs, sentence_pair
from .reviews import sentiment, sentiment_sentence
from .writing import paragraphs, train_vocabulary, write_corpus, write_glue_layout

__all__ = [
    "pairs",
    "paragraphs",
    "sentence_pair",
    "sentiment",
    "sentiment_sentence",
    "train_vocabulary",
    "write_corpus",
    "write_glue_layout",
]
