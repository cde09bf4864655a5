"""How fast the attention view is, measured in the browser, printed, and held with a wide margin.

The budgets: first draw under 500 ms, a control to the next frame under 50 ms, a drag under 16 ms
of script. What is held is the best of several tries, and the limits are several times as wide:
machines do other things besides.
"""

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from zeta_edu.views import attention_view

SLACK = 4

MEASURE = """async (host) => {
    const view = host.view;
    const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    const script = (act) => { const t = performance.now(); act(); return performance.now() - t; };
    const times = { control: [], hover: [], drag: [] };
    await frame();
    for (let i = 0; i < 9; i++) {
        const t = performance.now();
        const head = (view.now.head + 1) % view.data.heads;
        view.set({ head, query: 7 * i, scale: ["linear", "log"][i % 2] });
        await frame();
        times.control.push(performance.now() - t);
    }
    for (let i = 0; i < 30; i++) {
        times.hover.push(script(() => view.point({ query: 200 - i, key: 2 * i })));
        await frame();
    }
    view.map.zoom(0.5);
    for (let i = 0; i < 30; i++) {
        times.drag.push(script(() => view.map.move(i % 2 ? 3 : -3, 2)));
        await frame();
    }
    const { control, hover, drag } = times;
    return { first: [view.firstDraw], control, hover, drag };
}"""


def causal(layers: int, heads: int, tokens: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(layers, heads, tokens, tokens, generator=generator)
    return scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -torch.inf).softmax(-1)


@pytest.mark.parametrize(
    ("shape", "first"), [((12, 8, 256), 500), ((1, 8, 1024), 1000), ((1, 1, 2048), 1500)]
)
def test_the_budgets_hold(
    screen: Any, tmp_path: Path, shape: tuple[int, int, int], first: float
) -> None:
    path = attention_view(causal(*shape)).save(tmp_path / "page.html")
    (view,) = screen(path).wait_for_views()
    tries = view.host.evaluate(MEASURE)
    tries["first"] += [screen(path).wait_for_views()[0].report()["firstDraw"] for _ in range(2)]
    times = {name: min(values) for name, values in tries.items()}
    size = path.stat().st_size / 1e6
    medians = {name: statistics.median(values) for name, values in tries.items()}
    words = ", ".join(f"{name} {times[name]:.1f} (median {medians[name]:.1f}) ms" for name in times)
    print(f"\n{' × '.join(map(str, shape))}: {size:.2f} MB, {words}")
    assert size < 2.2
    assert times["first"] < SLACK * first
    assert times["control"] < SLACK * 50
    assert max(times["hover"], times["drag"]) < SLACK * 16
