"""The built-in corpora: labels checked by readers written apart from the grammars, and files like the official ones.

Two such readers are below. `overall_tone` counts reversals on the surface of a sentence about a film, where the grammar
works from the top down. `reading` turns a sentence of the pair world into a function of a model, and models are drawn
at random: an entailment must hold in all of them and a non-entailment must fail in some, where the generator reasons by
monotonicity and knows no models.
"""

import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import BertWordPieceTokenizer

from refsnn.data import corpora
from refsnn.data.corpora import claims, drawing, reviews, writing
from refsnn.errors import InputError

PRAISE = """
    charming clever delightful elegant enjoyable engaging entertaining fresh graceful gripping impressive inspired
    inventive lively lovely memorable moving powerful satisfying warm stylish subtle convincing beautiful touching
    splendid charm wit warmth energy grace style imagination tenderness beauty suspense charmed moved thrilled delighted
    impressed amused rewarded move thrill delight impress amuse reward inspire enjoyed loved admired praised applauded
    adored enjoy love admire praise applaud adore""".split()
BLAME = """
    dull boring tedious clumsy lazy weak awkward bland flat shallow tiresome dreary forgettable annoying predictable
    pointless lifeless messy painful ugly stale silly feeble hollow crude dreadful nonsense padding clutter tedium
    vanity gloom confusion noise laziness vulgarity bored annoyed disappointed irritated insulted frustrated exhausted
    confused bore annoy disappoint irritate insult frustrate exhaust confuse disliked hated mocked resented loathed
    despised dislike hate mock resent loathe despise""".split()
TONE = dict.fromkeys(PRAISE, 1) | dict.fromkeys(BLAME, 0)

ASIDE = r"\b(?:to my mind|in my opinion|i must say|as expected|by the way)\b"
REVERSALS = """
    not never hardly neither no nobody few doubt wrong cannot deny impossible hard failed lacked little without devoid
    far anything""".split()


def main_clause(sentence: str) -> str:
    """What is left when the asides and the concessions are struck out."""
    text = re.sub(rf", {ASIDE},", "", sentence.rstrip("."))
    text = re.sub(r"not only (\w+) but also", r"\1 and", text)
    # Openings such as "in short," end at the first comma, unless the comma ends a concession.
    if re.match(r"(in|to|on|frankly|after|this time|for|all things|as)\b[^,]*,", text):
        text = text.split(", ", 1)[1]
    if re.match(r"(although|even though|while|despite)\b", text):
        return text.split(", ", 1)[1]
    text = re.split(r", (?:but|yet) ", text)[-1]
    return re.split(r",? (?:although|even though|despite|in spite of) ", text)[0]


def overall_tone(sentence: str) -> int:
    """Tone of the first telling word of the main clause, turned round once for every reversal before it."""
    text = re.sub(r"could not have been more", "was", main_clause(sentence))
    tokens = re.findall(r"\w+", text)
    place = next(i for i, token in enumerate(tokens) if token in TONE)
    reversals = sum(token in REVERSALS for token in tokens[:place])
    return (TONE[tokens[place]] + reversals) % 2


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, int]]:
    return corpora.sentiment(5000, seed=11)


@pytest.fixture(scope="module")
def pair_rows() -> list[tuple[str, str, str]]:
    return corpora.pairs(3000, seed=11)


# --- Sentiment ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sentence, tone",
    [
        ("the plot is dull.", 0),
        ("the plot is never dull.", 1),
        ("it is not true that the plot is never dull.", 0),
        ("although the score is charming, the plot is anything but clever.", 0),
        ("in short, nobody could deny that the jokes lacked wit.", 0),
        ("the plot is not only clever but also warm.", 1),
        ("despite the dull score, this is an elegant film.", 1),
        ("the songs, to my mind, are never anything but crude.", 0),
    ],
)
def test_the_reader_reads_sentences_made_up_by_hand(sentence: str, tone: int) -> None:
    assert overall_tone(sentence) == tone


def test_every_sentiment_label_agrees_with_an_independent_reading(rows: list[tuple[str, int]]) -> None:
    wrong = [(sentence, label) for sentence, label in rows if overall_tone(sentence) != label]
    assert wrong == []


def test_a_negation_reverses_the_label(rows: list[tuple[str, int]]) -> None:
    # The labels of sentences that say of something no more than that it is so, or is not so.
    labels: dict[tuple[str, bool], set[int]] = {}
    for sentence, label in rows:
        plain = re.search(r"\b(?:is|are) (not |never |hardly |not at all |not very |by no means )?(\w+)\.$", sentence)
        if plain and not re.search(r" (that|and|although|though|while|despite|spite|but|yet) ", sentence):
            labels.setdefault((plain[2], bool(plain[1])), set()).add(label)
    words = {word for word, _ in labels if (word, True) in labels and (word, False) in labels}
    assert len(words) > 15
    for word in words:
        assert len(labels[word, False]) == len(labels[word, True]) == 1, f"{word} is said to praise and to blame"
        assert labels[word, False] != labels[word, True], f"negation leaves {word} as it is"


def test_labels_are_balanced(rows: list[tuple[str, int]], pair_rows: list[tuple[str, str, str]]) -> None:
    # Four standard deviations of a fair coin.
    for share, count in [
        (np.mean([label for _, label in rows]), len(rows)),
        (np.mean([label == "entailment" for *_, label in pair_rows]), len(pair_rows)),
    ]:
        assert abs(share - 0.5) < 4 * 0.5 / count**0.5
    assert {label for _, label in rows} == {0, 1}
    assert {label for *_, label in pair_rows} == {"entailment", "not_entailment"}


def test_sentences_are_different_and_plain_lower_case_english(
    rows: list[tuple[str, int]], pair_rows: list[tuple[str, str, str]]
) -> None:
    assert len({sentence for sentence, _ in rows}) == len(rows)
    assert len({pair[:2] for pair in pair_rows}) == len(pair_rows)
    for sentence in [sentence for sentence, _ in rows] + [s for *both, _ in pair_rows for s in both]:
        assert re.fullmatch(r"[a-z]+(,? [a-z]+)*\.", sentence), sentence
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", sentence), sentence
        told = [word for word in re.findall(r"\w+", sentence) if word in TONE]
        assert len(told) == len(set(told)), sentence
    lengths = {len(sentence.split()) for sentence, _ in rows}
    assert min(lengths) == 5 and max(lengths) == 18
    vocabulary = {word for sentence, _ in rows for word in re.findall("[a-z]+", sentence)}
    assert 200 <= len(vocabulary) <= 350


def test_subjects_agree_with_their_verbs(rows: list[tuple[str, int]]) -> None:
    checked = 0
    for sentence, _ in rows:
        bare = re.sub(rf", {ASIDE},", "", sentence)
        bare = re.sub(r" (of|in) this \w+", "", bare)
        for noun, verb in re.findall(r"\b(?:the|this) (?:\w+ )?(\w+) (is|are)\b", bare):
            assert (verb == "are") == noun.endswith("s"), sentence
            checked += 1
    assert checked > 1000


def bag_of_words_accuracy(texts: list[str], labels: np.ndarray, train: int) -> float:
    """Held-out accuracy of logistic regression on which words occur, fitted by Newton's method with a weak prior."""
    vocabulary = {word: i for i, word in enumerate(sorted({w for text in texts for w in text.split()}))}
    words = np.zeros((len(texts), len(vocabulary) + 1))
    words[:, -1] = 1
    for row, text in enumerate(texts):
        words[row, [vocabulary[word] for word in text.split()]] = 1
    x, weights = words[:train], np.zeros(words.shape[1])
    for _ in range(5):
        probability = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (labels[:train] - probability) - weights
        curvature = (x * (probability * (1 - probability))[:, None]).T @ x + np.eye(len(weights))
        weights += np.linalg.solve(curvature, gradient)
    return float(np.mean((words[train:] @ weights > 0) == labels[train:]))


def test_counting_words_solves_sentiment_in_part_only(rows: list[tuple[str, int]]) -> None:
    texts = [re.sub(r"[.,]", "", sentence) for sentence, _ in rows]
    accuracy = bag_of_words_accuracy(texts, np.array([label for _, label in rows]), train=3000)
    assert 0.65 < accuracy < 0.80

    conceding = np.mean([bool(re.search(r"although|though|while|despite|spite|, but|, yet", text)) for text, _ in rows])
    reversing = np.mean([bool(set(main_clause(text).split()) & set(REVERSALS)) for text, _ in rows])
    assert 0.1 < conceding < 0.3 and 0.2 < reversing < 0.4


# --- Pairs ----------------------------------------------------------------------------------------------------------

GENERAL = {
    kind: general
    for general, kinds in {
        "musician": "pianist violinist drummer singer",
        "artist": "painter sculptor potter",
        "scientist": "chemist physicist biologist",
        "athlete": "runner swimmer boxer",
        "book": "novel cookbook textbook",
        "animal": "dog cat horse goat",
        "fruit": "apple pear peach plum",
        "vehicle": "car truck tractor",
        "instrument": "violin guitar flute",
        "tool": "hammer drill shovel",
        "contacted": "phoned emailed",
        "cleaned": "washed scrubbed",
        "obtained": "bought borrowed",
        "indoors": "in_the_kitchen in_the_library in_the_workshop",
        "outdoors": "in_the_garden in_the_park in_the_street",
        "": "indoors outdoors",
    }.items()
    for kind in kinds.split()
}
# The past of every verb under the form that follows "did not".
PAST = dict(
    pair.split()
    for pair in """
    read read,obtain obtained,buy bought,borrow borrowed,find found,sell sold,feed fed,clean cleaned,wash washed,
    scrub scrubbed,taste tasted,peel peeled,repair repaired,tune tuned,thank thanked,help helped,praise praised,
    visit visited,contact contacted,phone phoned,email emailed,teach taught,employ employed,lead led,follow followed,
    meet met,dance danced,learn learned,work worked""".split(",")
)
OTHER_WAY_ROUND = {"learned": "taught", "worked": "employed", "followed": "led"}
SENTENCE = re.compile(
    r"(?P<quantifier>not every|no|fewer than two|fewer than three|every|some|the|two|three) (?P<noun>\w+) "
    r"(?:(?P<passive>was|was not) (?P<participle>\w+) by|(?P<negated>did not )?(?P<verb>\w+)(?: (?:from|for|with))?) "
    r"(?P<other_quantifier>any|an?|two|three|every|the) (?P<other>\w+)(?: (?P<where>\w+))?\."
)
NEGATIVE = {"not every": "every", "no": "some", "fewer than two": "two", "fewer than three": "three"}


def falls_under(word: str, general: str) -> bool:
    return word == general or (word in GENERAL and falls_under(GENERAL[word], general))


def singular(noun: str, quantifier: str) -> str:
    if not quantifier.endswith(("two", "three")):
        assert noun in GENERAL or noun in GENERAL.values(), noun
        return noun
    assert noun.endswith("s") and noun != "peachs", noun
    return "peach" if noun == "peaches" else noun[:-1]


class Reading:
    """Who is said to have done what to whom, as the words stand: subject and object, each with its quantifier."""

    def __init__(self, sentence: str) -> None:
        found = SENTENCE.fullmatch(re.sub(r"\bin the (\w+)\.", r"in_the_\1.", sentence))
        assert found, f"this is not a sentence of the pair world: {sentence}"
        quantifier = found["quantifier"]
        self.denied = quantifier in NEGATIVE or found["passive"] == "was not" or bool(found["negated"])
        self.quantifier = NEGATIVE.get(quantifier, quantifier)
        self.subject = singular(found["noun"], quantifier)
        self.other_quantifier = {"a": "some", "an": "some", "any": "some"}.get(
            found["other_quantifier"], found["other_quantifier"]
        )
        self.object = singular(found["other"], found["other_quantifier"])
        verb = found["participle"] or (PAST[found["verb"]] if found["negated"] else found["verb"])
        assert verb in PAST.values(), verb
        self.backwards = bool(found["passive"]) or verb in OTHER_WAY_ROUND
        self.verb = OTHER_WAY_ROUND.get(verb, verb)
        self.where = found["where"] or ""

    def is_true(self, models: "Models") -> np.ndarray:
        """Whether the sentence is true, for each of the models."""
        happened = models.happened(self.verb, self.where)
        if self.backwards:
            happened = happened.transpose(0, 2, 1)
        did = models.quantify(happened, self.other_quantifier, self.object)
        return models.quantify(did, self.quantifier, self.subject) != self.denied


class Models:
    """Many random models at once of the people, things, events and places that two sentences speak of."""

    def __init__(self, rng: np.random.Generator, premise: Reading, hypothesis: Reading, count: int = 400) -> None:
        nouns = sorted({premise.subject, premise.object, hypothesis.subject, hypothesis.object})
        # Up to four individuals of each kind spoken of, at least one of which there is.
        self.kind = np.repeat(nouns, 4)
        self.exists = rng.random((count, len(self.kind))) < 0.6
        self.exists[:, ::4] = True
        self.verbs = sorted({premise.verb, hypothesis.verb})
        self.places = sorted({premise.where, hypothesis.where})
        # "The musician" is one of the musicians, and always the same.
        self.the = {}
        for noun in nouns:
            preference = rng.random((count, len(self.kind))) * self.members(noun)
            self.the[noun] = np.eye(len(self.kind), dtype=bool)[preference.argmax(axis=1)]

        def block() -> np.ndarray:
            """Some people do something to all of some others, in some manners and places."""
            shape = (count, len(self.kind), len(self.kind), len(self.verbs), len(self.places))
            events = np.ones(shape, dtype=bool)
            for axis in range(1, 5):
                sides = (count, *(shape[axis] if axis == other else 1 for other in range(1, 5)))
                events &= rng.random(sides) < rng.choice([0.3, 0.6, 0.9, 1.0], size=(count, 1, 1, 1, 1))
            return events

        events = (block() | block()) ^ (block() & (rng.random((count, 1, 1, 1, 1)) < 0.3))
        mutual = {"met", "danced"} & set(self.verbs)
        for verb in mutual:
            at = self.verbs.index(verb)
            events[..., at, :] |= events[..., at, :].transpose(0, 2, 1, 3)
        self.events = events

    def members(self, noun: str) -> np.ndarray:
        return self.exists & np.array([falls_under(str(kind), noun) for kind in self.kind])

    def happened(self, verb: str, where: str) -> np.ndarray:
        verbs = [i for i, name in enumerate(self.verbs) if falls_under(name, verb)]
        places = [i for i, name in enumerate(self.places) if falls_under(name, where)]
        return self.events[..., verbs, :][..., places].any(axis=(-1, -2))

    def quantify(self, true_of: np.ndarray, quantifier: str, noun: str) -> np.ndarray:
        """Apply a quantifier to the last axis, which runs over the individuals."""
        members = self.the[noun] if quantifier == "the" else self.members(noun)
        members = members.reshape(len(members), *[1] * (true_of.ndim - 2), -1)
        if quantifier == "every":
            return (true_of | ~members).all(axis=-1)
        return (true_of & members).sum(axis=-1) >= {"some": 1, "the": 1, "two": 2, "three": 3}[quantifier]


def holds_in_all_models(premise: str, hypothesis: str, attempts: int) -> bool:
    rng = np.random.default_rng(0)
    first, second = Reading(premise), Reading(hypothesis)
    for _ in range(attempts):
        models = Models(rng, first, second)
        if (first.is_true(models) & ~second.is_true(models)).any():
            return False
    return True


@pytest.mark.parametrize(
    "premise, hypothesis, follows",
    [
        ("every pianist read two novels.", "some musician read a book.", True),
        ("every musician read a book.", "every pianist read a novel.", False),
        ("no musician tuned any guitar.", "no pianist tuned any guitar in the park.", True),
        ("the painter helped the singer.", "the singer was helped by the painter.", True),
        ("the painter helped the singer.", "the singer helped the painter.", False),
        ("the painter met the singer.", "the singer met the painter.", True),
        ("some painter taught a singer.", "some singer learned from a painter.", True),
        ("three potters fed a goat.", "fewer than two potters fed a goat.", False),
        ("not every musician met three potters.", "not every musician met every potter.", False),
    ],
)
def test_the_models_judge_pairs_made_up_by_hand(premise: str, hypothesis: str, follows: bool) -> None:
    assert holds_in_all_models(premise, hypothesis, attempts=10) == follows


def test_every_claim_is_said_as_it_is_meant() -> None:
    rng = random.Random(1)
    told = set()
    for _ in range(6000):
        claim = claims._draw_claim(rng)
        reading = Reading(claims._say(claim))
        ends = [(reading.quantifier, reading.subject), (reading.other_quantifier, reading.object)]
        if reading.verb in ("met", "danced"):
            # Nothing in the words tells one side from the other.
            ends.sort(key=lambda end: end != (claim.agent_quantifier, claim.agent))
        elif reading.backwards:
            ends.reverse()
        meant = [(claim.agent_quantifier, claim.agent), (claim.patient_quantifier, claim.patient)]
        assert (reading.denied, reading.verb, ends) == (claim.denied, claim.verb.split()[0], meant), claims._say(claim)
        assert reading.where == claim.where.replace(" ", "_")
        told.add((claim.verb, claim.denied, claim.reversed))
    verbs = {verb for verb, *_ in told}
    assert len(told) == 4 * len(verbs), "some verb was not seen in all its four forms"


@pytest.mark.parametrize("deeds_to_people, count", [(claims.DEEDS_TO_PEOPLE, 160), (["met"], 60)])
def test_every_pair_label_agrees_with_random_models(
    monkeypatch: pytest.MonkeyPatch, deeds_to_people: list[str], count: int
) -> None:
    monkeypatch.setattr(claims, "DEEDS_TO_PEOPLE", deeds_to_people)
    for premise, hypothesis, label in corpora.pairs(count, seed=5):
        follows = label == "entailment"
        # A counter-example may be rare; nothing but a wrong label makes an entailment have one.
        found = holds_in_all_models(premise, hypothesis, attempts=1 if follows else 50)
        assert found == follows, f"{premise} {hypothesis} {label}"


def test_no_label_hangs_on_which_one_is_meant(pair_rows: list[tuple[str, str, str]]) -> None:
    # Whether "the pianist" is the pianist just heard of is left open; so is whether "some" and then "the" one follow.
    for premise, hypothesis, label in pair_rows:
        loose = [re.sub(r"(?<!in )\b(the|an?) ", "some ", text) for text in (premise, hypothesis)]
        assert loose[0] != loose[1] or label == "entailment", f"{premise} {hypothesis}"


def test_neither_sentence_alone_nor_overlap_gives_the_pair_label_away(pair_rows: list[tuple[str, str, str]]) -> None:
    labels = np.array([label == "entailment" for *_, label in pair_rows], dtype=int)

    def small_words(sentence: str) -> str:
        return " ".join(re.findall(r"\b(?:not|did|fewer|no|any|every|some|the|an?|two|three|in|\w+doors)\b", sentence))

    def overlap(premise: str, hypothesis: str) -> str:
        first, second = set(premise.split()), set(hypothesis.split())
        return f"shared{len(first & second)} lost{len(first - second)} new{len(second - first)}"

    premises, hypotheses = ([small_words(pair[side]) for pair in pair_rows] for side in (0, 1))
    shared = [overlap(premise, hypothesis) for premise, hypothesis, _ in pair_rows]
    for clues in (premises, hypotheses, shared):
        assert bag_of_words_accuracy(clues, labels, train=2000) < 0.56


# --- Chance, files and the vocabulary -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [corpora.sentiment, corpora.pairs, corpora.paragraphs])
def test_the_seed_decides_and_a_longer_list_begins_with_the_shorter(make: Callable[[int, int], list]) -> None:
    assert make(50, 3) == make(80, 3)[:50]
    assert make(50, 3) != make(50, 4)


def test_one_draw_is_the_first_of_the_list() -> None:
    assert corpora.sentiment_sentence(random.Random(9)) == corpora.sentiment(1, seed=9)[0]
    assert corpora.sentence_pair(random.Random(9)) == corpora.pairs(1, seed=9)[0]


def test_excluded_sentences_do_not_appear() -> None:
    first = [sentence for sentence, _ in corpora.sentiment(30, seed=1)]
    assert not set(first[::2]) & {sentence for sentence, _ in corpora.sentiment(30, seed=1, exclude=first[::2])}
    premise, hypothesis, _ = corpora.pairs(1, seed=1)[0]
    for excluded in (premise, hypothesis):
        assert all(excluded not in pair for pair in corpora.pairs(30, seed=1, exclude={excluded}))


def test_asking_for_more_sentences_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reviews.RULES, "sentence", ["the whole {part} is {adjective+}"])
    monkeypatch.setitem(reviews.RULES, "part", ["plot", "score"])
    monkeypatch.setitem(reviews.GOOD, "adjective", ["very fresh"])
    monkeypatch.setitem(reviews.BAD, "adjective", ["very dull"])
    assert len(corpora.sentiment(4, seed=0)) == 4
    with pytest.raises(ValueError, match=r"asked for 5 different examples.* ask for at most 4"):
        corpora.sentiment(5, seed=0)
    with pytest.raises(ValueError, match=r"asked for 4 different examples.* ask for at most 3"):
        corpora.sentiment(4, seed=0, exclude={"the whole plot is very dull."})


def test_the_patience_is_for_draws_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "PATIENCE", 60)
    monkeypatch.setitem(reviews.RULES, "sentence", ["the whole {part} is very {adjective+}"])
    assert len(corpora.sentiment(700, seed=0)) == 700


def test_paragraphs_are_several_known_sentences_in_one_line() -> None:
    kinds = set()
    for paragraph in corpora.paragraphs(60, seed=0):
        sentences = [sentence + "." for sentence in paragraph.rstrip(".").split(". ")]
        assert 3 <= len(sentences) <= 6 and "\n" not in paragraph
        bare = [re.sub(r"^(so|therefore|perhaps|maybe) ", "", sentence) for sentence in sentences]
        about_films = not SENTENCE.fullmatch(re.sub(r"\bin the (\w+)\.", r"in_the_\1.", bare[0]))
        kinds.add(about_films)
        if about_films:
            assert len({overall_tone(sentence) for sentence in bare}) == 1
        else:
            assert all(Reading(sentence) for sentence in bare)
    assert kinds == {True, False}


def read_table(path: Path) -> list[list[str]]:
    text = path.read_bytes().decode("ascii")
    assert text.endswith("\n") and "\r" not in text and '"' not in text
    return [line.split("\t") for line in text.removesuffix("\n").split("\n")]


@pytest.mark.parametrize(
    "task, header, labels",
    [
        ("sentiment", ["sentence", "label"], {"0", "1"}),
        ("pairs", ["index", "sentence1", "sentence2", "label"], {"entailment", "not_entailment"}),
    ],
)
def test_the_files_are_laid_out_like_those_of_glue(
    tmp_path: Path, task: str, header: list[str], labels: set[str]
) -> None:
    corpora.write_glue_layout(tmp_path / "new" / task, task, seed=3, train=1000, dev=200)
    tables = {name: read_table(tmp_path / "new" / task / f"{name}.tsv") for name in ("train", "dev")}
    assert sorted(path.name for path in (tmp_path / "new" / task).iterdir()) == ["dev.tsv", "train.tsv"]
    sentences: dict[str, set[str]] = {}
    for name, count in (("train", 1000), ("dev", 200)):
        assert tables[name][0] == header
        body = tables[name][1:]
        assert len(body) == count and {len(row) for row in body} == {len(header)}
        assert {row[-1] for row in body} == labels
        if task == "pairs":
            assert [row[0] for row in body] == [str(i) for i in range(count)]
        sentences[name] = {sentence for row in body for sentence in row[task == "pairs" : -1]}
    assert not sentences["train"] & sentences["dev"]

    corpora.write_glue_layout(tmp_path / "again", task, seed=3, train=50, dev=200)
    assert (tmp_path / "again" / "dev.tsv").read_bytes() == (tmp_path / "new" / task / "dev.tsv").read_bytes()


@pytest.mark.parametrize("task", ["sentiment", "pairs"])
def test_train_and_dev_stay_apart_where_sentences_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    monkeypatch.setitem(reviews.RULES, "sentence", ["the whole {part} is very {adjective+}"])
    for name, few in {"QUANTIFIERS": ["some", "the"], "ANYWHERE": [""], "DEEDS_TO_PEOPLE": ["helped"]}.items():
        monkeypatch.setattr(claims, name, few)
    corpora.write_glue_layout(tmp_path, task, seed=0, train=400, dev=400)
    train, dev = (read_table(tmp_path / name)[1:] for name in ("train.tsv", "dev.tsv"))
    assert len(train) == len(dev) == 400
    assert not {cell for row in train for cell in row[:-1] if "." in cell} & {cell for row in dev for cell in row[:-1]}


def test_an_unknown_task_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no built-in task 'sst'; choose 'sentiment' or 'pairs'"):
        corpora.write_glue_layout(tmp_path, "sst", seed=0, train=1, dev=1)


def test_a_failed_write_leaves_the_old_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpora.write_corpus(tmp_path / "corpus.txt", 2, seed=0)
    before = (tmp_path / "corpus.txt").read_bytes()

    def fail(*paths: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(writing.os, "replace", fail)
    with pytest.raises(InputError, match="the disk is full"):
        corpora.write_corpus(tmp_path / "corpus.txt", 3, seed=0)
    assert (tmp_path / "corpus.txt").read_bytes() == before


def test_a_corpus_is_paragraphs_with_empty_lines_between(tmp_path: Path) -> None:
    corpora.write_corpus(tmp_path / "corpus.txt", 7, seed=1)
    text = (tmp_path / "corpus.txt").read_bytes().decode("ascii")
    assert text == "\n\n".join(corpora.paragraphs(7, seed=1)) + "\n"


def test_the_vocabulary_is_a_bert_vocabulary_that_covers_the_corpora(
    tmp_path: Path, rows: list[tuple[str, int]], pair_rows: list[tuple[str, str, str]]
) -> None:
    path = tmp_path / "vocab.txt"
    texts = [sentence for sentence, _ in rows[:1500]] + [s for *both, _ in pair_rows[:1000] for s in both]
    corpora.train_vocabulary(texts, 500, path)
    tokens = path.read_text().split("\n")
    assert tokens.pop() == "" and len(tokens) == len(set(tokens)) == 500
    assert tokens[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    wordpiece = BertWordPieceTokenizer(str(path), lowercase=True)
    pieces = [wordpiece.encode(text.upper(), add_special_tokens=False).tokens for text in texts[::10]]
    flat = [piece for encoded in pieces for piece in encoded]
    assert "[UNK]" not in flat
    # Most words are whole, but not all.
    assert 0.02 < np.mean([piece.startswith("##") for piece in flat]) < 0.3


def test_the_vocabulary_is_the_same_in_every_process(tmp_path: Path) -> None:
    program = (
        "import sys; from refsnn.data import corpora\n"
        "texts = corpora.paragraphs(60, seed=1)\n"
        "corpora.train_vocabulary(reversed(texts) if sys.argv[2] == '2' else texts, 400, sys.argv[1])"
    )
    written = set()
    for seed in ("1", "2", "3", "4"):
        path = tmp_path / seed
        subprocess.run([sys.executable, "-c", program, path, seed], check=True, env={"PYTHONHASHSEED": seed})
        written.add(path.read_bytes())
    assert len(written) == 1


def test_a_vocabulary_without_room_for_the_characters_is_an_error(tmp_path: Path) -> None:
    # Five special tokens, the characters a to d, and ##b and ##d.
    corpora.train_vocabulary(["ab", "CD"], 11, tmp_path / "vocab.txt")
    assert (tmp_path / "vocab.txt").read_text().split()[5:] == ["##b", "##d", "a", "b", "c", "d"]
    with pytest.raises(ValueError, match=r"a vocabulary of 10 tokens .* ask for at least 11"):
        corpora.train_vocabulary(["ab", "CD"], 10, tmp_path / "vocab.txt")


def test_what_is_drawn_does_not_change_between_versions_and_platforms() -> None:
    # Written down once; whoever changes a grammar on purpose writes down the new ones.
    assert corpora.sentiment(300, seed=2024)[-1] == (
        "the effects are tiresome, and the characters in this thriller are tedious.",
        0,
    )
    assert corpora.pairs(300, seed=2024)[-1] == (
        "three athletes sold two plums in the kitchen.",
        "three athletes sold two plums outdoors.",
        "not_entailment",
    )
