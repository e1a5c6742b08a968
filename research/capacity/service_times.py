"""Service times from closed loops alone: the work of each prompt, and how fast it is done beside other requests.

The phases of a request are seen from outside: until its first piece it waits or is encoded (phase 0), after it it is
decoded (phase 1). In a closed loop it is known at any time how many requests are in each phase.

Shape letters: ``R`` requests, ``S`` states, ``P`` prompts.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from neuro_latent_benchmarks.load import LoadRun
from neuro_latent_benchmarks.report import BenchError

Floats = npt.NDArray[np.float64]

BOUNDS = (0, 1, 2, 3, 5, 9, 17, 33)
"""The least number of requests of each bin; a state is a bin for either phase."""

ROUNDS = 30
LEAST_S = 0.1
"""A state that was seen for less time gets the rate of the nearest one."""


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """What :func:`simulation.simulate` needs.

    Attributes:
        works: the measured ones of each prompt, to encode and to decode; a prompt's are 1 on average over all prompts.
        rates_2BB: work a second of each phase, by the bins of requests that are encoded and decoded.
    """

    works: tuple[tuple[tuple[float, float], ...], ...]
    rates_2BB: Floats

    def rates(self, encoding: int, decoding: int) -> tuple[float, float]:
        """Of both phases beside so many requests, in work a second."""
        encode, decode = self.rates_2BB[:, _bin(encoding), _bin(decoding)]
        return float(encode), float(decode)

    def draw(self, prompts: Sequence[int], seed: int) -> list[tuple[float, float]]:
        """The work of requests for these prompts: for each, one of those that were measured for its prompt."""
        choice = random.Random(seed).choice
        return [choice(self.works[prompt]) for prompt in prompts]


@dataclass(frozen=True, slots=True)
class ClosedRun:
    """A closed loop that went through all prompts in order from number ``first`` on, and its requests a second."""

    run: LoadRun
    clients: int
    first: int
    rate: float


def service_times(runs: Sequence[ClosedRun], prompts: int) -> ServiceTimes:
    """Fit both phases to closed loops with some numbers of clients.

    A request's work is the sum over states of the state's rate times its share of the time there. Rates and works
    follow from each other in turns (expectation maximization for rates that are not negative).

    Args:
        prompts: number of different ones.

    Raises:
        BenchError: not every one was asked for.
    """
    shares = [_shares(closed.run) for closed in runs]
    prompt_R = np.concatenate([(closed.first + np.arange(len(closed.run.timings))) % prompts for closed in runs])
    if missing := prompts - len(np.unique(prompt_R)):
        raise BenchError(
            f"{missing} of {prompts} prompts were not asked for: the server is too slow for loops so short"
        )
    share_2RS = [np.concatenate([share[phase] for share in shares]) for phase in (0, 1)]
    rates = [_fit(share_RS, prompt_R, prompts) for share_RS in share_2RS]
    done = [share_RS @ rate_BB.ravel() for share_RS, rate_BB in zip(share_2RS, rates, strict=True)]
    works: list[list[tuple[float, float]]] = [[] for _ in range(prompts)]
    for prompt, encode, decode in zip(prompt_R, *done, strict=True):
        works[prompt].append((float(encode), float(decode)))
    return ServiceTimes(tuple(map(tuple, works)), np.stack(rates))


def _bin(requests: int) -> int:
    return int(np.searchsorted(BOUNDS, requests, side="right")) - 1


def _shares(run: LoadRun) -> tuple[Floats, Floats]:
    """Seconds of each request in each state, divided by the number of requests that it shares its phase with [R, S]."""
    timings = sorted(run.timings, key=lambda timing: timing.start)  # the order of the prompts
    moments = [(at, phase, r) for r, t in enumerate(timings) for phase, at in enumerate((t.start, t.first, t.end))]
    share_2RS = np.zeros((2, len(timings), len(BOUNDS) ** 2))
    inside: tuple[set[int], set[int]] = (set(), set())
    before = 0.0
    for at, phase, request in sorted(moments):
        state = _bin(len(inside[0])) * len(BOUNDS) + _bin(len(inside[1]))
        for share_RS, members in zip(share_2RS, inside, strict=True):
            if members:
                share_RS[list(members), state] += (at - before) / len(members)
        if phase:
            inside[phase - 1].remove(request)
        if phase < 2:
            inside[phase].add(request)
        before = at
    return share_2RS[0], share_2RS[1]


def _fit(share_RS: Floats, prompt_R: npt.NDArray[np.int64], prompts: int) -> Floats:
    """The rates [B, B] of one phase, in the work of an average prompt a second."""
    time_S = share_RS.sum(axis=0)
    seen_S = time_S >= LEAST_S
    asked_P = np.bincount(prompt_R, minlength=prompts)
    work_P = np.ones(prompts)
    rate_S = np.full(len(time_S), len(share_RS) / time_S.sum())
    for _ in range(ROUNDS):
        done_R = np.maximum(share_RS @ rate_S, 1e-12)
        rate_S *= share_RS.T @ (work_P[prompt_R] / done_R) / np.where(time_S > 0, time_S, 1)
        work_P = np.bincount(prompt_R, share_RS @ rate_S, prompts) / asked_P
        work_P, rate_S = work_P / work_P.mean(), rate_S / work_P.mean()
    places = np.stack(np.divmod(np.arange(len(time_S)), len(BOUNDS)), axis=1)
    seen = np.flatnonzero(seen_S)
    nearest = [seen[np.abs(places[seen] - place).sum(axis=1).argmin()] for place in places]
    return rate_S[nearest].reshape(len(BOUNDS), len(BOUNDS))
