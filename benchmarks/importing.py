"""What an import costs, in multiples of `import torch`: fresh processes, taking turns.

python -m benchmarks importing
"""

import subprocess
import sys

from benchmarks import report
from benchmarks.measuring import Work, interleave
from benchmarks.peers import PACKAGES

STATEMENTS = {
    "torch": "import torch",
    "zeta_edu": "import torch; from zeta_edu import TransformerBlock",
    "palm-rlhf-pytorch": "from palm_rlhf_pytorch import PaLM",
    "transformers Cohere": "from transformers.models.cohere.modeling_cohere import CohereModel",
    "x-transformers": "from x_transformers import Decoder",
    "litgpt": "from litgpt.model import Block",
}
TIMED = "import time; {}; print(time.process_time())"


def main(arguments: list[str]) -> None:
    spent: dict[str, list[float]] = {name: [] for name in STATEMENTS}

    def importing(name: str) -> Work:
        command = [sys.executable, "-W", "ignore", "-c", TIMED.format(STATEMENTS[name])]

        def once() -> None:
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            spent[name].append(float(done.stdout.splitlines()[-1]))

        return once

    interleave({name: importing(name) for name in STATEMENTS}, seconds=60.0, least=7)
    medians = {name: sorted(times)[len(times) // 2] for name, times in spent.items()}
    rows = [[name, f"{t:.2f} s", f"{t / medians['torch']:.2f}"] for name, t in medians.items()]
    said = report.circumstances("python -m benchmarks importing", PACKAGES)
    table = report.table(["import of", "processor time", "of `import torch`"], rows)
    note = f"{said} Medians of the processor time of whole processes."
    report.write("importing", f"## Importing\n\n{table}\n\n{note}")
