"""The talk of film-goers: sentences that praise or blame.

Which of the two is decided by how words are put together (negation, concession, double negation), so that counting
words is not enough.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection

from .drawing import distinct, pick, with_articles

__all__ = [
    "sentiment",
    "sentiment_sentence",
]


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
        option = pick(rng, [option for option in options if option not in used] or options)
        if "{" not in option:
            used.add(option)
        return _fill(rng, option, tone, used)

    return SLOT.sub(fill_slot, text)


def _opinion(rng: random.Random, praise: bool) -> str:
    """Write a sentence of 5 to 18 words that praises or blames a film."""
    while True:
        sentence = _fill(rng, "{sentence+}.", praise, set())
        if 5 <= len(sentence.split()) <= 18:
            return with_articles(sentence)


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
    return distinct(sentiment_sentence, count, seed, exclude)


def review(rng: random.Random) -> str:
    """Write some sentences about a film, all of one opinion."""
    praise = rng.random() < 0.5
    return " ".join(_opinion(rng, praise) for _ in range(pick(rng, [3, 4, 5, 6])))
