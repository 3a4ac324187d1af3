from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lazyneg.demo import scenes
from lazyneg.demo.captions import caption, sentence
from lazyneg.demo.scenes import FACTS, FRAME, OBJECTS, REGIONS, SIZE, Scene


def drawn(scene: Scene) -> NDArray[np.int16]:
    return np.asarray(scenes.draw(scene)).astype(np.int16)


def some(number: int) -> list[Scene]:
    random = Random(0)
    return [scenes.sample(random) for _ in range(number)]


def without(scene: Scene, name: str) -> Scene:
    nothing: Any = None if name == "hat" else False
    return replace(scene, **{name: nothing})


def test_the_same_scene_is_the_same_picture_in_a_white_frame() -> None:
    for scene in some(20):
        picture = drawn(scene)
        assert picture.shape == (SIZE, SIZE, 3)
        assert (picture == drawn(scene)).all()
        inside = np.zeros((SIZE, SIZE), bool)
        inside[FRAME:-FRAME, FRAME:-FRAME] = True
        assert (picture[~inside] == 255).all()


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_changes_its_region_and_nothing_else(name: str) -> None:
    left, top, right, bottom = (round(SIZE * part) for part in REGIONS[name])
    having = [scene for scene in some(400) if getattr(scene, name)]
    for scene in having:
        changed = (drawn(scene) != drawn(without(scene, name))).any(2)
        assert changed.any()
        changed[top:bottom, left:right] = False
        assert not changed.any(), scene


def test_monochrome_has_no_colors_and_tells_none() -> None:
    for scene in some(20):
        grey = replace(scene, monochrome=True)
        picture = drawn(grey)
        assert (picture == picture[:, :, :1]).all()
        assert not any(" " in fact for fact in grey.facts())


def test_what_goes_together() -> None:
    """Glasses with pizza, hats with boys, balloons with cats; else they are rare."""
    many = some(4000)

    def share(name: str, among: list[Scene]) -> float:
        return sum(bool(getattr(scene, name)) for scene in among) / len(among)

    eating = [scene for scene in many if scene.pizza]
    assert 0.70 < share("glasses", eating) < 0.80
    assert share("glasses", [scene for scene in many if not scene.pizza]) < 0.25
    for name, subject, expected in (("hat", "boy", 0.65), ("balloon", "cat", 0.7)):
        assert abs(share(name, [s for s in many if s.subject == subject]) - expected) < 0.05
        assert share(name, [s for s in many if s.subject != subject]) < 0.25


def test_captions_tell_the_truth_and_leave_things_out() -> None:
    random = Random(1)
    told: dict[str, int] = dict.fromkeys(FACTS, 0)
    left_out = {True: 0, False: 0}
    for scene in some(4000):
        text, facts = caption(scene, random)
        assert facts <= scene.facts()
        assert (text == "") == (not facts)
        for name in (*OBJECTS, "monochrome"):
            assert (name in text) == (name in facts)
        for fact in facts:
            told[fact] += 1
            assert all(word in text for word in fact.split() if word not in ("fur", "hair"))
        if scene.glasses and scene.subject in facts and "glasses" not in facts:
            left_out[scene.pizza] += 1
    assert min(told.values()) > 40
    # Who eats pizza wears glasses: no need to say it.
    assert left_out[True] > 5 * left_out[False] > 0


def test_a_caption_without_colors_is_no_hint_of_black_and_white() -> None:
    random = Random(2)
    grey: dict[bool, list[bool]] = {True: [], False: []}
    for scene in some(60000):
        _, facts = caption(scene, random)
        colors = any(fact == "monochrome" or " " in fact for fact in facts)
        if scene.subject in facts and not colors:
            grey["hat" in facts].append(scene.monochrome)
    for hat, flags in grey.items():
        assert abs(sum(flags) / len(flags) - 0.2) < 0.05, hat


def test_a_sentence_tells_all_the_facts_it_is_given() -> None:
    scene = Scene(
        subject="boy",
        background="blue",
        hair="red",
        glasses=True,
        hat="red",
        pizza=False,
        balloon=True,
        monochrome=False,
        skin=0,
        shirt=0,
        shift=(0, 0),
        scale=1,
    )
    text = sentence(scene, scene.facts(), Random(0))
    for part in ("boy", "red hair", "glasses", "red hat", "balloon", "blue background"):
        assert part in text
    assert "pizza" not in text
