"""Rotary position embedding and the xPos decay, with the cache of their tables.

A pair of features (i, i + dim_head/2) of a query or key at position p is turned by the angle
p * 10000**(-2i / dim_head). The dot product of a query at m and a key at n then depends on m - n
only. xPos multiplies it by zeta_i ** ((m - n) / scale_base), which fades with distance.

**The origin of xPos.** The factor is split in two, zeta**((m - o) / scale_base) for the query and
zeta**((o - n) / scale_base) for the key. Any origin o gives the same product, but not the same
factors: far from o one of them overflows. So queries are taken in windows, and the first query of
a window is its origin. Inside a window the factors are bounded; a key that lies before it only
fades, and its factor never vanishes before the product does; and nothing depends on how long the
sequence is or was. Keys are cached rotated but without their factor: it depends on the window of
the query that reads them.
"""

import math
from functools import partial

import torch
from jaxtyping import Float, Real
from torch import Tensor

from zeta_edu.checks import flag, floating_tensor, positive_number

# One set of tables serves every block of a process; they are grown, never written to.
_ROTARY: dict[tuple[int, torch.device, torch.dtype], Tensor] = {}  # cosines, then sines
_DECAY: dict[tuple[int, float, torch.device, torch.dtype], tuple[Tensor, int]] = {}


def rotary_frequencies(dim_head: int) -> Float[Tensor, " half"]:
    """Radians per position of each pair of features, in float64: 10000 ** (-2i / dim_head).

    Source: Su et al. 2021, "RoFormer" (arXiv:2104.09864), equation 15.

    >>> rotary_frequencies(4)
    tensor([1.0000, 0.0100], dtype=torch.float64)
    """
    even = torch.arange(0, dim_head, 2, dtype=torch.float64, device="cpu")
    return 10_000.0 ** (-even / dim_head)


def xpos_zeta(dim_head: int) -> Float[Tensor, " half"]:
    """What is left of each pair after `scale_base` positions, in float64: (2i + 0.4 d) / 1.4 d.

    The fastest pair fades to 2/7, the slowest hardly at all.

    Source: Sun et al. 2022, "A Length-Extrapolatable Transformer" (arXiv:2212.10554), section 3.2,
    with gamma = 0.4.

    >>> xpos_zeta(4)
    tensor([0.2857, 0.6429], dtype=torch.float64)
    """
    even = torch.arange(0, dim_head, 2, dtype=torch.float64, device="cpu")
    return (even + 0.4 * dim_head) / (1.4 * dim_head)


def rotate(
    x: Float[Tensor, "*batch n dim_head"],
    cos: Float[Tensor, "*positions half"],
    sin: Float[Tensor, "*positions half"],
) -> Float[Tensor, "*batch n dim_head"]:
    """Turn each pair (i, i + dim_head/2) of `x` by its angle, in the precision of the tables.

    Source: Su et al. 2021 (arXiv:2104.09864), equation 34, with the two members of a pair half
    a vector apart instead of side by side.

    >>> angle = torch.tensor([[torch.pi / 2]])
    >>> rotate(torch.tensor([[1.0, 0.0]]), angle.cos(), angle.sin()).round().abs()
    tensor([[0., 1.]])
    """
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)


def is_tracing() -> bool:
    """Whether a tensor made now would be the stand-in of a compiler or tracer.

    Then tables are computed in place: they are fused into their users, tie the graph to no one
    length, and no stand-in is ever kept.
    """
    return torch.compiler.is_compiling() or type(torch.empty(())) is not Tensor


def table_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision of tables and factors: float32, or float64 for float64.

    With 64 features an angle in bfloat16 is wrong by more than 0.1 rad at position 58, and at every
    position from 161 on.
    """
    return torch.promote_types(dtype, torch.float32)


def _rotary_angles(start: int, stop: int, dim_head: int, device: torch.device) -> Tensor:
    # In float64, as the frequencies are: a float32 product is off by 0.002 rad at 100,000.
    positions = torch.arange(start, stop, device=device)
    return positions[:, None] * rotary_frequencies(dim_head).to(device)


def rotary_tables(
    start: int, stop: int, dim_head: int, device: torch.device, dtype: torch.dtype
) -> tuple[Float[Tensor, "n half"], Float[Tensor, "n half"]]:
    """Return cosine and sine of each pair's angle at the positions `start` to `stop - 1`.

    Both are (stop - start, dim_head / 2), in `table_dtype(dtype)`, and belong to queries or keys
    of `dim_head` features on `device`.
    """
    dtype = table_dtype(dtype)
    if is_tracing():
        angles = _rotary_angles(start, stop, dim_head, device)
        return angles.cos().to(dtype), angles.sin().to(dtype)
    place = (dim_head, device, dtype)
    tables = _ROTARY.get(place)
    if tables is None or tables.shape[1] < stop:
        with torch.inference_mode(False):  # so that a training step may use it
            angles = _rotary_angles(0, power_of_two(stop), dim_head, torch.device("cpu"))
            tables = torch.stack((angles.cos(), angles.sin())).to(device, dtype)
        _ROTARY[place] = tables
    cos, sin = tables[:, start:stop]
    return cos, sin


def _decay_factors(
    distances: Float[Tensor, "*n"], dim_head: int, scale_base: float
) -> Float[Tensor, "*n half"]:
    """Compute zeta ** (distance / scale_base) for each pair, in the precision of `distances`."""
    log2_zeta = xpos_zeta(dim_head).log2().to(distances)
    return torch.exp2((distances / scale_base)[..., None] * log2_zeta)


def key_decay(
    keys: int,
    origin: int,
    dim_head: int,
    scale_base: float,
    device: torch.device,
    dtype: torch.dtype,
) -> Float[Tensor, "keys dim_head"]:
    """The xPos factors zeta ** ((origin - n) / scale_base) of the keys n = 0 to `keys - 1`.

    The factor of a query is the reciprocal of that of the key at its position.

    Returns:
        (keys, dim_head) in `table_dtype(dtype)`
    """
    dtype = table_dtype(dtype)
    if is_tracing():
        distances = origin - torch.arange(keys, dtype=torch.float64, device=device)
        return _decay_factors(distances, dim_head, scale_base).to(dtype).repeat(1, 2)
    place = (dim_head, scale_base, device, dtype)
    table, longest = _DECAY.get(place, (None, 0))  # row j is for the distance longest - j
    if table is None or longest < origin or len(table) < longest - origin + keys:
        longest, ahead = power_of_two(origin), power_of_two(keys - origin)
        with torch.inference_mode(False):
            distances = longest - torch.arange(longest + ahead, dtype=torch.float64, device="cpu")
            factors = _decay_factors(distances, dim_head, scale_base)
            table = factors.to(dtype).repeat(1, 2).to(device)
        _DECAY[place] = table, longest
    return table[longest - origin : longest - origin + keys]


def power_of_two(length: int) -> int:
    """The least power of two that is at least `length`, and at least 128."""
    return 1 << max(length - 1, 127).bit_length()


def xpos_window(scale_base: float, dtype: torch.dtype) -> int:
    """How many queries may share one origin: 2 scale bases in float16, 16 otherwise.

    The factor of a key is then at most (7/2)**2 = 12 or (7/2)**16 = 5e8, and so is the product's
    of a query with a key of its future, which is masked: both far from overflow.
    """
    return max(1, int((2 if dtype == torch.float16 else 16) * scale_base))


def apply_xpos(
    queries: Float[Tensor, "batch heads query dim_head"],
    keys: Float[Tensor, "batch kv_heads key dim_head"],
    first: int,
    scale_base: float,
) -> tuple[
    Float[Tensor, "batch heads query dim_head"], Float[Tensor, "batch kv_heads key dim_head"]
]:
    """Multiply rotated queries and keys by their xPos factors.

    Args:
        queries: at the positions from `first` on; no more than one window of them.
        keys: at the positions from 0 on, to the last query's.
        first: position of the first query.
        scale_base: positions after which pair i has faded to zeta_i.

    Source: Sun et al. 2022 (arXiv:2212.10554), section 3.2.
    """
    count, dim_head = keys.shape[-2:]
    decay = key_decay(count, first, dim_head, scale_base, keys.device, keys.dtype)
    return (queries / decay[first:]).to(queries.dtype), (keys * decay).to(keys.dtype)


def rotate_queries_keys(
    queries: Float[Tensor, "*batch query dim_head"],
    keys: Float[Tensor, "*others key dim_head"],
    query_positions: Real[Tensor, "*some query"],
    key_positions: Real[Tensor, "*more key"],
    use_xpos: bool = True,
    xpos_scale_base: float = 512,
) -> tuple[Float[Tensor, "*batch query dim_head"], Float[Tensor, "*others key dim_head"]]:
    """Give queries and keys their positions: rotation and, with `use_xpos`, the xPos decay.

    The product of a returned query and a returned key depends on the difference of their
    positions only, whatever the positions are. The origin of the xPos factors is the first of
    the query positions. A key after the last query gets the factor of the last query's position,
    since causal attention never reads it.

    Args:
        queries: (..., query, dim_head), dim_head even.
        keys: (..., key, dim_head)
        query_positions: (query,), or any shape that broadcasts to queries.shape[:-1].
        key_positions: (key,), or any shape that broadcasts to keys.shape[:-1].
        use_xpos: whether the product fades with distance.
        xpos_scale_base: positions after which pair i has faded to zeta_i.

    Returns:
        Rotated queries and keys in the dtype they came in, or, when the query positions lie so
        far apart that its range cannot hold the factors, in the narrowest of float32 and float64
        that can. (With the default scale base: from 1,133 positions on in float16, 32,862 in
        float32.)

    Raises:
        TypeError, ValueError: an argument is not of the kind above, a position is not finite, or
            the query positions lie too far apart even for float64.

    Source: Sun et al. 2022 (arXiv:2212.10554), algorithm 1.

    >>> q, k = torch.ones(1, 8), torch.ones(1, 8)
    >>> near = rotate_queries_keys(q, k, torch.tensor([7]), torch.tensor([5]))
    >>> far = rotate_queries_keys(q, k, torch.tensor([90_007]), torch.tensor([90_005]))
    >>> torch.allclose(near[0] @ near[1].T, far[0] @ far[1].T)
    True
    """
    query_at = _positions("query", query_positions, queries)
    key_at = _positions("key", key_positions, keys)
    if queries.shape[-1] != keys.shape[-1] or queries.shape[-1] % 2:
        sizes = (queries.shape[-1], keys.shape[-1])
        raise ValueError(f"queries and keys must share an even dim_head, got {sizes}")
    scale_base = positive_number("xpos_scale_base", xpos_scale_base)
    dtype = torch.promote_types(queries.dtype, keys.dtype)
    if not flag("use_xpos", use_xpos) or not query_at.numel():
        return _turn(queries, query_at, dtype), _turn(keys, key_at, dtype)
    start, last = query_at.min(), query_at.max()
    dtype = _dtype_for_span((last - start).item(), scale_base, dtype)
    decay = partial(_decay_factors, dim_head=keys.shape[-1], scale_base=scale_base)
    return (
        _turn(queries, query_at, dtype, decay(query_at - start)),
        _turn(keys, key_at, dtype, decay(start - key_at.clamp(max=last))),
    )


def _positions(which: str, positions: Tensor, x: Tensor) -> Tensor:
    """Positions in float64, or an error that names the argument that does not fit."""
    floating_tensor("queries" if which == "query" else "keys", x, f"... {which} dim_head")
    name = f"{which}_positions"
    if not isinstance(positions, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(positions).__name__}")
    if positions.dtype is torch.bool or positions.is_complex():
        raise TypeError(f"{name} must hold integers or real numbers, got dtype {positions.dtype}")
    shape, axes = tuple(positions.shape), tuple(x.shape[:-1])
    fits = 0 < len(shape) <= len(axes) and shape[-1] == axes[-1]
    if not fits or any(a not in (1, b) for a, b in zip(shape[::-1], axes[::-1], strict=False)):
        raise ValueError(f"{name} must be ({which},) or broadcast to {axes}, got shape {shape}")
    if not positions.isfinite().all():
        raise ValueError(f"{name} must be finite, got {positions[~positions.isfinite()][0]}")
    return positions.to(x.device, torch.float64)


def _turn(x: Tensor, positions: Tensor, dtype: torch.dtype, decay: Tensor | None = None) -> Tensor:
    """Rotate `x` to `positions` and multiply each pair by its `decay`, in float64."""
    angles = positions[..., None] * rotary_frequencies(x.shape[-1]).to(x.device)
    turned = rotate(x.double(), angles.cos(), angles.sin())
    if decay is not None:
        turned = turned * torch.cat((decay, decay), dim=-1)
    return turned.to(dtype)


def _dtype_for_span(span: float, scale_base: float, dtype: torch.dtype) -> torch.dtype:
    """The narrowest dtype, from `dtype` up, that holds the factors and leaves 2**12 for values."""
    powers_of_two = span / scale_base * math.log2(7 / 2) + 12
    for candidate in (dtype, torch.float32, torch.float64):
        if powers_of_two < math.log2(torch.finfo(candidate).max):
            return candidate
    raise ValueError(
        f"query_positions span {span:,.0f} positions, too many for xpos_scale_base={scale_base}: "
        "rotate them in several parts, each with the keys it reads"
    )
