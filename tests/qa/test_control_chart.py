"""Control charts: what each rule is, and how often it alarms; what is expected is derived here from the normal distribution."""

import math
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from oarlock.qa.control_chart import BASELINE, FEWEST, LIMIT, RUN, WARNING, ControlLimits, Rule

FloatArray = npt.NDArray[np.float64]
KNOWN = ControlLimits(centre=1.2, deviation=0.1)
CHARTS = 1_500


def to_scores(distances: FloatArray) -> list[float]:
    """Scores that lie so many deviations from the centre of the known limits."""
    return list(np.sin(1.2 + 0.1 * distances) ** 2)


def fired(distances: list[float], rule: Rule) -> list[int]:
    return [alarm.index for alarm in KNOWN.alarms(to_scores(np.array(distances))) if alarm.rule is rule]


# ── the rules ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_limits_by_hand() -> None:
    """Angles 1.1 and 1.3 in turn: centre 1.2, every moving range 0.2, so the deviation is 0.2 / 1.128."""
    scores = [math.sin(1.1 + 0.2 * (i % 2)) ** 2 for i in range(BASELINE)]
    limits = ControlLimits.of(scores)
    assert limits is not None
    assert (limits.centre, limits.deviation) == (pytest.approx(1.2), pytest.approx(0.2 / 1.12838, rel=1e-5))
    assert limits.score_at(0) == pytest.approx(math.sin(1.2) ** 2)
    assert limits.score_at(LIMIT) == 1.0
    assert limits.score_at(-100) == 0.0


def test_without_a_whole_baseline_or_where_it_does_not_vary_there_are_no_limits() -> None:
    varied = list(np.linspace(0.8, 0.9, BASELINE))
    assert ControlLimits.of(varied[1:]) is None
    assert ControlLimits.of([1.0] * BASELINE) is None
    assert ControlLimits.of([0.9] * BASELINE) is None
    assert ControlLimits.of(varied) == ControlLimits.of([*varied, 0.1, 0.2])


def test_a_score_beyond_a_limit() -> None:
    assert fired([0, LIMIT - 0.01, -LIMIT + 0.01], Rule.BEYOND_LIMIT) == []
    (lower, higher) = KNOWN.alarms(to_scores(np.array([0, -LIMIT - 0.01, LIMIT + 0.01])))
    assert (lower.index, lower.side, higher.index, higher.side) == (1, "lower", 2, "higher")


def test_two_of_three_on_one_side() -> None:
    far = WARNING + 0.01
    assert fired([far, far], Rule.TWO_OF_THREE) == [1]
    assert fired([far, 0, far, 0], Rule.TWO_OF_THREE) == [2]
    assert fired([far, 0, 0, far], Rule.TWO_OF_THREE) == []
    assert fired([far, -far, far], Rule.TWO_OF_THREE) == [2]
    assert fired([far, -far, -far], Rule.TWO_OF_THREE) == [2]
    assert fired([-far, WARNING - 0.01, -far, -far], Rule.TWO_OF_THREE) == [2, 3]


def test_a_run_on_one_side() -> None:
    assert fired([0.1] * (RUN - 1), Rule.RUN) == []
    assert fired([0.1] * (RUN + 1), Rule.RUN) == [RUN - 1, RUN]
    assert fired([*[-0.1] * (RUN - 1), 0.1, *[-0.1] * RUN], Rule.RUN) == [2 * RUN - 1]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-5, 5), max_size=60))
def test_the_rules_say_what_their_sentences_say(distances: list[float]) -> None:
    """Counted one score after the other, from scores that went to the chart and back."""
    scores = np.clip(to_scores(np.array(distances)), 0, 1)
    found = {(alarm.index, alarm.rule, alarm.side) for alarm in KNOWN.alarms(list(scores))}
    at = (np.arcsin(np.sqrt(scores)) - KNOWN.centre) / KNOWN.deviation
    expected = set()
    for i, (side, sign) in product(range(len(at)), (("lower", -1), ("higher", 1))):
        here = [sign * distance for distance in at[: i + 1]]
        if here[-1] > LIMIT:
            expected.add((i, Rule.BEYOND_LIMIT, side))
        if here[-1] > WARNING and sum(distance > WARNING for distance in here[-3:]) >= 2:
            expected.add((i, Rule.TWO_OF_THREE, side))
        if len(here) >= RUN and all(distance > 0 for distance in here[-RUN:]):
            expected.add((i, Rule.RUN, side))
    assert found == expected


# ── how often they alarm ──────────────────────────────────────────────────────────────────────────────────────────────

TEXTBOOK = {
    Rule.BEYOND_LIMIT: 2 * stats.norm.sf(3),
    Rule.TWO_OF_THREE: 2 * stats.norm.sf(2) * (1 - stats.norm.cdf(2) ** 2),
    Rule.RUN: 2 * 0.5**9,
}
"""Chance that a rule fires at a score of a stable process whose centre and deviation are known, with 3, 2 and nine."""


def baselines(rng: np.random.Generator, n: int) -> list[ControlLimits]:
    """ControlLimits as they are found from the scores of a stable process."""
    found = [ControlLimits.of(to_scores(rng.standard_normal(BASELINE))) for _ in range(n)]
    return [limits for limits in found if limits is not None]


def estimation_errors() -> list[tuple[float, float, float]]:
    """Where an estimated centre lies and how large an estimated deviation is, in true ones, with the probability of both.

    The mean of n normal values is normal with 1/√n. The mean moving range over 1.128 is nearly a chi of ν degrees of freedom over
    √ν; ν follows from its variance 0.826/(n - 1) (Braun and Park 2008), to which that of a chi is nearly 1/(2ν).
    """
    freedom = (BASELINE - 1) / (2 * 0.826)
    shares = (np.arange(15) + 0.5) / 15
    centres = stats.norm.ppf(shares) / math.sqrt(BASELINE)
    deviations = np.sqrt(stats.chi2.ppf(shares, freedom) / freedom)
    return [(c, s, 1 / 15**2) for c in centres for s in deviations]


def chance_of_an_alarm(shift: float, scores: int, centre: float, deviation: float) -> float:
    """Exact chance that some rule fires within so many scores, given how wrong the limits are: a Markov chain.

    A state is the run so far (its side and length) and which of the last two scores were beyond a warning on which side.
    """
    edges = [-np.inf, *(centre + deviation * k for k in (-LIMIT, -WARNING, 0, WARNING, LIMIT)), np.inf]
    chances = np.diff(stats.norm.cdf(edges, loc=-shift))
    zones = {-2: chances[1], -1: chances[2], 1: chances[3], 2: chances[4]}  # beyond a limit, the chain ends
    states = {(0, 0, 0): 1.0}
    for _ in range(scores):
        following: dict[tuple[int, int, int], float] = {}
        for (run, last, before), chance in states.items():
            for zone, p in zones.items():
                side = 1 if zone > 0 else -1
                length = run + side if run * side > 0 else side
                far = side if abs(zone) == 2 else 0
                if abs(length) >= RUN or (far and far in (last, before)):
                    continue
                key = (length, far, last)
                following[key] = following.get(key, 0.0) + chance * p
        states = following
    return 1 - sum(states.values())


def within(frequency: float, expected: float, n: int) -> bool:
    """Whether a frequency among n independent cases is what is expected: one seed in 15,000 is further off."""
    return abs(frequency - expected) <= 4 * math.sqrt(expected * (1 - expected) / n) + 0.01  # 0.01: the 15 by 15 grid


@pytest.mark.parametrize(
    ("shift", "scores"),
    [
        *((2.0, 5), (3.0, 2)),
        *(
            pytest.param(*case, marks=pytest.mark.long("simulation"))
            for case in ((0.0, 50), (0.5, 50), (1.0, 15), (1.0, 30), (2.0, 10))
        ),
    ],
)
def test_a_drift_of_known_size_is_found_after_the_expected_number_of_cases(shift: float, scores: int) -> None:
    """The share of charts that alarm within so many cases after scores fell by so many deviations (0: a stable process)."""
    rng = np.random.default_rng(round(1000 * shift) + scores)
    expected = sum(p * chance_of_an_alarm(shift, scores, c, s) for c, s, p in estimation_errors())
    charts = baselines(rng, CHARTS)
    alarmed = [bool(limits.alarms(to_scores(rng.standard_normal(scores) - shift))) for limits in charts]
    assert within(float(np.mean(alarmed)), expected, CHARTS), (np.mean(alarmed), expected)


@pytest.mark.parametrize("rule", Rule)
def test_on_a_stable_process_no_rule_alarms_more_often_than_the_textbook_predicts(rule: Rule) -> None:
    """Baselines of 30, then 60 scores each: charts are independent, scores of one chart are not."""
    rng = np.random.default_rng(11)
    shares = []
    for limits in baselines(rng, CHARTS):
        alarms = limits.alarms(to_scores(rng.standard_normal(60)))
        shares.append(sum(alarm.rule is rule for alarm in alarms) / 60)
    error = float(np.std(shares)) / math.sqrt(CHARTS)
    assert np.mean(shares) <= TEXTBOOK[rule] + 2 * error
    assert np.mean(shares) >= TEXTBOOK[rule] / 3  # and is not blind


def test_textbook_factors_on_estimated_limits_would_alarm_twice_too_often() -> None:
    """Why the factors are not 3, 2 and nine: with those, limits from 30 scores alarm more than twice as often as they should."""
    rng = np.random.default_rng(5)
    chances = [
        stats.norm.sf(limits.centre + 3 * limits.deviation, 1.2, 0.1)
        + stats.norm.cdf(limits.centre - 3 * limits.deviation, 1.2, 0.1)
        for limits in baselines(rng, CHARTS)
    ]
    assert np.mean(chances) > 2 * TEXTBOOK[Rule.BEYOND_LIMIT]


def test_scores_that_are_skewed_like_real_ones_alarm_hardly_more_often() -> None:
    """Beta distributed scores (mean 0.9, standard deviation 0.07, skewed to low ones): what the chart's scale is for."""
    rng = np.random.default_rng(13)
    shares = []
    for _ in range(CHARTS):
        limits = ControlLimits.of(list(rng.beta(18, 2, BASELINE)))
        assert limits is not None
        shares.append(len({alarm.index for alarm in limits.alarms(list(rng.beta(18, 2, 60)))}) / 60)
    assert np.mean(shares) <= 1.25 * sum(TEXTBOOK.values())


# ── past patients ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("patients", [FEWEST, 12])
def test_limits_of_past_patients_alarm_a_stable_process_as_often_as_the_textbook_whatever_their_number(patients: int) -> None:
    angles = np.random.default_rng(3).normal(1.1, 0.05, (400_000, patients + 1))
    past, new = angles[:, :-1], angles[:, -1]
    distances = (past.mean(axis=1) - new) / past.std(axis=1, ddof=1)
    limits = ControlLimits.of_past_patients(list(np.sin(past[0]) ** 2))
    assert limits is not None
    assert (limits.centre, limits.deviation) == (pytest.approx(past[0].mean()), pytest.approx(past[0].std(ddof=1)))
    assert np.mean(distances > limits.limit) == pytest.approx(stats.norm.sf(3), rel=0.15)
    assert np.mean(distances > limits.warning) == pytest.approx(stats.norm.sf(2), rel=0.05)


def test_by_past_patients_low_scores_alarm_and_high_ones_do_not() -> None:
    limits = ControlLimits.of_past_patients(list(np.sin(np.linspace(1.0, 1.2, 10)) ** 2))
    assert limits is not None
    low, high = limits.score_at(-limits.limit - 0.1), limits.score_at(limits.limit + 0.1)
    assert [(alarm.index, alarm.rule, alarm.side) for alarm in limits.alarms([0.8, low, 0.8, high, high, high])] == [
        (1, Rule.BEYOND_LIMIT, "lower")
    ]
    assert limits.alarms([limits.score_at(1.0)] * (RUN + 1)) == []


def test_few_past_patients_or_such_as_do_not_vary_make_no_limits() -> None:
    assert ControlLimits.of_past_patients(list(np.linspace(0.8, 0.9, FEWEST - 1))) is None
    assert ControlLimits.of_past_patients([0.9] * 20) is None
