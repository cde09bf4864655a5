"""Draw the pictures of README.md from the package itself: python tools/pictures.py."""

from pathlib import Path

import torch

from zeta_edu import load_pretrained
from zeta_edu.lessonmap import block_map
from zeta_edu.views import attention_view

PICTURES = Path(__file__).resolve().parents[1] / "docs"
CODE = '''\
def add(a, b):
    """Add two numbers."""
    return a + b


def sub(a, b):
    """Subtract two numbers."""
    return a - b
'''


def main() -> None:
    """Write the attention of the shipped model, and the map of the block, as PNG files."""
    torch.set_num_threads(1)
    PICTURES.mkdir(exist_ok=True)
    model, _ = load_pretrained("python-small")
    attention_view(model, CODE).save(PICTURES / "attention.png")
    figure = block_map()
    figure.savefig(PICTURES / "block.png", dpi=120)
    names = sorted(path.name for path in PICTURES.glob("*.png"))
    print(f"written in {PICTURES.name}: {', '.join(names)}")


if __name__ == "__main__":
    main()
