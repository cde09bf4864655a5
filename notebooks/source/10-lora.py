# %% [markdown]
# # 10 · LoRA: a small change to a large model
#
# A model of two million weights has learned to write Python, and nothing else.
# Now it shall write letters about the weather.
# **Must all of its weights move for that?**
#
# In this lesson you leave every weight where it is, and train a thin update beside some of them.
# You build the update by hand, put it into the model, teach it letters, hear it before and after,
# fold the update into the weights and take it out again.
# At the end you prove that this is the LoRA, *low-rank adaptation*, of `zeta_edu`.
#
# It takes about 45 minutes to read and 20 seconds to run.
# You need the product of matrices, the fused projection of lesson 07, and to know what a loss and
# its gradient are.

# %%
import math
import random
from itertools import accumulate, product

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from ipywidgets import IntSlider, interact
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from zeta_edu import load_pretrained
from zeta_edu.exercises import check, hint
from zeta_edu.lessonmap import show_block_map
from zeta_edu.views import lora_view, style

torch.manual_seed(0)
style.use()
show_block_map(lit=("lora",))

# %% [markdown]
# On the map an arrow leads from LoRA to the projection and one to *out*: it adds to what these
# matrices make.
#
# ## Letters
#
# The text to be learned is made by a rule, so that we can tell whether the rule was learned.
# Four parts of a letter are left to chance; what to take follows from the weather.

# %%
names = ("Anna", "Ben", "Carla", "David")
days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
cities = ("Oslo", "Rome", "Paris", "Cairo", "Lima", "Delhi")
things = {"rain": "an umbrella", "snow": "boots", "sun": "a hat", "wind": "a scarf"}
things["fog"] = "a lamp"


def letter(name, day, city, weather):
    return f"Dear {name},\non {day} {city} has {weather}, so take {things[weather]}.\n\n"


print(letter("Anna", "Monday", "Oslo", "rain"))

# %% [markdown]
# There are 4 · 7 · 6 · 5 = 840 such letters.
# The model trains on 700 of them. It never sees the other 140, so it cannot know them by heart.

# %%
everything = list(product(names, days, cities, things))
random.Random(0).shuffle(everything)
training, held_out = everything[:700], everything[700:]
len(training), len(held_out)

# %% [markdown]
# The model reads tokens, in windows of 56, each from the beginning of a letter: about two letters.
# Inputs and targets are the same tokens, one place apart.

# %%
model, tokenizer = load_pretrained("python-small")
LENGTH = 56


def encoded(letters):
    """All letters as one row of tokens, and where the letters start."""
    rows = [tokenizer.encode(letter(*choice)) for choice in letters]
    tokens = torch.tensor([token for row in rows for token in row])
    starts = torch.tensor([0, *accumulate(len(row) for row in rows)])
    return tokens, starts[starts < len(tokens) - LENGTH]


# %%
def windows(tokens, starts):
    """Inputs and targets, (window, LENGTH) each."""
    rows = tokens[starts[:, None] + torch.arange(LENGTH + 1)]  # (window, LENGTH + 1)
    return rows[:, :-1], rows[:, 1:]


def loss_on(model, inputs, targets):
    """Minus the logarithm of the probability of the right token, on average."""
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


# %% [markdown]
# How well does the model expect such letters (the first eight windows of those held out), before it
# has learned any?
# A model that knows nothing gives each of the 2048 tokens the same probability, and has a loss of
# ln 2048 = 7.62.
# And the best one possible? It still has to guess which of the 840 letters comes, and knows how to
# write that one down.
# That costs ln 840 for each letter, spread over its tokens.

# %%
held_out_tokens, held_out_starts = encoded(held_out)
examples = windows(held_out_tokens, held_out_starts[:8])
with torch.no_grad():
    loss_before = loss_on(model, *examples).item()
floor = math.log(840) / (len(held_out_tokens) / len(held_out))
print(f"before: {loss_before:.1f}   the best possible: about {floor:.1f}")

# %% [markdown]
# Read aloud: this is how the model goes on, always with the likeliest token.

# %%
opening = "Dear Ben,\non Friday Paris has snow, so take"
print(model.generate(opening, max_new_tokens=20, temperature=0))

# %% [markdown]
# ## What it costs to move everything
#
# Training needs more than the weights.
# Each weight gets a gradient. Adam, the usual way to take steps, keeps two running means, of the
# gradient and of its square.
# That makes four numbers, of four bytes each, for every weight that moves; one that stays needs
# only itself.
# (The numbers of the tokens on their way through the model come on top, in both cases.)

# %%
weights = sum(weight.numel() for weight in model.parameters())
print(f"{weights:,} weights: {4 * weights / 1e6:.0f} MB to use, {16 * weights / 1e6:.0f} to train")

# %% [markdown]
# Here that is little. For GPT-3, with 175 billion weights, the authors of LoRA count 1.2 terabytes
# of memory to train everything.
# (That is 7 bytes for each weight. With our 16 it would be 2.8.)
# And every further task would need all its weights once more on the disk.
#
# So let us look for a change of a matrix that has few numbers.

# %% [markdown]
# ## A matrix of few numbers, by hand
#
# Multiply every number of a column by every number of a row.
# This *outer product* is a whole matrix.

# %%
column, row = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.0, 1.0])
outer = torch.tensor([[c * r for r in row] for c in column])  # (2, 3)
outer

# %% [markdown]
# By hand: the first row is 1 · (3, 0, 1), the second 2 · (3, 0, 1).
# Five numbers have made six. That is no bargain yet; for a matrix of 192 by 192, 384 numbers make
# 36,864.
#
# The whole matrix need not even be written down.
# To multiply x by it, take the product of x with the column, a single number, and multiply the row
# by that.

# %%
x = torch.tensor([1.0, 1.0])
x @ outer, (x @ column) * row

# %% [markdown]
# By hand: 1·1 + 1·2 = 3, and 3 · (3, 0, 1) = (9, 0, 3).
#
# One outer product is a poor change: whatever x is, what comes out points along the one row.
# Add up two of them, and it may be any mixture of two rows.
# Put the columns side by side as a matrix A, and the rows below each other as a matrix B: the sum
# is their product.

# %%
A, B = torch.randn(8, 2), torch.randn(2, 6)  # two columns, two rows
pieces = [torch.outer(A[:, i], B[i]) for i in range(2)]  # (8, 6) each
torch.allclose(sum(pieces), A @ B, atol=1e-6)

# %% [markdown]
# The smallest number of outer products that add up to a matrix is its **rank**.
# Here are two pieces of rank 1 and their sum, brown below zero and green above.

# %%
figure, all_axes = plt.subplots(1, 3, figsize=(7, 2.9))
titles = ("rank 1", "another of rank 1", "their sum, rank 2")
for axes, title, matrix in zip(all_axes, titles, (*pieces, sum(pieces)), strict=True):
    axes.imshow(matrix, cmap=style.MAP_SIGNED, vmin=-4, vmax=4)
    axes.set(title=title, xticks=[], yticks=[])
all_axes[0].set(xlabel="features out", ylabel="features in")
style.show(
    figure,
    alt="Three matrices of 8 by 6 as colours. In each of the first two all rows have one pattern, "
    "stronger or weaker or turned round; in their sum the rows differ.",
)

# %% [markdown]
# Every matrix is a sum of outer products.
# They can be chosen such that all columns have length 1 and are perpendicular to each other, and
# all rows too.
# Each piece then has a size in front, its **singular value**.
# They are sorted, the largest first, and as many of them differ from 0 as the rank says.
# Finding them is called *singular value decomposition*, or SVD.

# %%
torch.linalg.svdvals(A @ B).round(decimals=2).abs()  # abs, for a rounded 0 may come as -0

# %% [markdown]
# How many numbers does rank r take? A (d, r) and B (r, e) have r · (d + e), the whole matrix d · e.
# The model's queries are made by a matrix of 192 by 192, its values by one of 192 by 32.


# %%
def thin_numbers(rank, dim, dim_out):
    return rank * (dim + dim_out)


ranks = (1, 2, 4, 8, 16, 32, 64)
figure, axes = plt.subplots(figsize=(6.6, 3.2))
for name, dim_out, colour in (("queries", 192, style.QUERY), ("values", 32, style.VALUE)):
    numbers = [thin_numbers(rank, 192, dim_out) for rank in ranks]
    axes.loglog(ranks, numbers, "o-", color=colour, label=f"{name}: A and B")
    axes.axhline(192 * dim_out, ls="--", color=colour, label=f"{name}: whole matrix")
axes.set_xticks(ranks, ranks)
axes.set_yticks([300, 1000, 3000, 10_000, 30_000], ["300", "1,000", "3,000", "10,000", "30,000"])
axes.minorticks_off()
axes.set(xlabel="rank", ylabel="numbers to train")
axes.legend(fontsize=9)
style.show(
    figure,
    alt="Numbers against rank, both by doublings. Thin factors rise in straight lines. The "
    "queries' stay below their whole matrix up to 64; the values' cross theirs just below 32.",
)

# %% [markdown]
# Above a rank of d · e / (d + e) the two thin matrices have more numbers than the whole one.
# For the queries that is 96, for the values about 27.

# %% [markdown]
# ## The update
#
# The matrix W (d, e), with d = `dim` and e = `dim_out` in the code, stays *frozen*: it is not
# trained.
# It and the thin pair work side by side, and their results are added:
#
# $$y = x W + \frac{\alpha}{r} \, x A B.$$
#
# The number α (alpha) says how strong the update is.
# It is divided by the rank r, because A B is a sum of r pieces; the paper says that this saves
# tuning when the rank changes.
# (The paper writes vectors as columns, so the order turns round: W x + (α/r) B A x.)


# %%
def update(x, A, B, alpha):
    return (x @ A) @ B * (alpha / A.shape[-1])  # (..., dim) to rank to (..., dim_out)


# %% [markdown]
# The order of the two products matters for the work.
# `FlopCounterMode` counts the multiplications and additions of matrix products.

# %%
x, wide, flat = torch.randn(10, 192), torch.randn(192, 8), torch.randn(8, 192)
orders = {"(x A) B": lambda: (x @ wide) @ flat, "x (A B)": lambda: x @ (wide @ flat)}
for name, function in orders.items():
    with FlopCounterMode(display=False) as counter:
        function()
    print(f"{name}: {counter.get_total_flops():9,}")

# %% [markdown]
# For ten tokens the thin way takes a twentieth of the work.

# %% [markdown]
# ## Where to start
#
# The training should begin at the model as it is: the update should be 0 at first.
# It is 0 when A is 0, when B is 0, or when both are. Which shall it be?
#
# The gradient tells. For a product u M, of u (n, r) and M (r, e), let G (n, e) be the gradient of
# the loss with respect to the product.
# Then the gradient of M is uᵀ G, and that of u is G Mᵀ.
#
# Let s be α/r and x the inputs (n, d), one row for each token.
# The update is such a product, (s x A) B, and G its gradient: take s x A as u, and B as M.
# It is also (x A) (s B): the gradient of x A is G (s B)ᵀ, and from there that of A has xᵀ in front.
#
# $$\frac{\partial L}{\partial B} = s \, (x A)^\top G, \qquad
# \frac{\partial L}{\partial A} = s \, x^\top (G B^\top).$$
#
# Let PyTorch check the two.

# %%
x, G = torch.randn(5, 8), torch.randn(5, 6)
A, B = torch.randn(8, 2, requires_grad=True), torch.randn(2, 6, requires_grad=True)
slopes = torch.autograd.grad((update(x, A, B, alpha=4) * G).sum(), (A, B))
by_hand = 4 / 2 * x.T @ (G @ B.T), 4 / 2 * (x @ A).T @ G
[torch.allclose(ours, theirs, atol=1e-4) for ours, theirs in zip(by_hand, slopes, strict=True)]

# %% [markdown]
# Each gradient holds the *other* factor.
# With B = 0 the gradient of A is 0, and that of B is not: B moves first, and then A can follow.
# With both 0, both gradients are 0, and nothing ever moves; we shall see that below.
# So A starts random, as a linear layer would, and B starts at 0.
# (The other way round a gradient flows too.)


# %%
class LowRank(nn.Module):
    def __init__(self, dim, dim_out, rank, alpha):
        super().__init__()
        bound = 1 / math.sqrt(dim)  # the usual start of a linear layer
        self.A = nn.Parameter(torch.empty(dim, rank).uniform_(-bound, bound))
        self.B = nn.Parameter(torch.zeros(rank, dim_out))
        self.alpha = alpha

    def forward(self, x):
        return update(x, self.A, self.B, self.alpha)


# %% [markdown]
# Watch the two take their first steps on a small task: the update shall learn a fixed matrix of
# rank 2.

# %%
small, goal = LowRank(8, 6, rank=2, alpha=2), torch.randn(8, 2) @ torch.randn(2, 6)
x, lengths = torch.randn(64, 8), []
for _ in range(8):
    loss = (small(x) - x @ goal).square().mean()
    slopes = torch.autograd.grad(loss, (small.A, small.B))
    lengths.append([slope.norm().item() for slope in slopes])
    for factor, slope in zip((small.A, small.B), slopes, strict=True):
        factor.data -= 0.1 * slope
print("first step: A", lengths[0][0], "  B", "above 0" if lengths[0][1] > 0 else "0")

# %%
figure, axes = plt.subplots(figsize=(6.6, 2.8))
for name, colour, place in (("A", style.KEY, 0), ("B", style.QUERY, 1)):
    sizes = [length[place] for length in lengths]
    axes.plot(range(1, 9), sizes, "o-", color=colour, label=f"gradient of {name}")
axes.set(xlabel="step", ylabel="length")
axes.legend()
style.show(
    figure,
    alt="Length of the gradients of A and B over 8 steps. B's is above zero from the first step; "
    "A's starts at zero and rises as B grows, and has nearly caught up at the end.",
)

# %% [markdown]
# A's gradient rises with B, and B's with A: at first each lets the other grow.
#
# ## Into the model
#
# `zeta_edu`'s block has four places where the result of another module is added: at the queries,
# keys and values, where the module gets the normed input, and at *out*, where it gets the merged
# heads.
# They are called `block.finetune_modules.q`, `.k`, `.v` and `.o`, and are empty.
#
# What matrix stands at each place? The first three are rows of the fused projection.


# %%
def places(block):
    """The weight at each of the four places, (out, in)."""
    rows = block.fused_attn_ff_proj.weight.split(block.fused_dims)  # q, k, v, feed-forward
    return {"q": rows[0], "k": rows[1], "v": rows[2], "o": block.attn_out.weight}


{name: tuple(weight.shape) for name, weight in places(model.blocks[0]).items()}


# %% [markdown]
# Now freeze everything, and put an update at every place.
# `requires_grad_(False)` tells PyTorch to make no gradient for what is there so far, and
# `.to(weight)` gives the new numbers the precision of the old ones.
# The rank is 8 and α is 32, so α/r is 4.


# %%
def put_in(model, blocks, rank, alpha):
    model.requires_grad_(False)
    for block in blocks:
        for name, weight in places(block).items():
            dim_out, dim = weight.shape
            setattr(block.finetune_modules, name, LowRank(dim, dim_out, rank, alpha).to(weight))


# %%
with torch.no_grad():
    logits_before = model(examples[0])
put_in(model, model.blocks, rank=8, alpha=32)
trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
print(f"{trained:,} numbers to train beside {weights:,}: {trained / weights:.1%}")
print(f"memory: {(4 * weights + 16 * trained) / 1e6:.0f} MB to train")

# %% [markdown]
# By hand, for a block: q and o take 8 · (192 + 192) each, k and v 8 · (192 + 32) each, in all
# 9,728; and there are six blocks.
# The feed-forward and the embedding get nothing.
#
# Every B is 0, so the model is still itself, to the last bit.

# %%
with torch.no_grad():
    print(torch.equal(model(examples[0]), logits_before))

# %% [markdown]
# ## The training
#
# Thirty-six steps, each on eight windows.
# The *learning rate*, the size of a step, falls in a straight line.


# %%
def fine_tune(model, steps, windows_a_step=8, rate=0.01):
    """Train whatever is not frozen, and return the loss at every step."""
    tokens, starts = encoded(training)
    moving = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(moving, betas=(0.9, 0.95))  # how long its means remember
    generator, losses = torch.Generator().manual_seed(0), []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        chosen = torch.randint(len(starts), (windows_a_step,), generator=generator)
        loss = loss_on(model, *windows(tokens, starts[chosen]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


losses = fine_tune(model, steps=36)

# %%
figure, axes = plt.subplots(figsize=(6.6, 3))
axes.plot(range(1, 37), losses, color=style.QUERY, label="training")
axes.axhline(floor, ls="--", color=style.MASK, label="the best possible")
axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
axes.legend()
style.show(
    figure,
    alt="Loss against step: it starts near 6, falls below 1 within about ten steps, and ends just "
    "above the dashed line of the best possible, which is 0.2.",
)

# %% [markdown]
# And on letters that it has never seen, the eight windows of before?

# %%
with torch.no_grad():
    loss_after = loss_on(model, *examples).item()
print("held-out loss at most 0.1 above the best possible:", loss_after < floor + 0.1)

# %% [markdown]
# Read aloud, from the same opening, of a letter that was held out:

# %%
print(model.generate(opening, max_new_tokens=20, temperature=0, stop="\n"))

# %% [markdown]
# Let it go on by itself, drawing lots where it has a choice.

# %% tags=["nbval-ignore-output"]
# Trained numbers and lots differ a little from one kind of processor to another.
print(model.generate("Dear", max_new_tokens=58, temperature=0.5, seed=1))

# %% [markdown]
# Has it learned the rule, or only the look of a letter?
# Ask for all 140 letters that it was not shown, up to `take`.

# %%
questions = [letter(*choice).split(" take ")[0] + " take" for choice in held_out]
wanted = [
    f"{question} {things[choice[3]]}" for question, choice in zip(questions, held_out, strict=True)
]


def share_right(model):
    answers = model.generate(questions, max_new_tokens=10, temperature=0, stop=".")
    return sum(a == b for a, b in zip(answers, wanted, strict=True)) / len(wanted)


print("at least 95% right:", share_right(model) >= 0.95)

# %% [markdown]
# The rule was learned, and the numbers trained are only 2.6 % as many as the model's weights.
#
# What became of Python?
# The same update works on every text that the model reads, also where it is not wanted.
# We shall measure the loss on this piece of Python, with the update and without.

# %%
code = '''def total(accounts):
    """Sum the balances."""
    result = 0
    for account in accounts:
        result += account.balance
    return result
'''
code_ids = torch.tensor([tokenizer.encode(code)])  # (1, n)
python = code_ids[:, :-1], code_ids[:, 1:]


# %% [markdown]
# But the weights have not moved. Empty the four places, and the old model is back; keep the
# modules, and the letters are one line away.


# %%
def take_out(blocks):
    """Empty the places, and return what was there."""
    taken = []
    for block in blocks:
        for name in places(block):
            taken.append(getattr(block.finetune_modules, name))
            setattr(block.finetune_modules, name, None)
    return taken


def put_back(blocks, taken):
    for place, module in zip(product(blocks, "qkvo"), taken, strict=True):
        setattr(place[0].finetune_modules, place[1], module)


# %%
with torch.no_grad():
    python_losses, letter_losses = {}, {"with": loss_after, "without": loss_before}
    python_losses["with"] = loss_on(model, *python).item()
    taken = take_out(model.blocks)
    python_losses["without"] = loss_on(model, *python).item()
    print("the old model, to the last bit:", torch.equal(model(examples[0]), logits_before))
    put_back(model.blocks, taken)

# %%
figure, axes = plt.subplots(figsize=(6.6, 2.8))
for side, (kind, colour) in enumerate((("without", style.MASK), ("with", style.QUERY))):
    heights = [letter_losses[kind], python_losses[kind]]
    bars = axes.bar(
        [side / 3, 1 + side / 3], heights, 0.3, color=colour, label=f"{kind} the update"
    )
    axes.bar_label(bars, fmt="%.1f")
axes.set(xticks=[1 / 6, 7 / 6], ylabel="loss")
axes.set_xticklabels(["letters, held out", "Python"])
axes.legend(fontsize=10, loc="upper center")
axes.margins(y=0.15)
style.show(
    figure,
    alt="Bars of the loss. On letters it falls from above 6 to about 0.3 with the update; on "
    "Python it rises with it, from 3 to about 5.",
)

# %%
print("worse on this Python with the update:", python_losses["with"] > python_losses["without"])

# %% [markdown]
# So one model can serve many tasks, each with an update of its own, put in when it is needed.

# %% [markdown]
# ## What was learned
#
# Here is the matrix of the queries in the last block, its update, and their sum.
# The lower part shows the singular values.
# The size in the title is the root of the sum of all squares; a low rank need not be small.
# Move the rank down, and the smallest parts of the update drop out; move α, and the update grows
# or shrinks.

# %% tags=["nbval-ignore-output"]
# Trained numbers differ a little from one kind of processor to another.
last = model.blocks[-1]
tuned = last.finetune_modules.q
thin = tuned.A.detach(), tuned.B.detach()
lora_view(places(last)["q"].detach().T, thin, alpha=tuned.alpha)

# %% [markdown]
# The weight has 192 singular values, of which the view draws 48.
# Of the update's only eight are not 0, and the eight are far from equal.
# Could the letters do with fewer?
#
# Keep only the largest parts of every update, in all blocks, and measure the loss.
# (`u` holds the columns of the parts, `s` their sizes, `v` their rows.)
# What is kept is the nearest update of that rank: no other is closer to the whole, by the sum of
# the squared differences.


# %%
@torch.no_grad()
def kept(module, parts, rank):
    """A module with only the largest parts of this one's update."""
    (dim, full_rank), dim_out = module.A.shape, module.B.shape[1]
    lower = LowRank(dim, dim_out, full_rank, module.alpha)  # with zeros, so that α/r stays
    u, s, v = parts
    lower.A.zero_()[:, :rank] = u[:, :rank] * s[:rank]
    lower.B[:rank] = v[:rank]
    return lower


# %%
ranks, rank_losses = range(9), []
whole = take_out(model.blocks)
parts = [torch.linalg.svd((m.A @ m.B).detach(), full_matrices=False) for m in whole]
for rank in ranks:
    put_back(model.blocks, [kept(*pair, rank) for pair in zip(whole, parts, strict=True)])
    with torch.no_grad():
        rank_losses.append(loss_on(model, *examples).item())
put_back(model.blocks, whole)

# %% [markdown]
# Choose how many parts are kept.
# (In a page without a running Python you see the picture for one rank only.)

# %%
sizes = torch.stack([s[:8] for u, s, v in parts]) * 32 / 8  # times α/r


def draw_rank(rank):
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.1))
    left.plot(range(1, 9), sizes.T, color=style.MASK, lw=1, alpha=0.4)
    colours = (style.QUERY, style.KEY, style.VALUE, style.OUTPUT)
    for place, (name, colour) in enumerate(zip("qkvo", colours, strict=True)):
        lines = left.plot(range(1, rank + 1), sizes[place::4, :rank].T, "o-", color=colour, ms=3)
        lines[0].set_label(name)
    left.legend()
    left.set(
        title="singular values of all 24 updates", xlabel="part", ylabel="size", ylim=(0, None)
    )
    right.plot(ranks, rank_losses, "o-", color=style.MASK)
    right.plot(rank, rank_losses[rank], "o", ms=11, color="black")
    right.axhline(floor, ls="--", color=style.MASK, label="the best possible")
    right.legend(fontsize=10)
    right.set(title="loss on held-out letters", xlabel="parts kept", ylim=(0, None))
    style.show(
        figure,
        alt=f"Left: 24 falling lines, the singular values of each update, in colour up to part "
        f"{rank}. Right: the loss against the number of parts kept, a dot at {rank}.",
    )


# %%
_ = interact(draw_rank, rank=IntSlider(2, min=0, max=8, continuous_update=False))

# %% [markdown]
# The updates of q and o are the larger ones; their matrices have more numbers, too.
# With no part kept it is the old model, and most of the way down is done by the first few parts.
# That does not mean that training with a rank so low would have got there as fast: the rank was
# lowered afterwards.

# %% [markdown]
# ## Merge, and unmerge
#
# The update costs two thin products at every place.
# It need not, once training is over: since $x W + s \, x A B = x \, (W + s A B)$, the update can be
# added to the weight.
# The weight is stored as (out, in), the transpose of W, so the update is transposed too.


# %%
@torch.no_grad()
def shift(blocks, modules, sign):
    """Add the updates to the weights, or with -1 subtract them."""
    modules = iter(modules)
    for block in blocks:
        for weight in places(block).values():
            module = next(modules)
            weight += sign * (module.A @ module.B).T * (module.alpha / module.A.shape[1])


# %%
def answer(model, ids):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits = model(ids)
    return logits, counter.get_total_flops()


unmerged, unmerged_work = answer(model, examples[0])
updates = take_out(model.blocks)
plain, plain_work = answer(model, examples[0])
shift(model.blocks, updates, +1)
merged, merged_work = answer(model, examples[0])

# %%
print("merged equals unmerged:", torch.allclose(merged, unmerged, atol=1e-3))
print("and not the old model: ", (merged - plain).abs().max().item() > 1)
print(f"work of the unmerged: {unmerged_work / plain_work:.3f} times the old model's")
print(f"work of the merged:   {merged_work / plain_work:.3f} times")

# %% [markdown]
# The same answers up to rounding, at no cost at all: a merged model has the shape and the work of
# the old one.
# Read aloud, it says the same:

# %%
print(model.generate(opening, max_new_tokens=20, temperature=0, stop="\n"))

# %% [markdown]
# Subtract the update, and the old model is back, this time only up to rounding: a sum in floating
# point forgets the last bits of its smaller part.

# %%
shift(model.blocks, updates, -1)
restored, _ = answer(model, examples[0])
print("the old model, nearly:     ", torch.allclose(restored, plain, atol=1e-3))
print("the old model, to the bit: ", torch.equal(restored, plain))

# %% [markdown]
# Whoever merges and unmerges often had better keep the weights as they were, and load them again.
# Let us do so now.

# %%
model, _ = load_pretrained("python-small")
model.requires_grad_(False)
put_back(model.blocks, updates)

# %% [markdown]
# ## What it weighs
#
# To hand the letters to someone who has the model, send the thin matrices and nothing else.
# Stored with two bytes for a number, as the model itself is:

# %%
print(f"the update: {2 * trained / 1e3:6,.0f} kB")
print(f"the model:  {2 * weights / 1e3:6,.0f} kB")

# %% [markdown]
# ## The proof
#
# Nothing so far has called the LoRA of `zeta_edu`.
# First the module alone, in several shapes, ranks and strengths: the output, and the gradients of
# input, A and B.


# %%
def results(function, moving, x):
    """The output of a function, and its gradients."""
    output = function(x)
    # The sine gives each entry of the output a gradient of its own.
    return [output, *torch.autograd.grad(output.sin().sum(), [x, *moving])]


def double(*shape):
    return torch.randn(shape, dtype=torch.double, requires_grad=True)


# %% tags=["proof"]
from zeta_edu import LoRA

errors = []


def compare(ours, theirs):
    for own, given in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, given, rtol=1e-10, atol=1e-10)
        errors.append((own - given).abs().max().item())


for dim, dim_out, rank, alpha in ((1, 1, 1, 1.0), (5, 7, 3, 16.0), (8, 2, 8, 0.5)):
    mine, lora = (made(dim, dim_out, rank, alpha).double() for made in (LowRank, LoRA))
    for own, given in zip((mine.A, mine.B), (lora.A, lora.B), strict=True):
        own.data.copy_(given.data.normal_())
    x = double(2, 3, dim)
    compare(results(mine, [mine.A, mine.B], x), results(lora, [lora.A, lora.B], x))

# %% [markdown]
# Then a whole block with four updates: `add_lora` against `put_in`, from the same seed, so that the
# start is compared too, and again with every A and B filled with random numbers.
# At last the weights themselves, merged and unmerged.

# %% tags=["proof"]
import copy

from zeta_edu import TransformerBlock
from zeta_edu.adapters import add_lora, merge_lora, unmerge_lora

for rank, alpha in ((1, 1.0), (3, 16.0), (8, 0.5)):
    block = TransformerBlock(12, dim_head=6, heads=2, ff_mult=1).double()
    own_block, x = copy.deepcopy(block), double(2, 4, 12)
    torch.manual_seed(rank)
    add_lora(block, rank, alpha)
    torch.manual_seed(rank)
    put_in(own_block, [own_block], rank, alpha)
    for fill in (False, True):
        moving = [[p for p in b.parameters() if p.requires_grad] for b in (own_block, block)]
        for own, given in zip(*moving, strict=True) if fill else ():
            own.data.copy_(given.data.normal_())
        compare(*moving)
        ours, theirs = (results(*pair, x) for pair in zip((own_block, block), moving, strict=True))
        compare(ours, theirs)
    taken = take_out([own_block])
    for sign, move in ((+1, merge_lora), (-1, unmerge_lora)):
        shift([own_block], taken, sign)
        compare(places(own_block).values(), places(move(block)).values())
        # Merged, it computes what it did; unmerged, the update is a module again.
        compare([block(x)], ours[:1])
print("largest error below 1e-10:", max(errors) < 1e-10)

# %% [markdown]
# What you built is what the package does, in a few calls.
# Give it the trained numbers, and it answers as the merged model did.
# (It can hold several updates by name; one without a name is called "default".)
# Its `save_lora` writes them to a file; what that weighs beyond the numbers is names and shapes.

# %%
import tempfile
from pathlib import Path

from zeta_edu.adapters import adapter_modules
from zeta_edu.lm.adapter_files import save_lora

packaged = add_lora(load_pretrained("python-small")[0], rank=8, alpha=32)
for theirs, ours in zip(adapter_modules(packaged, "default").values(), updates, strict=True):
    theirs.load_state_dict(ours.state_dict())
print("as merged:", torch.allclose(answer(packaged, examples[0])[0], merged, atol=1e-3))
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "letters.safetensors"
    save_lora(packaged, file, dtype=torch.float16)
    print(f"{file.stat().st_size / 1e3:.0f} kB")

# %% [markdown]
# ## What goes wrong: both factors zero
#
# If B = 0 is good, A = 0 as well looks safer still.
# Run three starts for six steps of four windows each: the usual one, both factors zero, and both
# random.


# %%
def started(a_is_zero, b_is_random):
    torch.manual_seed(1)
    fresh, _ = load_pretrained("python-small")
    put_in(fresh, fresh.blocks, rank=8, alpha=32)
    for name, factor in fresh.named_parameters():
        if a_is_zero and name.endswith(".A"):
            factor.data.zero_()
        if b_is_random and name.endswith(".B"):
            factor.data.uniform_(-1, 1).div_(math.sqrt(8))  # as a linear layer with 8 inputs
    return fresh


# %%
starts = {
    "A random, B zero": (False, False),
    "both zero": (True, False),
    "both random": (False, True),
}
courses, python_at_start = {}, {}
for name, choice in starts.items():
    fresh = started(*choice)
    with torch.no_grad():
        python_at_start[name] = loss_on(fresh, *python).item()
    courses[name] = fine_tune(fresh, steps=6, windows_a_step=4)
    if name == "both zero":
        moved = any(p.any() for p in fresh.parameters() if p.requires_grad)
print("both zero: has anything moved?", moved)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.2), width_ratios=(1.3, 1))
colours = (style.QUERY, style.MASK, style.KEY)
for (name, course), colour, line in zip(courses.items(), colours, ("-", ":", "--"), strict=True):
    left.plot(range(1, 7), course, line, color=colour, label=name)
left.set(title="learning letters", xlabel="step", ylabel="loss", ylim=(0, None))
left.legend(fontsize=9)
bars = right.barh(list(python_at_start), list(python_at_start.values()), color=colours)
right.bar_label(bars, fmt="%.1f", padding=3)
right.invert_yaxis()
right.set(title="Python, before the first step", xlabel="loss", yticks=[])
right.margins(x=0.2)
style.show(
    figure,
    alt="Left: with A random and B zero the loss falls; with both zero it stays, but for what the "
    "windows differ; with both random it starts higher. Right: the loss on Python before the first "
    "step is the same for the first two, and much higher with both random.",
)

# %% [markdown]
# With both zero nothing has moved at all, and nothing says so: there are gradients, and they are
# exactly 0.
# The wiggles of its loss come from the windows.
# If a loss stands still from the first step, look whether the trained numbers move.
#
# With both random there are gradients at once, but the update is large before it has learned
# anything.
# The model is damaged before its first step: its loss starts higher, and six steps do not catch up.

# %%
for name, loss in python_at_start.items():
    print(f"{name}: {loss / python_losses['without']:.1f} times the old model's loss on Python")

# %% [markdown]
# ## What goes wrong: merged, and still added
#
# Merge the update, and forget to empty the places: it counts twice.
# Again nothing fails.

# %%
with torch.no_grad():
    once = loss_on(model, *examples).item()
    shift(model.blocks, updates, +1)
    twice = loss_on(model, *examples).item()
print("the loss on letters has more than doubled:", twice > 2 * once)

# %% [markdown]
# This is the same as twice the α.
# The package puts an update aside when it merges it, and refuses to merge it again.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell: `check` says what is right, or what went wrong.
# Below each is its hint; run that cell again for the next one.

# %% [markdown]
# ### 1. The update
#
# Difficulty ★☆☆, 5 minutes.
# Return the update of x (..., dim), for A (dim, rank) and B (rank, dim_out), with α = 6.


# %% tags=["exercise"]
def lora_update(x, A, B):
    return ...


check("lora.update", lora_update)

# %%
hint("lora.update")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def lora_update(x, A, B):
#     return (x @ A) @ B * (6 / A.shape[-1])
# ```
#
# </details>

# %% [markdown]
# ### 2. Merged
#
# Difficulty ★★☆, 10 minutes.
# A linear layer holds `weight` (dim_out, dim), and computes x Wᵀ.
# Return the weight with the update merged into it, for A (dim, rank) and B (rank, dim_out), with
# α = 6.


# %% tags=["exercise"]
def merged_weight(weight, A, B):
    return ...


check("lora.merge", merged_weight)

# %%
hint("lora.merge")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def merged_weight(weight, A, B):
#     return weight + (A @ B).T * (6 / A.shape[1])
# ```
#
# </details>

# %% [markdown]
# ### 3. The gradient of A
#
# Difficulty ★★☆, 10 minutes.
# The loss sends back G (n, dim_out), its gradient with respect to the update of x (n, dim).
# Return the gradient of A, (dim, rank), for B (rank, dim_out) and α = 6, without autograd.


# %% tags=["exercise"]
def gradient_of_a(x, B, G):
    return ...


check("lora.gradient", gradient_of_a)

# %%
hint("lora.gradient")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def gradient_of_a(x, B, G):
#     return x.T @ (G @ B.T) * (6 / B.shape[0])
# ```
#
# Where B is 0, so is all of this: A waits until B has moved.
#
# </details>

# %% [markdown]
# ### 4. The nearest of rank 1
#
# Difficulty ★★★, 15 minutes.
# Return the largest part of A B: of all matrices (dim, dim_out) of rank 1, the one nearest to A B.
# A is (dim, rank), B (rank, dim_out); there is no α here.
# `torch.linalg.svd(matrix, full_matrices=False)` gives columns u, singular values s and rows v.


# %% tags=["exercise"]
def largest_part(A, B):
    return ...


check("lora.rank_one", largest_part)

# %%
hint("lora.rank_one")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# import torch
#
# def largest_part(A, B):
#     u, s, v = torch.linalg.svd(A @ B, full_matrices=False)
#     return s[0] * torch.outer(u[:, 0], v[0])
# ```
#
# The first column of A and the first row of B are no better than the others: A and B may be
# changed to A M and M⁻¹ B, for any matrix M that has an inverse, and the update stays.
#
# </details>

# %% [markdown]
# ## What you have now
#
# A matrix of low rank is a product of two thin ones with few numbers.
# LoRA freezes a model and trains such a product beside some of its matrices, with α/r in front.
# One factor starts random and the other at 0: the model starts as it was, and a gradient flows.
# The update can be taken out, kept in a small file, or merged into the weights, where it costs
# nothing.
# What it gives up is freedom: a change of high rank it cannot make.
# `add_lora(model, small=True)` gives up more: the thin matrices are the first r columns and rows of
# the frozen weight's own SVD, and only an r × r matrix between the two is learned.
#
# **References.**
# LoRA: Hu et al. 2021, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685); section 4.1 has the
# update (equation 3), its start, α/r and merging; section 4.2 the memory for GPT-3; section 7 asks
# how low the rank may be, and compares updates by their singular vectors.
# The nearest matrix of a lower rank: Eckart and Young 1936, "The approximation of one matrix by
# another of lower rank".
# The small kind: Bałazy et al. 2024, "LoRA-XS",
# [arXiv:2405.17604](https://arxiv.org/abs/2405.17604).
# Adam: Kingma and Ba 2014, [arXiv:1412.6980](https://arxiv.org/abs/1412.6980), algorithm 1.
#
# **Next.** Every part of the block has now been built.
# [Lesson 11](11-the-block.ipynb), the block, puts them all together.
