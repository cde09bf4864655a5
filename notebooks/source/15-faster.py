# %% [markdown]
# # 15 · Faster and bigger
#
# A block that takes 20 milliseconds may be slow, or it may be as fast as the machine allows.
# The number alone does not say.
# **How near is it to the fastest that this machine can do, and what do two processes add?**
#
# In this lesson you learn to measure on a machine that does other things too.
# You build the *floor*, the work that nobody can leave out, and hold the block against it.
# You look at what a cache, flash, a compiler and bfloat16 save, and where that helps.
# Then you train one model in two processes, with gradients that you average yourself, and prove
# that they do what the package's training does.
#
# It takes about 50 minutes to read and 30 seconds to run.
# You need lessons 08, 09 and 11: flash attention, the cache, the block and its work.
#
# What is measured here belongs to your machine.
# So your figures will differ from those you see before you run it.
# The sentences say what to look for; what a number must be, they say only where it is counted.

# %%
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from contextlib import chdir
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from ipywidgets import SelectionSlider, interact
from torch import nn
from torch.distributed import run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.utils.flop_counter import FlopCounterMode

from zeta_edu import TransformerBlock
from zeta_edu.attention import flash_attention, regular_attention
from zeta_edu.exercises import check, hint
from zeta_edu.lessonmap import show_block_map
from zeta_edu.views import cache_view, style

torch.manual_seed(0)
torch.set_num_threads(1)
style.use()
show_block_map(lit=("block",))

# %% [markdown]
# The whole block is lit: nothing of it will change but the time it takes.
# PyTorch is told to use one thread. What several threads change is the matter of a later cell.

# %% [markdown]
# ## One function, thirty times
#
# How long does a product of two matrices take?
# Read a clock before and after.
# There are two clocks.
# `perf_counter` is the one on the wall; `process_time` counts only the time in which a processor
# worked for this program.


# %%
def timed(function, clock=time.perf_counter):
    """The seconds that one call takes by this clock."""
    start = clock()
    function()
    return clock() - start


# %% tags=["nbval-ignore-output"]
# Not compared: these are times of this machine.
for name, clock in (("on the wall", time.perf_counter), ("of a processor", time.process_time)):
    print(f"a nap of 0.1 s takes {timed(lambda: time.sleep(0.1), clock):.3f} s {name}")

# %% [markdown]
# A program that waits, for its turn on a busy machine or for a file, takes time on the wall only.
# Where one thread does all the work, processor time is what the work itself costs.
#
# Here is one product, thirty times in a row.

# %% tags=["nbval-ignore-output"]
# Not compared: a picture of times of this machine.
wide = torch.randn(256, 256)
times = [1e6 * timed(lambda: wide @ wide, time.process_time) for _ in range(30)]
figure, axes = plt.subplots(figsize=(7, 2.6))
axes.plot(range(1, 31), times, "o", ms=5, color=style.QUERY)
axes.axhline(statistics.median(times), color=style.KEY, lw=1)
axes.set(xlabel="call", ylabel="microseconds", ylim=(0, None))
style.show(
    figure,
    alt="Dots: the processor time of each of thirty calls of the same function. The line is their "
    "median. What matters is that the dots differ.",
)

# %% [markdown]
# The same work, and different times.
# The first call is often the slowest, because memory is fetched and code is loaded: that is what a
# **warm-up** is for, a call that is not counted.
# Later ones may stand out too, mostly upwards: other programs get in the way, and none helps.
# The line is the **median**, the middle one when they are sorted.
# One slow call moves a mean; it does not move the median.

# %% [markdown]
# ## Taking turns
#
# We shall not ask how long something takes, but how many times as long as something else.
# Then the machine's moods cancel, *if* both meet the same ones.
# So let them take turns, in an order drawn anew in each round.


# %%
def measure(work, rounds=7, clock=time.process_time):
    """The median seconds of each of several functions, which take turns."""
    taken = {name: [] for name in work}
    for function in work.values():
        function()  # the warm-up
    for _ in range(rounds):
        for name in random.sample(list(work), len(work)):
            taken[name].append(timed(work[name], clock))
    return {name: statistics.median(times) for name, times in taken.items()}


# %% [markdown]
# Does it find the truth?
# On a real machine nobody knows the truth, so we make one up.
# On this machine work takes three times as long while somebody else works too, which is so for
# two fifths of the time, and the first call of anything takes ten times as long.
# Up to 2 % of noise comes on top.
# Its clock is a number that each call moves on, so nobody has to wait.


# %%
class BusyMachine:
    """A made-up machine with a clock of its own."""

    def __init__(self):
        self.now, self.seen, self.draw = 0.0, set(), random.Random(0)

    def work(self, name, seconds):
        first = 1 if name in self.seen else 10
        crowded = 3 if self.now % 1.3 > 0.78 else 1
        self.seen.add(name)
        self.now += seconds * first * crowded * self.draw.uniform(1, 1.02)


# %% [markdown]
# Program B really takes 1.1 times as long as program A: 33 ms against 30.
# First measure in the obvious way: twenty times A, then twenty times B, and compare the means.
# Then let them take turns, and compare the medians.


# %%
def programs():
    """The machine, and programs A and B on it."""
    machine = BusyMachine()
    work = {
        name: lambda n=name, s=s: machine.work(n, s) for name, s in (("A", 0.030), ("B", 0.033))
    }
    return machine, work


# %%
machine, work = programs()
in_a_row = {
    name: [timed(work[name], lambda: machine.now) for _ in range(20)] for name in ("A", "B")
}
means = {name: statistics.mean(times) for name, times in in_a_row.items()}
print(f"in a row, means:   B takes {means['B'] / means['A']:.2f} times as long as A")

# %%
random.seed(0)
machine, work = programs()
medians = measure(work, rounds=20, clock=lambda: machine.now)
print(f"in turns, medians: B takes {medians['B'] / medians['A']:.2f} times as long as A")

# %% [markdown]
# The first verdict calls B nearly twice as slow.
# B is as it was; its first call, and more of the later ones, met the crowd.
# The second verdict is right to a hundredth.

# %%
figure, axes = plt.subplots(figsize=(7, 2.8))
for start, (name, colour) in enumerate((("A", style.QUERY), ("B", style.KEY))):
    calls = range(1 + 20 * start, 21 + 20 * start)
    axes.bar(calls, [1000 * t for t in in_a_row[name]], color=colour, label=name)
axes.set(title="one after the other", xlabel="call", ylabel="milliseconds", yscale="log")
axes.set_yticks((10, 30, 100, 300, 1000), (10, 30, 100, 300, 1000))
axes.minorticks_off()
axes.legend(ncols=2)
style.show(
    figure,
    alt="Forty bars on a logarithmic axis, twenty calls of A and then twenty of B. The first of "
    "each is the highest; groups of bars, more of B than of A, are three times as high as the low "
    "ones.",
)

# %% [markdown]
# ## The floor
#
# What must a block do, whoever wrote it?
# Multiply by its matrices, score every query with the keys, and mix the values.
# Norm, rotation, gates and sums are small beside that, a clever program may hide them, and so the
# **floor** leaves them out.
# What it computes is useless. How long it takes is the point.


# %%
class Floor(nn.Module):
    """The matrix products of a block, and a softmax between two of them."""

    def __init__(self, block, flash=False):
        super().__init__()
        self.block, self.flash = block, flash

    def forward(self, x):
        block, heads = self.block, self.block.heads
        q, k, v, ff = block.fused_attn_ff_proj(x).split(block.fused_dims, dim=-1)
        q = q.unflatten(-1, (heads, -1)).transpose(1, 2)  # (b, h, n, d)
        mixed = self.attend(q, k[:, None], v[:, None])  # k and v (b, 1, n, d)
        out, into_ff_out = block.attn_out(mixed.transpose(1, 2).flatten(2)), block.ff_out[2]
        return out + into_ff_out(ff[..., : into_ff_out.in_features])

    def attend(self, q, k, v):
        if self.flash:
            k, v = (t.expand(-1, q.shape[1], -1, -1) for t in (k, v))
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return (q @ k.mT).softmax(dim=-1) @ v  # not even a mask


# %% [markdown]
# It has attention in two kinds, because neither is always the faster.
# The one that wins on your machine is the floor.
#
# First count what it does, as in lesson 11.
# Every weight of a matrix meets every token: one multiplication, one addition.
# Every query meets every key in all *h* heads of *d* numbers, once for the score and once for the
# mix.
# A block of 256 features with 4 heads of 64, one head of keys and values, and a feed-forward of
# 4 · 256 = 1024 has
# (256 + 64 + 64 + 2 · 1024) · 256 + 256 · 256 + 1024 · 256 = 950,272 weights in its matrices.
# For *n* tokens that makes
#
# $$2 \, n \cdot 950{,}272 + 4 \, n^2 \cdot 256$$
#
# **floating point operations**, FLOP for short.


# %%
def operations(block, n):
    """Multiplications and additions in the products of a block, for n tokens."""
    weights = sum(p.numel() for p in block.parameters() if p.ndim == 2)
    return 2 * n * weights + 4 * n * n * block.heads * block.dim_head


# %%
block = TransformerBlock(256, heads=4)
text = torch.randn(1, 128, 256)

# %%
for name, module in (("floor", Floor(block)), ("block", block)):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(text)
    print(
        f"{name}: {counter.get_total_flops():,}",
        counter.get_total_flops() == operations(block, 128),
    )

# %% [markdown]
# Floor and block do the same products.
# (In longer texts regular attention takes the queries in parts and skips some hidden pairs, and the
# flash kernel skips them too; the count is then a little high.)
# So what the block takes longer goes into what the floor has left out.
# How much is it here, forward, and forward and backward together?


# %%
def forward(module, x):
    with torch.inference_mode():
        module(x)


def both_ways(module, x):
    x = x.detach().requires_grad_()  # in a model the block before wants this gradient
    module.zero_grad()
    module(x).sum().backward()


# %%
flashing = TransformerBlock(256, heads=4, flash_attn=True)
candidates = {"floor": Floor(block), "floor, flash": Floor(block, flash=True)}
candidates |= {"block": block, "block, flash": flashing}

# %% tags=["nbval-ignore-output"]
# Not compared: these are times of this machine.
ratios, x = {}, torch.randn(1, 256, 256)
for way in (forward, both_ways):
    work = {name: lambda m=m, way=way: way(m, x) for name, m in candidates.items()}
    seconds = measure(work, rounds=5)
    floor = min(seconds["floor"], seconds["floor, flash"])
    ratios[way.__name__] = {name: taken / floor for name, taken in seconds.items()}
    done = operations(block, 256) * (1 if way is forward else 3)
    print(
        f"{way.__name__:9}: floor {1000 * floor:5.1f} ms, {done / floor / 1e9:.0f} GFLOP a second"
    )

# %% [markdown]
# Backward takes two products for each one forward, for the gradients of the input and of the
# weights; hence the 3.
# A GFLOP is a thousand million operations.

# %% tags=["nbval-ignore-output"]
# Not compared: a picture of times of this machine.
figure, all_axes = plt.subplots(1, 2, figsize=(7.4, 2.5), sharey=True)
colours = (style.MASK, style.MASK, style.OUTPUT, style.OUTPUT)
for axes, (name, found) in zip(all_axes, ratios.items(), strict=True):
    bars = axes.barh(list(found), list(found.values()), color=colours)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(1, color="black", ls=":", lw=1)
    axes.set(title=name.replace("_", " "), xlabel="times the floor")
    axes.set_xticks((0, 0.5, 1))
    axes.margins(x=0.15)
all_axes[0].invert_yaxis()
style.show(
    figure,
    alt="Bars of the time of two floors and two blocks, regular and flash, as multiples of the "
    "faster floor: forward on the left, forward and backward on the right. Measured where this "
    "was run.",
)

# %% [markdown]
# At 1.00 little is left to win: to pass the dotted line, a block would have to multiply faster than
# PyTorch does, or multiply less.
# The question about a block is then not how many milliseconds it takes, but how far it lies beyond
# that line.
# A wider block should come nearer to it: its products grow with the square of the width, norm,
# rotation and gates with the width alone.
# `python -m benchmarks block`, in the checkout of the project, asks it for the blocks of other
# packages too.

# %% [markdown]
# ## Why one token is so dear
#
# The floor itself depends on the machine in two ways.
# It multiplies so many numbers a second, and it fetches so many bytes a second.
# Which of the two holds a product up depends on how often each fetched number is used.
#
# Let *n* tokens of *d* numbers meet a matrix of *d* · *d* weights, four bytes each.
# That is $2 n d^2$ operations, and at least $4 (d^2 + 2 n d)$ bytes: the matrix, the tokens, and
# the results.
# Their quotient is the **intensity**, operations for each byte.


# %%
def intensity(n, d):
    return 2 * n * d * d / (4 * (d * d + 2 * n * d))


for n in (1, 16, 128):
    print(f"tokens {n:3}: {intensity(n, 4096):6.2f} operations for each byte")

# %% [markdown]
# By hand: while *n* is small beside *d*, the matrix is nearly all of the bytes, and the quotient is
# nearly *n* / 2.
# A single token fetches every weight for one multiplication and one addition.
#
# With *F* operations and *B* bytes a second, a product of intensity *I* can reach at most
#
# $$\min(F, \; I \cdot B)$$
#
# operations a second.
# Drawn against *I*, that is a slope and a ceiling: the **roofline** of the machine.
# Measure *F* with a large product, and *B* by adding up more numbers than most caches hold.

# %% tags=["nbval-ignore-output"]
# Not compared: these are speeds of this machine.
square, matrix = torch.randn(512, 512), torch.randn(4096, 4096)
seconds = measure({"multiply": lambda: square @ square, "fetch": lambda: matrix.sum()}, rounds=9)
peak, bandwidth = 2 * 512**3 / seconds["multiply"], 4 * 4096**2 / seconds["fetch"]
print(f"F = {peak / 1e9:.0f} GFLOP a second, B = {bandwidth / 1e9:.1f} GB a second")
print(f"the edge of the roof: {peak / bandwidth:.0f} operations for each byte")

# %% tags=["nbval-ignore-output"]
# Not compared: these are speeds of this machine.
counts = (1, 4, 16, 128)
inputs = {n: torch.randn(n, 4096) for n in counts}
seconds = measure({n: lambda x=x: x @ matrix for n, x in inputs.items()}, rounds=3)
reached = {n: 2 * n * 4096**2 / taken for n, taken in seconds.items()}
for n, taken in seconds.items():
    print(f"tokens {n:3}: {1000 * taken:5.1f} ms, {1000 * taken / n:6.2f} ms for each token")

# %% [markdown]
# Move the slider: as many tokens as it says are multiplied by a matrix of 4096 by 4096, here and
# now, and the point is drawn.
# (In a page without a running Python you see one choice only.)


# %%
TICKS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)


def draw_roof(tokens):
    x = torch.randn(tokens, 4096)
    taken = measure({"now": lambda: x @ matrix}, rounds=3)["now"]
    figure, axes = plt.subplots(figsize=(7, 3.4))
    at = torch.logspace(-1, 2.6, 200)
    roof = (at * bandwidth).clamp(max=peak) / 1e9
    axes.loglog(at, roof, color=style.MASK, label="the roof")
    others = [intensity(n, 4096) for n in counts]
    axes.loglog(others, [r / 1e9 for r in reached.values()], "o", color=style.QUERY, label="before")
    now = 2 * tokens * 4096**2 / taken / 1e9
    axes.loglog(intensity(tokens, 4096), now, "o", ms=11, color=style.OUTPUT, label="now")
    axes.set(xlabel="operations for each byte", ylabel="GFLOP a second")
    axes.set_xticks((0.1, 1, 10, 100), (0.1, 1, 10, 100))
    axes.set_yticks(TICKS, TICKS)
    axes.minorticks_off()
    axes.set(xlim=(0.1, 400), ylim=(float(roof[0]) / 1.5, 2e-9 * peak))
    axes.legend(loc="lower right")
    style.show(
        figure,
        alt="Operations a second against operations for each byte, both axes logarithmic. The roof "
        "is a slope that ends in a ceiling; dots show products with 1 to 128 tokens, and one "
        f"with {tokens}. Measured where this was run.",
    )


# %% tags=["nbval-ignore-output"]
# Not compared: a picture of speeds of this machine.
slider = SelectionSlider(options=[1, 2, 4, 8, 16, 32, 64], value=8, continuous_update=False)
_ = interact(draw_roof, tokens=slider)

# %% [markdown]
# Under the slope a product waits for memory, under the ceiling for arithmetic.
# A point that lies far below the roof waits for neither: its program could be better.
# (The roof is measured, too; a point may lie a little above it.)
#
# A prompt of hundreds of tokens is mostly under the ceiling, a single step of writing under the
# slope.
# Sixteen tokens fetch the same matrix once, as one token does, so each of them is cheaper: compare
# the last column above.
# This is why several texts are written at once where that is possible, and why fewer bytes for each
# weight make writing faster.

# %% [markdown]
# ## With a cache, and without
#
# A step without a cache reads the whole text again (lesson 09).
# The view shows what that costs by counting.
# Step through the text, and watch the work and the bytes.

# %%
line = "for x in range ( 3 ) : print ( x )"
tokens = line.split()
small_block = TransformerBlock(32, dim_head=8, heads=4)
cache_view(small_block, torch.randn(1, len(tokens), 32), prompt=4, tokens=tokens)

# %% [markdown]
# Now the same by the clock: one more token, after texts of several lengths.
# (Each call adds a token to the cache; six more make no difference here.)


# %%
def step_times(n):
    """Milliseconds for one more token after n, with a cache and without."""
    x, token = torch.randn(1, n + 1, 256), torch.randn(1, 1, 256)
    cache = block.new_cache(1, max_length=n + 6)
    with torch.inference_mode():
        block(x[:, :n], cache=cache)
        work = {"with": lambda: block(token, cache=cache), "without": lambda: block(x)}
        return {name: 1000 * taken for name, taken in measure(work, rounds=5).items()}


# %%
lengths = (32, 128, 512)
steps = [step_times(n) for n in lengths]

# %% tags=["nbval-ignore-output"]
# Not compared: a picture of times of this machine.
figure, axes = plt.subplots(figsize=(7, 2.9))
for name, colour in (("without", style.MASK), ("with", style.KEY)):
    taken = [step[name] for step in steps]
    axes.loglog(lengths, taken, "o-", color=colour, label=f"{name} a cache")
axes.set_xticks(lengths, lengths)
low, high = axes.get_ylim()
axes.set_yticks(TICKS, TICKS)
axes.minorticks_off()
axes.set(ylim=(low, high), xlabel="tokens before it", ylabel="milliseconds for one more")
axes.legend()
style.show(
    figure,
    alt="The time of one more token against the number of tokens before it, both axes logarithmic, "
    "with a cache and without. Measured where this was run.",
)

# %% [markdown]
# Without a cache the line climbs, for long texts about as fast as the length or faster.
# With one it is nearly flat, as long as the weights are more bytes than the cache.

# %% [markdown]
# ## Flash, by length
#
# Lesson 08 measured memory. Here is the time of attention alone, causal, with 4 heads of 64.
# *A whole table* is the attention of lesson 03: it writes down all the scores.
# The package's regular attention takes the queries in parts and skips what no query of a part may
# see.
# *Flash* is PyTorch's compiled kernel.


# %%
def whole_table(q, k, v):
    n = q.shape[-2]
    later = torch.ones(n, n, dtype=torch.bool).triu(1)
    return (q @ k.mT / 8).masked_fill(later, -torch.inf).softmax(dim=-1) @ v  # 8 is √64


# %%
ways = {
    "a whole table": whole_table,
    "regular": lambda *qkv: regular_attention(*qkv, causal=True),
    "flash": lambda *qkv: flash_attention(*qkv, causal=True),
}

# %%
lengths, taken = (128, 256, 512), {name: [] for name in ways}
for n in lengths:
    qkv = torch.randn(3, 1, 4, n, 64)
    with torch.inference_mode():
        work = {name: lambda f=f, qkv=qkv: f(*qkv) for name, f in ways.items()}
        seconds = measure(work, rounds=5)
    for name in ways:
        taken[name].append(1e6 * seconds[name] / n)

# %% tags=["nbval-ignore-output"]
# Not compared: a picture of times of this machine.
figure, axes = plt.subplots(figsize=(7, 2.9))
looks = ((style.MASK, "o:"), (style.KEY, "o--"), (style.QUERY, "o-"))
for name, (colour, look) in zip(ways, looks, strict=True):
    axes.plot(lengths, taken[name], look, color=colour, label=name)
axes.set(xlabel="tokens", ylabel="microseconds a token", xticks=lengths, ylim=(0, None))
axes.legend()
style.show(
    figure,
    alt="The time of attention for each token against the number of tokens, for a whole table, for "
    "regular attention in parts and for flash. Measured where this was run.",
)

# %% [markdown]
# All three do work that grows with the square of the length, so the time for each token grows with
# the length.
# How much the whole table loses depends on how slow memory is beside arithmetic: much
# where arithmetic is fast, as on a GPU, little on some processors.

# %% [markdown]
# ## Compiled
#
# Between the products there are small steps.
# Take SwiGLU as a formula: `value * gate / (1 + exp(-gate))`.
# PyTorch does one operation after the other, and each reads its input from memory and writes its
# result there.
# A compiler can put them into *one* loop, which reads value and gate once and writes once.


# %%
def swiglu(x):
    value, gate = x.chunk(2, dim=-1)  # (..., inner) each
    return value * gate / (1 + torch.exp(-gate))


# %% [markdown]
# Count the numbers that travel, for each inner feature.
# In steps: −gate reads 1 and writes 1, so does exp, so does the sum with 1; the product reads 2 and
# writes 1; the quotient reads 2 and writes 1.
# That is 12. In one loop it is 3.
#
# `torch.compile` has two halves. The first follows the Python code once, and writes down the
# operations as a **graph**; the second makes a program of it.
# In place of the second we may give a function of our own. This one only looks.

# %%
graphs = []


def look(graph, inputs):
    """Keep the graph, and run it as it is."""
    graphs.append([node.name for node in graph.graph.nodes if node.op.startswith("call")])
    return graph.forward


# %%
torch._dynamo.reset()  # forget what was compiled before
looked_at = torch.compile(swiglu, backend=look, fullgraph=True)
looked_at(torch.randn(4, 8))
print(*graphs[0])

# %% [markdown]
# Those are the operations; `value` and `gate` are the steps that unpack the chunks.
# `fullgraph=True` asks for an error where Python code cannot be followed; else such code cuts the
# graph in two, without a word.
#
# A graph holds for the shapes it was made with.
# For a second length the compiler makes another one, in which the length is a variable, and after
# that no more.

# %%
graphs.clear()
torch._dynamo.reset()
looked_at = torch.compile(swiglu, backend=look, fullgraph=True)
for n in range(4, 24):
    looked_at(torch.randn(n, 8))
print("graphs for 20 lengths:", len(graphs))

# %% [markdown]
# The package's block as a whole can be followed as well: the project's tests compile it with
# `fullgraph=True`, forwards, backwards and with a cache, and count its graphs.

# %% [markdown]
# Now for a real program.
# On a CPU PyTorch writes C++ and needs a compiler for it; where there is none, the cell says so,
# and the lesson goes on.

# %% tags=["nbval-ignore-output"]
# Not compared: times of this machine, and whether it has a C++ compiler.
torch._dynamo.reset()
pairs = torch.randn(512, 2048)
quick = {"cpp_cache_precompile_headers": False, "cpp.vec_isa_ok": True}  # no preparations
try:
    fused = torch.compile(swiglu, fullgraph=True, options=quick)
    with torch.inference_mode(), warnings.catch_warnings(action="ignore"):
        print(f"the first call takes {timed(lambda: fused(pairs)):.1f} s: it compiles")
        ways = {"step by step": lambda: swiglu(pairs), "compiled": lambda: fused(pairs)}
        for name, taken in measure(ways, rounds=15).items():
            print(f"{name:12} {1000 * taken:.2f} ms")
        print("the same:", torch.allclose(fused(pairs), swiglu(pairs), atol=1e-5))
except Exception as error:  # it has many names, by version
    print(f"torch.compile cannot be used here: {type(error).__name__}.")

# %% [markdown]
# Twelve against three promises a factor of 4, where memory is what the steps wait for.
# Your own figure may be larger, since the compiled loop takes its exponentials in another way, or
# smaller, where all the numbers fit into a cache.
# What all such steps of a block take is how far its bar stands above the floor; compiling it can
# win about that much and no more.
# So it gains most where the operations are many and small.

# %% [markdown]
# ## Half the bytes
#
# `bfloat16` has the range of `float32`, and 8 bits for the digits instead of 24.
# Near 1 the next number is 1 + 1/128, and all between are rounded.

# %%
for number in (1 + 1 / 128, 1 + 1 / 256, 1 - 0.001, 3e38):
    print(f"{number:<12.6g} becomes {torch.tensor(number, dtype=torch.bfloat16).item():.6g}")

# %% [markdown]
# The third line is why one seldom *trains* weights in bfloat16: a weight of 1 that should fall by
# 0.001 stays where it is.
# Instead one keeps weights in float32, and turns them to bfloat16 for the products only. In PyTorch
# that is called autocast, in `zeta-edu train` it is `--bf16`.
#
# What is lost, and what is gained, in one block?

# %%
exact = TransformerBlock(64, dim_head=16, heads=4).double()
few = torch.randn(1, 32, 64, dtype=torch.double)
with torch.no_grad():
    right = exact(few)
    for dtype, allowed in ((torch.float32, 1e-5), (torch.bfloat16, 0.03)):
        rounded = TransformerBlock(64, dim_head=16, heads=4).to(dtype)
        rounded.load_state_dict(exact.state_dict())
        error = (rounded(few.to(dtype)).double() - right).norm() / right.norm()
        size = sum(p.numel() * p.element_size() for p in rounded.parameters())
        print(
            f"{str(dtype)[6:]:8}  {size:7,} bytes, error below {allowed}: {bool(error < allowed)}"
        )

# %% [markdown]
# Half the bytes, and twice the intensity: under the slope of the roof that is up to twice as fast.
# Under the ceiling it depends on the processor.
# One with units for bfloat16, such as AMX or AVX-512 with BF16, or a GPU, can be several times
# faster.
# One without has to turn every number to float32 and back, and can be many times *slower*.
# So here is a small product, and beside it `medium`, which lets PyTorch take a faster way for
# float32 as well, if it knows one.

# %%
sides = torch.randn(2, 128, 128)
halves = sides.bfloat16()
work = {"float32": lambda: sides[0] @ sides[1], "bfloat16": lambda: halves[0] @ halves[1]}


def medium():
    torch.set_float32_matmul_precision("medium")
    product = work["float32"]()
    torch.set_float32_matmul_precision("highest")
    return product


# %%
work["medium"] = medium
seconds = measure(work, rounds=9)
products = {name: multiply() for name, multiply in work.items()}

# %% tags=["nbval-ignore-output"]
# Not compared: times of this machine, and errors that depend on its processor.
right = sides[0].double() @ sides[1].double()
for name, product in products.items():
    error = (product.double() - right).norm() / right.norm()
    print(f"{name:8} {seconds[name] / seconds['float32']:5.1f} times the time, error {error:.0e}")

# %% [markdown]
# `medium` is a setting for the whole process, so a library must not touch it; `zeta-edu train` sets
# it, and says so.
# Look at both columns before you use it: on some processors it changes nothing, on some only the
# time, on some the error too.

# %% [markdown]
# ## Two threads, two processes
#
# The cheapest way to use two cores is two threads: PyTorch cuts one product into two halves.

# %% tags=["nbval-ignore-output"]
# Not compared: these are times of this machine.
for threads in (1, 2):
    torch.set_num_threads(threads)
    for name, clock in (("wall", time.perf_counter), ("processors", time.process_time)):
        taken = measure({"product": lambda: square @ square}, rounds=7, clock=clock)["product"]
        print(f"threads: {threads}, {1000 * taken:5.2f} ms by the clock of the {name}")
torch.set_num_threads(1)

# %% [markdown]
# If a second core is free, time on the wall falls. Processor time does not: it counts both.
# With several threads, then, only the wall says how long you wait.
#
# Threads share one machine's memory. To use several machines, or several GPUs, one starts several
# **processes**: each has its own memory, and they send each other messages.

# %% [markdown]
# ## Sharing a batch
#
# Let every process have a copy of the model, and read its own rows of the batch.
# A process finds the gradient of its rows. The gradient of the batch is some mean of them.
# Which one?
#
# Process 0 has one target with loss 4. Process 1 has three targets, with loss 1 each.

# %%
losses = [torch.tensor([4.0]), torch.tensor([1.0, 1.0, 1.0])]
print("the mean of all: ", torch.cat(losses).mean().item())
print("the mean of means:", statistics.mean(loss.mean().item() for loss in losses))

# %% [markdown]
# The mean of means is wrong as soon as the processes have different numbers of targets, as they do
# when some are padding.
# Write *p* for the number of processes, *T* for the targets of the *whole* batch, and $\ell_i$ for
# the loss of target *i*.
# Let process *r* take
#
# $$L_r = \frac{p}{T} \sum_{i \in r} \ell_i, \qquad \text{so that} \qquad
# \frac{1}{p} \sum_r L_r = \frac{1}{T} \sum_i \ell_i.$$
#
# The mean over processes is then the loss of the batch.
# Taking the gradient keeps sums and factors, so the same holds for gradients.
# By hand: 2/4 · 4 = 2 and 2/4 · 3 = 1.5, and their mean is 1.75.
#
# Each process will be a program of its own and needs the code as well, so it goes into a file, from
# which we import it.
# First a small model of the package's blocks, put together as in lesson 11, and lines that count up
# in threes, of several lengths.
# `-100` marks a target that is not there.

# %%
keeper = tempfile.TemporaryDirectory()  # it goes when the notebook does
folder = Path(keeper.name)
sys.path.insert(0, str(folder))
_ = (folder / "counting.py").write_text('''
import torch
from zeta_edu.lm import TransformerLM


def new_model(seed=0):
    torch.manual_seed(seed)
    return TransformerLM(20, dim=16, depth=2, heads=2, dim_head=8, ff_mult=2).double()


def batch(step, rows=8, length=12):
    """Inputs and targets (rows, length): lines that count up in threes, modulo 20."""
    draw = torch.Generator().manual_seed(step)
    start, real = (torch.randint(1, 13, (rows, 1), generator=draw) for _ in range(2))
    lines = (start + 3 * torch.arange(length + 1)) % 20  # (rows, length + 1)
    padding = torch.arange(length) >= real
    return lines[:, :-1], lines[:, 1:].masked_fill(padding, -100)
''')

# %%
from counting import batch, new_model

inputs, targets = batch(0)
print(inputs[0].tolist())
print(targets[0].tolist())

# %% [markdown]
# Then the loss of a process, exactly as above, for its rows of the batch.

# %%
_ = (folder / "sharing.py").write_text('''
import torch.nn.functional as F


def own_loss(model, inputs, targets, rank, processes):
    """The loss of one process; its mean over processes is that of the batch."""
    all_targets = (targets != -100).sum()
    mine, wanted = (t.chunk(processes)[rank] for t in (inputs, targets))
    logits = model(mine).flatten(0, 1)  # (tokens, 20)
    loss = F.cross_entropy(logits, wanted.flatten(), ignore_index=-100, reduction="sum")
    return loss * processes / all_targets
''')

# %% [markdown]
# Before there are processes, play both of them here, one after the other.

# %%
from sharing import own_loss


def gradients(model, inputs, targets, rank=0, processes=1):
    """The loss of a process, and its gradients."""
    loss = own_loss(model, inputs, targets, rank, processes)
    return loss.detach(), torch.autograd.grad(loss, list(model.parameters()))


# %%
model = new_model()
alone, whole = gradients(model, *batch(0))
shares = [gradients(model, *batch(0), rank, processes=2) for rank in (0, 1)]
print("losses:", [round(loss.item(), 3) for loss, _ in shares], "  alone:", round(alone.item(), 3))

# %%
averages = [(one + other) / 2 for one, other in zip(shares[0][1], shares[1][1], strict=True)]
errors = [(mine - given).abs().max() for mine, given in zip(averages, whole, strict=True)]
print("gradients differ by less than 1e-14:", max(errors).item() < 1e-14)

# %% [markdown]
# With the same start and the same average, both processes take the same step, and stay equal for
# ever.
# Nothing but gradients has to be sent, where each can count the targets of the whole batch.
# This is **data parallelism**.

# %% [markdown]
# ## Started by torchrun
#
# `torchrun` starts a program several times, and tells each through the environment which one it is
# (`RANK`) and how many there are (`WORLD_SIZE`).
# `init_process_group` lets them find each other; `gloo` is the kind of messages that CPUs use, as
# `nccl` is for GPUs of one maker.
# `all_reduce` adds up a tensor over all processes, and every process gets the sum.
#
# The program trains the model in three ways.
# *By hand* averages the gradients with `all_reduce`.
# *DDP*, short for `DistributedDataParallel`, does the same, while the backward pass still runs: as
# soon as some gradients are ready, it sends them.
# *FSDP2*, `fully_shard`, goes further, and comes next.

# %%
_ = (folder / "kinds.py").write_text('''
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel


def prepare(model, kind):
    """What to call in place of the model."""
    if kind == "DDP":
        return DistributedDataParallel(model)
    if kind == "FSDP2":
        for block in model.blocks:
            fully_shard(block)
        fully_shard(model)
    return model


def average(model):
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()
''')

# %% [markdown]
# With FSDP2 a process keeps only *its part* of every weight.
# Just before a block computes, its whole weights are gathered from all processes, and dropped
# afterwards; after the backward pass each process gets the average of its own part of the gradient.
# So weights, gradients and what the optimizer keeps are all spread out.

# %%
_ = (folder / "together.py").write_text("""
import os
import torch
import torch.distributed as dist
from counting import batch, new_model
from kinds import average, prepare
from sharing import own_loss

dist.init_process_group("gloo")
rank, processes = dist.get_rank(), dist.get_world_size()
results = {}
for kind in ("by hand", "DDP", "FSDP2"):
    model, losses = new_model(), []
    called = prepare(model, kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, betas=(0.9, 0.95), weight_decay=0)
    for step in range(10):
        loss = own_loss(called, *batch(step), rank, processes)
        loss.backward()
        if kind == "by hand":
            average(model)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    weights = list(model.parameters())
    held = sum((w.to_local() if kind == "FSDP2" else w).numel() for w in weights)
    weights = [(w.full_tensor() if kind == "FSDP2" else w).detach() for w in weights]
    results[kind] = {"losses": torch.stack(losses), "held": held, "weights": weights}
torch.save(results, f"process{rank}.pt")
dist.barrier()
os._exit(0)  # without taking the group down, which may wait for ever
""")


# %%
def torchrun(script, processes=2):
    """Run a script of the folder in several processes; show what they say when they fail."""
    options = f"--standalone --nproc-per-node {processes} --redirects 3 --log-dir said"
    options += " --local-addr localhost"  # so that no name is looked up in a network
    options += " --signals-to-handle SIGUSR1"  # the others belong to the notebook
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with chdir(folder):
        try:
            run.main([*options.split(), script])
        except ChildFailedError:
            said = "".join(path.read_text() for path in Path("said").rglob("stderr.log"))
            raise RuntimeError(said[-3000:]) from None


# %%
torchrun("together.py")
results = [torch.load(folder / f"process{rank}.pt") for rank in (0, 1)]

# %% [markdown]
# `run.main` is what the command `torchrun` calls; in a shell this is
# `torchrun --nproc-per-node 2 together.py`.
# What did the two processes find?

# %%
for kind in ("by hand", "DDP", "FSDP2"):
    first, second = (result[kind] for result in results)
    mean = (first["losses"] + second["losses"]) / 2
    print(f"{kind:8}", *(f"{loss:.3f}" for loss in mean.tolist()))

# %% [markdown]
# The same numbers three times, and they fall.
# One process, which reads all rows itself, must find them too.


# %%
def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=0.02, betas=(0.9, 0.95), weight_decay=0)


# %%
model, alone = new_model(), []
optimizer = adamw(model)
for step in range(10):
    loss, found = gradients(model, *batch(step))
    for parameter, gradient in zip(model.parameters(), found, strict=True):
        parameter.grad = gradient
    optimizer.step()
    alone.append(loss)

# %%
for kind in ("by hand", "DDP", "FSDP2"):
    mean = sum(result[kind]["losses"] for result in results) / 2
    pairs = zip(
        results[0][kind]["weights"], results[1][kind]["weights"], model.parameters(), strict=True
    )
    errors = [max((a - c).abs().max(), (b - c).abs().max()).item() for a, b, c in pairs]
    same = torch.allclose(mean, torch.stack(alone), rtol=0, atol=1e-12)
    print(f"{kind:8} losses as alone: {same}, weights as alone: {max(errors) < 1e-12}")

# %%
figure, axes = plt.subplots(figsize=(7, 2.9))
for rank, colour in ((0, style.QUERY), (1, style.KEY)):
    own = results[rank]["DDP"]["losses"]
    axes.plot(range(10), own, "o:", ms=4, color=colour, label=f"process {rank}, its share")
axes.plot(range(10), alone, color=style.MASK, label="alone")
mean = (results[0]["DDP"]["losses"] + results[1]["DDP"]["losses"]) / 2
axes.plot(range(10), mean, "o", ms=7, color=style.OUTPUT, label="mean of both")
axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
style.show(
    figure,
    alt="Ten steps. The shares of the two processes lie apart, above and below; the dots of their "
    "mean lie on the line of a single process, which falls.",
)

# %% [markdown]
# ## Who holds what
#
# How many numbers does each process hold?

# %%
count = sum(p.numel() for p in model.parameters())
print("the model:", count)
for kind in ("by hand", "DDP", "FSDP2"):
    print(f"{kind:8}", [result[kind]["held"] for result in results])

# %% [markdown]
# With DDP each holds all, with FSDP2 half: this is what makes *bigger* possible.
# In training a weight of four bytes has a gradient of four bytes, and AdamW keeps two moments, the
# running means of the gradient and of its square.

# %%
trained = nn.Linear(100, 100, bias=False)
optimizer = torch.optim.AdamW(trained.parameters())
trained(torch.randn(1, 100)).sum().backward()
optimizer.step()
kept = [trained.weight, trained.weight.grad]
kept += [optimizer.state[trained.weight][name] for name in ("exp_avg", "exp_avg_sq")]
print("bytes for each weight:", sum(t.numel() * t.element_size() for t in kept) / 100**2)

# %% [markdown]
# Sixteen bytes, so a model of a thousand million weights needs 16 GB before it has read a token.

# %%
figure, axes = plt.subplots(figsize=(7, 2.9))
many = (1, 2, 4, 8, 16, 32)
axes.loglog(many, [16 for _ in many], "o--", color=style.KEY, label="DDP")
axes.loglog(many, [16 / p for p in many], "o-", color=style.QUERY, label="FSDP2")
axes.set_xticks(many, many)
axes.set_yticks((0.5, 1, 2, 4, 8, 16), (0.5, 1, 2, 4, 8, 16))
axes.minorticks_off()
axes.set(xlabel="processes", ylabel="GB in each")
axes.set_title("weights, gradients and moments of 10⁹ weights")
axes.legend()
style.show(
    figure,
    alt="Gigabytes in each process against the number of processes. DDP stays at 16; FSDP2 halves "
    "with each doubling, from 16 to 0.5.",
)

# %% [markdown]
# On top come the gathered weights of the block that computes, and what the forward pass keeps for
# the backward pass; that depends on the rows that a process reads.
# And nothing is free: DDP sends each gradient once, FSDP2 sends the weights as well, and again for
# the backward pass.

# %% [markdown]
# ## The proof
#
# The package trains by `backward` and `update` of `zeta_edu.lm.training`, and shares a batch by
# `zeta_edu.lm.parallel`.
# First let it believe that it is one process of several, without sending anything: `patch.multiple`
# puts functions of ours in place of its own for a while.
# Compare what each computes: losses, and gradients in double precision, with padding, and with the
# rows cut into parts whose gradients add up; and once with its own loss function, which works in
# float32.
# Then train with it in a single process, and compare with what your two processes found.

# %% tags=["proof"]
from contextlib import nullcontext
from unittest.mock import patch

from zeta_edu.lm import TrainingOptions, parallel
from zeta_edu.lm.training import backward, make_loss, make_optimizer, update

close, model = torch.testing.assert_close, new_model()


def double_loss(inputs, targets):
    return F.cross_entropy(model(inputs).mT, targets, ignore_index=-100, reduction="sum")


def compare_share(rank, processes, parts, data, loss=double_loss, error=1e-12):
    pretence = {"processes": lambda: processes, "rank": lambda: rank, "total": lambda value: value}
    with patch.multiple(parallel, averaging=lambda *_, **__: nullcontext(), **pretence):
        mean = backward(loss, data, parts, model)  # divided, as for a sum over the processes
    own, found = gradients(model, *data, rank, processes)
    close(processes * mean, own.item(), rtol=1e-6, atol=1e-6)  # the package adds up in float32
    for parameter, gradient in zip(model.parameters(), found, strict=True):
        close(parameter.grad, gradient, rtol=error, atol=error)
        parameter.grad = None


for processes, parts in ((1, 1), (1, 4), (2, 1), (2, 2), (4, 2)):
    for rank in range(processes):
        compare_share(rank, processes, parts, batch(processes))
options = TrainingOptions(steps=10, learning_rate=0.02, weight_decay=0)
compare_share(1, 2, 2, batch(0), make_loss(model, options), error=1e-5)

# %% tags=["proof"]
optimizer, mean_losses, largest = make_optimizer(model, options), [], 0.0
for step in range(10):
    mean_losses.append(backward(double_loss, batch(step), 2, model))
    update(model, optimizer, clip=float("inf"))
for kind in ("by hand", "DDP", "FSDP2"):
    both = sum(result[kind]["losses"] for result in results) / 2
    close(both.tolist(), mean_losses, rtol=1e-6, atol=1e-6)
    for result in results:
        for mine, theirs in zip(result[kind]["weights"], model.parameters(), strict=True):
            close(mine, theirs.data, rtol=1e-11, atol=1e-12)
            largest = max(largest, (mine - theirs).abs().max().item())
print("largest error of a weight below 1e-12:", largest < 1e-12)

# %% [markdown]
# What your two processes do is what the package does, alone and shared.
# `torchrun --nproc-per-node 2 -m zeta_edu train --text my-folder --out my-model` starts it in two;
# with `--fsdp` it shards.

# %% [markdown]
# ## What goes wrong: the two drift apart
#
# Three things are easily forgotten: to average at all, to divide the sum, and to start from the
# same weights.
# Play two processes here again, each with its own model and plain gradient descent.
# `mix` says what they do with their gradients.


# %%
def play(mix, seeds=(0, 0), make=lambda model: torch.optim.SGD(model.parameters(), lr=0.3)):
    """Train two processes; return the loss of each step, and how far apart their weights are."""
    models = [new_model(seed) for seed in seeds]
    optimizers = [make(model) for model in models]
    losses, apart = [], []
    for step in range(16):
        shares = [gradients(models[rank], *batch(step), rank, 2) for rank in (0, 1)]
        pairs = list(zip(shares[0][1], shares[1][1], strict=True))
        for rank in (0, 1):
            for parameter, pair in zip(models[rank].parameters(), pairs, strict=True):
                parameter.grad = mix(pair, rank)
            optimizers[rank].step()
        losses.append((shares[0][0] + shares[1][0]).item() / 2)
        both = [torch.cat([p.data.flatten() for p in model.parameters()]) for model in models]
        apart.append((both[0] - both[1]).norm().item())
    return losses, apart


# %%
def averaged(pair, rank):
    return (pair[0] + pair[1]) / 2


runs = {
    "averaged": play(averaged),
    "never sent": play(lambda pair, rank: pair[rank]),
    "not divided": play(lambda pair, rank: pair[0] + pair[1]),
    "other seeds": play(averaged, seeds=(0, 1)),
}

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.2))
looks = ((style.QUERY, "-"), (style.KEY, "--"), (style.VALUE, "-."), (style.OUTPUT, ":"))
for (name, (losses, apart)), (colour, look) in zip(runs.items(), looks, strict=True):
    left.plot(losses, look, color=colour, label=name)
    right.plot(apart, look, color=colour)
left.set(title="loss", xlabel="step", ylim=(0, None))
right.set(title="how far apart", xlabel="step")
left.legend(fontsize=10)
style.show(
    figure,
    alt="Sixteen steps of four trainings. Left: the loss. Right: the distance of the two "
    "processes' weights: zero when averaged and when not divided, growing when never sent, large "
    "from the start with other seeds.",
)

# %%
for name, (losses, apart) in runs.items():
    print(f"{name:12} loss lower: {losses[-1] < losses[0]}, weights equal: {apart[-1] == 0}")

# %% [markdown]
# Every loss ends below its start; only the sum that is not divided looks odd. The loss of the two
# others does not tell.
# Processes that send nothing are two trainings on half of the data, of which one is kept.
# With other seeds each process follows a gradient that belongs, in half, to other weights.
# The test is on the right, where two lines lie on each other at zero: compare the weights of the
# processes. Real programs send those of
# process 0 to all at the start; DDP does it when it is made.
#
# A sum that is not divided keeps the two equal. It acts as a learning rate that is *p* times as
# high, and with AdamW not even that shows: it divides each step by the gradient's own size.

# %%
divided, _ = play(averaged, make=adamw)
summed, _ = play(lambda pair, rank: pair[0] + pair[1], make=adamw)
by_sgd = runs["averaged"][0], runs["not divided"][0]
for name, pair in (("SGD  ", by_sgd), ("AdamW", (divided, summed))):
    furthest = max(abs(a - b) for a, b in zip(*pair, strict=True))
    print(f"{name} same losses to 1e-3:", furthest < 1e-3)

# %% [markdown]
# Yet it is not harmless there: what clips the gradient at a norm of 1 clips at one *p*-th.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell: `check` says what is right, or what went wrong.
# Below each is its hint; run that cell again for the next one.

# %% [markdown]
# ### 1. What training costs
#
# Difficulty ★☆☆, 5 minutes.
# How many floating point operations does one step of *training* take, for a stack of `depth` blocks
# on a text of `n` tokens?
# Each block has `weights` numbers in its matrices, and `width` = heads · d; multiplications and
# additions count apart, all pairs of queries and keys are computed, and the backward pass takes
# twice the forward pass.
# All arguments are tensors of one whole number, and so is the result.


# %% tags=["exercise"]
def training_operations(n, depth, weights, width):
    return ...


check("faster.operations", training_operations)

# %%
hint("faster.operations")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def training_operations(n, depth, weights, width):
#     return 3 * depth * (2 * n * weights + 4 * n * n * width)
# ```
#
# Without the second term that is six operations for each weight and token, the rule of thumb for
# short texts.
#
# </details>

# %% [markdown]
# ### 2. Under the roof
#
# Difficulty ★★☆, 10 minutes.
# `tokens` (products,) says how many tokens each of several products multiplies by a matrix of `d`
# by `d` weights; all numbers take `size` bytes.
# The machine does `peak` operations a second and fetches `bandwidth` bytes a second.
# Return the seconds that each product takes at least, (products,).
# Matrix, tokens and results are moved once.


# %% tags=["exercise"]
def least_seconds(tokens, d, size, peak, bandwidth):
    return ...


check("faster.roof", least_seconds)

# %%
hint("faster.roof")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# The operations take their time and the bytes take theirs; at best they overlap entirely.
#
# ```python
# import torch
#
#
# def least_seconds(tokens, d, size, peak, bandwidth):
#     operations = 2 * tokens * d * d
#     moved = size * (d * d + 2 * tokens * d)
#     return torch.maximum(operations / peak, moved / bandwidth)
# ```
#
# </details>

# %% [markdown]
# ### 3. How many times as long?
#
# Difficulty ★★☆, 10 minutes.
# `times` (rounds, programs) holds seconds, in rounds of which the first is the warm-up.
# An odd number of rounds comes after it.
# Return how many times as long each program takes as program 0, from medians, (programs,).


# %% tags=["exercise"]
def times_as_long(times):
    return ...


check("faster.ratio", times_as_long)

# %%
hint("faster.ratio")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def times_as_long(times):
#     medians = times[1:].median(dim=0).values
#     return medians / medians[0]
# ```
#
# </details>

# %% [markdown]
# ### 4. One gradient from many
#
# Difficulty ★★☆, 10 minutes.
# Each process has the gradient of the *mean* loss of its own targets: `gradients`
# (processes, numbers), and `targets` (processes,), how many each had.
# A process without targets has zeros.
# Return the gradient of the mean over all targets, (numbers,).


# %% tags=["exercise"]
def joint_gradient(gradients, targets):
    return ...


check("faster.average", joint_gradient)

# %%
hint("faster.average")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# Times its targets, each is the gradient of a sum, and sums add up.
#
# ```python
# def joint_gradient(gradients, targets):
#     sums = gradients * targets[:, None]
#     return sums.sum(dim=0) / targets.sum()
# ```
#
# The package never has this trouble: it adds up losses, and divides by the targets of all.
#
# </details>

# %% [markdown]
# ## What you have now
#
# Times are compared in turns, after a warm-up, by their medians, and against a floor.
# A product is held up by arithmetic or by memory, and its intensity tells which; a single token
# waits for memory.
# The cache saves work, flash and compiling save memory traffic, bfloat16 halves the bytes, and each
# of them helps where its part is what you wait for.
# Several processes share a batch: sums of losses over *all* targets, gradients averaged, the same
# weights in each. FSDP2 spreads the weights, the gradients and the moments as well.
#
# **References.**
# The roofline: Williams, Waterman and Patterson 2009, Roofline: an insightful visual performance
# model for multicore architectures, Communications of the ACM 52 (4).
# Memory traffic of decoding: Shazeer 2019, [arXiv:1911.02150](https://arxiv.org/abs/1911.02150),
# section 2.4.
# Gradients sent while the backward pass runs: Li et al. 2020, PyTorch Distributed,
# [arXiv:2006.15704](https://arxiv.org/abs/2006.15704), section 3.2.
# Weights, gradients and moments spread over processes: Rajbhandari et al. 2020, ZeRO,
# [arXiv:1910.02054](https://arxiv.org/abs/1910.02054), section 5; in the first FSDP of
# PyTorch: Zhao et al. 2023, [arXiv:2304.11277](https://arxiv.org/abs/2304.11277).
# Training with weights kept in float32: Micikevicius et al. 2018,
# [arXiv:1710.03740](https://arxiv.org/abs/1710.03740), section 3.1.
#
# **Next.** This was the last lesson. You have built a transformer block, proved it, and trained it.
# Train a model on a text of your own: `zeta-edu train --text my-folder --out my-model`, and look
# into it with the views of the [gallery](gallery.ipynb).
# `benchmarks/README.md` says how the block compares with those of other packages, and how that was
# measured.
# And if a sentence in these lessons stopped you, `CONTRIBUTING.md` says how to mend it.
# All lessons are on the map of [lesson 00](00-start-here.ipynb).
