"""Small labelled English corpora, made on the spot from grammars written for this package.

They let a whole experiment run without a network, through the same code that reads the official GLUE files. There are
two worlds. One is the talk of film-goers: whether a sentence praises or blames is decided by how its words are put
together (negation, concession, double negation), so that counting words is not enough. The other is a small world of
people and things, in which one sentence follows from another or does not: kinds within kinds, *every*, *no* and *two*,
active and passive, who did it and to whom.

Only `random.Random.random` is drawn from: it is the one source of chance that Python promises to keep the same on every
platform and in every later version, so a seed gives the same text everywhere.
"""

import os
import random
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from .files import require, write_text

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

# After so many draws without a new sentence the grammar counts as exhausted.
PATIENCE = 10_000
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

T = TypeVar("T")
Row = TypeVar("Row", tuple[str, int], tuple[str, str, str])


def _pick(rng: random.Random, options: Sequence[T]) -> T:
    """Choose one of the options, each as likely as any other."""
    return options[int(rng.random() * len(options))]


def _with_articles(sentence: str) -> str:
    """Write "an" for "a" where a vowel follows."""
    return re.sub(r"\ba (?=[aeiou])", "an ", sentence)


def _distinct(draw: Callable[[random.Random], Row], count: int, seed: int, exclude: Collection[str]) -> list[Row]:
    """Draw rows (one or two sentences and a label) until there are `count` different ones."""
    rng = random.Random(seed)
    exclude = frozenset(exclude)
    rows: dict[tuple[object, ...], Row] = {}
    drawn_in_vain = 0
    while len(rows) < count:
        row = draw(rng)
        sentences = row[:-1]
        if sentences in rows or not exclude.isdisjoint(sentences):
            drawn_in_vain += 1
        else:
            rows[sentences] = row
            drawn_in_vain = 0
        if drawn_in_vain == PATIENCE:
            raise ValueError(
                f"asked for {count} different examples, but after {len(rows)} of them {PATIENCE} draws in a row "
                f"brought nothing new; ask for at most {len(rows)}, or exclude fewer sentences"
            )
    return list(rows.values())


# --- Sentiment ------------------------------------------------------------------------------------------------------
#
# A sentence is written from the top down. It is decided first whether the whole is to praise or to blame; then each
# slot such as {claim+} is filled with something of the same tone, and each slot such as {claim-} with something of the
# opposite tone: "not {adjective-}" praises exactly when its adjective blames. The label is thus true by construction.
# An option is drawn as often as the number before it says.


def _options(table: dict[str, str]) -> dict[str, list[str]]:
    """Split every entry at its bars, and repeat an option as often as the number before it says."""
    split: dict[str, list[str]] = {}
    for name, text in table.items():
        split[name] = []
        for option in text.split("|"):
            words = option.split()
            times = int(words.pop(0)) if words[0].isdigit() else 1
            split[name] += times * [" ".join(words)]
    return split


RULES = _options({
    "sentence": """
        8 {claim+} | 8 {opening}, {claim+} | 4 {aside claim+} | 6 {claim+}, and {claim+} |
        3 {reported+} | {opening}, {reported+} | 6 {contrast+} | {opening}, {contrast+}""",
    "opening": """
        in the end | to be honest | on the whole | in short | frankly | after two hours | this time | for once |
        all things considered | as usual""",
    "aside": "to my mind | in my opinion | i must say | as expected | by the way",
    # The main clause decides; what it is set against has the opposite tone.
    "contrast": """
        although {claim-}, {claim+} | even though {claim-}, {claim+} | while {claim-}, {claim+} |
        {claim+}, although {claim-} | {claim+}, even though {claim-} |
        2 {claim-}, but {claim+} | {claim-}, yet {claim+} | we expected {substance-}, but {claim+} |
        despite {feature-}, {claim+} | {claim+} despite {feature-} | {claim+} in spite of {feature-} |
        although {claim-}, {reported+}""",
    "feature": """
        2 the {adjective+} {part} | the {adjective+} {parts} | all the {substance+} | a lack of {substance-}""",
    "reported": """
        3 the critics agree that {claim+} | 3 it is clear that {claim+} | 2 i am sure that {claim+} |
        there is no doubt that {claim+} | nobody could deny that {claim+} | it is impossible to deny that {claim+} |
        it is not true that {claim-} | i doubt that {claim-} | nobody could claim that {claim-} |
        it would be wrong to say that {claim-} | i cannot agree that {claim-}""",
    "claim": """
        3 {one} is {quality+} | 3 {many} are {quality+} | 3 {any} {deed+} | 3 {reaction+} | {verdict+}""",
    "aside claim": "{one}, {aside}, is {quality+} | {many}, {aside}, are {quality+}",
    "one": "2 the {part} | the {part} of this {work} | this {work}",
    "many": "the {parts} | the {parts} in this {work}",
    "any": "{one} | {many}",
    "quality": """
        5 {adjective+} | 11 {degree} {adjective+} | 5 {adjective+} and {adjective+} | 4 full of {substance+} |
        2 not only {adjective+} but also {adjective+} | {adjective+} rather than {adjective-} |
        more {adjective+} than {adjective-} | never anything but {adjective+} | not without {substance+} |
        4 {not} {adjective-} | neither {adjective-} nor {adjective-} | devoid of {substance-} |
        without any {substance-}""",
    "degree": "very | truly | remarkably | quite | thoroughly | genuinely | surprisingly | consistently | always",
    "not": """
        not | never | hardly | far from | anything but | by no means | not at all | not very | not particularly |
        not really""",
    "deed": """
        12 {pleased+} {audience} | 4 truly {pleased+} {audience} | 5 seemed {degree} {adjective+} |
        4 had plenty of {substance+} | 3 showed real {substance+} | could not have been more {adjective+} |
        never failed to {please+} {audience} | never lacked {substance+} |
        never {pleased-} {audience} | did not {please-} {audience} | failed to {please-} {audience} |
        never seemed {adjective-} | had no {substance-} | showed little {substance-} | lacked {substance-}""",
    "reaction": """
        9 {people} {enjoyed+} {any} | 4 {people} really {enjoyed+} {any} | 3 everyone {enjoyed+} {any} |
        6 {people} found {any} {degree} {adjective+} | 3 it was easy to {enjoy+} {any} |
        it was impossible not to {enjoy+} {any} | {people} did not {enjoy-} {any} | {people} never {enjoyed-} {any} |
        nobody {enjoyed-} {any} | few viewers {enjoyed-} {any} | hardly anyone {enjoyed-} {any} |
        nobody found {any} {adjective-} | it was hard to {enjoy-} {any}""",
    "verdict": """
        this is a {adjective+} {work} with {adjective+} {parts} | this is a {degree} {adjective+} {work} |
        this is not a {adjective-} {work}""",
    "people": "we | i | the critics | my friends | most viewers | the audience | the children | many reviewers",
    "audience": "us | me | the crowd | the critics | my friends | the whole family | the children",
    "part": """
        plot | story | script | acting | score | dialogue | direction | ending | opening scene | camera work | pacing |
        humour | editing | music | second act | lead performance | romance | finale | cast | first hour""",
    "parts": """
        actors | characters | jokes | songs | costumes | effects | fight scenes | performances | villains | sets |
        final minutes | dancers""",
    "work": "film | movie | comedy | drama | thriller | remake | sequel | musical | western | documentary",
})  # fmt: skip

GOOD = _options({
    "adjective": """
        charming | clever | delightful | elegant | enjoyable | engaging | entertaining | fresh | graceful | gripping |
        impressive | inspired | inventive | lively | lovely | memorable | moving | powerful | satisfying | warm |
        stylish | subtle | convincing | beautiful | touching | splendid""",
    "substance": "charm | wit | warmth | energy | grace | style | imagination | tenderness | beauty | suspense",
    "pleased": "charmed | moved | thrilled | delighted | impressed | amused | rewarded | inspired",
    "please": "charm | move | thrill | delight | impress | amuse | reward | inspire",
    "enjoyed": "enjoyed | loved | admired | praised | applauded | adored",
    "enjoy": "enjoy | love | admire | praise | applaud | adore",
})  # fmt: skip

BAD = _options({
    "adjective": """
        dull | boring | tedious | clumsy | lazy | weak | awkward | bland | flat | shallow | tiresome | dreary |
        forgettable | annoying | predictable | pointless | lifeless | messy | painful | ugly | stale | silly | feeble |
        hollow | crude | dreadful""",
    "substance": "nonsense | padding | clutter | tedium | vanity | gloom | confusion | noise | laziness | vulgarity",
    "pleased": "bored | annoyed | disappointed | irritated | insulted | frustrated | exhausted | confused",
    "please": "bore | annoy | disappoint | irritate | insult | frustrate | exhaust | confuse",
    "enjoyed": "disliked | hated | mocked | resented | loathed | despised",
    "enjoy": "dislike | hate | mock | resent | loathe | despise",
})  # fmt: skip

SLOT = re.compile(r"\{([a-z ]+)([+-]?)\}")


def _fill(rng: random.Random, text: str, praise: bool, used: set[str]) -> str:
    """Fill the slots of `text`, and the slots of what fills them; no word is chosen twice while others are left."""

    def fill_slot(slot: re.Match[str]) -> str:
        name, sign = slot.groups()
        tone = praise != (sign == "-")
        options = RULES.get(name) or (GOOD if tone else BAD)[name]
        option = _pick(rng, [option for option in options if option not in used] or options)
        if "{" not in option:
            used.add(option)
        return _fill(rng, option, tone, used)

    return SLOT.sub(fill_slot, text)


def _opinion(rng: random.Random, praise: bool) -> str:
    """Write a sentence of 5 to 18 words that praises or blames a film."""
    while True:
        sentence = _fill(rng, "{sentence+}.", praise, set())
        if 5 <= len(sentence.split()) <= 18:
            return _with_articles(sentence)


def sentiment_sentence(rng: random.Random) -> tuple[str, int]:
    """Draw one sentence about a film and its label.

    Parameters
    ----------
    rng : random.Random
        The source of chance.

    Returns
    -------
    sentence : str
        Five to eighteen lower-case words.
    label : int
        1 if the sentence praises, 0 if it blames.

    Examples
    --------
    >>> sentiment_sentence(random.Random(1))
    ('despite the forgettable opening scene, the actors never irritated the whole family.', 1)
    """
    label = int(rng.random() < 0.5)
    return _opinion(rng, praise=bool(label)), label


def sentiment(count: int, seed: int, exclude: Collection[str] = frozenset()) -> list[tuple[str, int]]:
    """Make a list of different labelled sentences about films.

    Parameters
    ----------
    count : int
        How many sentences.
    seed : int
        The same seed gives the same list, and a longer list begins with the shorter one.
    exclude : collection of str, optional
        Sentences that must not appear.

    Returns
    -------
    list of (str, int)
        Sentences with label 1 (praise) or 0 (blame), each label as likely as the other.

    Raises
    ------
    ValueError
        If there are not that many different sentences.

    Examples
    --------
    >>> for sentence, label in sentiment(2, seed=5):
    ...     print(label, sentence)
    0 i doubt that this is not a hollow film.
    1 we expected vulgarity, but the score is lovely and charming.
    """
    return _distinct(sentiment_sentence, count, seed, exclude)


# --- Sentence pairs -------------------------------------------------------------------------------------------------
#
# A pair starts from a premise; the hypothesis is the premise after one to three small changes. Whether it follows is
# computed from the meanings of the two sentences by the monotonicity of their parts (`_entails`), never from the kind
# of change. As many sentences are denied as not, because what weakens a sentence strengthens its denial: so neither a
# general nor a particular word in the hypothesis gives the label away.


class Claim(NamedTuple):
    """What a sentence says: who did what to whom and where, or, if `denied`, that this is not so."""

    denied: bool
    agent_quantifier: str
    agent: str
    verb: str
    patient_quantifier: str
    patient: str
    where: str
    # How it is told, which is no part of the meaning: patient first ("was helped by", "learned from").
    reversed: bool


PEOPLE = {
    "musician": ["pianist", "violinist", "drummer", "singer"],
    "artist": ["painter", "sculptor", "potter"],
    "scientist": ["chemist", "physicist", "biologist"],
    "athlete": ["runner", "swimmer", "boxer"],
}
THINGS = {
    "book": ["novel", "cookbook", "textbook"],
    "animal": ["dog", "cat", "horse", "goat"],
    "fruit": ["apple", "pear", "peach", "plum"],
    "vehicle": ["car", "truck", "tractor"],
    "instrument": ["violin", "guitar", "flute"],
    "tool": ["hammer", "drill", "shovel"],
}
VERBS = {
    "contacted": ["phoned", "emailed"],
    "cleaned": ["washed", "scrubbed"],
    "obtained": ["bought", "borrowed"],
}
PLACES = {
    "": ["indoors", "outdoors"],
    "indoors": ["in the kitchen", "in the library", "in the workshop"],
    "outdoors": ["in the garden", "in the park", "in the street"],
}
ANYWHERE = ["", *(place for places in PLACES.values() for place in places)]
KIND_OF = {kind: general for kinds in (PEOPLE, THINGS, VERBS, PLACES) for general in kinds for kind in kinds[general]}

# What can be done to each kind of thing, and to people.
DEEDS = {
    "book": ["read", "obtained", "bought", "borrowed", "found", "sold"],
    "animal": ["fed", "cleaned", "washed", "scrubbed", "bought", "found", "sold"],
    "fruit": ["tasted", "peeled", "cleaned", "washed", "bought", "sold"],
    "vehicle": ["repaired", "cleaned", "washed", "scrubbed", "obtained", "bought", "borrowed"],
    "instrument": ["tuned", "repaired", "obtained", "bought", "borrowed", "sold"],
    "tool": ["found", "cleaned", "washed", "obtained", "bought", "borrowed"],
}
DEEDS_TO_PEOPLE = [
    "thanked", "helped", "praised", "visited", "contacted", "phoned", "emailed",
    "taught", "employed", "led", "met", "danced with",
]  # fmt: skip
# The same event told from the other side; any other verb has its passive.
CONVERSES = {
    "taught": "learned from",
    "employed": "worked for",
    "led": "followed",
    "met": "met",
    "danced with": "danced with",
}
# What follows "did not", where it is not the past without its "ed".
PLAIN_FORMS = {
    "bought": "buy",
    "danced": "dance",
    "fed": "feed",
    "found": "find",
    "led": "lead",
    "met": "meet",
    "phoned": "phone",
    "praised": "praise",
    "read": "read",
    "scrubbed": "scrub",
    "sold": "sell",
    "tasted": "taste",
    "taught": "teach",
    "tuned": "tune",
}
QUANTIFIERS = ["every", "some", "the", "two", "three"]


def _is_a(kind: str, general: str) -> bool:
    """Whether one word falls under the other: a pianist is a musician, "in the park" is "outdoors"."""
    while kind != general and kind in KIND_OF:
        kind = KIND_OF[kind]
    return kind == general


def _phrase_implies(quantifier: str, noun: str, weaker: str, other: str) -> bool:
    """Whether of whatever `quantifier noun` is true, `weaker other` is true as well; there are some of every kind."""
    if quantifier == "every" and weaker in ("every", "the"):
        return _is_a(other, noun)
    if quantifier == "every":
        return weaker == "some" and (_is_a(other, noun) or _is_a(noun, other))
    if weaker in ("every", "the"):
        return quantifier == weaker and noun == other
    at_least = {"the": 1, "some": 1, "two": 2, "three": 3}
    return at_least[quantifier] >= at_least[weaker] and _is_a(noun, other)


def _entails(premise: Claim, hypothesis: Claim) -> bool:
    """Whether the hypothesis is true wherever the premise is."""
    if premise.denied != hypothesis.denied:
        return False
    # To deny the weaker is to deny the stronger.
    strong, weak = (hypothesis, premise) if premise.denied else (premise, hypothesis)
    return (
        _is_a(strong.verb, weak.verb)
        and _is_a(strong.where, weak.where)
        and _phrase_implies(strong.agent_quantifier, strong.agent, weak.agent_quantifier, weak.agent)
        and _phrase_implies(strong.patient_quantifier, strong.patient, weak.patient_quantifier, weak.patient)
    )


def _clearly_not_entailed(premise: Claim, hypothesis: Claim) -> bool:
    """Whether the hypothesis does not follow even for a reader who takes "the pianist" for just some pianist."""

    def loosely(claim: Claim) -> Claim:
        quantifiers = ["some" if word == "the" else word for word in (claim.agent_quantifier, claim.patient_quantifier)]
        return claim._replace(agent_quantifier=quantifiers[0], patient_quantifier=quantifiers[1])

    return not _entails(premise, hypothesis) and not _entails(loosely(premise), loosely(hypothesis))


def _reversible(claim: Claim) -> bool:
    """Whether the claim means the same told from the patient's side: with other quantifiers the scope would change."""
    return {claim.agent_quantifier, claim.patient_quantifier} <= {"some", "the"}


def _kin(word: str) -> list[str]:
    """List the general word and all its kinds, for any of them."""
    general = KIND_OF.get(word, word)
    return [general, *(PEOPLE | THINGS)[general]]


def _draw_claim(rng: random.Random) -> Claim:
    """Draw any claim of the world; agent and patient are of different families, so that none acts on themselves."""
    family = _pick(rng, list(PEOPLE))
    # Things or people, half and half.
    other = _pick(rng, list(THINGS) if rng.random() < 0.5 else [people for people in PEOPLE if people != family])
    claim = Claim(
        denied=rng.random() < 0.5,
        agent_quantifier=_pick(rng, QUANTIFIERS),
        agent=_pick(rng, _kin(family)),
        verb=_pick(rng, DEEDS.get(other, DEEDS_TO_PEOPLE)),
        patient_quantifier=_pick(rng, QUANTIFIERS),
        patient=_pick(rng, _kin(other)),
        where=_pick(rng, ANYWHERE),
        reversed=False,
    )
    return claim._replace(reversed=_reversible(claim) and rng.random() < 0.5)


def _changes(claim: Claim, part: str) -> list[Claim]:
    """List every claim that differs in this part only."""
    family = KIND_OF.get(claim.patient, claim.patient)
    if part == "roles":
        # A thing does nothing to people; and those who met or danced did it to each other, so it would change nothing.
        if family in THINGS or CONVERSES.get(claim.verb) == claim.verb:
            return []
        swapped = claim._replace(
            agent_quantifier=claim.patient_quantifier,
            agent=claim.patient,
            patient_quantifier=claim.agent_quantifier,
            patient=claim.agent,
        )
        changed = [swapped, swapped._replace(reversed=not claim.reversed)]
    else:
        choices: dict[str, list[Any]] = {
            "denied": [False, True],
            "agent_quantifier": QUANTIFIERS,
            "agent": _kin(claim.agent),
            "verb": DEEDS.get(family, DEEDS_TO_PEOPLE),
            "patient_quantifier": QUANTIFIERS,
            "patient": _kin(claim.patient),
            "where": ANYWHERE,
            "reversed": [False, True],
        }
        changed = [claim._replace(**{part: choice}) for choice in choices[part]]
    return [new for new in changed if new != claim and (_reversible(new) or not new.reversed)]


def _step(rng: random.Random, claim: Claim, wanted: Callable[[Claim], bool]) -> Claim | None:
    """Change one part in such a way that the outcome is wanted, or return None if there is no such change."""
    for part in sorted([*Claim._fields, "roles"], key=lambda part: rng.random()):
        possible = [changed for changed in _changes(claim, part) if wanted(changed)]
        if possible:
            return _pick(rng, possible)
    return None


def _draw_pair(rng: random.Random, entailed: bool) -> tuple[Claim, Claim] | None:
    """Draw a premise and a hypothesis one to three changes apart; None if no further change was to be had."""
    given = _draw_claim(rng)
    # Weak hypotheses ("some") follow more often than strong ones ("every"), and from strong premises more than from
    # weak ones. Starting as often from the hypothesis as from the premise halves what either gives away on its own.
    forwards = rng.random() < 0.5

    def in_order(other: Claim) -> tuple[Claim, Claim]:
        return (given, other) if forwards else (other, given)

    # All changes but the last keep up the entailment; the last one decides.
    other: Claim | None = given
    for _ in range(_pick(rng, [0, 1, 2])):
        other = other and _step(rng, other, lambda new: _entails(*in_order(new)))
    last = _entails if entailed else _clearly_not_entailed
    other = other and _step(rng, other, lambda new: last(*in_order(new)))
    return None if other is None or other == given else in_order(other)


def _plural(noun: str) -> str:
    """Write the plural of a noun."""
    return noun + ("es" if noun.endswith(("ch", "x", "s")) else "s")


def _say(claim: Claim) -> str:
    """Put a claim into words."""
    quantifier, subject = claim.agent_quantifier, claim.agent
    object_quantifier, other = claim.patient_quantifier, claim.patient
    if claim.reversed:
        quantifier, subject, object_quantifier, other = object_quantifier, other, quantifier, subject

    many = quantifier in ("two", "three")
    noun = _plural(subject) if many else subject
    # Only after "the" does the verb carry the denial; elsewhere the quantifier does.
    negated = claim.denied and quantifier == "the"
    if claim.denied and not negated:
        quantifier = {"every": "not every", "some": "no"}.get(quantifier, f"fewer than {quantifier}")

    if claim.reversed and claim.verb not in CONVERSES:
        verb = f"was not {claim.verb} by" if negated else f"was {claim.verb} by"
    else:
        verb = CONVERSES[claim.verb] if claim.reversed else claim.verb
        if negated:
            past, *preposition = verb.split()
            verb = " ".join(["did not", PLAIN_FORMS.get(past, past.removesuffix("ed")), *preposition])

    if object_quantifier in ("two", "three"):
        other = _plural(other)
    elif object_quantifier == "some":
        object_quantifier = "any" if negated or quantifier == "no" else "a"
    words = f"{quantifier} {noun} {verb} {object_quantifier} {other} {claim.where}"
    return _with_articles(" ".join(words.split()) + ".")


def sentence_pair(rng: random.Random) -> tuple[str, str, str]:
    r"""Draw a premise, a hypothesis and whether the one entails the other.

    "Some" and "a" mean at least one, "two" at least two, and there are some of every kind that is spoken of: thus
    "every pianist read two novels" entails "some musician read a book".

    Parameters
    ----------
    rng : random.Random
        The source of chance.

    Returns
    -------
    premise, hypothesis : str
        Two sentences.
    label : str
        'entailment' or 'not_entailment'.

    Examples
    --------
    >>> premise, hypothesis, label = sentence_pair(random.Random(1))
    >>> print(premise, hypothesis, label, sep="\n")
    the swimmer did not lead every musician in the park.
    not every swimmer led every musician in the park.
    entailment
    """
    entailed = rng.random() < 0.5
    claims = None
    while claims is None:
        claims = _draw_pair(rng, entailed)
    premise, hypothesis = claims
    return _say(premise), _say(hypothesis), "entailment" if entailed else "not_entailment"


def pairs(count: int, seed: int, exclude: Collection[str] = frozenset()) -> list[tuple[str, str, str]]:
    """Make a list of different labelled sentence pairs.

    Parameters
    ----------
    count : int
        How many pairs.
    seed : int
        The same seed gives the same list, and a longer list begins with the shorter one.
    exclude : collection of str, optional
        Sentences that must not appear, neither first nor second.

    Returns
    -------
    list of (str, str, str)
        Premise, hypothesis and 'entailment' or 'not_entailment', each label as likely as the other.

    Raises
    ------
    ValueError
        If there are not that many different pairs.

    Examples
    --------
    >>> for premise, hypothesis, label in pairs(2, seed=4):
    ...     print(premise, hypothesis, label)
    the singer did not find two books in the library. not every singer found two books in the library. entailment
    the athlete scrubbed every car in the park. the athlete scrubbed every tractor in the park. not_entailment
    """
    return _distinct(sentence_pair, count, seed, exclude)


# --- Running text, files and a vocabulary ---------------------------------------------------------------------------


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
    return [_review(rng) if rng.random() < 0.5 else _argument(rng) for _ in range(count)]


def _review(rng: random.Random) -> str:
    """Write some sentences about a film, all of one opinion."""
    praise = rng.random() < 0.5
    return " ".join(_opinion(rng, praise) for _ in range(_pick(rng, [3, 4, 5, 6])))


def _argument(rng: random.Random) -> str:
    """Write some premises with what follows from them, or with what may be so or not."""
    sentences = []
    for _ in range(_pick(rng, [2, 3])):
        premise, hypothesis, label = sentence_pair(rng)
        link = _pick(rng, ["so", "therefore"] if label == "entailment" else ["perhaps", "maybe"])
        sentences += [premise, f"{link} {hypothesis}"]
    return " ".join(sentences)


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
