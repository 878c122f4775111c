"""The specification has every requirement, under the anchor that reports point to, with the title they print."""

import re
from pathlib import Path

import pytest

import refsnn.conformance
from refsnn.conformance.requirements import PAGE, REQUIREMENTS

TEXT = (Path(__file__).parents[1] / PAGE).read_text(encoding="utf-8")
#: What an adapter may define, as the contract names it: ``neurons(current, …) -> …``.
FUNCTIONS = re.findall(r"^``(\w+)\(", refsnn.conformance.__doc__, re.MULTILINE)
SECTIONS = {
    match["id"]: match["text"]
    for match in re.finditer(
        r'^<a id="(?P<id>s-\d+)"></a>\n(?P<text>.*?)(?=^<a |^## |\Z)', TEXT, re.MULTILINE | re.DOTALL
    )
}


def test_every_requirement_has_its_anchor_and_heading_in_order_and_none_is_extra():
    anchors = re.findall(r"<a\s[^>]*>", TEXT)
    headings = re.findall(r"^###\s+(.*)$", TEXT, re.MULTILINE)
    assert anchors == [f'<a id="{r.link.removeprefix(PAGE + "#")}">' for r in REQUIREMENTS.values()]
    assert headings == [f"{r.id} {r.title}" for r in REQUIREMENTS.values()]


@pytest.mark.parametrize("requirement", REQUIREMENTS.values(), ids=REQUIREMENTS)
def test_each_requirement_says_what_exercises_it_its_source_and_what_is_often_wrong(requirement):
    text = SECTIONS[requirement.id.lower()]
    heading, _, body = text.strip().partition("\n")
    assert heading == f"### {requirement.id} {requirement.title}"  # right below its anchor
    for label in ("Exercised by:", "Source:", "Often wrong:"):
        assert body.count(f"**{label}**") == 1, label
    exercised = body.split("**Exercised by:**")[1].split("**Source:**")[0]
    assert any(f"`{name}" in exercised for name in FUNCTIONS) or "every function" in exercised


def test_requirements_named_in_the_text_exist():
    assert set(re.findall(r"\bS-\d+\b", TEXT)) == set(REQUIREMENTS)
