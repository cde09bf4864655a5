"""Draw the pictures of README.md from the package and its lessons: python tools/pictures.py.

The moving one comes from tools/moving_picture.py.
"""

import base64
import io
from pathlib import Path

import nbformat
from PIL import Image

from zeta_edu.lessonmap import block_map

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs"
WIDTH = 320  # twice what README shows, for fine screens
# Which of a lesson's pictures stands for it: the number among all that it shows.
CHOSEN = {
    "00": 0,
    "01": 3,
    "02": 5,
    "03": 1,
    "04": 3,
    "05": 5,
    "06": 6,
    "07": 3,
    "08": 2,
    "09": 5,
    "10": 1,
    "11": 3,
    "12": 4,
    "13": 3,
    "14": 1,
    "15": 9,
}


def main() -> None:
    """Write the map of the block, and a small picture of every lesson, as PNG files."""
    (PICTURES / "lessons").mkdir(parents=True, exist_ok=True)
    figure = block_map()
    figure.savefig(PICTURES / "block.png", dpi=120)
    for number, index in CHOSEN.items():
        (lesson,) = (ROOT / "notebooks").glob(f"{number}-*.ipynb")
        thumbnail(lesson, index).save(PICTURES / "lessons" / f"{number}.png", optimize=True)
    names = sorted(path.name for path in PICTURES.rglob("*.png"))
    print(f"written in {PICTURES.name}: {', '.join(names)}")


def thumbnail(lesson: Path, index: int) -> Image.Image:
    """One of the pictures that are stored in a lesson, small."""
    cells = nbformat.read(lesson, as_version=4).cells
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    stored = [data["image/png"] for data in outputs if "image/png" in data]
    whole = Image.open(io.BytesIO(base64.b64decode(stored[index]))).convert("RGB")
    small = whole.resize(
        (WIDTH, round(WIDTH * whole.height / whole.width)), Image.Resampling.LANCZOS
    )
    return small.quantize(64, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main()
