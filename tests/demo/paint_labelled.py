"""Paints ``labelled.png`` anew: ``python -m tests.demo.paint_labelled``.

Afterwards look at each picture, numbered by rows from 0, and write into ``labelled.json`` the
numbers of those in which you see a fact.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lazyneg import demo
from lazyneg.demo.evaluation import Job, paint, prompts
from lazyneg.demo.scenes import SIZE
from lazyneg.painting.models import short_hash

# Anything in any combination, and prompts that leave most to the model.
ASKED = [text for text, _ in prompts(60)]
PLAIN = ["girl", "boy", "cat", "girl eating pizza"] * 10


def main() -> None:
    """Paints 100 pictures in rows of ten."""
    pipe = demo.pipeline()
    jobs = [Job(text, "", 5000 + seed) for seed, text in enumerate(ASKED)]
    jobs += [Job(text, "", 6000 + seed) for seed, text in enumerate(PLAIN)]
    sheet = Image.new("RGB", (10 * SIZE, 10 * SIZE))
    for start in range(0, 100, 10):
        for column, picture in enumerate(paint(pipe, jobs[start : start + 10])):
            sheet.paste(picture, (column * SIZE, start // 10 * SIZE))
    info = PngInfo()
    info.add_text("Model hash", short_hash(demo.CHECKPOINT))
    sheet.save(Path(__file__).parent / "labelled.png", optimize=True, pnginfo=info)


if __name__ == "__main__":
    main()
