"""The pictures that the embedded model learns from, drawn by code.

A scene is a girl, a boy or a cat in a white frame, with or without glasses, a hat, a slice of
pizza and a balloon, now and then in black and white. As in real pictures some things go together:
who eats pizza mostly wears glasses, boys often wear a hat, cats often hold a balloon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

SIZE = 128
"""Width and height of a picture, in pixels."""

FRAME = 8
"""Width of the white frame: one latent. It gives the decoder's norms a fixed reference."""

SUBJECTS = ("girl", "boy", "cat")
OBJECTS = ("glasses", "hat", "pizza", "balloon")

Color = tuple[int, int, int]

BACKGROUNDS: dict[str, Color] = {
    "blue": (140, 195, 245),
    "green": (150, 215, 140),
    "pink": (250, 175, 200),
    "yellow": (252, 228, 120),
}
HAIR: dict[str, Color] = {"black": (35, 30, 38), "blonde": (240, 200, 80), "red": (200, 70, 30)}
FUR: dict[str, Color] = {
    "orange": (240, 150, 60),
    "grey": (145, 145, 158),
    "white": (240, 238, 232),
}
HATS: dict[str, Color] = {"red": (205, 35, 45), "blue": (40, 65, 170)}

SKIN: tuple[Color, ...] = ((252, 215, 180), (165, 110, 75))
SHIRTS: tuple[Color, ...] = ((110, 80, 170), (70, 150, 130))

DARK: Color = (22, 20, 26)
WHITE: Color = (255, 255, 255)

REGIONS: dict[str, tuple[float, float, float, float]] = {
    "glasses": (0.20, 0.36, 0.80, 0.64),
    "hat": (0.14, 0.04, 0.86, 0.42),
    "pizza": (0.40, 0.54, 0.94, 0.94),
    "balloon": (0.06, 0.06, 0.40, 0.95),
}
"""Boxes (left, top, right, bottom) that hold an object in every scene, as parts of the picture."""


def region_of(fact: str) -> tuple[float, float, float, float] | None:
    """The box of :data:`REGIONS` that a fact is about; a coloured hat is where a hat is."""
    return REGIONS.get(fact.split()[-1])


@dataclass(frozen=True)
class Scene:
    """What is in a picture.

    Attributes:
        subject: One of :data:`SUBJECTS`.
        background: A colour of :data:`BACKGROUNDS`.
        hair: A colour of :data:`HAIR`, for a cat of :data:`FUR`.
        hat: A colour of :data:`HATS`, or none without a hat.
        skin: Index in :data:`SKIN`.
        shirt: Index in :data:`SHIRTS`.
        shift: Where the subject is, in pixels right and down from the middle.
        scale: Size of the subject.
    """

    subject: str
    background: str
    hair: str
    glasses: bool
    hat: str | None
    pizza: bool
    balloon: bool
    monochrome: bool
    skin: int
    shirt: int
    shift: tuple[float, float]
    scale: float

    def facts(self) -> frozenset[str]:
        """All that words can say of this scene; of one in black and white, no colours."""
        facts = {self.subject}
        facts |= {name for name in OBJECTS if getattr(self, name)}
        if self.monochrome:
            return frozenset(facts | {"monochrome"})
        facts |= {f"{self.background} background", f"{self.hair} {hair_word(self.subject)}"}
        if self.hat:
            facts.add(f"{self.hat} hat")
        return frozenset(facts)


def hair_word(subject: str) -> str:
    """What grows on a subject's head."""
    return "fur" if subject == "cat" else "hair"


FACTS = (
    *OBJECTS,
    "monochrome",
    *SUBJECTS,
    *(f"{color} background" for color in BACKGROUNDS),
    *(f"{color} hair" for color in HAIR),
    *(f"{color} fur" for color in FUR),
    *(f"{color} hat" for color in HATS),
)
"""All facts there are."""


def sample(random: Random) -> Scene:
    """Draws a scene by lot."""
    subject = random.choice(SUBJECTS)
    pizza = random.random() < 0.4
    glasses = random.random() < (0.75 if pizza else 0.2)
    hat = random.random() < (0.65 if subject == "boy" else 0.2)
    balloon = random.random() < (0.7 if subject == "cat" else 0.2)
    return Scene(
        subject=subject,
        background=random.choice(list(BACKGROUNDS)),
        hair=random.choice(list(FUR if subject == "cat" else HAIR)),
        glasses=glasses,
        hat=random.choice(list(HATS)) if hat else None,
        pizza=pizza,
        balloon=balloon,
        monochrome=random.random() < 0.2,
        skin=random.randrange(len(SKIN)),
        shirt=random.randrange(len(SHIRTS)),
        shift=(random.uniform(-4, 4), random.uniform(-3, 3)),
        scale=random.uniform(0.95, 1.05),
    )


def draw(scene: Scene) -> Image.Image:
    """Draws a scene as an RGB picture of :data:`SIZE` by :data:`SIZE` pixels."""
    picture = _Painter(scene).paint()
    if scene.monochrome:
        picture = picture.convert("L").convert("RGB")
    framed = Image.new("RGB", (SIZE, SIZE), WHITE)
    framed.paste(picture, (FRAME, FRAME))
    return framed


Points = Sequence[tuple[float, float]]


def _shade(color: Color, part: float) -> Color:
    red, green, blue = (int(value * part) for value in color)
    return red, green, blue


class _Painter:
    """Draws with the middle of the face as origin, at twice the size for smooth edges."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.zoom = 2 * scene.scale
        inside = SIZE - 2 * FRAME
        self.middle = (inside + 2 * scene.shift[0], inside + 12 + 2 * scene.shift[1])
        self.picture = Image.new("RGB", (2 * inside, 2 * inside), BACKGROUNDS[scene.background])
        self.pen = ImageDraw.Draw(self.picture)

    def paint(self) -> Image.Image:
        scene = self.scene
        if scene.balloon:
            self._balloon()
        if scene.subject == "cat":
            self._cat()
        else:
            self._person()
        if scene.glasses:
            self._glasses()
        if scene.hat:
            self._hat(HATS[scene.hat])
        if scene.pizza:
            self._pizza()
        return self.picture.reduce(2)

    def _cat(self) -> None:
        fur = FUR[self.scene.hair]
        self._box(-27, 22, 27, 80, fur, 14)
        for side in (-1, 1):
            self._polygon([(side * 31, -8), (side * 28, -44), (side * 5, -26)], fur)
            self._polygon([(side * 26, -16), (side * 25, -36), (side * 12, -25)], (240, 150, 165))
        self._oval(0, 2, 33, 30, fur)
        for side in (-1, 1):
            self._oval(side * 13, -3, 7.5, 8, (190, 225, 100))
            self._oval(side * 13, -3, 3, 7, DARK)
            for row in (-1, 1):
                self._line([(side * 14, 13 + row * 2), (side * 36, 11 + row * 5)], DARK, 1)
        self._polygon([(-5, 8), (5, 8), (0, 13)], (235, 110, 130))
        self._line([(-7, 19), (0, 15), (7, 19)], (120, 40, 50), 1.8)

    def _person(self) -> None:
        scene = self.scene
        skin, hair = SKIN[scene.skin], HAIR[scene.hair]
        girl = scene.subject == "girl"
        if girl:
            self._oval(0, -4, 36, 34, hair)
        self._box(-9, 24, 9, 42, _shade(skin, 0.9), 3)
        self._box(-32, 36, 32, 90, SHIRTS[scene.shirt], 14)
        if girl:
            for side in (-1, 1):
                left, right = sorted((side * 36, side * 22))
                self._box(left, -6, right, 46, hair, 6)
        else:
            self._oval(0, -5, 31, 30, hair)
            for side in (-1, 1):
                self._oval(side * 29, 4, 5.5, 7, skin)
        self._oval(0, 3, 29, 29, skin)
        if girl:
            fringe: Points = [(30, 0), (22, -9), (0, -14), (-22, -9)]
            self._polygon([(-30, 0), (-29, -16), (-15, -31), (15, -31), (29, -16), *fringe], hair)
        else:
            tufts: Points = [(28, -6), (20, -15), (11, -11), (2, -17), (-8, -11), (-18, -16)]
            self._polygon([(-28, -6), (-28, -22), (-12, -34), (12, -34), (28, -22), *tufts], hair)
        for side in (-1, 1):
            self._oval(side * 12, -1, 5.5, 6, WHITE)
            self._oval(side * 12, 0, 3.2, 3.8, DARK)
            if girl:
                self._oval(side * 19, 11, 4.5, 3, (240, 140, 140))
        self._line([(-1, 7), (2, 10), (-1, 11)], _shade(skin, 0.75), 1.5)
        self.pen.chord(self._corners(-9, 11, 9, 22), 10, 170, fill=(170, 45, 60))

    def _glasses(self) -> None:
        for side in (-1, 1):
            box = self._corners(side * 13 - 11, -12.5, side * 13 + 11, 8.5)
            self.pen.ellipse(box, outline=DARK, width=round(3 * self.zoom))
            self._line([(side * 23, -4), (side * 31, -7)], DARK, 2.6)
        self._line([(-3, -3), (3, -3)], DARK, 2.6)

    def _hat(self, color: Color) -> None:
        self.pen.pieslice(self._corners(-27, -52, 27, 2), 180, 360, fill=color)
        self._box(-36, -28, 36, -20, _shade(color, 0.6), 3)

    def _pizza(self) -> None:
        self._polygon([(0, 19), (36, 12), (30, 43)], (250, 205, 80))
        self._polygon([(36, 10), (42, 14), (35, 46), (28, 44)], (185, 115, 45))
        for x, y in ((15, 22), (27, 20), (25, 32)):
            self._oval(x, y, 4, 4, (205, 45, 35))

    def _balloon(self) -> None:
        self._line([(-41, -20), (-36, 60)], (95, 95, 100), 1.4)
        self._oval(-41, -36, 11.5, 14, (225, 40, 140))
        self._oval(-45, -41, 3, 4, WHITE)

    def _corners(self, left: float, top: float, right: float, bottom: float) -> list[float]:
        x, y = self.middle
        zoom = self.zoom
        return [x + left * zoom, y + top * zoom, x + right * zoom, y + bottom * zoom]

    def _points(self, points: Points) -> list[tuple[float, float]]:
        return [(self.middle[0] + x * self.zoom, self.middle[1] + y * self.zoom) for x, y in points]

    def _oval(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        self.pen.ellipse(self._corners(x - rx, y - ry, x + rx, y + ry), fill=color)

    def _box(
        self, left: float, top: float, right: float, bottom: float, color: Color, radius: float
    ) -> None:
        corners = self._corners(left, top, right, bottom)
        self.pen.rounded_rectangle(corners, radius * self.zoom, fill=color)

    def _polygon(self, points: Points, color: Color) -> None:
        self.pen.polygon(self._points(points), fill=color)

    def _line(self, points: Points, color: Color, width: float) -> None:
        self.pen.line(
            self._points(points), fill=color, width=round(width * self.zoom), joint="curve"
        )
