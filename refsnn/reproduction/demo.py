"""The demonstrations: the whole path, from text that they make themselves to a page of results, in minutes."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial

from ..data.corpora.writing import paragraphs, train_vocabulary, write_corpus, write_glue_layout
from ..distillation.gpt import distil_gpt, train_gpt
from ..distillation.stages import distill
from ..evaluation.evaluate import evaluate_run
from ..evaluation.generate import Choice, write_text
from ..evaluation.perplexity import evaluate_gpt
from ..files import new_folder
from ..model.shapes import BertConfig
from ..pages.language import text_table, write_page
from ..pages.report import write_report
from ..pages.tables import results_table
from ..storage.language import DistilRecipe, TrainRecipe
from ..storage.recipe import Recipe

__all__ = ["demo", "demo_gpt"]

#: A BERT small enough to be trained from scratch in a minute.
TEACHER = BertConfig(
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=256,
    max_position_embeddings=64,
)
T_CONV = (4, 8, 16, 32, 64, 128)
#: Of unlabelled text, for the vocabulary and the general stage.
PARAGRAPHS = 1000


@dataclass(frozen=True)
class Corpus:
    """How a built-in corpus stands in for a GLUE task."""

    glue_task: str  # whose file layout and labels it has
    train: int
    dev: int
    epochs_teacher: int


CORPORA = {"sentiment": Corpus("sst2", 8000, 500, 5), "pairs": Corpus("rte", 12000, 500, 10)}


def demo(out: str | os.PathLike, task: str = "sentiment", seed: int = 0) -> None:
    """Make a corpus, train a teacher on it, distil a spiking student, evaluate it, and write a report.

    Parameters
    ----------
    out : path
        The run's folder. A demonstration that was interrupted resumes.
    task : {"sentiment", "pairs"}
    seed : int
    """
    run = new_folder(out)
    data = run / "data"
    corpus = CORPORA[task]
    print(f"Making {corpus.train} labelled {task} examples, unlabelled text and a WordPiece vocabulary in {data}")
    write_glue_layout(data, task, seed, corpus.train, corpus.dev)
    write_corpus(data / "corpus.txt", PARAGRAPHS, seed)
    train_vocabulary(paragraphs(PARAGRAPHS, seed), 900, data / "vocab.txt")
    rows = len((data / "vocab.txt").read_text(encoding="utf-8").splitlines())
    recipe = Recipe(
        task=corpus.glue_task,
        encoders=2,
        seed=seed,
        max_length=64,
        epochs_teacher=corpus.epochs_teacher,
        epochs_general=2,
        epochs_internal=3,
        epochs_prediction=2,
        lr_teacher=3e-4,
        lr_general=1e-3,
        lr_internal=1e-3,
        lr_prediction=3e-4,
    )
    print("Training a BERT teacher, then a spiking student in three stages (safe to interrupt: run it again to resume)")
    distill(recipe, data, (replace(TEACHER, vocab_size=rows), data), run, [data / "corpus.txt"])
    print("Evaluating by rate map and by spikes\n")
    results = evaluate_run(run, data, T_CONV, name=f"made-up {task}")
    print(results_table(results))
    print(f"\nNow open {write_report(run)} in a browser.")


#: A GPT small enough to be trained from scratch in a minute or two.
GPT = TrainRecipe(
    vocab_size=512,
    positions=48,
    n_embd=96,
    n_layer=2,
    n_head=4,
    epochs=8,
    batch_size=16,
    lr=4e-3,
    dropout=0.0,
    initializer_range=0.1,
)
#: Its student, which learns by its spikes after two and after four steps.
SPIKING_GPT = DistilRecipe(t_conv=4, fraction=0.5)
#: Of made-up text, and the paragraphs of each.
DOCUMENTS, PARAGRAPHS_EACH = 40, 25
GPT_T_CONV = (4, 8, 16, 32)
PROMPT, WRITTEN = "the film", 30


def demo_gpt(out: str | os.PathLike, seed: int = 0) -> None:
    """Make up text, train a GPT on it, distil a spiking student, evaluate it, and let it write a sentence.

    Parameters
    ----------
    out : path
        The student's run, with the text and the GPT inside. A demonstration that was interrupted resumes.
    seed : int
    """
    run = new_folder(out)
    folder = run / f"text-{seed}"
    texts = [folder / f"{i:02}.txt" for i in range(DOCUMENTS)]
    print(f"Making {DOCUMENTS} documents of text in {folder}")
    for i, path in enumerate(texts):
        write_corpus(path, PARAGRAPHS_EACH, DOCUMENTS * seed + i)
    teacher, page = run / "gpt", run / "story.html"
    print("Training a GPT, then its spiking student (safe to interrupt: run it again to resume)")
    train_gpt(replace(GPT, seed=seed), texts, teacher)
    distil_gpt(replace(SPIKING_GPT, seed=seed), teacher, texts, run)
    print("Evaluating on documents that were held out\n")
    print(text_table(evaluate_gpt(run, GPT_T_CONV)))
    print("\nWriting by spikes, T = 8: ", end="")
    story = write_text(
        run, PROMPT, WRITTEN, 8, choice=Choice(0.7), seed=seed, keep_all=True, show=partial(print, end="", flush=True)
    )
    write_page(page, story)
    print(f"\n\nNow open {page} in a browser.")
