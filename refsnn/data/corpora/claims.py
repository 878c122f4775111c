"""A small world of people and things, in which one sentence follows from another or does not.

Kinds within kinds, *every*, *no* and *two*, active and passive, who did it and to whom.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from .drawing import distinct, pick, with_articles

__all__ = [
    "pairs",
    "sentence_pair",
]


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
    family = pick(rng, list(PEOPLE))
    # Things or people, half and half.
    other = pick(rng, list(THINGS) if rng.random() < 0.5 else [people for people in PEOPLE if people != family])
    claim = Claim(
        denied=rng.random() < 0.5,
        agent_quantifier=pick(rng, QUANTIFIERS),
        agent=pick(rng, _kin(family)),
        verb=pick(rng, DEEDS.get(other, DEEDS_TO_PEOPLE)),
        patient_quantifier=pick(rng, QUANTIFIERS),
        patient=pick(rng, _kin(other)),
        where=pick(rng, ANYWHERE),
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
            return pick(rng, possible)
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
    for _ in range(pick(rng, [0, 1, 2])):
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
    return with_articles(" ".join(words.split()) + ".")


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
    return distinct(sentence_pair, count, seed, exclude)


def argument(rng: random.Random) -> str:
    """Write some premises with what follows from them, or with what may be so or not."""
    sentences = []
    for _ in range(pick(rng, [2, 3])):
        premise, hypothesis, label = sentence_pair(rng)
        link = pick(rng, ["so", "therefore"] if label == "entailment" else ["perhaps", "maybe"])
        sentences += [premise, f"{link} {hypothesis}"]
    return " ".join(sentences)
