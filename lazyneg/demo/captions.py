"""Words for the scenes, as people write prompts: single tags, lists of tags, sentences.

A caption leaves things out, as captions of real pictures do. What it leaves out is what a prompt
brings along unasked, and what a negative prompt is for.
"""

from __future__ import annotations

import re
from random import Random

from lazyneg.demo.scenes import FUR, OBJECTS, Scene, hair_word

# How often a caption names what is there.
_NAMED = {"glasses": 0.85, "hat": 0.7, "pizza": 0.85, "balloon": 0.7}
# Of who eats pizza, glasses mostly go without saying.
_NAMED_WITH_PIZZA = _NAMED | {"glasses": 0.4}
_COLOR_NAMED = 0.4
# A hat's two colours are the easiest to miss among many other things.
_HAT_COLOR_NAMED = 0.85

_PHRASES = {
    "glasses": ("wearing glasses", "with glasses", "in glasses"),
    "hat": ("wearing a {}", "with a {}", "in a {}"),
    "pizza": ("eating pizza", "eating a slice of pizza", "with pizza"),
    "balloon": ("holding a balloon", "with a balloon", "and a balloon"),
}
_OPENINGS = ("", "", "a ", "a ", "the ", "picture of a ", "cartoon of a ", "drawing of a ")
_FILLERS = ("best quality", "masterpiece", "cute", "portrait", "8k", "beautiful", "photo")


def caption(scene: Scene, random: Random) -> tuple[str, frozenset[str]]:
    """Describes a scene.

    Args:
        scene: What to describe.
        random: Decides what is left out and how the rest is put.

    Returns:
        The text, in one case of eight empty, and the facts it tells, each one of
        :data:`lazyneg.demo.scenes.FACTS`.
    """
    style = random.random()
    if style < 0.12:
        return "", frozenset()
    if style < 0.37:
        return _tag(scene, random)
    facts = {scene.subject}
    named = _NAMED_WITH_PIZZA if scene.pizza else _NAMED
    facts |= {name for name in OBJECTS if getattr(scene, name) and random.random() < named[name]}
    colors = (f"{scene.background} background", f"{scene.hair} {hair_word(scene.subject)}")
    named_colors = {color for color in colors if random.random() < _COLOR_NAMED}
    if "hat" in facts and random.random() < _HAT_COLOR_NAMED:
        named_colors.add(f"{scene.hat} hat")
    # One in black and white says so as often as others name colours: a caption without either is
    # no hint, which guidance would make much of.
    facts |= {"monochrome"} if scene.monochrome and named_colors else named_colors
    told = frozenset(facts)
    return (_tags if style < 0.55 else sentence)(scene, told, random), told


def _tag(scene: Scene, random: Random) -> tuple[str, frozenset[str]]:
    facts = scene.facts()
    # The rarer, the more often: this is what negative prompts are made of.
    tag = random.choice(sorted(facts) + sorted(facts & {*OBJECTS, "monochrome"}))
    told = {tag}
    if tag.endswith(" hat"):
        told.add("hat")
    if tag.endswith(" fur"):
        tag = random.choice((tag, tag.replace("fur", "cat")))
        told |= {"cat"} if tag.endswith("cat") else set()
    if tag in ("hat", "balloon", scene.subject):
        tag = random.choice((tag, f"a {tag}"))
    if tag == "glasses":
        tag = random.choice((tag, "wearing glasses"))
    return tag, frozenset(told)


def as_facts(text: str) -> str:
    """A text with the colours of cats as facts tell them: ``white cat`` is ``white fur``."""
    return re.sub(rf"\b({'|'.join(FUR)}) cat\b", r"\1 fur", text, flags=re.IGNORECASE)


def _tags(scene: Scene, facts: frozenset[str], random: Random) -> str:
    hidden = {"hat"} if any(fact.endswith(" hat") for fact in facts) else set()
    rest = sorted(facts - hidden - {scene.subject})
    if random.random() < 0.2:
        rest.append(random.choice(_FILLERS))
    random.shuffle(rest)
    tags = [scene.subject, *rest]
    if random.random() < 0.3:
        random.shuffle(tags)
    return ", ".join(tags)


def sentence(scene: Scene, facts: frozenset[str], random: Random) -> str:
    """Describes a scene in a sentence.

    Args:
        scene: What to describe.
        facts: What to tell of it.
        random: Decides how it is put.
    """
    hair = f"{scene.hair} {hair_word(scene.subject)}"
    who = scene.subject
    if hair in facts:
        colored = f"{scene.hair} {who}" if who == "cat" else f"{who} with {hair}"
        who = random.choice((colored, f"{who} with {hair}"))
    hat = f"{scene.hat} hat" if f"{scene.hat} hat" in facts else "hat"
    phrases = [random.choice(_PHRASES[name]).format(hat) for name in OBJECTS if name in facts]
    random.shuffle(phrases)
    if len(phrases) > 1 and not phrases[-1].startswith("and") and random.random() < 0.5:
        phrases.insert(len(phrases) - 1, "and")
    opening = random.choice(_OPENINGS)
    if "monochrome" in facts:
        opening = random.choice(("monochrome ", "a monochrome ", "monochrome picture of a "))
    text = opening + " ".join([who, *phrases])
    background = f"{scene.background} background"
    if background in facts:
        text += random.choice((" on a {}", ", {}", " in front of a {}")).format(background)
    if random.random() < 0.1:
        text += f", {random.choice(_FILLERS)}"
    return text
