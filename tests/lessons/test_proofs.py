"""A lesson's proof fails when the package's piece is changed: a sign, a scale, a half, a mask.

Each change is one line of the package, written as it stands there; where it no longer stands
there, the test says so. The lesson's own cells never call the package, so only a proof can fail.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ATTENTION, MASKS, ROTARY = "zeta_edu/attention.py", "zeta_edu/masks.py", "zeta_edu/rotary.py"
TILED = "zeta_edu/tiled.py"
CACHE = "zeta_edu/cache.py"
NORM, FEED_FORWARD, BLOCK = "zeta_edu/norm.py", "zeta_edu/feedforward.py", "zeta_edu/block.py"
LORA, ADAPTERS = "zeta_edu/lora.py", "zeta_edu/adapters.py"
MODEL, ABLATION = "zeta_edu/lm/model.py", "zeta_edu/ablation.py"
RECORDING, PALM = "zeta_edu/recording.py", "zeta_edu/lm/palm.py"
TRAINING, PARALLEL = "zeta_edu/lm/training.py", "zeta_edu/lm/parallel.py"

SCALE_DROPPED = (ATTENTION, "rearrange(queries * scale, ", "rearrange(queries, ")
WRONG_AXIS = (ATTENTION, "return scores.softmax(dim=-1", "return scores.softmax(dim=-2")
KEYS_AND_VALUES = (BLOCK, "q, k, v, ff = self._project", "q, v, k, ff = self._project")
OUT_SUM = (BLOCK, "return attn_out + ff_out", "return attn_out - ff_out")

CHANGES = {
    "01": [
        SCALE_DROPPED,
        WRONG_AXIS,
        (ATTENTION, "queries.shape[-1] ** -0.5 if", "queries.shape[-1] ** -1.0 if"),
        (ATTENTION, "scores = stacked @ keys.mT", "scores = -stacked @ keys.mT"),
    ],
    "02": [
        SCALE_DROPPED,
        WRONG_AXIS,
        KEYS_AND_VALUES,
        (ATTENTION, '"b (kv g) i d -> b kv (g i) d"', '"b (g kv) i d -> b kv (g i) d"'),
        (BLOCK, "(-1, self.dim_head)) for t", "(self.dim_head, -1)).mT for t"),
        (BLOCK, "torch.cat((q, k), dim=2)", "torch.cat((q.flip(2), k), dim=2)"),
        (BLOCK, "transpose(1, 2).flatten(2)", "permute(0, 2, 3, 1).flatten(2)"),
    ],
    "03": [
        (MASKS, "return places <= places[", "return places >= places["),
        (MASKS, "return places <= places[", "return places < places["),
        (MASKS, "F.pad(square, (past, 0), value=True)", "F.pad(square, (0, past), value=True)"),
        (MASKS, "F.pad(square, (past, 0), value=True)", "F.pad(square, (past, 0))"),
        (MASKS, "if mask is None else earlier & mask", "if mask is None else earlier | mask"),
        (ATTENTION, "return weights.masked_fill(~sees_some, 0.0)", "return weights"),
        (ATTENTION, "_hide(scores, ~visible & sees_some)", "_hide(scores, visible & sees_some)"),
        (ATTENTION, "_hide(scores, ~visible).softmax", "_hide(scores, visible).softmax"),
    ],
    "04": [
        (ROTARY, "first * cos - second * sin", "first * cos + second * sin"),
        (ROTARY, "second * cos + first * sin", "second * cos - first * sin"),
        (ROTARY, "first, second = x.chunk", "second, first = x.chunk"),
        (ROTARY, "return 10_000.0 ** (-even / dim_head)", "return 1_000.0 ** (-even / dim_head)"),
        (ROTARY, "return 10_000.0 ** (-even / dim_head)", "return 10_000.0 ** (even / dim_head)"),
        (ROTARY, "cos, sin = tables[:, start:stop]", "sin, cos = tables[:, start:stop]"),
        (ROTARY, "cos, sin = tables[:, start:stop]", "cos, sin = tables[:, : stop - start]"),
        (ROTARY, "return torch.promote_types(dtype, torch.float32)", "return dtype"),
    ],
    "05": [
        (ROTARY, "return (even + 0.4 * dim_head)", "return (even + 0.5 * dim_head)"),
        (ROTARY, "/ (1.4 * dim_head)", "/ (1.3 * dim_head)"),
        (ROTARY, "torch.exp2((distances / scale_base)", "torch.exp2((distances * scale_base)"),
        (ROTARY, "torch.exp2((distances / scale_base)", "torch.exp2((-distances / scale_base)"),
        (ROTARY, "decay(start - key_at.clamp(max=last))", "decay(key_at.clamp(max=last) - start)"),
        (ROTARY, "first * cos - second * sin", "first * cos + second * sin"),
    ],
    "06": [
        (NORM, "return (unit * scale).to(x.dtype)", "return unit.to(x.dtype)"),
        (NORM, "unit = F.normalize(x.to(precise), dim=-1)", "unit = x.to(precise)"),
        (NORM, "F.normalize(x.to(precise), dim=-1)", "F.normalize(x.to(precise), dim=0)"),
        (NORM, "F.normalize(x.to(precise), dim=-1)", "F.normalize(x, dim=-1)"),
        (BLOCK, "scale=qk_scale if qk_rmsnorm", "scale=1.0 if qk_rmsnorm"),
        (BLOCK, "l2_normalise(q, self.q_scale), l2", "l2_normalise(q, self.k_scale), l2"),
        (BLOCK, "if self.qk_rmsnorm:\n            q, k", "if False:\n            q, k"),
    ],
    "07": [
        (
            NORM,
            "F.layer_norm(x, self.gamma.shape, self.gamma)",
            "F.layer_norm(x, self.gamma.shape)",
        ),
        (NORM, "F.layer_norm(x, self.gamma.shape, self.gamma)", "x * self.gamma"),
        (
            FEED_FORWARD,
            "value, gate = x.chunk(2, dim=-1)\n        return",
            "gate, value = x.chunk(2, dim=-1)\n        return",
        ),
        (FEED_FORWARD, "return F.silu(gate).mul_(value)", "return F.gelu(gate).mul_(value)"),
        (FEED_FORWARD, "return F.silu(gate).mul_(value)", "return F.silu(gate).add_(value)"),
        (FEED_FORWARD, "silu.out(gate, out=by_value)", "silu.out(value, out=by_value)"),
        (FEED_FORWARD, "torch.mul(gradient, value, out=by_gate)", "by_gate.copy_(gradient)"),
        (BLOCK, "self._project(self.norm(x), tuned)", "self._project(x, tuned)"),
        OUT_SUM,
        (BLOCK, "return attn_out + ff_out", "return x + attn_out + ff_out"),
        KEYS_AND_VALUES,
    ],
    "08": [
        (TILED, "mixed = mixed * rescale + powers", "mixed = mixed + powers"),
        (TILED, "rescale = (maximum - grown).exp()", "rescale = torch.ones_like(grown)"),
        (TILED, "return columns.start <= rows.stop - 1", "return columns.start <= rows.start"),
        (TILED, "return columns.start <= rows.stop - 1 + past", "return True"),
        (TILED, "masked_fill(column > row,", "masked_fill(column >= row,"),
        (TILED, "(step.maximum + step.total.log())", "(step.total.log())"),
        (TILED, "(above @ values.mT - shift[..., rows, :])", "(above @ values.mT)"),
        (TILED, "queries.shape[-1] ** -0.5 if", "queries.shape[-1] ** -1.0 if"),
        (TILED, '"b (kv g) i d -> b kv g i d"', '"b (g kv) i d -> b kv g i d"'),
        (TILED, "wide = torch.promote_types(queries.dtype, torch.float32)", "wide = queries.dtype"),
    ],
    "09": [
        (CACHE, "self._keys[:, :, past:stop] = keys", "self._keys[:, :, past:stop] = values"),
        (CACHE, "(old_keys, keys), dim=2)", "(old_keys, keys.detach()), dim=2)"),
        (CACHE, "F.pad(self._values, (0, 0, 0, more))", "F.pad(self._values, (0, 0, more, 0))"),
        (CACHE, 'for the next ones."""\n        self.length = 0', 'for the next ones."""'),
        (CACHE, "self._values.index_select(0, index)", "self._values[: len(index)]"),
        (BLOCK, "past = 0 if cache is None else cache.length", "past = 0"),
        (MASKS, "F.pad(square, (past, 0), value=True)", "F.pad(square, (0, past), value=True)"),
        (ROTARY, "return (queries / decay[first:])", "return (queries * decay[first:])"),
    ],
    "10": [
        (LORA, "(self.dropout(x) @ self.A) @ self.B * self.scale", "x @ self.A @ self.B"),
        (LORA, "rank if alpha is None else alpha) / rank", "rank if alpha is None else alpha)"),
        (LORA, "self.B = nn.Parameter(torch.zeros(", "self.B = nn.Parameter(torch.ones("),
        (LORA, "self.A, -1 / math.sqrt(dim)", "self.A, 0 / math.sqrt(dim)"),
        (LORA, "return projected + update", "return projected - update"),
        (BLOCK, 'tuned.add("o", self.attn_out(heads), heads)', "self.attn_out(heads)"),
        (BLOCK, 'tuned.add("q", q, normed)', 'tuned.add("q", q, 2 * normed)'),
        (ADAPTERS, "(thin @ wide).T * lora.scale", "(thin @ wide).T"),
        (ADAPTERS, "weight.to(precise) + sign * update", "weight.to(precise) + update"),
        (ADAPTERS, 'return rows["qkv".index(target)]', 'return rows["qvk".index(target)]'),
        (ADAPTERS, "model.requires_grad_(False)", "model.requires_grad_(True)"),
    ],
    "11": [
        OUT_SUM,
        KEYS_AND_VALUES,
        (BLOCK, "self._project(self.norm(x), tuned)", "self._project(x, tuned)"),
        (BLOCK, 'tuned.add("o", self.attn_out(heads), heads)', "self.attn_out(heads)"),
        (BLOCK, "tuned = FinetuneModules(finetune_modules)", "tuned = self.finetune_modules"),
        (BLOCK, "l2_normalise(q, self.q_scale), l2", "l2_normalise(q, self.k_scale), l2"),
        (BLOCK, "rotate(qk, cos[:, None], sin[:, None])", "rotate(qk, sin[:, None], cos[:, None])"),
        (BLOCK, "past = 0 if cache is None else cache.length", "past = 0"),
        (BLOCK, "if use_xpos and causal else None", "if use_xpos else None"),
        (BLOCK, "scale=qk_scale if qk_rmsnorm", "scale=1.0 if qk_rmsnorm"),
        (ATTENTION, "~sees_some).masked_fill(~sees_some, 0.0)", "~sees_some)"),
        (ATTENTION, "if new == total:", "if True:"),
        (ATTENTION, "seen = keys.shape[2] - queries.shape[2]", "seen = 0"),
        (ATTENTION, "apply_xpos(window, known, start,", "apply_xpos(window, known, 0,"),
        (ATTENTION, "self.dropout if self.training else 0.0", "self.dropout"),
        (
            ATTENTION,
            'repeat(t, "b kv j d -> b (kv g) j d"',
            'repeat(t, "b kv j d -> b (g kv) j d"',
        ),
        (ROTARY, "return (queries / decay[first:])", "return (queries * decay[first:])"),
        (CACHE, "return self.keys, self.values", "return self.keys, self.keys"),
        (FEED_FORWARD, "value.mul_(F.silu(gate, inplace=True))", "gate.mul_(F.silu(value))"),
        (FEED_FORWARD, "torch.mul(gradient, value, out", "torch.mul(gradient, gate, out"),
        (LORA, "return projected + update", "return projected - update"),
        (NORM, "F.layer_norm(x, self.gamma.shape, self.gamma)", "F.rms_norm(x, self.gamma.shape)"),
    ],
    "12": [
        (MODEL, "x = x + block(x, mask, cache", "x = block(x, mask, cache"),
        (MODEL, "x = self.embedding(tokens)", "x = 2 * self.embedding(tokens)"),
        (MODEL, "in zip(self.blocks, self._layer", "in zip(self.blocks[::-1], self._layer"),
        (MODEL, "F.linear(self.norm(x), self", "F.linear(x, self"),
        (ABLATION, "silent.to(mixed.device), 0.0)", "silent.to(mixed.device), 1.0)"),
        (ABLATION, "masked_fill(silent.to", "masked_fill(~silent.to"),
        (ABLATION, 'blocks[_index("layer", layer, len(blocks))]', "blocks[0]"),
        (ABLATION, 'silent[_index("head", one, block.heads)] = True', "silent[0] = True"),
    ],
    "13": [
        (ROTARY, "first * cos - second * sin", "first * cos + second * sin"),
        (
            ROTARY,
            "(even + 0.4 * dim_head) / (1.4 * dim_head)",
            "(even + dim_head) / (2 * dim_head)",
        ),
        (ROTARY, "return (queries / decay[first:]).to", "return (queries * decay[first:]).to"),
        (ROTARY, "(keys * decay).to(keys.dtype)", "(keys / decay).to(keys.dtype)"),
        (ATTENTION, "apply_xpos(window, known, start,", "apply_xpos(window, known, 0,"),
        (MASKS, "return places <= places[", "return places < places["),
        (MASKS, "if mask is None else earlier & mask", "if mask is None else earlier | mask"),
        SCALE_DROPPED,
        (BLOCK, "xpos_scale_base if use_xpos and causal else None", "xpos_scale_base"),
        (BLOCK, "rotate(qk, cos[:, None], sin[:, None])", "qk"),
    ],
    "14": [
        (
            RECORDING,
            "core.weights(queries, keys, mask))",
            "core.weights(queries, keys[:, :1], mask))",
        ),
        (RECORDING, "if threading.get_ident() == thread:", "if threading.get_ident() != thread:"),
        (
            ATTENTION,
            "weigh = partial(attention_weights, causal=self.causal,",
            "weigh = partial(attention_weights, causal=False,",
        ),
        (ABLATION, "silent.to(mixed.device), 0.0)", "silent.to(mixed.device), 1.0)"),
        (ABLATION, "masked_fill(silent.to", "masked_fill(~silent.to"),
        (ABLATION, 'blocks[_index("layer", layer, len(blocks))]', "blocks[0]"),
        (ABLATION, 'silent[_index("head", one, block.heads)] = True', "silent[0] = True"),
        (PALM, 'return norm == "offset"', 'return norm != "offset"'),
        (PALM, "torch.float32)) + 1", "torch.float32)) - 1"),
        (PALM, 'f"layers.{i}.fn.{name}"', 'f"layers.{depth - 1 - i}.fn.{name}"'),
    ],
    "15": [
        (TRAINING, "parallel.processes() / max(1, targets_in_all)", "1 / max(1, targets_in_all)"),
        (TRAINING, "int((batch[1] != UNSCORED).sum())", "batch[1].numel()"),
        (TRAINING, "[parallel.own_rows(side).chunk(parts)", "[side.chunk(parts)"),
        (TRAINING, "summed += loss.detach()", "summed = loss.detach()"),
        (TRAINING, "parallel.total(summed).item() / parallel.processes()", "summed.item()"),
        (TRAINING, 'reduction="sum"', 'reduction="mean"'),
        (TRAINING, "betas=(0.9, 0.95)", "betas=(0.9, 0.99)"),
        (TRAINING, "optimizer.zero_grad(set_to_none=True)", "pass"),
        (PARALLEL, "batch.chunk(processes())[rank()]", "batch.chunk(processes())[0]"),
        (PARALLEL, "batch.chunk(processes())[rank()]", "batch[rank() :: processes()]"),
    ],
}


def test_every_change_begins_from_what_stands_in_the_package_once() -> None:
    changes = {change[:2] for changes in CHANGES.values() for change in changes}
    assert not [
        (file, old)
        for file, old in sorted(changes)
        if (ROOT / file).read_text(encoding="utf-8").count(old) != 1
    ]


@pytest.mark.parametrize("lesson", CHANGES)
def test_every_change_of_its_piece_turns_a_lessons_proof_red(lesson: str) -> None:
    (source,) = (ROOT / "notebooks" / "source").glob(f"{lesson}-*.py")
    changes = [dict(zip(("file", "old", "new"), change, strict=True)) for change in CHANGES[lesson]]
    done = subprocess.run(
        [sys.executable, "-m", "tests.lessons.proofs", str(source)],
        input=json.dumps(changes),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    untouched, *outcomes = done.stdout.split("\n")[:-1]
    assert untouched == "missed", "the proof fails without any change"
    seen = [
        f"{change['old']} -> {change['new']}: {outcome}"
        for change, outcome in zip(changes, outcomes, strict=True)
        if outcome != "seen"
    ]
    assert not seen
