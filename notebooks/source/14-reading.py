# %% [markdown]
# # 14 · Reading a real model
#
# In lesson 00 you saw heads that look at brackets, at line breaks, at the token before.
# They look busy.
# **Does the model need what its heads look at?**
#
# In this lesson you write a reader for the shipped model that shows where every head looks and can
# silence any of them.
# You measure what heads look at over hundreds of functions, beside a control that knows nothing but
# places; then you switch heads off and see what gets worse.
# Some good explanations will not survive that.
# At the end you read another library's model, and load a checkpoint of PaLM.
#
# It takes about 50 minutes to read and 30 seconds to run.
# You need the block (lesson 11) and what lesson 12 says about switching heads off.

# %%
import ast
import bisect
import io
import keyword
import random
import re
import tempfile
import textwrap
import tokenize
from itertools import accumulate
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange
from ipywidgets import IntSlider, interact
from torch import nn

from zeta_edu import load_pretrained
from zeta_edu.exercises import check, hint
from zeta_edu.lessonmap import show_block_map
from zeta_edu.lm import python_source, split_documents
from zeta_edu.views import attention_view, style

torch.manual_seed(0)
style.use()
show_block_map(lit=("attention", "out"))

# %% [markdown]
# The lit boxes are what this lesson watches: the weights of attention, and the matrix *out*, which
# takes what the heads have mixed into the model.

# %% [markdown]
# ## A reader of your own
#
# A model is a dictionary: names, and a tensor for each.
# This one has an embedding, six blocks of a norm and three matrices each, and a last norm.

# %%
model, tokenizer = load_pretrained("python-small")
parts = model.state_dict()
for name, tensor in parts.items():
    if "blocks" not in name or "blocks.0" in name:
        print(f"{name:35} {tuple(tensor.shape)}")

# %% [markdown]
# Lesson 11 has put the block together.
# Here it is once more, as plain functions of these tensors, so that every number on the way is
# ours to keep or to change.
#
# First the sense of place.
# Queries and keys are turned by their position (lesson 04); with xPos the query is also multiplied
# by $\zeta^{n/512}$ at position n, and the key by $\zeta^{-n/512}$, with ζ = (2i/d + 0.4) / 1.4 for
# pair i (lesson 05). Qk norm (lesson 06) is off in this model.


# %%
def with_place(x, sign):
    """Rotation and xPos of queries (sign +1) or keys (sign -1): (..., n, d)."""
    n, d = x.shape[-2:]
    even = torch.arange(0, d, 2).to(x)  # (d / 2,)
    position = torch.arange(n).to(x)[:, None]  # (n, 1)
    angles = position * 10_000 ** (-even / d)  # (n, d / 2)
    decay = ((even + 0.4 * d) / (1.4 * d)) ** (sign * position / 512)
    first, second = x.chunk(2, dim=-1)  # (..., n, d / 2) each
    cos, sin = decay * angles.cos(), decay * angles.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


# %% [markdown]
# Then attention, with a switch.
# What a silent head has mixed is multiplied by 0 before the matrix `attn_out`: it writes nothing,
# and the rest of its block stays.


# %%
def attend(q, k, v, silent):
    """The mix (b, h, n, d), zero for silent heads, and the weights (b, h, n, n)."""
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    scores = with_place(q, +1) @ with_place(k, -1).mT / q.shape[-1] ** 0.5
    later = torch.ones(q.shape[2], q.shape[2]).triu(diagonal=1).bool()
    weights = scores.masked_fill(later, -torch.inf).softmax(dim=-1)
    loud = torch.ones(q.shape[1], 1, 1).to(v)
    loud[list(silent)] = 0
    return weights @ v * loud, weights


# %% [markdown]
# The block: norm, fused projection, attention beside the feed-forward, sum.
# How many rows of the projection belong to the keys and values is read off the shapes.


# %%
def read_block(part, x, heads, silent=()):
    """What a block adds to x (b, n, dim), and its weights (b, h, n, n)."""
    out, ff_out = part["attn_out.weight"], part["ff_out.2.weight"]
    d, inner = out.shape[1] // heads, ff_out.shape[1]
    fused = F.layer_norm(x, x.shape[-1:], part["norm.gamma"]) @ part["fused_attn_ff_proj.weight"].T
    shared = (fused.shape[-1] - heads * d - 2 * inner) // 2  # columns of the keys, of the values
    q, k, v, ff = fused.split((heads * d, shared, shared, 2 * inner), dim=-1)
    q, k, v = (rearrange(t, "b n (h d) -> b h n d", d=d) for t in (q, k, v))
    mixed, weights = attend(q, k, v, silent)
    value, gate = ff.chunk(2, dim=-1)  # (b, n, inner) each
    mixed = rearrange(mixed, "b h n d -> b n (h d)")
    return mixed @ out.T + (F.silu(gate) * value) @ ff_out.T, weights


# %% [markdown]
# And the whole: through the blocks, with residuals, to the logits.
# It may start in front of any block, given the x that arrives there.
# A list that is passed as `seen` collects that x and the weights, block by block.


# %%
def run(parts, x, heads=6, first=0, off=(), seen=None):
    """From x in front of block `first` to the logits; `off` holds pairs (layer, head)."""
    depth = 1 + max(int(name.split(".")[1]) for name in parts if name.startswith("blocks"))
    for layer in range(first, depth):
        start = f"blocks.{layer}."
        part = {name.removeprefix(start): parts[name] for name in parts if name.startswith(start)}
        added, weights = read_block(part, x, heads, [h for l, h in off if l == layer])
        if seen is not None:
            seen.append((x, weights))
        x = x + added
    return F.layer_norm(x, x.shape[-1:], parts["norm.gamma"]) @ parts["embedding.weight"].T


# %% [markdown]
# ## One text
#
# Here is a function to read.

# %%
text = """def read(path, names):
    with open(path) as file:
        lines = list(file)
    if names:
        return [line for line in lines if line in names]
    return lines
"""

# %%
pieces = tokenizer.pieces(tokenizer.encode(text))
tokens, seen = torch.tensor([tokenizer.encode(text)]), []
with torch.no_grad():
    run(parts, parts["embedding.weight"][tokens], seen=seen)
weights = torch.stack([weights[0] for _, weights in seen])  # (layer, head, n, n)

# %% [markdown]
# Look at layer 3, head 4; we write 3.4.
# The view opens at the last `names`, right before the bracket that closes the list.

# %%
query = pieces.index("]") - 1
attention_view(weights, pieces, layer=3, head=4, query=query)

# %%
opened = pieces.index(" [")
print(f"{pieces[query]!r} gives {weights[3, 4, query, opened]:.0%} to {pieces[opened]!r}")

# %% [markdown]
# It looks at the bracket that is open.
# Whoever stops here has one picture and one story.
# But the title of the view tells another: over all tokens of this text, much goes to the token just
# before.
# The same row would also come from a head that looks at the last opening bracket, closed since or
# not.
# One text is too little to choose between them.

# %% [markdown]
# ## Hundreds of texts
#
# The model was trained on Python's standard library, but for one file in twenty.
# `split_documents` tells which: it goes by the names, so it is the same split as in training.
# From those files, which the model has never seen, we take the functions of at least 64 tokens, and
# of each its first 64; 200 of them, drawn by lot, are enough.


# %%
LENGTH = 64


def functions(source):
    """Every function of a file, from `def` on, moved to the left edge."""
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            yield textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]) + "\n")


# %%
_, held_out = split_documents(python_source())
found = dict.fromkeys(text for document in held_out for text in functions(document.text))
texts = [text for text in found if text.startswith("def ")]
texts = [text for text in texts if len(tokenizer.encode(text)) >= LENGTH]
texts = random.Random(0).sample(texts, min(200, len(texts)))
ids = torch.tensor([tokenizer.encode(text)[:LENGTH] for text in texts])  # (text, 64)
print("more than 150 functions:", len(texts) > 150)

# %% [markdown]
# (Which functions there are depends on your version of Python; 3.11 has about 300 to draw from.
# What is claimed below is claimed with room to spare.)
#
# Read them all at once, and keep everything.

# %%
seen = []
with torch.no_grad():
    run(parts, parts["embedding.weight"][ids], seen=seen)
streams = [x for x, _ in seen]  # what arrives at each block, (text, 64, dim)
weights = torch.cat([weights for _, weights in seen], dim=1)  # (text, 36, 64, 64)
del seen
names = [f"{layer}.{head}" for layer in range(6) for head in range(6)]

# %% [markdown]
# ## Where a habit would look
#
# A habit says: from *this* place a head looks at *that* one.
# So a habit is a list of pairs, query and key, for every text.
#
# Line breaks are easy to find.
# This tokenizer puts a line break and the blanks behind it into one token.
# Two habits, then: from any token to the last line break before it; and from a line break to the
# last one before it with as many blanks.


# %%
def line_pairs(text):
    """Pairs to the line break before; pairs of line breaks with the same indentation."""
    pieces = tokenizer.pieces(tokenizer.encode(text))[:LENGTH]
    line, same, last, latest = [], [], {}, None
    for place, piece in enumerate(pieces):
        if latest is not None:
            line.append((place, latest))
        if piece.startswith("\n") and not piece.strip():
            blanks = len(piece) - piece.rindex("\n") - 1
            if blanks in last:
                same.append((place, last[blanks]))
            last[blanks] = latest = place
    return line, same


# %% [markdown]
# Brackets and names need care: those inside a string or a comment do not count.
# Python's own `tokenize` knows the difference.
# It cuts the text in other places than the model's tokenizer, so each of its words is given the
# place of the model's token in which it ends.


# %%
def words(text):
    """Python's own tokens: kind, spelling, and the place of the model's token that ends it."""
    ends = list(accumulate(len(piece) for piece in tokenizer.pieces(tokenizer.encode(text))))
    lines = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
    for word in tokenize.generate_tokens(io.StringIO(text).readline):
        last_letter = lines[word.end[0] - 1] + word.end[1] - 1
        yield word.type, word.string, bisect.bisect(ends, last_letter)


print([(spelling, pieces[place]) for _, spelling, place in list(words(text))[4:9]])

# %% [markdown]
# Python's `)` and its `:` both end in the model's `):`, and a line break with the blanks behind it
# is one token.
#
# An opening bracket goes on a stack, a closing one takes the last off.
# What is on top is the bracket that is open.
# The places of closing brackets are kept as well, for later.


# %%
def bracket_pairs(text):
    """Pairs from a token inside brackets to the one that is open; places of closing brackets."""
    stack, top, closing = [], {}, []
    for kind, spelling, place in words(text):
        if kind == tokenize.OP and spelling in "([{":
            stack.append(place)
        elif kind == tokenize.OP and spelling in ")]}":
            opened = stack.pop()
            if opened < place < LENGTH:
                closing.append(place)
        top[place] = stack[-1] if stack else None
    opened, pairs = None, []
    for place in range(LENGTH):
        opened = top.get(place, opened)
        if opened is not None and opened < place:
            pairs.append((place, opened))
    return pairs, closing


# %% [markdown]
# A name that comes again could look at its first mention, or at the last one.


# %%
def name_pairs(text):
    """Pairs from a repeated name to its first and to its last mention before."""
    first, last, pairs = {}, {}, ([], [])
    for kind, spelling, place in words(text):
        if kind != tokenize.NAME or keyword.iskeyword(spelling) or place >= LENGTH:
            continue
        if spelling in first:
            pairs[0].append((place, first[spelling]))
            pairs[1].append((place, last[spelling]))
        first.setdefault(spelling, place)
        last[spelling] = place
    return pairs


# %% [markdown]
# Check them on the function above, which is shown as the model's tokens.

# %%
for title, pairs in (("same indentation", line_pairs(text)[1]), ("names", name_pairs(text)[0])):
    print(title, *(f"{q} {pieces[q]!r} to {k} {pieces[k]!r}" for q, k in pairs[:3]), sep="\n    ")

# %% [markdown]
# Now for all texts: a habit is a table of triples (text, query, key).


# %%
def triples(pairs_of_texts):
    rows = [(t, q, k) for t, pairs in enumerate(pairs_of_texts) for q, k in pairs if q != k]
    return torch.tensor(rows)  # (triple, 3)


line, same = (triples(pairs) for pairs in zip(*map(line_pairs, texts), strict=True))
first, last = (triples(pairs) for pairs in zip(*map(name_pairs, texts), strict=True))
brackets, closing = zip(*map(bracket_pairs, texts), strict=True)

# %% [markdown]
# Two more.
# The token before needs no search.
# And lesson 12 has taught us to ask what came *after* the last mention.

# %%
after = last + torch.tensor([0, 0, 1])
habits = {
    "the token before": triples([[(q, q - 1) for q in range(1, LENGTH)]] * len(texts)),
    "the line break before": line,
    "a line break of this indentation": same,
    "the bracket that is open": triples(brackets),
    "the first mention of a name": first,
    "what followed the last mention": after[after[:, 2] < after[:, 1]],
}
print("each at more than 200 places:", all(len(table) > 200 for table in habits.values()))

# %% [markdown]
# ## A score, and a control
#
# The score of a head is its mean attention at these places.
#
# The 80 % on the open bracket may seem much.
# But brackets are mostly near, and most heads look at what is near; and every text here begins with
# `def`, a name, a bracket.
# So what would a head score that knows all about places and nothing about brackets?
#
# Take the places of one text, and read the weights of *another* text there.
# Position and distance are the same; a bracket is there only by chance, or because all functions
# begin alike.
# That is the control: the same places in the next text.


# %%
def at(weights, triples, shift=0):
    """The mean attention of every head at these places, `shift` texts further on: (head,)."""
    text, query, key = triples.unbind(dim=-1)
    return weights[(text + shift) % len(weights), :, query, key].mean(dim=0)


# %% [markdown]
# By hand, for a head and two texts of two tokens: in text 0 the second token gives 0.9 to the
# first, in text 1 it gives 0.3.
# A habit whose only place is this one of text 0 scores 0.9, and its control is 0.3.

# %%
two = torch.tensor([[[[1.0, 0.0], [0.9, 0.1]]], [[[1.0, 0.0], [0.3, 0.7]]]])  # (2, 1, 2, 2)
place = torch.tensor([[0, 1, 0]])
[round(at(two, place, shift).item(), 2) for shift in (0, 1)]

# %% [markdown]
# Now all 36 heads and all six habits.

# %%
scores = {habit: at(weights, table) for habit, table in habits.items()}
controls = {habit: at(weights, table, shift=1) for habit, table in habits.items()}

# %%
figure, grid = plt.subplots(2, 3, figsize=(8.2, 5.4), sharex=True, sharey=True)
for axes, habit in zip(grid.flat, habits, strict=True):
    axes.axline((0, 0), (1, 1), color=style.MASK, lw=1, ls=":")
    axes.plot(controls[habit], scores[habit], "o", color=style.QUERY, ms=5, alpha=0.6)
    best = scores[habit].argmax()
    place = (controls[habit][best] + 0.05, scores[habit][best] - 0.02)
    axes.text(*place, f"head {names[best]}", fontsize=11)
    axes.set_title(habit, fontsize=9.5)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
figure.supxlabel("control: same places, next text", fontsize=12)
figure.supylabel("score: share of attention", fontsize=12)
style.show(
    figure,
    alt="Six panels of 36 dots, a head's score against its control. For the token before, all dots "
    "lie on the diagonal, some far up. For the line break, the indentation, the open bracket and "
    "what followed a name, a few dots stand high above it; for the first mention none does.",
)

# %% [markdown]
# On the dotted diagonal lie the heads that give these places as much, whatever the text says.
# The token before lies there by its nature: that habit *is* a distance, and head 4.4 has it.
# The control can say nothing against it, and nothing more about it.
#
# Four other habits have heads far above the diagonal: these have read the text.
# (The label is the head with the highest score.)
# At the first mention of a name none of the 36 looks much.

# %% tags=["nbval-ignore-output"]
# The functions, and so the digits, differ between versions of Python.
for habit, score in scores.items():
    best = score.argmax()
    print(f"{habit:34} {names[best]}: {score[best]:.2f}, control {controls[habit][best]:.2f}")

# %%
high = {"the line break before": "1.4", "a line break of this indentation": "1.2"}
high |= {"the bracket that is open": "3.4", "what followed the last mention": "5.4"}
for habit, name in high.items():
    score, control = (table[habit][names.index(name)] for table in (scores, controls))
    print(f"{name} {habit}: above 0.3 {bool(score > 0.3)}, control below 0.2 {bool(control < 0.2)}")
unseen = scores["the first mention of a name"].max()
print("first mention: no head above 0.15:", bool(unseen < 0.15))

# %% [markdown]
# Every head has a card of its own: its score in each habit, its control, and how far back it looks.
# Turn them over. It opens at number 22 = 6 · 3 + 4, which is 3.4; number 28 is 4.4.
# (In a page without a running Python you see one card only.)

# %%
far = torch.stack([weights.diagonal(-d, 2, 3).mean(dim=(0, 2)) for d in range(40)])  # (40, 36)


def draw_card(head):
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.2), width_ratios=(1.2, 1))
    rows = torch.arange(len(habits))
    left.barh(rows - 0.2, [s[head] for s in scores.values()], 0.4, color=style.QUERY, label="score")
    control = [c[head] for c in controls.values()]
    left.barh(rows + 0.2, control, 0.4, color=style.MASK, label="control")
    left.set_yticks(rows, list(habits))
    left.invert_yaxis()
    left.set(xlim=(0, 1), xlabel="share of attention", title=f"head {names[head]}")
    left.legend(loc="lower right")
    right.plot(far[:, head], color=style.KEY)
    right.set(xlabel="tokens back", title="mean attention", ylim=(0, None))
    alt = f"Head {names[head]}: bars of its score and control in six habits, and its mean "
    style.show(figure, alt=alt + "attention against the distance, from 0 to 39 tokens back.")


# %%
_ = interact(draw_card, head=IntSlider(22, min=0, max=35, continuous_update=False))

# %% [markdown]
# ## Open, or only near?
#
# A control can be made sharper.
# Mostly the bracket that is open is also the last that was opened.
# In `f(a(b), c)` it is not: at `c` the last one, of `a(`, has been closed.
# Such places are rare in our functions, so write some: one line, with names drawn by lot.

# %%
spelled = [tokenizer.decode([token]) for token in range(len(tokenizer))]
kinds = [(kind, spelling) for text in texts for kind, spelling, _ in words(text)]
spellings = {s for kind, s in kinds if kind == tokenize.NAME and not keyword.iskeyword(s)}


def nested(name, one, two, result, outer, inner):
    return f"def {name}({one}, {two}):\n    {result} = {outer}({inner}({one}), {two}"


print(nested("read", "path", "names", "lines", "list", "open"))

# %% [markdown]
# The query is the last token.
# The brackets are the second and the third in the text, that of `list(` and that of `open(`.
# We ask 3.4, and 4.5, whose dot lay just below it.

# %%
on_two, lot = {"3.4": [], "4.5": []}, random.Random(0)
for _ in range(100):
    line_tokens, seen = tokenizer.encode(nested(*lot.sample(sorted(spellings), 6))), []
    with torch.no_grad():
        run(parts, parts["embedding.weight"][torch.tensor([line_tokens])], seen=seen)
    _, second, third = (place for place, t in enumerate(line_tokens) if "(" in spelled[t])
    for (layer, head), rows in zip(((3, 4), (4, 5)), on_two.values(), strict=True):
        rows.append(seen[layer][1][0, head, -1, [second, third]])

# %%
parted = {}
for name, rows in on_two.items():
    still_open, nearer = torch.stack(rows).mean(dim=0)
    parted |= {f"{name}: still open": still_open, f"{name}: closed, but nearer": nearer}
    print(f"{name}: three times as much on the nearer one: {bool(nearer > 3 * still_open)}")

# %% [markdown]
# So neither follows brackets as a parser does: at such lines the nearer one draws them far more,
# though it is closed.
# In most code the last bracket opened is the right one, and there the two stories cannot be told
# apart.
# What separates them is a place where they say different things.

# %% [markdown]
# ## A name that is to come
#
# A repeated name does not look at its first mention.
# But the place *before* it might: there the model has to guess the name.

# %%
ahead = first - torch.tensor([0, 1, 0])  # the query is one token earlier
ahead = ahead[(ahead[:, 1] > ahead[:, 2]) & (ahead[:, 2] > 0)]
head = names.index("5.4")
print("5.4, score above 0.2:  ", bool(at(weights, ahead)[head] > 0.2))
print("5.4, control below 0.1:", bool(at(weights, ahead, shift=1)[head] < 0.1))

# %% [markdown]
# So 5.4 does look at the first mention, in time to guess the name.
# Does it know names?
# The other story is the rule of lesson 12: it looks at what followed an earlier copy of the present
# token.
# The two stories part where the name came after something else the first time: `(path` there,
# `= path` here.

# %%
same_front = ids[ahead[:, 0], ahead[:, 1]] == ids[ahead[:, 0], ahead[:, 2] - 1]
copied, other = (at(weights, ahead[marks])[head] for marks in (same_front, ~same_front))
print("more than twice as much after the same token:", bool(copied > 2 * other))
chance = at(weights, ahead[~same_front], shift=1)[head]
print("after another, still twice the control:      ", bool(other > 2 * chance))

# %%
parted |= {"5.4: the name, after another token": other, "5.4: the name, after the same": copied}
figure, axes = plt.subplots(figsize=(7.4, 2.9))
axes.barh(list(parted), list(parted.values()), color=[style.MASK, style.QUERY] * 3, height=0.7)
axes.invert_yaxis()
axes.set(xlabel="share of attention", title="where two stories part", xlim=(0, None))
style.show(
    figure,
    alt="Three pairs of bars. 3.4 and 4.5 give far less to a bracket that is still open than to "
    "a nearer one that is closed. 5.4 gives a name far more after the same token than after "
    "another.",
)

# %% [markdown]
# (Grey is where only the first story would look; at the blue places the other one would.)
# Mostly it is the rule, and not the name.
# (A part is left, after another token, that is well above its control.
# What that part follows, we have not found out.)

# %% [markdown]
# ## What for?
#
# A head may look where it likes; what counts is what the model can no longer do without it.
# A token's loss is minus the logarithm of its probability,
# $-\log p = \log \sum_t e^{z_t} - z$,
# with z the logit of the token that came and $z_t$ those of all.
#
# Four questions to the model, each at its own places.
# Closing brackets: the loss of a token that closes one.
# Indentation: granted that a line break comes, the loss of the right number of blanks; the sum then
# runs over the tokens that are line breaks.
# Repeats: the loss of the second token of a pair that the text has had before.
# And all tokens together.

# %%
targets = ids[:, 1:]  # (text, 63)
breaks = torch.tensor([piece.startswith("\n") and not piece.strip() for piece in spelled])
closes = torch.zeros(ids.shape, dtype=torch.bool)
for row, places in zip(closes, closing, strict=True):
    row[places] = True
pairs = 2048 * ids[:, :-1] + targets
again = (pairs[:, :, None] == pairs[:, None, :]).tril(diagonal=-1).any(dim=-1)
where = {"closing brackets": closes[:, 1:], "indentation": breaks[targets], "repeats": again}
where["all tokens"] = torch.ones_like(again)


# %%
@torch.no_grad()
def losses(layer, off=()):
    """The losses (text, 63) for each question, run from a layer on with heads off."""
    some = streams[layer][:, :-1].split(50)  # 50 texts at a time, which is faster
    logits = torch.cat([run(parts, x, first=layer, off=off) for x in some])
    right = logits.gather(-1, targets[..., None])[..., 0]
    usual = logits.logsumexp(dim=-1) - right
    granted = logits[..., breaks].logsumexp(dim=-1) - right
    return {name: granted if name == "indentation" else usual for name in where}


before = losses(5)

# %% [markdown]
# The blocks before a silent head do not change, so the run starts at its own block; with no head
# off, the last block is enough.
#
# How sure is a mean over these texts?
# Draw as many texts again out of them, some twice and some not at all, and take the mean anew; do
# so 300 times.
# The spread of these means says how much hangs on which texts we happened to have.
# (It is called the *bootstrap*. Whole texts are drawn, since the tokens of one are not
# independent.)


# %%
draws = torch.randint(len(texts), (300, len(texts)), generator=torch.Generator().manual_seed(0))


def mean_and_spread(change, places):
    """The mean change at these places, and its spread over texts drawn again."""
    sums, counts = (change * places).sum(dim=-1), places.sum(dim=-1)  # (text,) each
    means = sums[draws].sum(dim=-1) / counts[draws].sum(dim=-1)  # (300,)
    return (sums.sum() / counts.sum()).item(), means.std().item()


# %% [markdown]
# Eight heads are switched off, one at a time.
# Five have labels above, and 4.5 and 5.3 are the dots just below those of 3.4 and 5.4.
# The eighth, 5.5, we found by switching off all 36 in turn.

# %%
changed = {}
for name in ("1.2", "1.4", "3.4", "4.4", "4.5", "5.3", "5.4", "5.5"):
    layer, head = map(int, name.split("."))
    without = losses(layer, off=[(layer, head)])
    changed[name] = {question: without[question] - before[question] for question in where}
effects = {
    name: {q: mean_and_spread(change[q], where[q]) for q in where}
    for name, change in changed.items()
}

# %%
figure, grid = plt.subplots(1, 4, figsize=(8.6, 3.4), sharey=True, sharex=True)
colours = (style.KEY, style.VALUE, style.QUERY, style.MASK)
for axes, question, colour in zip(grid, where, colours, strict=True):
    means, spreads = zip(*(effects[name][question] for name in effects), strict=True)
    axes.barh(list(effects), means, xerr=[2 * s for s in spreads], color=colour, height=0.6)
    axes.axvline(0, color="black", lw=1)
    axes.set_title(question, fontsize=11)
grid[0].invert_yaxis()
grid[0].set_ylabel("head switched off")
figure.supxlabel("rise of the loss; black: twice its spread to either side", fontsize=12)
style.show(
    figure,
    alt="Bars: what eight heads cost when they are off, for closing brackets, indentation, repeats "
    "and all tokens. 3.4, 4.5 and most of all 5.5 matter for brackets, 1.4 for indentation, 4.4, "
    "5.3 and 5.4 for repeats. All tokens: short bars. Without 1.2 indentation is no worse.",
)


# %%
def surely(name, question, least):
    """Whether a loss rises by `least`, and by more than three spreads."""
    mean, spread = effects[name][question]
    return mean > max(least, 3 * spread)


# %%
print("3.4 and 4.5 are needed for brackets:", surely("3.4", "closing brackets", 0.1))
print("                                    ", surely("4.5", "closing brackets", 0.1))
print("1.4 is needed for indentation:      ", surely("1.4", "indentation", 0.05))
print("5.3 and 5.4 for repeats:            ", surely("5.3", "repeats", 0.1))
print("                                    ", surely("5.4", "repeats", 0.1))
print("and so is 4.4, which looks back by 1:", surely("4.4", "repeats", 0.1))

# %% [markdown]
# Most of these fit.
# 3.4 and 4.5 look at the last opening bracket, and without them its closing is less expected.
# 1.4 looks at the line break before, and without it the right indentation of the next line is less
# expected.
# 5.3 and 5.4 look at what followed, and repeats suffer, as with the induction heads of lesson 12.
#
# For all tokens together none of the eight matters much: a mean over everything hides what each is
# needed for.
# The table has the numbers; its first row is the loss itself, with no head off.

# %% tags=["nbval-ignore-output"]
# The functions, and so the digits, differ between versions of Python.
print("off ", *(f"{question:>16}" for question in where))
losses_before = (before[q][where[q]].mean() for q in where)
print("none", *(f"{loss:8.3f}        " for loss in losses_before))
for name, row in effects.items():
    print(name, *(f"   {mean:+.3f} ± {spread:.3f}" for mean, spread in row.values()))

# %% [markdown]
# Why does 4.4 matter for repeats?
# In lesson 12 the induction heads needed a head in an earlier block, to bring every token the one
# before it.
# 4.4 may be that head here.
# If so, 5.3 and 5.4 will look at their places less without it, and as much as before without 4.5.

# %%
followed = habits["what followed the last mention"]
for silent in (4, 5):
    seen = []
    with torch.no_grad():
        run(parts, streams[4], first=4, off=[(4, silent)], seen=seen)
    for head in (3, 4):
        left = at(seen[-1][1], followed)[head] / at(weights, followed)[30 + head]
        print(f"5.{head} without 4.{silent}, below 0.6 of its score: {bool(left < 0.6)}")

# %% [markdown]
# So 4.4 is such a head, if not the only one: with it goes more than a third of what they had.

# %% [markdown]
# ## What goes wrong: a habit taken for a purpose
#
# Two heads do not fit.
# Take 1.2 first.
# From a line break it gives about half of its attention to the last line break of the same
# indentation.
# The control is near 0, no head scores higher, and there is a story at hand: *1.2 keeps the
# indentation; it looks up how far the last such line was indented.*
# It is a good story.
# What does it foretell?
#
# That the right indentation becomes less likely without 1.2.

# %%
scored = scores["a line break of this indentation"]
print("1.2 has the highest score of all heads:", names[scored.argmax()] == "1.2")
print("1.2 off, indentation worse:", surely("1.2", "indentation", 0.01))
print("1.4 off, indentation worse:", surely("1.4", "indentation", 0.01))

# %% [markdown]
# The indentation does not get worse at all.
# Is another head standing in for it?
# Then switch off the three with the highest scores in this habit together.

# %%
three = [divmod(head, 6) for head in scored.topk(3).indices.tolist()]
together = losses(min(three)[0], off=three)["indentation"]
mean, spread = mean_and_spread(together - before["indentation"], where["indentation"])
print("all three off, indentation worse:", mean > max(0.01, 3 * spread))

# %% [markdown]
# Neither of the other two.
# The story also says *same indentation*.
# Where the line before is indented differently, the last line of the same indentation lies further
# up, and the head must choose.

# %%
line_breaks = {(t, q): k for t, q, k in line.tolist()}
further = [(t, q, k) for t, q, k in same.tolist() if line_breaks[t, q] != k]
just_before = torch.tensor([(t, q, line_breaks[t, q]) for t, q, _ in further])
head = names.index("1.2")
same_indent, line_before = (at(weights, t)[head] for t in (torch.tensor(further), just_before))
print("the line before differs, in less than a third: ", 3 * len(further) < len(same))
print("1.2 gives it more than twice as much, all the same:", bool(line_before > 2 * same_indent))

# %% [markdown]
# So it looks for the line break before rather than for that of the same indentation.
# In most places the two are one, and from there the high score came.
#
# Does it do anything, then?
# A query sits where the model guesses the *next* token: from a line break, the first one of a line.
# So the loss of first tokens is where to look.

# %%
line_starts = breaks[ids[:, :-1]]  # the query is a line break
starts = {name: mean_and_spread(changed[name]["all tokens"], line_starts) for name in changed}
mean, spread = starts["1.2"]
print("1.2 off, first tokens of lines are worse:", mean > max(0.05, 3 * spread))
print("and by more than without 1.4:            ", mean > starts["1.4"][0])

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(8.4, 3.2))
shown = ["1.2", "1.4"]
for axes, table, title in (
    (left, {n: scored[names.index(n)].item() for n in shown}, "on the same indentation"),
    (middle, {n: effects[n]["indentation"][0] for n in shown}, "indentation worse by"),
    (right, {n: starts[n][0] for n in shown}, "first tokens worse by"),
):
    axes.bar(shown, [table[name] for name in shown], 0.5, color=(style.QUERY, style.KEY))
    axes.axhline(0, color="black", lw=1)
    axes.set_title(title, fontsize=10.5)
    axes.set(xlabel="head", ylabel="share of attention" if axes is left else "rise of the loss")
right.sharey(middle)
style.show(
    figure,
    alt="Left: head 1.2 gives about half of its attention to line breaks of the same indentation, "
    "1.4 hardly any. Middle: without 1.2 the indentation does not get worse; without 1.4 it does. "
    "Right: the first tokens of lines get worse without 1.2, and hardly without 1.4.",
)

# %% [markdown]
# The head with the look is not the head with the effect; 1.2 helps with what a line begins with,
# not with how far in it begins.
# Attention says where a head reads.
# What it takes from there, whether anything later uses it, and whether another head would do as
# well, it does not say.

# %% [markdown]
# ## What goes wrong: a head without a habit
#
# The other one is 5.5.
# It gives opening brackets little, so nobody would have looked at it.
# Yet none of the eight matters more for closing brackets.

# %%
before_closing = torch.tensor([(t, c - 1) for t, places in enumerate(closing) for c in places])
text_of, query_of = before_closing.unbind(dim=-1)
looks = weights[text_of, 35, query_of]  # (closing, 64), where 5.5 (5 · 6 + 5 = 35) looks before one
opening = torch.tensor([any(c in "([{" for c in piece) for piece in spelled])
on_bracket = looks.mul(opening[ids[text_of]]).sum(dim=-1).mean()
print("5.5 looks at opening brackets with less than 0.2:", bool(on_bracket < 0.2))
largest = max(effects, key=lambda name: effects[name]["closing brackets"][0])
print("the largest effect on closing brackets:", largest)

# %% [markdown]
# Where does it look?
# Here are the tokens that it attends to most, on average, right before a closing bracket.

# %%
received = torch.zeros(2048).index_add_(0, ids[text_of].flatten(), looks.flatten())
most = (received / len(looks)).topk(6)
figure, axes = plt.subplots(figsize=(6.4, 2.6))
axes.barh([repr(spelled[i]) for i in most.indices.tolist()], most.values, color=style.KEY)
axes.invert_yaxis()
axes.set(xlabel="share of attention", title="where 5.5 looks before a closing bracket")
style.show(
    figure,
    alt="Bars: before a closing bracket head 5.5 gives most to the token def, and far less to "
    "each of five others, such as an equals sign.",
)

# %% [markdown]
# At `def`.
# But every text here begins with it: is it the word that 5.5 looks for, or the first place?
# A line in front of each text parts the two.

# %%
front = torch.tensor([tokenizer.encode("import os\n\n\n")] * len(texts))  # (text, 3)
seen, moved = [], torch.cat((front, ids), dim=1)
with torch.no_grad():
    run(parts, parts["embedding.weight"][moved], seen=seen)
mean = seen[5][1][text_of, 5, query_of + 3].mean(dim=0)  # (67,)
print("on `def`, now the fourth token, more than 0.3:", bool(mean[3] > 0.3))
print("on the first token less than 0.1:             ", bool(mean[0] < 0.1))

# %% [markdown]
# It is the word.
# A bracket that closes the first line of a function is followed by a colon, and this tokenizer has
# a token for both together, `):`.
# So the new story is: 5.5 finds out what kind of line it is, and so tells `):` from `)`.
# It foretells that only closings with a colon suffer.

# %%
colons = torch.tensor([")" in piece and ":" in piece for piece in spelled])[targets]
for title, places in (("with", closes[:, 1:] & colons), ("without", closes[:, 1:] & ~colons)):
    mean, spread = mean_and_spread(changed["5.5"]["closing brackets"], places)
    print(f"{title:7} a colon: worse {mean > max(0.2, 3 * spread)}")

# %% [markdown]
# This story has passed two tests that it could have failed.
# That is all one can say for it, and it is more than the picture gave.

# %% [markdown]
# ## Another library's model
#
# The same view takes the weights of any model.
# PyTorch's own encoder does not hand them out; two *hooks* ask for them and keep them.
# A hook is a function that PyTorch calls before or after a module runs.
# The first changes two options of the call, so that the weights come back, each head's own.

# %%
embedding = nn.Embedding(2048, 64)
layer = nn.TransformerEncoderLayer(64, nhead=4, dim_feedforward=128, batch_first=True)
encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False).eval()


# %%
def ask(module, inputs, options):
    return inputs, options | {"need_weights": True, "average_attn_weights": False}


# %%
kept = []
for part in encoder.layers:
    part.self_attn.register_forward_pre_hook(ask, with_kwargs=True)
    part.self_attn.register_forward_hook(lambda module, inputs, outputs: kept.append(outputs[1]))

# %%
x = embedding(torch.tensor([tokenizer.encode(text)]))
causal = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
encoder(x, mask=causal)
print([tuple(layer.shape) for layer in kept], torch.allclose(kept[0].sum(-1), torch.ones(1)))
attention_view([layer.detach() for layer in kept], pieces)

# %% [markdown]
# This model has learned nothing, and its heads have favourites all the same: random vectors fit
# each other more or less.
# Does one of them follow brackets?
# Our measure does not care whose weights it gets.

# %%
kept.clear()
causal = nn.Transformer.generate_square_subsequent_mask(LENGTH)
with torch.no_grad():
    encoder(embedding(ids), mask=causal)
foreign = torch.cat(kept, dim=1)  # (text, 8, 64, 64)
inside = habits["the bracket that is open"]
lift = at(foreign, inside) - at(foreign, inside, shift=1)
print("brackets, no head further than 0.15 from its control:", bool(lift.abs().max() < 0.15))

# %% [markdown]
# A model of Hugging Face's `transformers` needs no hooks.
# Where that library and a model are installed, two lines do:
# `model = AutoModelForCausalLM.from_pretrained(name)`, and
# `attention_view(model, AutoTokenizer.from_pretrained(name), text)`.

# %% [markdown]
# ## A checkpoint of PaLM
#
# The block of this course is that of PaLM as the package palm-rlhf-pytorch builds it.
# Its checkpoints are dictionaries of tensors, too, with other names.
# One more thing differs: since release 0.2.4 the gains γ of the norms are stored minus 1.
#
# Let us write the shipped model as such a file.


# %%
def to_palm(name):
    return re.sub(r"blocks\.(\d+)", r"layers.\1.fn", name.replace("embedding", "token_emb"))


palm = {to_palm(name): tensor - float(name.endswith("gamma")) for name, tensor in parts.items()}
folder = tempfile.TemporaryDirectory()
file = Path(folder.name) / "palm.pt"
torch.save(palm, file)
print(*list(palm)[:5], sep="\n")

# %% [markdown]
# To read it, go the other way.
# `weights_only=True` makes `torch.load` take tensors and plain data only; without it a file from
# elsewhere may run a program of its own.


# %%
def from_palm(file, offset):
    """The tensors of a PaLM file under our names, with 1 added to gains that are stored minus 1."""
    state = torch.load(file, weights_only=True)
    renamed = {}
    for name, tensor in state.items():
        ours = re.sub(r"layers\.(\d+)\.fn", r"blocks.\1", name.replace("token_emb", "embedding"))
        renamed[ours] = tensor + 1 if offset and name.endswith("gamma") else tensor
    return renamed


# %%
tokens = torch.tensor([tokenizer.encode(text)])


def logits_of(parts, **how):
    return run(parts, parts["embedding.weight"][tokens], **how)


with torch.no_grad():
    same_logits = torch.allclose(logits_of(from_palm(file, True)), logits_of(parts), atol=1e-3)
print("the same logits:", same_logits)

# %% [markdown]
# Which reading a file needs, it does not say.
# What happens with the wrong one?

# %%
with torch.no_grad():
    for title, offset in (("1 added", True), ("as stored", False)):
        logits = logits_of(from_palm(file, offset))[0, :-1]
        loss = F.cross_entropy(logits, tokens[0, 1:])
        print(f"{title:9} loss {loss:.1f}")

# %% [markdown]
# Nothing fails: the shapes fit, and the numbers are numbers.
# Only the model has forgotten nearly everything; a blind guess would have ln 2048 = 7.6.
# So look at a loss on known text before you trust weights that you have loaded.

# %% [markdown]
# ## The proof
#
# You have written a reader that captures the weights, a switch for heads, and a loader.
# In the package these are `record_attention`, `ablate` and `load_palm`.
# Compare them in double precision, for several shapes, with fused attention and without: the
# weights of all heads, and logits and the gradients of all tensors, with no head off, one, or
# two of a layer.
# Then files of PaLM, in both ways of storing gains.

# %% tags=["proof"]
from zeta_edu import ablate, record_attention
from zeta_edu.lm import TransformerLM
from zeta_edu.lm.palm import load_palm

errors = []


def agree(ours, theirs):
    for own, given in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, given, rtol=1e-10, atol=1e-10)
        errors.append((own - given).abs().max().item())


def with_gradients(logits, tensors):
    # The sine gives each logit a gradient of its own.
    return [logits, *torch.autograd.grad(logits.sin().sum(), list(tensors))]


def drawn(depth, heads, kv_heads, dim_head, flash):
    shape = {"heads": heads, "kv_heads": kv_heads, "dim_head": dim_head, "flash_attn": flash}
    model = TransformerLM(num_tokens=13, dim=24, depth=depth, **shape).double()
    for parameter in model.parameters():
        parameter.data.normal_(mean=float(parameter.ndim == 1), std=0.3)
    return model, dict(model.named_parameters())


# %% [markdown]
# First the weights and the switch.

# %% tags=["proof"]
tokens = torch.randint(13, (2, 9))
shapes = ((1, 1, 1, 4, False), (2, 4, 2, 6, True), (3, 6, 1, 8, False))
for depth, heads, kv_heads, dim_head, flash in shapes:
    theirs, given = drawn(depth, heads, kv_heads, dim_head, flash)
    own = {name: tensor.detach().clone().requires_grad_() for name, tensor in given.items()}
    for silent in ((), (heads - 1,), (0, heads // 2)):
        seen, off = [], [(depth - 1, head) for head in silent]
        ours = with_gradients(logits_of(own, heads=heads, off=off, seen=seen), own.values())
        with ablate(theirs, depth - 1, silent), record_attention(theirs) as record:
            agree(ours, with_gradients(theirs(tokens), given.values()))
        agree([weights.detach() for _, weights in seen], record)

# %% [markdown]
# Then the files.

# %% tags=["proof"]
for depth, heads, dim_head, norm in ((1, 2, 4, "direct"), (3, 2, 8, "offset"), (2, 3, 6, "offset")):
    _, given = drawn(depth, heads, 1, dim_head, False)
    stored = {to_palm(name): tensor.detach() for name, tensor in given.items()}
    offset = float(norm == "offset")
    torch.save({n: t - offset * n.endswith("gamma") for n, t in stored.items()}, file)
    theirs = load_palm(file, norm, dtype=torch.float64)
    own = {n: t.requires_grad_() for n, t in from_palm(file, norm == "offset").items()}
    by_name = dict(theirs.named_parameters())
    ours = with_gradients(logits_of(own, heads=heads), own.values())
    agree(ours, with_gradients(theirs(tokens), [by_name[name] for name in own]))
print("largest error below 1e-10:", max(errors) < 1e-10)

# %% [markdown]
# Your reader sees what the package's recorder sees, your switch is its switch, and the files say
# the same to both.
# `load_palm` tells by the values how the gains are stored, where that can be told, and refuses
# files of releases whose model was another one.
# So here is the shipped model, back from a PaLM file, at work.

# %%
torch.save(palm, file)
loaded = load_palm(file)
loaded.tokenizer = tokenizer
print(loaded.generate("def read(self, path):", max_new_tokens=24, temperature=0, stop="\n\n"))
folder.cleanup()

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell: `check` says what is right, or what went wrong.
# Below each is its hint; run that cell again for the next one.

# %% [markdown]
# ### 1. A score less its control
#
# Difficulty ★☆☆, 5 minutes.
# For every head, return its mean attention at the triples (triple, 3) of text, query and key, less
# the mean at the same places in the next text; after the last text comes text 0.
# The weights are (text, head, n, n), the result (head,).


# %% tags=["exercise"]
def lift_of_heads(weights, triples):
    return ...


check("reading.lift", lift_of_heads)

# %%
hint("reading.lift")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def lift_of_heads(weights, triples):
#     text, query, key = triples.unbind(-1)
#     score = weights[text, :, query, key].mean(dim=0)
#     control = weights[(text + 1) % len(weights), :, query, key].mean(dim=0)
#     return score - control
# ```
#
# </details>

# %% [markdown]
# ### 2. The bracket that is open
#
# Difficulty ★★☆, 10 minutes.
# In `steps` (n,) an opening bracket is 1, a closing one −1, everything else 0; all that are closed
# were opened before.
# Return for every place, after its own step, the place of the innermost bracket that is open, or
# −1: (n,).


# %% tags=["exercise"]
def open_bracket(steps):
    return ...


check("reading.open", open_bracket)

# %%
hint("reading.open")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# import torch
#
# def open_bracket(steps):
#     stack, found = [], []
#     for place, step in enumerate(steps.tolist()):
#         if step > 0:
#             stack.append(place)
#         if step < 0:
#             stack.pop()
#         found.append(stack[-1] if stack else -1)
#     return torch.tensor(found)
# ```
#
# </details>

# %% [markdown]
# ### 3. A gentler switch
#
# Difficulty ★★☆, 10 minutes.
# A head set to 0 leaves the model with something it has never met, and the damage may come from
# that.
# *Mean ablation* puts the head's mean in its place.
# In `mixed` (batch, head, n, dim_head) replace every head that is true in `silent` (head,) by its
# mean over batch and places, one number for each of its features.


# %% tags=["exercise"]
def mean_instead(mixed, silent):
    return ...


check("reading.mean", mean_instead)

# %%
hint("reading.mean")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# import torch
#
# def mean_instead(mixed, silent):
#     mean = mixed.mean(dim=(0, 2), keepdim=True)  # (1, head, 1, dim_head)
#     return torch.where(silent[:, None, None], mean, mixed)
# ```
#
# Let `attend` mix by `mean_instead(weights @ v, loud.flatten() == 0)`, and see whether 1.2 is still
# not needed for the indentation.
#
# </details>

# %% [markdown]
# ### 4. What is handed over
#
# Difficulty ★★★, 15 minutes.
# A large weight on a value near 0 hands over nothing.
# Weigh attention by length: what head h takes from key j is weight · (value · columns), with
# `columns` (head, dim_head, dim) its part of `attn_out`.
# Return the length of each, as a share of its row's sum.
# The shapes are weights (head, n, n), values (head, n, dim_head), result (head, n, n).


# %% tags=["exercise"]
def by_length(weights, values, columns):
    return ...


check("reading.lengths", by_length)

# %%
hint("reading.lengths")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# A weight is not negative, so it comes out of the norm.
#
# ```python
# def by_length(weights, values, columns):
#     lengths = (values @ columns).norm(dim=-1)  # (head, n), one for each key
#     handed = weights * lengths[:, None]  # (head, n, n)
#     return handed / handed.sum(dim=-1, keepdim=True)
# ```
#
# </details>

# %% [markdown]
# ## What you have now
#
# You can read any model of this kind: take its tensors, run it, keep its weights, silence its
# heads.
# A habit is measured over many texts, and means something only beside a control that shares
# everything with it but the thing in question.
# Where two stories fit, look at the places where they differ.
# Whether a head is needed, only a change of the model can tell; and it must be asked at the tokens
# that the story speaks of.
# One more caution: a head that is hardly missed may have a stand-in, and 0 is itself an unusual
# thing to write.
#
# **References.**
# Heads measured over many texts, beside a baseline of fixed distances: Clark et al. 2019,
# [arXiv:1906.04341](https://arxiv.org/abs/1906.04341), section 4.
# Attention is no explanation: Jain and Wallace 2019,
# [arXiv:1902.10186](https://arxiv.org/abs/1902.10186); an answer to it: Wiegreffe and Pinter 2019,
# [arXiv:1908.04626](https://arxiv.org/abs/1908.04626).
# Weights and the length of what they weigh: Kobayashi et al. 2020,
# [arXiv:2004.10102](https://arxiv.org/abs/2004.10102).
# Switching heads off: Michel, Levy and Neubig 2019,
# [arXiv:1905.10650](https://arxiv.org/abs/1905.10650), section 2.
# PaLM: Chowdhery et al. 2022, [arXiv:2204.02311](https://arxiv.org/abs/2204.02311), section 2.
#
# **Next.** Everything so far was about what is computed.
# [Lesson 15](15-faster.ipynb) is about how long it takes.
