"""How much memory the block needs, counted in bytes of tensors, against the floor under it."""

import pytest
import torch

from benchmarks.block import work
from benchmarks.measuring import peak_bytes
from benchmarks.peers import Floor, Ours
from zeta_edu import TransformerBlock

DIM, N = 128, 1024


def peak(module: torch.nn.Module, mode: str, n: int = N) -> int:
    return peak_bytes(work(module, torch.randn(1, n, DIM), mode))


@pytest.mark.parametrize("flash", [False, True], ids=["regular", "flash"])
def test_without_gradients_it_peaks_below_the_matrix_products_alone(flash: bool):
    assert peak(Ours(DIM, flash_attn=flash), "forward") < 0.95 * peak(Floor(DIM), "forward")


def test_with_gradients_it_peaks_little_above_the_matrix_products_alone():
    mode = "forward + backward"
    assert peak(Ours(DIM, flash_attn=True), mode) < 1.2 * peak(Floor(DIM), mode)


@pytest.mark.parametrize("mode", ["forward", "forward + backward"])
def test_flash_needs_memory_in_proportion_to_the_length(mode: str):
    block = Ours(DIM, flash_attn=True)
    assert peak(block, mode, 2 * N) < 2.1 * peak(block, mode, N)


@pytest.mark.parametrize("mode", ["forward", "forward + backward"])
def test_and_so_it_does_over_several_windows_of_xpos(mode: str):
    block = Ours(DIM, flash_attn=True, xpos_scale_base=32)  # windows of 512
    assert peak(block, mode, 4 * N) < 4.2 * peak(block, mode, N)


def test_regular_attention_never_holds_all_scores_without_gradients():
    scores = 4 * 2 * N * N  # two heads
    assert peak(Ours(DIM), "forward") < scores


def test_what_a_hook_on_the_projection_keeps_is_not_overwritten():
    torch.manual_seed(0)
    block, x = TransformerBlock(dim=16, dim_head=8, heads=2), torch.randn(1, 5, 16)
    kept = []
    handle = block.fused_attn_ff_proj.register_forward_hook(lambda _, __, out: kept.append(out))
    with torch.no_grad():
        out = block(x)
        expected = torch.nn.functional.linear(block.norm(x), block.fused_attn_ff_proj.weight)
    handle.remove()
    torch.testing.assert_close(kept[0], expected)
    torch.testing.assert_close(out, block(x))
