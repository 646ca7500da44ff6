"""Render the emoji that genkit/data/emoji_scenes.py composes, once, from Debian's font.

    apt-get install fonts-noto-color-emoji      # version 2.042
    python scripts/render_emoji.py

Writes genkit/data/emoji/sheet.png: one 64x64 RGBA tile per object, in the order of objects.txt,
cropped to the picture and centred. The font is under the SIL Open Font License 1.1 (see
genkit/data/emoji/LICENSE.txt); the pictures are documents made with it.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
STRIKE = 109  # the only size of the bitmap font, in pixels
TILE = 64
HOME = Path(__file__).parents[1] / "genkit" / "data" / "emoji"


def tile(character: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """One emoji (TILE, TILE) RGBA, its longer side filling the tile."""
    canvas = Image.new("RGBA", (2 * STRIKE, 2 * STRIKE), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text(
        (STRIKE // 2, STRIKE // 2), character, font=font, embedded_color=True
    )
    box = canvas.getchannel("A").getbbox()
    if box is None:
        raise ValueError(f"the font draws nothing for {character!r}; use another emoji")
    picture = canvas.crop(box)
    scale = TILE / max(picture.size)
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    out = Image.new("RGBA", (TILE, TILE), (0, 0, 0, 0))
    out.paste(picture, ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--font", default=FONT, help="NotoColorEmoji.ttf")
    font = ImageFont.truetype(parser.parse_args().font, STRIKE)
    lines = (HOME / "objects.txt").read_text(encoding="utf-8").splitlines()
    tiles = [tile(line.split()[0], font) for line in lines]
    sheet = Image.new("RGBA", (TILE * len(tiles), TILE))
    for i, each in enumerate(tiles):
        sheet.paste(each, (TILE * i, 0))
    sheet.save(HOME / "sheet.png", optimize=True)
    print(f"{len(tiles)} objects in {HOME / 'sheet.png'}")


if __name__ == "__main__":
    main()
