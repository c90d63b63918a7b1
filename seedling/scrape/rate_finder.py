"""Finds the highest request rate that a host allows with few refusals, and keeps the rate just below it."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

START_RATE = 4.0  # requests per second to an unknown host
MIN_STEP_SECONDS, MIN_STEP_ANSWERS = 0.25, 4  # at each rate of the probe
CATCH_UP_SECONDS = 0.02  # a delay of up to this long is made up for; a longer one is not
PROBE_UNCERTAINTY = 4.0  # a host with a burst allowance refuses late: its limit may be this many times lower
MIN_ANSWERS_OF_ESTIMATE = 8  # between two refusals, for their number to estimate the limit
CONVERGED_RATIO = 1.06  # high / low at which the search ends
FREE_REFUSALS, REFUSALS_PER_ANSWER, WAIT_SHARE = 2, 0.004, 0.02  # within which the finder takes risks
QUIET_SECONDS, QUIET_ANSWERS = (20.0, 8.0), 300  # without a refusal, before a rate above the bracket is tried
# Without a refusal for so long, a rate is taken as allowed; BURST_SECONDS per second of the wait before it.
PASS_ANSWERS, PASS_SECONDS, BURST_SECONDS = 10, 0.75, 1.0
MAX_BACKOFF_SECONDS = 60.0  # after a refusal without Retry-After
MIN_RATE = 0.05  # requests per second
QUEUE_LATENCY_RATIO, QUEUE_SLACK_SECONDS = 3.0, 0.05  # over the lowest latency: a higher one means that requests queue
MAX_TIMES = 4096
RECENT_ANSWERS = 8
MAX_LATENCIES = 64


@dataclass(slots=True)
class RateFinder:
    """Finds and keeps the request rate for one host. It has no clock: each call gets the time in seconds.

    Probe: double the rate until the host refuses. Search: between two refusals, the number of answers divided by the
    time estimates the host's limit, the better the longer the time; the next rate is within the bracket [low, high],
    nearer to `low`, because a refusal costs more than a short wait. Hold: stay near `low` with small additive steps
    up, and go beyond the bracket only after a long time without a refusal, because limits change. Growing latencies
    count as a refusal.
    """

    ceiling: float
    rate: float = START_RATE
    low: float | None = None  # bounds of the host's limit
    high: float | None = None
    phase: Literal["probe", "search", "hold"] = "probe"
    refusals: int = 0
    answers: int = 0
    refusals_in_a_row: int = 0
    _next: float = 0.0
    _not_before: float = 0.0
    _in_flight: int = 0
    _episode: float | None = None  # time of the last refusal; requests that were sent before it have no information
    _resumed: float = 0.0
    _since: int = 0  # answers to requests that were sent after the last refusal
    _times: list[float] = field(default_factory=list)  # of these answers, thinned
    _step: float | None = None
    _step_answers: int = 0
    # Per kind of request, because a page may be faster than an image.
    _lowest_latency: dict[str, float] = field(default_factory=dict)
    _mean_latency: float = 0.0  # exponential moving average
    _latencies: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=MAX_LATENCIES))
    _raised: float = 0.0
    _fixed: bool = False
    _passed: int = 0  # answers at this rate
    _waited: float = 0.0

    def __post_init__(self) -> None:
        self.rate = min(self.rate, self.ceiling)

    def fix_rate(self, rate: float) -> None:
        """Keep this rate, without a search."""
        self.rate, self.low, self.high, self.phase, self._fixed = rate, rate, rate, "hold", True

    def resume(self, rate: float, low: float | None, high: float | None) -> None:
        """Start with the state of an earlier run."""
        self.rate, self.low, self.high = min(rate, self.ceiling), low, high
        if high is not None:
            self.phase = "hold"

    def lower_ceiling(self, ceiling: float) -> None:
        """Lower the highest rate, for example to the host's Crawl-delay."""
        self.ceiling = min(self.ceiling, ceiling)
        self.rate = min(self.rate, self.ceiling)

    def state(self) -> tuple[float, float | None, float | None, int, int]:
        """Return the rate, the bounds of the limit, and the numbers of answers and refusals."""
        return self.rate, self.low, self.high, self.answers, self.refusals

    def wait(self, now: float) -> float:
        """Return the seconds until the next request may be sent; infinity if an answer must arrive first."""
        if self._in_flight >= self.max_in_flight():
            return math.inf
        return max(0.0, self._next - now, self._not_before - now)

    def max_in_flight(self) -> int:
        """Return how many requests may be in flight: 2 + 1.5 · rate · latency, so that the host's queue stays short."""
        if not self._lowest_latency:
            return 2
        ceiling = QUEUE_LATENCY_RATIO * max(self._lowest_latency.values()) + QUEUE_SLACK_SECONDS
        return 2 + math.ceil(1.5 * self.rate * min(self._mean_latency, ceiling))

    def sent(self, now: float) -> None:
        """Note that a request was sent."""
        self._in_flight += 1
        self._next = max(self._next, now - CATCH_UP_SECONDS) + 1 / self.rate
        if self._step is None:
            self._step = now

    def lost(self) -> None:
        """Note that a request got no answer."""
        self._in_flight = max(0, self._in_flight - 1)

    def answered(self, sent: float, now: float, kind: str = "") -> None:
        """Note that the host answered a request of this kind."""
        self.lost()
        self.answers += 1
        self.refusals_in_a_row = 0
        latency = now - sent
        lowest = self._lowest_latency[kind] = min(self._lowest_latency.get(kind, math.inf), latency)
        self._mean_latency += (latency - self._mean_latency) * (0.1 if self._mean_latency else 1.0)
        self._latencies.append((now, latency > QUEUE_LATENCY_RATIO * lowest + QUEUE_SLACK_SECONDS))
        if self._episode is None or sent > self._episode:
            self._since += 1
            self._times.append(now)
            if len(self._times) > MAX_TIMES:
                del self._times[::2]
        if self._fixed:
            return
        if self.phase == "probe":
            self._probe(now)
            return
        if self._episode is None:  # resumed from an earlier run: the episode starts now
            self._episode = self._resumed = self._raised = now
        if self._requests_queue():
            self._back_off(now)
        if sent > self._resumed and self.low is not None:
            self._raise_low(now, self.low, self._episode)
        self._choose(now)

    def _raise_low(self, now: float, low: float, episode: float) -> None:
        self._passed += 1
        seconds = PASS_SECONDS + BURST_SECONDS * (self._resumed - episode)
        if self._passed >= max(PASS_ANSWERS, seconds * self.rate) and self.phase == "search":
            low, self._passed = max(low, self.rate), 0
        self.low = max(low, (self._since - 1) / (now - episode))
        if self.high is not None and self.low > self.high:
            self.high = self.low * CONVERGED_RATIO  # the limit rose, or the host's burst allowance is larger

    def refused(self, sent: float, now: float, wait: float | None) -> None:
        """Note that the host refused a request (429 or 503). wait: its Retry-After in seconds."""
        self.lost()
        self.refusals += 1
        was_in_flight = self._episode is not None and sent <= self._episode
        self.refusals_in_a_row += not was_in_flight
        backoff = min(MAX_BACKOFF_SECONDS, 2.0 ** (self.refusals_in_a_row - 1) / min(self.rate, 20.0))
        until = max(self._not_before, now + (backoff if wait is None else wait))
        self._waited += until - max(self._not_before, now)
        self._not_before = until
        if was_in_flight or self.refusals_in_a_row > 1:  # no new information about the rate
            self._resumed = self._not_before
            if not was_in_flight:
                self._start_episode(now)
            return
        if self._fixed:
            pass
        elif self._episode is None or self.phase == "probe":
            self.high, self.low = self.rate, max(self.rate / PROBE_UNCERTAINTY, min(self.low or 0.0, self.rate / 1.5))
        else:
            self.high = self.rate
            can_estimate = self._since >= MIN_ANSWERS_OF_ESTIMATE
            self.low = min(
                max((self._since - 1) / (now - self._episode), self._recent_rate(now))
                if can_estimate
                else self.rate / 2,
                self.rate / 1.005,
            )
        self._start_episode(now)
        self._resumed, self._passed, self._raised = self._not_before, 0, now
        self.phase = "search"
        self._choose(now)

    def _start_episode(self, now: float) -> None:
        """Start to count answers: those to requests that were sent before have no information about the limit."""
        self._episode, self._since = now, 0
        self._times.clear()

    def _recent_rate(self, now: float) -> float:
        """Return the rate of the later half of the answers, in requests per second.

        The earlier half may include a burst allowance. The last wait counts as time, in which the host may have
        accumulated a new allowance.
        """
        half = self._times[len(self._times) // 2]
        return self._since / 2 / (now - half + self._resumed - (self._episode or 0.0))

    def _probe(self, now: float) -> None:
        self._step_answers += 1
        began = self._step if self._step is not None else now
        if self._step_answers < MIN_STEP_ANSWERS or now - began < MIN_STEP_SECONDS:
            return
        if self._requests_queue():
            self._back_off(now)
        elif self._step_answers >= 0.6 * self.rate * (now - began):  # otherwise this rate was not reached
            self.rate = min(2 * self.rate, self.ceiling)
        self._step, self._step_answers = now, 0

    def _requests_queue(self) -> bool:
        """Whether all recent answers took far longer than the fastest one: a single pause delays only some."""
        recent = [is_slow for _, is_slow in self._latencies][-RECENT_ANSWERS:]
        return len(recent) == RECENT_ANSWERS and all(recent)

    def _back_off(self, now: float) -> None:
        """Take the rate of the recent answers as the limit, and let the queue run empty."""
        answer_rate = (RECENT_ANSWERS - 1) / max(now - self._latencies[-RECENT_ANSWERS][0], 1e-3)
        self.high = answer_rate * 1.02
        self.low = answer_rate * 0.9
        self._start_episode(now)
        self.phase, self._resumed, self._raised = "search", now, now
        self._latencies.clear()
        self._not_before = max(self._not_before, now + QUEUE_LATENCY_RATIO * max(self._lowest_latency.values()))
        self._choose(now)

    def _takes_risks(self, now: float) -> bool:
        """Whether there were so few refusals and waits that another refusal is acceptable."""
        few_refusals = self.refusals < FREE_REFUSALS + REFUSALS_PER_ANSWER * self.answers
        return few_refusals and self._waited < FREE_REFUSALS + WAIT_SHARE * now

    def _choose(self, now: float) -> None:
        """Set the rate to low · (high / low)^share; the share is larger for a wide bracket and after few refusals."""
        if self._fixed or self.low is None or self._episode is None:
            return
        if self.high is None:
            self.phase = "probe"
            return
        ratio = self.high / self.low
        takes_risks = self._takes_risks(now)
        is_wide = ratio > 1.3
        share = (0.5 if is_wide else 0.35) if takes_risks else 0.2 if is_wide else 0.1
        rate = self.low * ratio**share
        if ratio <= CONVERGED_RATIO:
            self.phase = "hold"
        quiet = now - max(self._raised, self._resumed)
        min_quiet = max(QUIET_SECONDS[takes_risks], QUIET_ANSWERS / self.rate)
        if quiet > min_quiet:
            rate = max(rate, self.high * (1 + 0.01 * (quiet - min_quiet)))
            if rate > 1.15 * self.high:
                self.high, self.phase, self._step, self._step_answers = None, "probe", now, 0
        self.rate = min(max(rate, MIN_RATE), self.ceiling)
