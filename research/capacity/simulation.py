"""Discrete-event simulation of a server whose two phases, encoding and decoding, share one machine.

Processor sharing with state-dependent rates (the flow-equivalent server of Chandy, Herzog and Woo, 1975): how fast a
phase goes depends on how many requests are in either.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any

import simpy

Rates = Callable[[int, int], tuple[float, float]]
"""Work a second that encoding and decoding get done, by how many requests are in each; all in a phase share it."""

DONE = 1e-9
"""Work left that is only the rounding of floats."""


class Server:
    """Serves all requests at once; each phase's rate is divided equally among those in it."""

    def __init__(self, env: simpy.Environment, rates: Rates) -> None:
        self._env, self._rates = env, rates
        self._left: tuple[dict[simpy.Event, float], dict[simpy.Event, float]] = ({}, {})
        self._joined = env.event()
        self._worked_until = env.now
        env.process(self._run())

    def serve(self, phase: int, work: float) -> simpy.Event:
        """Let a request join phase 0 or 1; the event comes when its work is done."""
        self._work()
        done = self._env.event()
        self._left[phase][done] = work
        if not self._joined.triggered:
            self._joined.succeed()
        return done

    def _speeds(self) -> list[float]:
        """Work a second that each request of a phase gets done now."""
        rates = self._rates(len(self._left[0]), len(self._left[1]))
        return [rate / max(1, len(left)) for rate, left in zip(rates, self._left, strict=True)]

    def _work(self) -> None:
        """Bring the work that is left up to now."""
        seconds, self._worked_until = self._env.now - self._worked_until, self._env.now
        for left, speed in zip(self._left, self._speeds(), strict=True):
            left.update({done: work - speed * seconds for done, work in left.items()})

    def _run(self) -> Generator[simpy.Event, Any, None]:
        while True:
            self._joined = self._env.event()
            ends = [min(left.values()) / speed for left, speed in zip(self._left, self._speeds(), strict=True) if left]
            yield self._joined | self._env.timeout(max(0.0, min(ends))) if ends else self._joined
            self._work()
            for left in self._left:
                for done in [done for done, work in left.items() if work <= DONE]:
                    del left[done]
                    done.succeed()


def simulate(rates: Rates, works: Sequence[tuple[float, float]], arrivals: Sequence[float]) -> list[float]:
    """How long each request takes, in seconds.

    Args:
        works: of each request, to encode and to decode, in the unit of ``rates``.
        arrivals: when each comes, in seconds, ascending.
    """
    env = simpy.Environment()
    server = Server(env, rates)
    seconds = [0.0] * len(arrivals)

    def request(number: int) -> Generator[simpy.Event, Any, None]:
        for phase, work in enumerate(works[number]):
            yield server.serve(phase, work)
        seconds[number] = env.now - arrivals[number]

    def arrive() -> Generator[simpy.Event, Any, None]:
        for number, due in enumerate(arrivals):
            yield env.timeout(max(0.0, due - env.now))
            env.process(request(number))

    env.process(arrive())
    env.run()
    return seconds
