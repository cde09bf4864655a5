# %% [markdown]
# # 12 · A model learns to copy
#
# The weights of a model are fixed when it reads.
# Yet it can go on with a pattern that was made up a moment ago and stood in no training text.
# **How does a model use what it has read only once?**
#
# In this lesson you train a model of two blocks, here in the notebook, and watch how it comes to
# copy from its own text.
# You write the rule down by hand, build it out of two looks, measure each head against it while
# the training runs, and switch the heads off one by one.
#
# It takes about 45 minutes to read and 75 seconds to run.
# You need lessons 01 to 04 and 07: attention, heads, the causal mask, rotation, and the parallel
# block; the recorder is that of lesson 00.

# %%
import copy
import itertools

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange
from ipywidgets import IntSlider, interact
from torch import nn

from zeta_edu import TransformerBlock, record_attention
from zeta_edu.exercises import check, hint
from zeta_edu.lessonmap import show_block_map
from zeta_edu.views import attention_view, style

torch.manual_seed(0)
style.use()
show_block_map(lit=("block",))

# %% [markdown]
# The block of the map is finished.
# From here on it is a part: two of them make the model of this lesson.

# %% [markdown]
# ## Lines that nobody has seen
#
# Each line has a circle of its own: some letters in a random order.
# A walker goes round it and calls out every letter.
# Here is a circle of four, and a walk of ten steps.

# %%
circle = "dbca"
places = [step % 4 for step in range(10)]
"".join(circle[place] for place in places)

# %% [markdown]
# After one round everything is known: after `d` comes `b`, and so on.
# But this line has a second regularity.
# Every letter is the one that came four places before, whatever it is.
# To find its place, nobody need compare letters.
#
# So the walker leaps now and then, to a place further on.
# The order of the circle stays; the distances do not.

# %%
moves = [0, 1, 1, 1, 1, 3, 1, 1, 2, 1]  # 1 is a step, all above it are leaps
places = torch.tensor(moves).cumsum(dim=0) % 4
"".join(circle[place] for place in places)

# %% [markdown]
# Now many lines at once, of 32 letters each.
# Their circles take 8 to 14 of the letters a to p, so that even without a leap no one distance fits
# all lines.
# One move in ten is a leap of 2 to 7 places: it never ends on the next letter, nor where it began.

# %%
ALPHABET = "abcdefghijklmnop"


def draw_lines(count, generator, leaps=0.1, sizes=(8, 14)):
    """Lines of 32 letters as numbers 0 to 15: (count, 32)."""
    orders = torch.rand(count, 16, generator=generator).argsort(dim=-1)  # (count, 16)
    size = torch.randint(sizes[0], sizes[1] + 1, (count, 1), generator=generator)
    is_leap = torch.rand(count, 32, generator=generator) < leaps
    far = torch.randint(2, 8, (count, 32), generator=generator)
    places = torch.where(is_leap, far, 1).cumsum(dim=-1) % size  # within the circle
    return orders.gather(-1, places)


def spell(line):
    return "".join(ALPHABET[letter] for letter in line)


# %%
new_lines = draw_lines(256, torch.Generator().manual_seed(1000))  # kept for measuring
for line in new_lines[:4]:
    print(spell(line))

# %% [markdown]
# Of 12 letters alone there are 16 · 15 · ... · 5, about 900 billion orders.
# No model of ours will learn them by heart.
#
# Which letters of a line can be known?
# Those that end a pair which the line has had before: `b` after `d`, when `db` has been read.
# Call them *repeated*, and all others *first*.
# A pair becomes one number, 16 · first letter + second letter, and every pair is compared with
# all earlier ones.


# %%
def is_repeated(lines):
    """For each letter but the first of its line, whether it ends a pair that was there before."""
    pairs = 16 * lines[:, :-1] + lines[:, 1:]  # (count, 31)
    same = pairs[:, :, None] == pairs[:, None, :]  # (count, 31, 31)
    return same.tril(diagonal=-1).any(dim=-1)


repeated = is_repeated(new_lines)
print(spell(new_lines[0]))
print("", "".join("^" if mark else " " for mark in repeated[0]))
print(f"{repeated.float().mean():.0%} of the letters are repeated")

# %% [markdown]
# ## The rule, with a dictionary
#
# To go on with a line, note what came after each letter, and look up the last one.


# %%
def follow(line):
    """What the rule expects after each letter: the letter that came after it the last time."""
    came_after, expected = {}, []
    for now, following in itertools.pairwise(line):
        expected.append(came_after.get(now, "?"))
        came_after[now] = following
    return "".join(expected)


print(spell(new_lines[0]))
print("", follow(spell(new_lines[0])))

# %% [markdown]
# Under each letter stands what was expected there, or `?` where the letter before it is new.
# How often is the rule right, where a letter is repeated?

# %%
rule = [follow(spell(line)) for line in new_lines]
hits = torch.tensor(
    [
        [a == b for a, b in zip(guess, spell(line)[1:], strict=True)]
        for guess, line in zip(rule, new_lines, strict=True)
    ]
)  # (256, 31)
print(f"repeated letters: {hits[repeated].float().mean():.2f}")
print(f"first letters:    {hits[~repeated].float().mean():.2f}")

# %% [markdown]
# It misses where a leap has once put something else after the letter.
# First letters cannot be known, and the rule has none of them.
#
# The rule is called *induction*: from one case in this very text to the next.
# A head that follows it is an **induction head**.

# %% [markdown]
# ## The rule, in two looks
#
# Can attention do this?
# Take one line, and give each letter a vector with a single 1, in its own column of 16.

# %%
line = new_lines[0, :-1]  # the last letter has nothing to foretell
x = F.one_hot(line, 16).float()  # (31, 16)
n = len(line)

# %% [markdown]
# We are at a letter and want the place *behind* an earlier copy of it.
# So the query is the letter itself, and the key of a place must be **the letter before it**.
# A key is made from the vector at its own place, and there the letter before is not to be had.
# Another look has to bring it, in an earlier block: a head that looks back by one, as in lesson
# 04.

# %%
back = torch.diag(torch.ones(n - 1), diagonal=-1)  # (query, key): 1 on the letter before
keys = back @ x  # (31, 16): the letter before each place

# %% [markdown]
# The second look compares: the score is 1 where the letter before a place is the letter that we
# are at, otherwise 0.
# A factor of 20 makes it decided, and the mask hides what comes later.

# %%
scores = 20 * x @ keys.T  # (query, key)
later = torch.ones(n, n).triu(diagonal=1).bool()
weights = scores.masked_fill(later, -torch.inf).softmax(dim=-1)

# %% [markdown]
# What is handed over is the letter that stands there.
# The mix has 16 numbers for every place, and the largest is the guess.

# %%
guesses = (weights @ x).argmax(dim=-1)  # (31,)
known = (scores.masked_fill(later, 0) > 0).any(dim=-1)
print("dictionary:", follow(spell(new_lines[0])))
print("two looks: ", spell(guesses))
expected = [a for a, k in zip(follow(spell(new_lines[0])), known, strict=True) if k]
print("the same where something is known:", spell(guesses[known]) == "".join(expected))

# %% [markdown]
# Where nothing is known all scores are equal, and the second look takes the average of what it
# sees.
# (Where a letter had two followers it averages as well; the dictionary takes the last.
# In this line that changes no guess.)
#
# Here is the second look. The view opens at the last letter; the keys that it finds come right
# *after* earlier copies of that letter.

# %%
attention_view(weights[None], list(spell(line)), query=n - 1)

# %% [markdown]
# So this way takes two blocks, and on paper two are enough.
# In a single block query and key are each made from one letter and its place, and no key knows
# which letter came before.
# Will training find them?

# %% [markdown]
# ## A model of two blocks
#
# Each letter has a row of 64 numbers, its *embedding*.
# Two blocks of two heads each add to it, as in lesson 07.
# Queries and keys are normed (lesson 06), and xPos (lesson 05) is on, as it is by default.
# A last layer norm, and the product with every letter's row gives that letter's logit.
# All matrices begin small and random, the letters' rows ten times as large as the rest: from
# smaller rows the training took much longer for some seeds.


# %%
SHAPE = {"dim_head": 32, "heads": 2, "kv_heads": 2, "ff_mult": 1, "qk_rmsnorm": True}


class Copier(nn.Module):
    def __init__(self, depth=2, num_tokens=16, dim=64, **shape):
        super().__init__()
        self.embedding = nn.Embedding(num_tokens, dim)
        self.blocks = nn.ModuleList(TransformerBlock(dim, **shape) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, bias=False)
        for weight in self.parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02)
        nn.init.normal_(self.embedding.weight, std=0.2)

    def forward(self, tokens):
        x = self.embedding(tokens)  # (batch, n, dim)
        for block in self.blocks:
            x = x + block(x)
        return self.norm(x) @ self.embedding.weight.T  # (batch, n, num_tokens)


model = Copier(**SHAPE)
print(f"{sum(weight.numel() for weight in model.parameters()):,} parameters")

# %% [markdown]
# ## What a head does, in numbers
#
# Before the training begins we need something to watch it by.
# First, what each head looks at, and what it writes.
#
# A head mixes values by its weights. The block then multiplies all heads, side by side, by one
# matrix, `attn_out`, and adds the result to x.
# In that product each head meets columns of its own, so what it *writes* is its mix times those
# columns.
# The recorder of lesson 00 has the weights; the rest is computed here.


# %%
@torch.no_grad()
def look(model, tokens):
    """The logits; for each block the weights (b, h, n, n) and what heads write (b, h, n, dim)."""
    with record_attention(model) as record:
        logits = model(tokens)
    x, written = model.embedding(tokens), []
    for block, weights in zip(model.blocks, record, strict=True):
        values = block.fused_attn_ff_proj(block.norm(x)).split(block.fused_dims, dim=-1)[2]
        values = rearrange(values, "b n (h d) -> b h n d", h=block.heads)
        columns = rearrange(block.attn_out.weight, "dim (h d) -> h d dim", h=block.heads)
        written.append(weights @ values @ columns)  # (b, h, n, dim)
        x = x + block(x)
    return logits, list(record), written


# %% [markdown]
# Nothing is lost that way: what the heads write and what the feed-forward adds is what the block
# adds.

# %%
tokens, block = new_lines[:, :-1], model.blocks[0]
with torch.no_grad():
    _, _, written = look(model, tokens)
    x = model.embedding(tokens)  # (256, 31, 64)
    fed = block.fused_attn_ff_proj(block.norm(x)).split(block.fused_dims, dim=-1)[3]
    whole = written[0].sum(dim=1) + block.ff_out(fed)
print(torch.allclose(whole, block(x), atol=1e-6))

# %% [markdown]
# Olsson et al. 2022 call a head an induction head when it does two things on random letters that
# repeat.
#
# *Prefix matching*: it attends to places that came right after an earlier copy of the present
# letter.
# A table of truth values marks these places; the score is the attention that they get, averaged
# over all queries that have any.


# %%
def followers(tokens):
    """True where the key stands right after an earlier copy of the query's letter: (b, n, n)."""
    marks = torch.zeros(*tokens.shape, tokens.shape[1], dtype=torch.bool)
    marks[:, :, 1:] = tokens[:, :, None] == tokens[:, None, :-1]
    return marks.tril()  # a place sees nothing later


def prefix_scores(weights, marks):
    """For each head, its mean attention on the marked keys: (b, h, n, n) to (h,)."""
    some = marks.any(dim=-1)  # (b, n)
    attended = (weights * marks[:, None]).sum(dim=-1)  # (b, h, n)
    return (attended * some[:, None]).sum(dim=(0, 2)) / some.sum()


# %% [markdown]
# By hand: in `abca` only the last letter has a copy before it, and `b` follows that copy.
# A head that looks everywhere alike gives `b` a quarter of its attention.

# %%
abca = torch.tensor([[0, 1, 2, 0]])
even = torch.ones(1, 1, 4, 4).tril() / torch.arange(1, 5)[:, None]  # rows 1, 1/2, 1/3, 1/4
print(followers(abca).int())
print(prefix_scores(even, followers(abca)))

# %% [markdown]
# And what would such a head score on the lines that are kept for measuring?

# %%
marks = followers(new_lines[:, :-1])
even = torch.ones(256, 1, 31, 31).tril() / torch.arange(1, 32)[:, None]
print(f"{prefix_scores(even, marks).item():.2f}")

# %% [markdown]
# *Copying*: what the head writes raises the logit of the letter that it attends to.
# How much does a head raise a logit?
# Let x be the vector behind the last block, $\bar x$ its mean and σ its spread (eps and all), γ the
# gains of the last norm and $E_a$ the row of letter a. The logit is
#
# $$E_a \cdot \Big(\gamma \odot \frac{x - \bar x}{\sigma}\Big), \qquad
# x = \text{embedding} + \text{what all heads write} + \text{what both feed-forwards add}.$$
#
# (⊙ multiplies entry by entry.)
# For a given σ this is linear, so it falls into one part for each term of x.
# The part of a head that writes z is $E_a \cdot (\gamma \odot (z - \bar z)) / \sigma$.
# A number that is added to all 16 logits alike changes nothing, since softmax drops it; so take the
# mean over the letters off, and call what is above 0 the *raise*, $r_a$.
# With $w_a$ the attention that the head gives to letter a, at all its places together,
#
# $$\text{copying} = \frac{\sum_a w_a \, r_a}{\sum_a r_a}.$$
#
# It is 1 for a head that raises only the letter that it looks at.
# One that raises letters without regard to its look gets about 1/16 = 0.06.
# σ is the same for all letters, and falls out.


# %%
def copying_scores(model, tokens, weights, written):
    """For each head, the share of its raise that goes to letters it attends to: (h,)."""
    centred = written - written.mean(dim=-1, keepdim=True)  # (b, h, n, dim)
    logits = centred * model.norm.weight @ model.embedding.weight.T  # (b, h, n, letter)
    raised = (logits - logits.mean(dim=-1, keepdim=True)).relu()
    attended = weights @ F.one_hot(tokens, 16).float()[:, None]  # (b, h, n, letter)
    shares = (attended * raised).sum(dim=-1) / raised.sum(dim=-1)  # (b, h, n)
    return shares.mean(dim=(0, 2))


# %% [markdown]
# We simplify: the paper takes its scores on random tokens far from the training text, we on new
# lines of the same kind.
# And this copying score is a formula of our own for the words of the definition.
# It counts the direct way only: what a head writes may also be changed by a later block, and that
# is left out.
#
# A third number is plain: the attention on the letter before.


# %%
def before_scores(weights):
    """For each head, its mean attention on the letter before, from the second letter on: (h,)."""
    return weights.diagonal(offset=-1, dim1=-2, dim2=-1).mean(dim=(0, 2))


# %% [markdown]
# All of it together, for one state of the model.
# The loss, as in lesson 07, is minus the logarithm of the probability of the letter that really
# comes; it is taken apart into first and repeated letters.


# %%
@torch.no_grad()
def measure(model, lines=new_lines):
    tokens, targets, repeated = lines[:, :-1], lines[:, 1:], is_repeated(lines)
    logits, weights, written = look(model, tokens)
    losses, right = F.cross_entropy(logits.mT, targets, reduction="none"), logits.argmax(-1)
    copies = [copying_scores(model, tokens, *pair) for pair in zip(weights, written, strict=True)]
    return {
        "first": losses[~repeated].mean().item(),
        "repeated": losses[repeated].mean().item(),
        "accuracy": (right == targets)[repeated].float().mean().item(),
        "prefix": torch.stack([prefix_scores(w, followers(tokens)) for w in weights]),
        "copying": torch.stack(copies),
        "before": torch.stack([before_scores(w) for w in weights]),  # (layer, head) each
        "weights": torch.stack([w[0] for w in weights]),  # of one line: (layer, head, n, n)
    }


untrained = measure(model)
print(f"loss, first and repeated: {untrained['first']:.1f}, {untrained['repeated']:.1f}")

# %% [markdown]
# It knows nothing yet, and is sure of the wrong thing.
# The vector behind the last block is still close to the letter's own row, and of all rows that one
# fits it best: the model expects every letter to come again.
# (Normed, the vector has length √64 = 8, and the row about 0.2 · 8 = 1.6. So the logit of the same
# letter is about 8 · 1.6 = 12.8, and the others lie around 0.)
# Giving each of the 16 letters the same probability would cost ln 16 = 2.77.

# %% [markdown]
# ## The training
#
# The loop is short.
# Draw 64 fresh lines, compute the loss of every next letter, take the gradient, cut it to length 1
# if it is longer, and let the optimiser AdamW step.
# The step size rises for 50 steps, stays, and falls to 0 in the second half.
# Every 25 steps, measure.


# %%
def train(model, steps=500, seed=0, every=25, **kind):
    """Train on fresh lines; return the measurements by step."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.008, betas=(0.9, 0.95), weight_decay=0.0)
    history = {0: measure(model)}
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 0.008 * min((step + 1) / 50, 1, 2 - 2 * step / steps)
        lines = draw_lines(64, generator, **kind)
        loss = F.cross_entropy(model(lines[:, :-1]).mT, lines[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if (step + 1) % every == 0:
            history[step + 1] = measure(model)
    return history


# %%
history = train(model)

# %%
print("right on more than 0.85 of the repeated letters:", history[500]["accuracy"] > 0.85)

# %% [markdown]
# The numbers of a training differ a little from processor to processor.
# So from here on the cells print only what holds by a wide margin, and held with other seeds too;
# the figures show the run that has just taken place.

# %%
steps = list(history)


def curve(name):
    return [history[step][name] for step in steps]


figure, axes = plt.subplots(figsize=(7.2, 3.4))
axes.plot(steps, curve("first"), color=style.MASK, label="first letters")
axes.plot(steps, curve("repeated"), color=style.OUTPUT, label="repeated letters")
axes.axhline(2.77, color="black", lw=1, ls=":")
axes.text(500, 2.7, "knows nothing", ha="right", va="top", fontsize=10)
axes.set(xlabel="step", ylabel="loss", ylim=(0, 3.6), title="it learns late, and then quickly")
axes.legend(loc="lower left")
style.show(
    figure,
    alt="Loss by step. At first both fall to ln 16. For first letters it stays there and then "
    "rises a little above; for repeated letters it falls slowly, then steeply, and ends far below.",
)

# %% [markdown]
# The first points lie above the picture: the model unlearns to expect the same letter again, until
# it gives each letter about the same.
# From there the loss of repeated letters sinks slowly, and then, within a hundred steps or so, it
# drops.
# That of first letters *rises* meanwhile.
# A first letter that comes by a leap is never what the rule expects, and the surer the model is of
# the rule, the more a leap costs.

# %%
falls = torch.tensor(curve("repeated")).diff()[2:]  # in each 25 steps, from step 50 on
share = -falls.min() / (history[50]["repeated"] - history[500]["repeated"])
print("more than a tenth of that fall lies within 25 steps:", bool(share > 0.1))
print("those begin after step 100:", steps[2 + falls.argmin()] > 100)

# %% [markdown]
# ## The head forms
#
# Which heads are at work?
# Here are the three scores of all four heads by step.


# %%
def draw_scores(history):
    figure, all_axes = plt.subplots(1, 3, figsize=(7.4, 3.2), sharey=True)
    names = {"before": "letter before", "prefix": "prefix matching", "copying": "copying"}
    for axes, (name, title) in zip(all_axes, names.items(), strict=True):
        for layer, colour in ((0, style.KEY), (1, style.QUERY)):
            for head, line in ((0, "-"), (1, "--")):
                scores = [history[step][name][layer, head] for step in history]
                label = f"{layer}.{head}"
                axes.plot(list(history), scores, line, color=colour, label=label)
        axes.set(title=title, xlabel="step", ylim=(0, 1))
    all_axes[0].legend(title="block.head", fontsize=10, title_fontsize=10)
    return figure


style.show(
    draw_scores(history),
    alt="Three scores of four heads by step. Attention on the letter before rises for heads of "
    "block 0. Prefix matching rises for block 1 only, at the time of the drop. Copying is high "
    "at the end for block 1 only, and may come and go before.",
)

# %% [markdown]
# Which head takes which part is chance; it depends on the random beginning.
# But with every seed that we tried the parts were these.
# In block 0 at least one head comes to look at the letter before, and in block 1 at least one comes
# to match prefixes and to copy.
# Copying may come first: early on a head can copy whatever it happens to look at, which is of
# little use before it looks at the right place.
# Let the scores say which heads these are.

# %%
last = history[500]
induction = last["prefix"][1].argmax().item()  # a head of block 1
backward = last["before"][0].argmax().item()  # a head of block 0
print("prefix matching, best of block 0, below 0.15:", bool(last["prefix"][0].max() < 0.15))
print("prefix matching, best of block 1, above 0.3: ", bool(last["prefix"][1].max() > 0.3))
print("its copying, above 0.2:                      ", bool(last["copying"][1, induction] > 0.2))
print("letter before, best of block 0, above 0.2:   ", bool(last["before"][0, backward] > 0.2))

# %% [markdown]
# Compare with 0.08 for a head that looks everywhere alike, and with 0.06 for copying blindly.
# The paper saw such heads form in models of many sizes, in a short stretch of the training in
# which the loss drops as well.
#
# Now watch it: the attention of these two heads on one line, at five steps of the training.

# %%
shown_steps = (0, 100, 200, 300, 500)
figure, rows = plt.subplots(2, 5, figsize=(7.6, 3.5), sharex=True, sharey=True)
for row, (layer, head) in zip(rows, ((0, backward), (1, induction)), strict=True):
    for axes, step in zip(row, shown_steps, strict=True):
        axes.imshow(history[step]["weights"][layer, head], vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
    row[0].set_ylabel(f"block {layer}, head {head}", fontsize=11)
for axes, step in zip(rows[0], shown_steps, strict=True):
    axes.set_title(f"step {step}", fontsize=11)
style.show(
    figure,
    alt="Attention of two heads at steps 0, 100, 200, 300 and 500. Both are diffuse at first. "
    "Above, a line just below the diagonal appears; below, stripes further down, broken by leaps.",
)

# %% [markdown]
# Rows are queries, columns keys; darker is more.
# The line just below the diagonal is the letter before.
# The stripes below it are the places after an earlier copy: one round back less a letter, and
# elsewhere when there was a leap between.
# They lie where the two looks by hand had theirs.
#
# Move through the training yourself; on the left is the induction head, on the right the table
# that it is measured by.
# (In a page without a running Python you see one step only.)


# %%
def draw_step(number):
    step = steps[number]
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.4))
    left.imshow(history[step]["weights"][1, induction], vmin=0, vmax=1)
    right.imshow(followers(new_lines[:1, :-1])[0], vmin=0, vmax=1)
    score = history[step]["prefix"][1, induction]
    left.set(title=f"step {step}, score {score:.2f}", xlabel="key", ylabel="query")
    right.set(title="what it should find", xlabel="key")
    alt = "Left: the attention of one head of block 1 at one step of the training. Right: the "
    style.show(figure, alt=alt + "places that follow an earlier copy of the query's letter.")


# %%
slider = IntSlider(len(steps) - 1, min=0, max=len(steps) - 1, continuous_update=False)
_ = interact(draw_step, number=slider)

# %% [markdown]
# And here are all four heads of the trained model, to explore without Python; a *layer* is a block.
# It opens at the induction head.
# Pick a letter in the second half of the line, and compare where block 0 looks and where block 1
# does.

# %% tags=["nbval-ignore-output"]
# Which head it opens at, and the weights to the last digit, hang on the processor.
attention_view(last["weights"], list(spell(new_lines[0, :-1])), layer=1, head=induction)

# %% [markdown]
# ## Switch them off
#
# Scores say what a head does, not whether it matters.
# To see that, take it away: set its columns of `attn_out` to 0, so that it writes nothing, and
# leave all else as it was.


# %%
def without(model, *heads):
    """A copy of the model in which these heads, each as (layer, head), write nothing."""
    silent = copy.deepcopy(model)
    for layer, head in heads:
        block = silent.blocks[layer]
        columns = slice(head * block.dim_head, (head + 1) * block.dim_head)
        block.attn_out.weight.data[:, columns] = 0
    return silent


# %%
off = {"none": measure(model)["accuracy"]}
for layer in (0, 1):
    for head in (0, 1):
        off[f"{layer}.{head}"] = measure(without(model, (layer, head)))["accuracy"]
    off[f"{layer}, both"] = measure(without(model, (layer, 0), (layer, 1)))["accuracy"]

# %%
figure, axes = plt.subplots(figsize=(7.2, 3.2))
colours = [style.MASK, *[style.KEY] * 3, *[style.QUERY] * 3]
bars = axes.bar(list(off), list(off.values()), color=colours)
axes.bar_label(bars, fmt="%.2f")
axes.axhline(1 / 16, color="black", lw=1, ls=":")
axes.set(xlabel="switched off", ylabel="right on repeated letters", ylim=(0, 1.08))
axes.set_title("without the induction heads nothing is copied")
style.show(
    figure,
    alt="Bars of accuracy with no head off, each of four heads off, and both of a block off. "
    "Without both heads of block 1 it falls to about one in sixteen, without those of block 0 "
    "nearly as low.",
)

# %%
own = off[f"1.{induction}"]
print("without the induction head, less is right:  ", own < off["none"])
print("without both heads of block 1, below 0.15:  ", off["1, both"] < 0.15)
print("without both heads of block 0, below 0.25:  ", off["0, both"] < 0.25)

# %% [markdown]
# The dotted line is one in sixteen, which is blind guessing.
# Both links are needed: without the look back the second head has no keys to compare with.
#
# A single head is another matter.
# From some seeds one head of block 1 does the whole work, from others both do, and then each can
# stand in for the other to a degree.
# So a head that the model hardly misses may still do what its scores say; it is not the only one.

# %% [markdown]
# ## Is it the rule?
#
# The model has seen circles of 8 to 14 letters.
# If it follows the rule, a circle of all 16 must do as well, although one round of it is longer
# than any in the training.

# %%
longer = draw_lines(256, torch.Generator().manual_seed(1001), sizes=(16, 16))
sixteen = measure(model, longer)["accuracy"]
print("circle of 16, right on more than 0.7 of the repeated letters:", sixteen > 0.7)

# %% [markdown]
# ## The proof
#
# The model is put together from the package's blocks, but the rest of it is yours: embedding,
# residuals, last norm, logits.
# And `without` is yours.
# Compare with the package's language model, in double precision, for several shapes, with its
# weights copied into ours: logits and the gradients of all weights.
# Then the same with heads switched off, by `ablate` in the package.
# (There the columns of a silent head get no gradient, while zeroed columns would; so `attn_out` is
# left out of that comparison.)

# %% tags=["proof"]
from zeta_edu import ablate
from zeta_edu.lm import TransformerLM


def logits_and_gradients(model, tokens, leave=""):
    """The logits, and the gradients of all weights but some, in order."""
    kept = {n: p for n, p in model.named_parameters() if not leave or not n.endswith(leave)}
    logits = model(tokens)
    # The sine gives each logit a gradient of its own.
    return [logits, *torch.autograd.grad(logits.sin().sum(), list(kept.values()))]


def agree(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    return max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True))


errors, out = [], "attn_out.weight"
for depth, heads, kv_heads, normed in ((1, 1, 1, False), (2, 2, 2, True), (3, 4, 2, True)):
    shape = {"heads": heads, "dim_head": 8, "kv_heads": kv_heads, "qk_rmsnorm": normed}
    theirs = TransformerLM(num_tokens=11, dim=24, depth=depth, **shape).double()
    theirs.norm.gamma.data.normal_()
    ours = Copier(depth, num_tokens=11, dim=24, **shape).double()
    for mine, given in zip(ours.parameters(), theirs.parameters(), strict=True):
        mine.data.copy_(10 * given.data if given.ndim == 2 else given.data)
        given.data.copy_(mine.data)
    tokens = torch.randint(11, (3, 9))
    errors.append(agree(logits_and_gradients(ours, tokens), logits_and_gradients(theirs, tokens)))
    for layer, head in ((0, 0), (depth - 1, heads - 1)):
        silent = logits_and_gradients(without(ours, (layer, head)), tokens, leave=out)
        with ablate(theirs, layer, head):
            errors.append(agree(silent, logits_and_gradients(theirs, tokens, leave=out)))
print("largest error below 1e-10:", max(errors) < 1e-10)

# %% [markdown]
# What you put together is the package's `TransformerLM`, and what you switched off is what
# `ablate` switches off.

# %% [markdown]
# ## What goes wrong: one block too few
#
# The two looks need two blocks. What does a single one make of 300 steps of the same training?

# %%
torch.manual_seed(0)
one_block = Copier(depth=1, **SHAPE)
single = train(one_block, steps=300)

# %%
figure, axes = plt.subplots(figsize=(7.2, 3))
both = {"two blocks": (history, style.QUERY), "one block": (single, style.KEY)}
for label, (run, colour) in both.items():
    axes.plot(list(run), [run[step]["accuracy"] for step in run], color=colour, label=label)
axes.axhline(hits[repeated].float().mean(), color="black", lw=1, ls=":")
axes.text(0, 0.98, "the rule with a dictionary", fontsize=10)
axes.set(xlabel="step", ylabel="right on repeated letters", ylim=(0, 1.08))
axes.legend(loc="center left")
style.show(
    figure,
    alt="Accuracy on repeated letters by step: with two blocks it climbs steeply towards the "
    "dotted line of the rule; with one block it stays near the bottom.",
)

# %% [markdown]
# One block does not find the rule: no key of it knows the letter before.
# What could it do without?
# On a circle of 12 the letter to come is the one that came 12 places before it, as long as there
# was no leap; a head can look back by a fixed distance.
# How often would the best of all distances be right?

# %%
by_place = []
for distance in range(1, 31):
    same = new_lines[:, distance:] == new_lines[:, :-distance]  # (256, 32 - distance)
    by_place.append(same[repeated[:, distance - 1 :]].sum() / repeated.sum())
print(f"by place alone: {max(by_place):.2f} of the repeated letters")
print("one block, below 0.4:             ", single[300]["accuracy"] < 0.4)
print("its best prefix score, below 0.2: ", bool(single[300]["prefix"].max() < 0.2))

# %% [markdown]
# Two blocks end up near the dictionary, or a little above it: after a leap the dictionary trusts a
# wrong follower, since it always takes the last, and a head may weigh two.

# %% [markdown]
# ## What goes wrong: a task with a short cut
#
# Why did the walker have to leap, and the circles to differ?
# Train the same model on circles of 12 without leaps.

# %%
torch.manual_seed(0)
cheat = Copier(**SHAPE)
short_cut = train(cheat, steps=300, leaps=0.0, sizes=(12, 12))

# %% [markdown]
# It does well on new lines of the kind that it was trained on.

# %%
kind = {"leaps": 0.0, "sizes": (12, 12)}
plain_lines = draw_lines(256, torch.Generator().manual_seed(1002), **kind)
plain = measure(cheat, plain_lines)
print("right on more than 0.8 of the repeated letters:", plain["accuracy"] > 0.8)

# %% [markdown]
# Now circles of 9, still without leaps, and the lines from before.

# %%
kind["sizes"] = (9, 9)
nine_lines = draw_lines(256, torch.Generator().manual_seed(1003), **kind)
cases = {"12, no leaps": plain_lines, "9, no leaps": nine_lines, "8 to 14, leaps": new_lines}
trained_on = {"8 to 14, leaps": model, "12, no leaps": cheat}
found = {
    name: [measure(one, lines)["accuracy"] for lines in cases.values()]
    for name, one in trained_on.items()
}

# %%
figure, axes = plt.subplots(figsize=(7.2, 3.2))
places = torch.arange(3)
for shift, colour, (name, accuracies) in zip(
    (-0.18, 0.18), (style.QUERY, style.KEY), found.items(), strict=True
):
    bars = axes.bar(places + shift, accuracies, 0.34, color=colour, label=name)
    axes.bar_label(bars, fmt="%.2f")
axes.set_xticks(places, list(cases))
axes.set(xlabel="lines that are read", ylabel="right on repeated letters", ylim=(0, 1.1))
axes.legend(title="trained on", loc="upper left", bbox_to_anchor=(1, 1))
style.show(
    figure,
    alt="Accuracy of two models on three kinds of lines. Trained on many circles with leaps it is "
    "high on all. Trained on circles of 12 without leaps, it is high on those, near 0 on circles "
    "of 9, and low on the rest.",
)

# %%
print("on circles of 9, below 0.15:           ", found["12, no leaps"][1] < 0.15)
print("on the lines from before, below 0.3:   ", found["12, no leaps"][2] < 0.3)
nine = measure(cheat, nine_lines)
print("prefix score on circles of 9, below 0.2:", bool(nine["prefix"].max() < 0.2))

# %% [markdown]
# Whatever it has learned, it is not the rule; it holds on circles of 12, and not on those of 9.
# There the letter to come is always the one of 12 places before, and no letters need be compared.
# Nor would the prefix score on such lines have told: with no leap, 11 letters back *is* the place
# after the earlier copy.
# A test has to break what the short cut rests on.
# The paper takes its scores on random tokens, far from any text that its models were trained on.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell: `check` says what is right, or what went wrong.
# Below each is its hint; run that cell again for the next one.

# %% [markdown]
# ### 1. A look further back
#
# Difficulty ★☆☆, 5 minutes.
# For every head, return its mean attention on the letter *two* places before.
# Take the mean over the queries that have such a letter.
# The shapes are weights (head, n, n), result (head,).


# %% tags=["exercise"]
def two_before(weights):
    return ...


check("induction.two_before", two_before)

# %%
hint("induction.two_before")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def two_before(weights):
#     return weights.diagonal(offset=-2, dim1=-2, dim2=-1).mean(dim=-1)
# ```
#
# </details>

# %% [markdown]
# ### 2. A head that finds its own letter
#
# Difficulty ★★☆, 10 minutes.
# Some heads look at earlier copies of the present letter, and not at what follows them.
# For every head, return its attention on all *earlier* copies of the query's own letter together,
# as a mean over the queries that have one.
# The shapes are weights (head, n, n), tokens (n,), result (head,); later keys have weight 0.


# %% tags=["exercise"]
def same_letter(weights, tokens):
    return ...


check("induction.same_letter", same_letter)

# %%
hint("induction.same_letter")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def same_letter(weights, tokens):
#     copies = (tokens[:, None] == tokens).tril(diagonal=-1)  # (n, n), the query itself left out
#     attended = (weights * copies).sum(dim=-1)  # (head, n)
#     return attended[:, copies.any(dim=-1)].mean(dim=-1)
# ```
#
# </details>

# %% [markdown]
# ### 3. A longer prefix
#
# Difficulty ★★☆, 10 minutes.
# Where a letter had several followers, two letters tell more than one.
# Return a table (n, n) of truth values: true where the two letters before the key are the same, in
# the same order, as the letter before the query and the query's own.
# Keys later than the query are false; tokens are (n,).


# %% tags=["exercise"]
def longer_prefix(tokens):
    return ...


check("induction.longer", longer_prefix)

# %%
hint("induction.longer")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# Two pairs are the same if their last letters are, and their first letters too.
#
# ```python
# import torch
#
# def longer_prefix(tokens):
#     n = len(tokens)
#     same = tokens[:, None] == tokens  # (query, key)
#     marks = torch.zeros(n, n, dtype=torch.bool)
#     marks[1:, 2:] = same[1:, 1:-1] & same[:-1, :-2]
#     return marks.tril()
# ```
#
# </details>

# %% [markdown]
# ### 4. The rule without a dictionary
#
# Difficulty ★★★, 15 minutes.
# For every place of tokens (n,), return the letter that came after the present one the last time,
# or −1 where it is new: (n,).
# `follow` above did it with a loop; do it with the table of followers.


# %% tags=["exercise"]
def last_follower(tokens):
    return ...


check("induction.rule", last_follower)

# %%
hint("induction.rule")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# The last key that is marked is the largest of their places.
#
# ```python
# import torch
#
# def last_follower(tokens):
#     n = len(tokens)
#     marks = torch.zeros(n, n, dtype=torch.bool)
#     marks[:, 1:] = tokens[:, None] == tokens[:-1]
#     places = torch.where(marks.tril(), torch.arange(n), -1).amax(dim=-1)  # (n,)
#     return torch.where(places < 0, -1, tokens[places])
# ```
#
# Attention averages over all marked keys; a head could prefer the last by its sense of place.
#
# </details>

# %% [markdown]
# ## What you have now
#
# A model can go on with a pattern that it has read once, by a rule that stands in its weights:
# look for what came after the present letter.
# It takes two looks in two blocks; the first gives every place the letter before it, the second
# compares and copies.
# In training it forms late and within few steps, and the scores of the heads show it.
# Switching heads off shows what they are needed for, and a test unlike the training shows whether
# it was the rule that was learned.
#
# **References.**
# Induction heads, prefix matching and copying, and how they form in training: Olsson et al. 2022,
# [arXiv:2209.11895](https://arxiv.org/abs/2209.11895).
# The circuit of two heads in a model of two layers: Elhage et al. 2021,
# [A Mathematical Framework for Transformer Circuits](https://transformer-circuits.pub/2021/framework/index.html).
# Switching heads off: Michel, Levy and Neubig 2019,
# [arXiv:1905.10650](https://arxiv.org/abs/1905.10650).
#
# **Next.** All lines here were 32 letters long, in training and after.
# [Lesson 13](13-longer.ipynb) reads what is longer than anything its models were trained on.
