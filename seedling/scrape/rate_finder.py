"""The rate finder: the fastest pace that a host allows, found with few refusals and held just below it."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

START = 4.0  # requests a second at a host that is not known yet
STEP_SECONDS, STEP_ANSWERS = 0.25, 4  # at each rate of the probe at least
CATCH_UP = 0.02  # seconds of lateness that are made good; what came later than that is lost
UNKNOWN = 4.0  # the first refusal comes late where a host saves up permissions: the limit may be so many times lower
ENOUGH = 8  # answers between two refusals, from which on their number says what the limit is
NARROW = 1.06  # a bracket this narrow is found
FREE, AFFORDABLE, AFFORDABLE_WAIT = 2, 0.004, 0.02  # refusals, refusals an answer, and seconds of waiting a second
QUIET_SECONDS, QUIET_ANSWERS = (20.0, 8.0), 300  # without a refusal, before more than was once refused is tried
PASS_ANSWERS, PASS_SECONDS, SAVED_UP = (
    10,
    0.75,
    1.0,
)  # without a refusal, and the rate is good, until a count says otherwise
LONGEST_BACKOFF = 60.0  # seconds; where a host that refuses does not say how long to wait
SLOWEST = 0.05  # requests a second
SLUGGISH, SLACK_SECONDS = 3.0, 0.05  # times the quickest answers' latency, and seconds, that tell a queue
THINNED = 4096
RECENT = 8  # answers
QUEUE = 64  # answers whose latency is remembered


@dataclass(slots=True)
class RateFinder:
    """Paces the requests to one host. Knows no clock: every call is given the time, in seconds.

    Probe: doubles the rate until the host refuses. Search: between two refusals a host has given out just what it allows in that time, so the
    number of answers brackets its limit, the closer the longer it took; the next rate lies within the bracket, nearer to its lower end, since a
    refusal is dearer than a moment's wait. Hold: at the lower end, with small additive steps up, and beyond the bracket only after a
    long time without refusal, as limits change. Answers that come ever later say the same as a refusal.
    """

    ceiling: float
    rate: float = START
    low: float | None = None  # the bracket of the host's limit
    high: float | None = None
    phase: Literal["probe", "search", "hold"] = "probe"
    refusals: int = 0
    answers: int = 0
    turned_away: int = 0  # times in a row
    _next: float = 0.0
    _not_before: float = 0.0
    _in_flight: int = 0
    _episode: float | None = None  # when it last refused; requests sent before tell nothing new
    _resumed: float = 0.0
    _since: int = 0  # answers to requests that were sent since
    _times: list[float] = field(default_factory=list)  # of those, thinned
    _step: float | None = None
    _step_answers: int = 0
    _quickest: dict[str, float] = field(
        default_factory=dict
    )  # latency by kind of request: a page may take less than an image
    _usual: float = 0.0  # latency, a moving mean
    _latencies: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=QUEUE))
    _raised: float = 0.0
    _fixed: bool = False
    _passed: int = 0  # answers at this rate
    _waited: float = 0.0

    def __post_init__(self) -> None:
        self.rate = min(self.rate, self.ceiling)

    def keep_to(self, rate: float) -> None:
        """Holds this very rate: nothing is searched for."""
        self.rate, self.low, self.high, self.phase, self._fixed = rate, rate, rate, "hold", True

    def remember(self, rate: float, low: float | None, high: float | None) -> None:
        """Begins where an earlier run stopped."""
        self.rate, self.low, self.high = min(rate, self.ceiling), low, high
        if high is not None:
            self.phase = "hold"

    def lower_ceiling(self, ceiling: float) -> None:
        """The host asks for a slower pace (Crawl-delay)."""
        self.ceiling = min(self.ceiling, ceiling)
        self.rate = min(self.rate, self.ceiling)

    def state(self) -> tuple[float, float | None, float | None, int, int]:
        """Rate, the bracket's ends, answers and refusals so far."""
        return self.rate, self.low, self.high, self.answers, self.refusals

    def wait(self, now: float) -> float:
        """Seconds until the next request may be sent: 0 now, infinity where an answer must come first."""
        if self._in_flight >= self.most_in_flight():
            return math.inf
        return max(0.0, self._next - now, self._not_before - now)

    def most_in_flight(self) -> int:
        """As many as the rate needs, and a few more: a host's queue is not filled, and a refusal meets few others on the way."""
        if not self._quickest:
            return 2
        usual = min(self._usual, SLUGGISH * max(self._quickest.values()) + SLACK_SECONDS)
        return 2 + math.ceil(1.5 * self.rate * usual)

    def sent(self, now: float) -> None:
        """A request leaves."""
        self._in_flight += 1
        self._next = max(self._next, now - CATCH_UP) + 1 / self.rate
        if self._step is None:
            self._step = now

    def lost(self) -> None:
        """A request got no answer: its place is free."""
        self._in_flight = max(0, self._in_flight - 1)

    def answered(self, sent: float, now: float, kind: str = "") -> None:
        """The host answered a request of this kind."""
        self.lost()
        self.answers += 1
        self.turned_away = 0
        latency = now - sent
        self._quickest[kind] = min(self._quickest.get(kind, math.inf), latency)
        self._usual += (latency - self._usual) * (0.1 if self._usual else 1.0)
        self._latencies.append((now, latency > SLUGGISH * self._quickest[kind] + SLACK_SECONDS))
        if self._episode is None or sent > self._episode:
            self._since += 1
            self._times.append(now)
            if len(self._times) > THINNED:
                del self._times[::2]
        if self._fixed:
            return
        if self.phase == "probe":
            self._probe(now)
            return
        if self._episode is None:  # remembered: it begins now
            self._episode = self._resumed = self._raised = now
        if self._sluggish():
            self._give_way(now)
        if sent > self._resumed and self.low is not None:
            self._passed += 1
            if (
                self._passed
                >= max(PASS_ANSWERS, (PASS_SECONDS + SAVED_UP * (self._resumed - self._episode)) * self.rate)
                and self.phase == "search"
            ):
                self.low, self._passed = max(self.low, self.rate), 0
            self.low = max(self.low, (self._since - 1) / (now - self._episode))
            if self.high is not None and self.low > self.high:
                self.high = self.low * NARROW  # the limit rose, or the host saves up more than was thought
        self._choose(now)

    def refused(self, sent: float, now: float, wait: float | None) -> None:
        """The host refused a request (429, 503); wait: its Retry-After."""
        self.lost()
        self.refusals += 1
        on_the_way = self._episode is not None and sent <= self._episode
        self.turned_away += not on_the_way
        own_wait = min(LONGEST_BACKOFF, 2.0 ** (self.turned_away - 1) / min(self.rate, 20.0))
        until = max(self._not_before, now + (own_wait if wait is None else wait))
        self._waited += until - max(self._not_before, now)
        self._not_before = until
        if on_the_way or self.turned_away > 1:  # nothing new about the rate
            self._resumed = self._not_before
            if not on_the_way:
                self._count_from(now)
            return
        if self._fixed:
            pass
        elif self._episode is None or self.phase == "probe":
            self.high, self.low = self.rate, max(self.rate / UNKNOWN, min(self.low or 0.0, self.rate / 1.5))
        else:
            self.high = self.rate
            enough = self._since >= ENOUGH
            self.low = min(
                max((self._since - 1) / (now - self._episode), self._lately(now)) if enough else self.rate / 2,
                self.rate / 1.005,
            )
        self._count_from(now)
        self._resumed, self._passed, self._raised = self._not_before, 0, now
        self.phase = "search"
        self._choose(now)

    def _count_from(self, now: float) -> None:
        """Answers to what was sent before tell nothing more of the limit."""
        self._episode, self._since = now, 0
        self._times.clear()

    def _lately(self, now: float) -> float:
        """The rate of the later half of the answers, beside what may have been saved up in the last wait: in the earlier one the host may have had
        more to give than was asked for.
        """
        half = self._times[len(self._times) // 2]
        return self._since / 2 / (now - half + self._resumed - (self._episode or 0.0))

    def _probe(self, now: float) -> None:
        self._step_answers += 1
        began = self._step if self._step is not None else now
        if self._step_answers < STEP_ANSWERS or now - began < STEP_SECONDS:
            return
        if self._sluggish():
            self._give_way(now)
        elif self._step_answers >= 0.6 * self.rate * (
            now - began
        ):  # else the rate was not reached, and more of it tells nothing
            self.rate = min(2 * self.rate, self.ceiling)
        self._step, self._step_answers = now, 0

    def _sluggish(self) -> bool:
        """Whether even the quickest of the last answers took far longer than the quickest of all: requests queue; a pause of our own delays some."""
        recent = [late for _, late in self._latencies][-RECENT:]
        return len(recent) == RECENT and all(recent)

    def _give_way(self, now: float) -> None:
        """Takes the rate at which answers came for the limit, and lets the queue run empty."""
        came = (RECENT - 1) / max(now - self._latencies[-RECENT][0], 1e-3)  # requests queued all the while
        self.high = came * 1.02
        self.low = came * 0.9
        self._count_from(now)
        self.phase, self._resumed, self._raised = "search", now, now
        self._latencies.clear()
        self._not_before = max(self._not_before, now + SLUGGISH * max(self._quickest.values()))
        self._choose(now)

    def _bold(self, now: float) -> bool:
        """Whether there were so few refusals that another one is cheap."""
        return self.refusals < FREE + AFFORDABLE * self.answers and self._waited < FREE + AFFORDABLE_WAIT * now

    def _choose(self, now: float) -> None:
        """The rate within the bracket."""
        if self._fixed or self.low is None or self._episode is None:
            return
        if self.high is None:
            self.phase = "probe"
            return
        width = self.high / self.low
        bold = self._bold(now)
        share = 0.5 if bold and width > 1.3 else 0.35 if bold else 0.2 if width > 1.3 else 0.1
        wanted = self.low * width**share
        if width <= NARROW:
            self.phase = "hold"
        quiet = now - max(self._raised, self._resumed)
        needed = max(QUIET_SECONDS[bold], QUIET_ANSWERS / self.rate)
        if quiet > needed:
            wanted = max(wanted, self.high * (1 + 0.01 * (quiet - needed)))
            if wanted > 1.15 * self.high:
                self.high, self.phase, self._step, self._step_answers = None, "probe", now, 0
        self.rate = min(max(wanted, SLOWEST), self.ceiling)
