"""Makes the article's three pairs on a running WebUI: the negative prompt from the first step,
and from step 5 of 50. Then sends each picture's infotext back and checks that it makes the same
picture again.

Start the WebUI with --api, put the embedding EasyNegativeV2 into its embeddings folder, and run

    python compare.py --url http://127.0.0.1:7860 --output pictures

Needs the packages requests and pillow.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
from pathlib import Path
from typing import Any

import requests
from PIL import Image
from PIL.PngImagePlugin import PngInfo

parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
parser.add_argument("--url", default="http://127.0.0.1:7860")
parser.add_argument("--output", type=Path, default=Path("pictures"))
parser.add_argument("--size", type=int, default=512, help="width and height of the pictures")
options = parser.parse_args()


def txt2img(request: dict[str, Any]) -> Image.Image:
    """One picture. Its infotext is in `picture.info["parameters"]`, as in the PNG file."""
    response = requests.post(f"{options.url}/sdapi/v1/txt2img", json=request, timeout=3600)
    response.raise_for_status()
    return Image.open(io.BytesIO(base64.b64decode(response.json()["images"][0])))


options.output.mkdir(parents=True, exist_ok=True)
for case in sorted(Path(__file__).parent.glob("*.json")):
    lazy = json.loads(case.read_text()) | {"width": options.size, "height": options.size}
    plain = lazy | {"alwayson_scripts": {}}
    for name, request in (("plain", plain), ("lazy", lazy)):
        picture = txt2img(request)
        file = options.output / f"{case.stem}-{name}.png"
        infotext = picture.info["parameters"]
        text = PngInfo()
        text.add_text("parameters", infotext)
        picture.save(file, pnginfo=text)
        # Forge fails on an infotext without styles.
        again = txt2img({"infotext": infotext, "styles": []})
        if again.tobytes() != picture.tobytes():
            raise SystemExit(f"{file}: its infotext made another picture")
        print(f"{file}: reproduced by its infotext\n  {infotext.splitlines()[-1]}")
