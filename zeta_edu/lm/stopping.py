"""Where a continuation ends: at a string, or at an id."""

from collections.abc import Iterator, Sequence

Stop = str | int | Sequence[str | int] | None


def split_stop(stop: Stop) -> tuple[list[str], frozenset[int]]:
    """Return the strings and the ids among what ends a continuation.

    Raises:
        ValueError: one is neither, or an empty string.
    """
    stops = [] if stop is None else [stop] if isinstance(stop, str | int) else list(stop)
    for one in stops:
        if isinstance(one, bool) or not isinstance(one, str | int) or one == "":
            raise ValueError(f"stop must be ids or strings that are not empty, got {one!r}")
    strings = [one for one in stops if isinstance(one, str)]
    return strings, frozenset(one for one in stops if isinstance(one, int))


def ids_of_stop(stop: Stop) -> frozenset[int]:
    """Return the ids that end a continuation of ids.

    Raises:
        ValueError: there is a string among them.
    """
    strings, ids = split_stop(stop)
    if strings:
        raise ValueError(f"stop holds the string {strings[0]!r}, but the prompt is ids; give ids")
    return ids


def cut_at(pieces: Iterator[str], stops: Sequence[str]) -> Iterator[str]:
    """Pass text on up to the first stop, holding back what may be the beginning of one."""
    held = ""
    for piece in pieces:
        held += piece
        found = [held.index(stop) for stop in stops if stop in held]
        if found:
            yield held[: min(found)]
            return
        certain = len(held) - _possible_beginning(held, stops)
        if certain:
            yield held[:certain]
            held = held[certain:]
    if held:
        yield held


def _possible_beginning(text: str, stops: Sequence[str]) -> int:
    """Return the length of the longest end of the text with which some stop begins."""
    longest = max(map(len, stops), default=1) - 1
    lengths = range(min(longest, len(text)), 0, -1)
    return next((n for n in lengths if any(s.startswith(text[-n:]) for s in stops)), 0)
