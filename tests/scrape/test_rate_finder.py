"""The rate finder, with simulated hosts, limits and clocks."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import pytest

from seedling.scrape.rate_finder import RateFinder


class Bucket:
    """A token bucket: `rate` requests per second, and at most `room` saved ones."""

    def __init__(self, rate: float, room: float) -> None:
        self.rate, self.room, self.tokens, self.last = rate, room, room, 0.0

    def __call__(self, now: float) -> float:
        """0, or the whole seconds to wait."""
        self.tokens = min(self.room, self.tokens + (now - self.last) * self.rate)
        self.last = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return math.ceil((1 - self.tokens) / self.rate)


def simulate(
    finder: RateFinder, host: Callable[[float], float], seconds: float, latency: float = 0.004
) -> tuple[list[float], list[float]]:
    """The times of accepted requests, and those of refused ones."""
    now, let, refused = 0.0, list[float](), list[float]()
    on_the_way: list[tuple[float, float, float]] = []
    while now < seconds:
        wait = finder.wait(now)
        if on_the_way and on_the_way[0][0] <= now + wait:
            now, sent, wait_seconds = heapq.heappop(on_the_way)
            if wait_seconds:
                finder.refused(sent, now, wait_seconds)
            else:
                finder.answered(sent, now)
        elif wait > 0:
            now += wait
        else:
            finder.sent(now)
            wait_seconds = host(now)
            (refused if wait_seconds else let).append(now)
            heapq.heappush(on_the_way, (now + latency, now, wait_seconds))
            now += 0.0005
    return let, refused


@pytest.mark.parametrize("limit", [5.0, 50.0, 500.0])
def test_the_limit_is_found_with_few_refusals(limit: float) -> None:
    """A bucket of a second: nine tenths of what it allows in a minute, 96 % in its later half, and at most 10 refusals in 300 requests or 1 in 200."""
    let, refused = simulate(RateFinder(5_000.0), Bucket(limit, limit), 60.0)
    assert len(let) >= 0.9 * 60 * limit
    assert sum(when >= 30 for when in let) >= 0.96 * 30 * limit
    assert len(refused) <= max(10, 0.005 * len(let))


def test_the_ceiling_is_never_exceeded() -> None:
    """Without any limit of the host, no second has more requests than the ceiling allows."""
    let, _ = simulate(RateFinder(20.0), lambda _: 0.0, 30.0)
    assert max(sum(begin <= when < begin + 1 for when in let) for begin in range(30)) <= 21
    assert sum(when >= 20 for when in let) >= 195


def test_retry_after_is_obeyed() -> None:
    """A host that asks for seven seconds gets no request for seven seconds."""
    finder = RateFinder(100.0)
    finder.sent(0.0)
    finder.refused(0.0, 0.1, 7.0)
    assert finder.wait(0.1) == pytest.approx(7.0)
    assert finder.wait(7.2) == 0.0


def test_without_retry_after_the_wait_doubles() -> None:
    """Four refusals in a row at four requests per second: a quarter, a half, one and two seconds."""
    finder, now, waits = RateFinder(100.0), 0.0, []
    finder.fix_rate(4.0)
    for _ in range(4):
        finder.sent(now)
        finder.refused(now, now + 0.01, None)
        waits.append(finder.wait(now + 0.01))
        now += 0.01 + waits[-1]
    assert waits == pytest.approx([0.25, 0.5, 1.0, 2.0])


@pytest.mark.parametrize(("factor", "seconds"), [(0.5, 20.0), (2.0, 40.0)])
def test_a_limit_that_changes_is_found_again(factor: float, seconds: float) -> None:
    """The limit halves or doubles after a minute; after some time the rate is nine tenths of the new limit."""
    host, new = Bucket(50.0, 50.0), Bucket(50.0 * factor, 50.0 * factor)

    def changing(now: float) -> float:
        if now < 60:
            return host(now)
        if new.last == 0:
            new.last, new.tokens = now, 1.0
        return new(now)

    let, _ = simulate(RateFinder(1_000.0), changing, 120.0)
    later = [when for when in let if when >= 60 + seconds]
    assert len(later) >= 0.9 * (60 - seconds) * 50 * factor


def test_increasing_latency_is_treated_as_a_limit() -> None:
    """A host that answers 40 requests per second sequentially, and refuses none, has a short queue."""
    finder, free, latencies = RateFinder(1_000.0), 0.0, []
    now, on_the_way = 0.0, list[tuple[float, float]]()
    while now < 40:
        wait = finder.wait(now)
        if on_the_way and on_the_way[0][0] <= now + wait:
            now, sent = heapq.heappop(on_the_way)
            latencies.append((now, now - sent))
            finder.answered(sent, now)
        elif wait > 0:
            now += wait
        else:
            finder.sent(now)
            free = max(free, now) + 1 / 40
            heapq.heappush(on_the_way, (free, now))
            now += 0.0005
    late = [latency for when, latency in latencies if when > 20]
    assert len(late) >= 0.9 * 20 * 40
    assert sorted(late)[len(late) // 2] < 0.3


def test_the_next_run_begins_at_the_rate_that_was_found() -> None:
    """A finder with a stored 48 of 50 requests per second is at 45 per second in its first two seconds."""
    finder = RateFinder(1_000.0)
    finder.resume(48.0, 48.0, 50.0)
    let, refused = simulate(finder, Bucket(50.0, 50.0), 20.0)
    assert sum(when < 2 for when in let) >= 90
    assert len(refused) <= 3
