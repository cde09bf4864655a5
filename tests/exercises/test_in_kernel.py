"""The check in a real Jupyter kernel, whose streams and threads differ from a plain Python's."""

import nbformat
from nbclient import NotebookClient

HOSTILE = """
import threading
from dataclasses import replace

import zeta_edu.exercises as exercises
from zeta_edu import check

hasty = replace(exercises.EXERCISES["attention.scale"], seconds=0.5)
exercises.EXERCISES["attention.scale"] = hasty


def endless(queries, keys):
    while True:
        print("again")


before = threading.active_count()
check("attention.scale", endless)
print(threading.active_count() == before)
"""
FINE = """
def shouting(queries, keys):
    print("loud" * 100_000)
    return queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5


check("attention.scale", shouting)
"""


def test_endless_and_loud_code_leaves_a_few_lines_and_a_kernel_that_goes_on(tmp_path):
    cells = [nbformat.v4.new_code_cell(source) for source in (HOSTILE, FINE)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    (hostile,), (fine,) = (cell.outputs for cell in notebook.cells)
    verdict, smallest, printed, no_thread_left = hostile.text.splitlines()
    assert verdict.endswith("It did not finish within 0.5 seconds; look for a loop.")
    assert smallest.startswith("  Smallest input: queries = [[4, 2, 0, 0]]")
    assert printed.startswith("  What it printed (")
    assert no_thread_left == "True"
    assert fine.text.startswith("✓ attention.scale, done: ")
    assert "(1,600,004 characters)" in fine.text
