"""Bootstrap intervals against scipy, closed forms and simulation; verdicts; correlation."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats

from tokgen.metrics.statistics import (
    Estimate,
    bootstrap_crossed,
    bootstrap_mean,
    bootstrap_ratio,
    judge,
    paired_crossed,
    pearson,
)

GOLDEN = [
    (1.0352938183, 0.6929772667, 1.8422279080),
    (0.0040322581, -0.0009415271, 0.0241935484),
    (2.0378450431, 1.1931935615, 3.6273581467),
]
NORMAL_WIDTH = 2 * scipy.stats.norm.ppf(0.975)  # of a 95 % interval, in standard errors


def make_rng(seed=0):
    return np.random.default_rng(seed)


def standard_error(estimate):
    return (estimate.high - estimate.low) / NORMAL_WIDTH


def direct_interval(numerators, denominators, seed=0):
    """Compute the studentised bootstrap over clips directly, for one seed and no failures."""
    a, b = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    draws = make_rng(seed).integers(0, len(a), (2000, len(a)))

    def measure(a, b):
        ratio = a.sum(-1, keepdims=True) / b.sum(-1, keepdims=True)
        spread = ((a - ratio * b) / b.mean(-1, keepdims=True)).std(-1, ddof=1)
        return ratio[..., 0], spread / math.sqrt(a.shape[-1])

    (ratio, error), (ratios, errors) = measure(a, b), measure(a[draws], b[draws])
    low, high = np.quantile((ratios - ratio) / np.maximum(errors, 0.2 * error), [0.025, 0.975])
    return ratio - high * error, ratio - low * error


# One number per clip


@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_of_many_clips_agree_with_scipy_and_failures_are_counted(seed):
    values = make_rng(seed).normal(3, 1, 400)
    ours = bootstrap_mean([*values, math.nan, math.inf], n_resamples=10_000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=10_000, rng=make_rng(99)
    ).confidence_interval
    assert (ours.n, ours.n_failed) == (400, 2)
    assert ours.mean == pytest.approx(values.mean())
    # Quantiles of 10 000 resamples have a standard error of 0.027 of that of the mean.
    tolerance = 4 * math.sqrt(2) * 0.027 * values.std() / math.sqrt(400)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=tolerance)


@pytest.mark.parametrize("n_clips", [2, 4])
def test_few_clips_have_the_interval_of_student(n_clips):
    values = make_rng().normal(3, 1, n_clips)
    theirs = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.9)
    ours = bootstrap_mean(values.tolist(), level=0.9)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_golden_intervals():
    rng = make_rng()
    skewed = bootstrap_mean(rng.lognormal(0, 1, 18).tolist())
    lengths = rng.integers(10, 90, 18)
    errors = np.where(rng.random(18) < 0.3, rng.binomial(lengths, 0.2), 0)
    cer = bootstrap_ratio(errors.tolist(), lengths)
    crossed = bootstrap_crossed(rng.lognormal(0, 0.2, (3, 1)) * rng.lognormal(0, 1, 18))
    found = [(e.mean, e.low, e.high) for e in (skewed, cer, crossed)]
    assert found == [pytest.approx(wanted, abs=1e-9) for wanted in GOLDEN]


def test_skewed_values_have_a_longer_side_and_cover_better_than_percentiles():
    rng, trials, truth = make_rng(2), 1000, math.exp(0.5)
    hits = percentile = longer = 0
    for trial in range(trials):
        values = rng.lognormal(0, 1, 18)
        ours = bootstrap_mean(values.tolist(), seed=trial, n_resamples=400)
        longer += ours.high - ours.mean > ours.mean - ours.low
        hits += ours.low <= truth <= ours.high
        low, high = np.quantile(values[rng.integers(0, 18, (400, 18))].mean(1), [0.025, 0.975])
        percentile += low <= truth <= high
    assert hits / trials > max(0.89, 0.03 + percentile / trials)
    assert longer / trials > 0.95


def test_cer_with_many_clips_without_errors_is_covered():
    rng, trials, hits = make_rng(3), 400, 0
    for trial in range(trials):
        lengths = rng.integers(10, 90, 18)
        shares = np.where(rng.random(18) < 0.3, rng.beta(1, 9, 18), 0)
        errors = rng.binomial(lengths, shares)
        ours = bootstrap_ratio(errors.tolist(), lengths, seed=trial, n_resamples=400)
        hits += ours.low <= 0.03 <= ours.high
        assert ours.high < 1
    assert hits / trials > 0.91  # 82 % with percentiles


@pytest.mark.parametrize("n_clips", [1, 2, 3, 5, 18])
@pytest.mark.parametrize("n_seeds", [1, 2, 3])
def test_equal_values_have_an_interval_without_width(n_seeds, n_clips):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = bootstrap_crossed(np.full((n_seeds, n_clips), 0.1))
    assert ours.mean == pytest.approx(0.1)
    ends = (math.nan, math.nan) if n_clips == 1 else (ours.mean, ours.mean)
    assert (ours.low, ours.high) == pytest.approx(ends, nan_ok=True)


def test_one_clip_unlike_the_others_has_a_finite_interval():
    """More than a third of the resamples lack this clip and have no spread."""
    for n_clips in (5, 18, 100):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ours = bootstrap_mean([1.0] + [0.0] * (n_clips - 1))
        assert ours.low <= ours.mean < ours.high < 6 * ours.mean


def test_intervals_stay_within_the_limits():
    values = [1.0, 1.0, 0.9, 1.0]
    assert bootstrap_mean(values).high > 1
    ours = bootstrap_mean(values, limits=(0, 1))
    assert ours.high == 1 and 0 < ours.low < ours.mean
    above = bootstrap_mean([1.5, 1.5], limits=(0, 1))
    assert (above.low, above.mean, above.high) == (1.5, 1.5, 1.5)


def test_standard_error_against_its_closed_form():
    values = make_rng().normal(0, 2, 400)
    wanted = values.std() / math.sqrt(400)
    ours = bootstrap_mean(values.tolist(), n_resamples=10_000)
    assert standard_error(ours) == pytest.approx(wanted, rel=0.04)
    narrow = bootstrap_mean(values.tolist(), n_resamples=10_000, level=0.68)
    width = 2 * scipy.stats.norm.ppf(0.84)
    assert (narrow.high - narrow.low) / width == pytest.approx(wanted, rel=0.06)


def test_intervals_cover_the_truth_at_their_level():
    rng, hits, trials = make_rng(), 0, 600
    for trial in range(trials):
        values = rng.normal(1, 1, 50)
        ours = bootstrap_mean(values.tolist(), seed=trial, n_resamples=400)
        hits += ours.low <= 1 <= ours.high
    # The standard error of 600 trials is 1 %.
    assert 0.91 < hits / trials < 0.97


def test_pooled_ratio_is_not_the_mean_of_ratios():
    pooled = bootstrap_ratio([1, 0], [1, 99])
    assert pooled.mean == pytest.approx(0.01)
    assert bootstrap_ratio([math.nan, 2], [math.nan, 4]).n_failed == 1
    assert bootstrap_ratio([3, 0, 2, 1], [10, 40, 20, 30]).mean == 6 / 100


def test_pooled_cer_against_the_delta_method():
    """A ratio r of sums has the standard error sqrt(sum (a_i - r b_i)^2) / sum b_i."""
    rng = make_rng()
    lengths = rng.integers(10, 90, 300)
    errors = rng.binomial(lengths, rng.beta(1, 15, 300))
    ours = bootstrap_ratio(errors.tolist(), lengths, n_resamples=10_000)
    ratio = errors.sum() / lengths.sum()
    wanted = math.sqrt(((errors - ratio * lengths) ** 2).sum()) / lengths.sum()
    assert ours.mean == pytest.approx(ratio)
    assert standard_error(ours) == pytest.approx(wanted, rel=0.05)


def test_intervals_of_one_or_no_clip_are_unknown():
    one, none = bootstrap_mean([2.0]), bootstrap_mean([math.nan])
    assert one.mean == 2.0 and math.isnan(one.low)
    assert math.isnan(none.mean) and (none.n, none.n_failed) == (0, 1)
    assert bootstrap_ratio([1, 2], [0, 0]).n_failed == 2
    assert bootstrap_mean([]).n == 0


def test_the_order_of_clips_moves_the_interval_by_chance_only():
    values = make_rng().normal(0, 1, 80)
    forward, backward = (
        bootstrap_mean(v.tolist(), n_resamples=10_000) for v in (values, values[::-1])
    )
    assert backward.mean == pytest.approx(forward.mean, abs=1e-12)
    tolerance = 4 * math.sqrt(2) * 0.027 * values.std() / math.sqrt(80)
    assert (backward.low, backward.high) == pytest.approx(
        (forward.low, forward.high), abs=tolerance
    )


# Pairs over clips


def test_paired_difference_is_tighter_than_the_parts():
    rng = make_rng()
    base = rng.normal(0, 5, 50)
    pair = paired_crossed([base], [base + 0.1 + rng.normal(0, 0.01, 50)])
    assert pair.low > 0.09 and pair.high < 0.11
    assert bootstrap_mean(base.tolist()).high - bootstrap_mean(base.tolist()).low > 2


def test_paired_difference_against_the_t_interval():
    rng = make_rng(3)
    first = rng.normal(5, 2, 300)
    second = first + rng.normal(0.3, 1, 300)
    theirs = scipy.stats.ttest_rel(second, first).confidence_interval(0.95)
    ours = bootstrap_mean((second - first).tolist(), n_resamples=10_000)
    crossed = paired_crossed(first[None], second[None], n_resamples=10_000)
    for estimate in (ours, crossed):
        assert (estimate.low, estimate.high) == pytest.approx(theirs, abs=0.012)
        assert estimate.mean == pytest.approx((second - first).mean())


# Seeds x clips


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("n_clips", [5, 7, 301])
def test_one_seed_equals_the_bootstrap_over_clips(n_clips, failing):
    rng = make_rng(n_clips)
    a, b = rng.random(n_clips), rng.integers(1, 40, n_clips).astype(float)
    low, high = direct_interval(a, b, seed=5)
    if failing:
        a, b = np.append(a, [math.nan, 1.0]), np.append(b, [3.0, math.inf])
    ratio = bootstrap_crossed([a], [b], seed=5)
    assert ratio == bootstrap_ratio(a.tolist(), b, seed=5)
    assert (ratio.low, ratio.high) == pytest.approx((low, high))
    assert (ratio.n, ratio.n_failed) == (n_clips, 2 * failing)
    mean = bootstrap_crossed([a], seed=5, level=0.8)
    assert mean == bootstrap_mean(a.tolist(), seed=5, level=0.8)


def test_additive_seeds_and_clips_against_their_closed_form():
    """The mean of a_s + b_c has variance var(a) / S + var(b) / C, and Satterthwaite's freedom."""
    rng = make_rng()
    for spread in (0.0, 0.05, 1.0):
        seeds, clips = rng.normal(0, spread, 12), rng.normal(0, 1, 150)
        ours = bootstrap_crossed(seeds[:, None] + clips, n_resamples=20_000)
        parts = np.array([seeds.var(ddof=1) / 12, clips.var(ddof=1) / 150])
        freedom = parts.sum() ** 2 / (parts**2 / [11, 149]).sum()
        wanted = scipy.stats.t.ppf(0.975, freedom) * math.sqrt(parts.sum())
        assert ours.mean == pytest.approx(seeds.mean() + clips.mean())
        assert (ours.high - ours.low) / 2 == pytest.approx(wanted, rel=0.05)
        assert (ours.n, ours.n_failed) == (150, 0)


def test_copies_of_a_seed_do_not_shrink_the_interval():
    """Resampling all S x C values as independent would halve this interval."""
    clips = make_rng().normal(0, 1, 100)
    one = bootstrap_crossed(clips[None], n_resamples=10_000)
    four = bootstrap_crossed(np.tile(clips, (4, 1)), n_resamples=10_000)
    assert (four.low, four.high) == pytest.approx((one.low, one.high), abs=1e-9)
    pooled = bootstrap_mean(np.tile(clips, 4).tolist(), n_resamples=10_000)
    assert standard_error(pooled) == pytest.approx(standard_error(one) / 2, rel=0.05)


@pytest.mark.parametrize(("n_seeds", "least"), [(2, 0.87), (3, 0.88), (10, 0.9)])
def test_crossed_intervals_cover_the_truth(n_seeds, least):
    rng, trials = make_rng(1), 300
    crossed = clips_only = 0
    for trial in range(trials):
        seeds, clips, both = ((n_seeds, 1), 0.5), ((1, 40), 1), ((n_seeds, 40), 0.3)
        table = sum(rng.normal(0, spread, shape) for shape, spread in (seeds, clips, both))
        ours = bootstrap_crossed(table, seed=trial, n_resamples=400)
        crossed += ours.low <= 0 <= ours.high
        naive = bootstrap_mean(table[0].tolist(), seed=trial, n_resamples=400)
        clips_only += naive.low <= 0 <= naive.high
    assert least < crossed / trials < 0.98
    assert clips_only / trials < 0.75


def test_two_seeds_far_apart_have_the_interval_of_student():
    """Two trainings say little, however many clips there are."""
    clips = make_rng().normal(0, 0.001, 100)
    ours = bootstrap_crossed(np.stack([clips + 1, clips + 2]))
    theirs = scipy.stats.ttest_1samp([1, 2], 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx(theirs, rel=1e-2)


def test_crossed_ratio_pools_before_it_divides():
    errors, lengths = [[1, 0], [3, 2]], [[10, 90], [10, 90]]
    ours = bootstrap_crossed(errors, lengths)
    assert ours.mean == 6 / 200
    # By hand: errors of clips 3.4 and -3.4 of 100 characters, of seeds -2 and 2.
    clips, seeds = 0.034**2, 0.02**2
    freedom = (clips + seeds) ** 2 / (clips**2 + seeds**2)
    half = scipy.stats.t.ppf(0.975, freedom) * math.sqrt(clips + seeds)
    assert (ours.low, ours.high) == pytest.approx((0.03 - half, 0.03 + half))


def test_a_clip_keeps_the_values_that_did_not_fail():
    nan, inf = math.nan, math.inf
    table = np.array([[1.0, nan, 3.0, nan], [2.0, 5.0, inf, nan]])
    ours = bootstrap_crossed(table)
    assert (ours.n, ours.n_failed) == (3, 4)
    assert ours.mean == (1 + 3 + 2 + 5) / 4
    assert bootstrap_crossed(table, np.ones((2, 4))) == ours
    dead_seed = bootstrap_crossed([[1.0, 2.0, 4.0], [nan] * 3])
    alive = bootstrap_crossed([[1.0, 2.0, 4.0]])
    assert (dead_seed.mean, dead_seed.low, dead_seed.high) == (alive.mean, alive.low, alive.high)
    assert (dead_seed.n, dead_seed.n_failed) == (3, 3)
    nothing = bootstrap_crossed([[nan, nan], [nan, nan]])
    assert math.isnan(nothing.mean) and (nothing.n, nothing.n_failed) == (0, 4)
    one_clip = bootstrap_crossed([[1.0], [3.0]])
    assert one_clip.mean == 2 and math.isnan(one_clip.low) and math.isnan(one_clip.high)


def test_resamples_without_a_denominator_are_left_out():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = bootstrap_ratio([0, 1], [0, 4])
    assert (ours.mean, ours.low, ours.high) == (0.25, 0.25, 0.25)


def test_the_order_of_seeds_and_clips_moves_a_crossed_interval_by_chance_only():
    rng = make_rng()
    table = rng.normal(0, 1, (6, 1)) + rng.normal(0, 1, (6, 60))
    one = bootstrap_crossed(table, n_resamples=10_000)
    other = bootstrap_crossed(table[::-1][:, rng.permutation(60)], n_resamples=10_000)
    assert other.mean == pytest.approx(one.mean, abs=1e-12)
    tolerance = 4 * math.sqrt(2) * 0.027 * standard_error(one)
    assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=tolerance)


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(3,\).*\[seeds, clips\]"):
        bootstrap_crossed([1, 2, 3])
    with pytest.raises(ValueError, match=r"\(1, 3\) and \(1, 2\)"):
        bootstrap_crossed([[1, 2, 3]], [[1, 2]])
    with pytest.raises(ValueError, match="denominators on one side"):
        paired_crossed([[1, 2]], [[1, 2]], [[1, 2]])
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(1, 3\) seeds x clips"):
        paired_crossed([[1, 2]], [[1, 2, 3]])


# Pairs over seeds x clips


def test_paired_crossed_is_the_crossed_bootstrap_of_differences():
    rng = make_rng()
    first, second = rng.normal(0, 1, (4, 30)), rng.normal(0.2, 1, (4, 30))
    pair, single = paired_crossed(first, second, seed=2), bootstrap_crossed(second - first, seed=2)
    assert (pair.mean, pair.low, pair.high) == pytest.approx((single.mean, single.low, single.high))
    swapped = paired_crossed(second, first, seed=2)
    assert (swapped.mean, swapped.low, swapped.high) == pytest.approx(
        (-pair.mean, -pair.high, -pair.low)
    )


def test_pairing_cancels_what_both_share():
    rng = make_rng()
    shared = rng.normal(0, 1, (5, 1)) + rng.normal(0, 3, (1, 80))
    first = shared + rng.normal(0, 0.1, (5, 80))
    second = shared + 0.2 + rng.normal(0, 0.1, (5, 80))
    pair = paired_crossed(first, second)
    apart = math.hypot(*(standard_error(bootstrap_crossed(side)) for side in (first, second)))
    assert standard_error(pair) < apart / 20
    assert pair.low < 0.2 < pair.high and pair.low > 0.1


def test_paired_ratios_share_their_draws():
    rng = make_rng()
    lengths = rng.integers(5, 100, (3, 40)).astype(float)
    errors = np.round(lengths * rng.beta(1, 9, (3, 40)))
    same = paired_crossed(errors, errors, lengths, lengths)
    assert (same.mean, same.low, same.high) == (0, 0, 0)  # independent draws would spread
    more = paired_crossed(errors, errors + 0.1 * lengths, lengths, lengths)
    assert (more.mean, more.low, more.high) == pytest.approx((0.1, 0.1, 0.1))
    hand = paired_crossed([[1, 1]], [[1, 0]], [[10, 90]], [[20, 30]])
    assert hand.mean == pytest.approx(1 / 50 - 2 / 100)


def test_paired_ratios_against_the_delta_method():
    rng = make_rng(4)
    lengths = rng.integers(20, 90, 400).astype(float)
    first = rng.binomial(lengths.astype(int), 0.05).astype(float)
    second = np.minimum(first + rng.binomial(lengths.astype(int), 0.02), lengths)
    ours = paired_crossed([first], [second], [lengths], [lengths], n_resamples=10_000)
    difference = second - first
    ratio = difference.sum() / lengths.sum()
    wanted = math.sqrt(((difference - ratio * lengths) ** 2).sum()) / lengths.sum()
    assert ours.mean == pytest.approx(ratio)
    assert standard_error(ours) == pytest.approx(wanted, rel=0.05)


def test_a_failure_on_either_side_fails_the_pair():
    first = [[1.0, math.nan, 3.0, 100.0], [1.0, 2.0, 3.0, 100.0]]
    second = [[2.0, 9.0, 4.0, math.inf], [2.0, 3.0, 4.0, math.nan]]
    pair = paired_crossed(first, second)
    assert (pair.mean, pair.low, pair.high) == pytest.approx((1, 1, 1))
    assert (pair.n, pair.n_failed) == (3, 3)
    lost = paired_crossed([[1.0, 2, 50]], [[1.0, 3, 0]], [[10, 10, 50.0]], [[10, 10, math.nan]])
    assert lost.mean == pytest.approx(0.05) and (lost.n, lost.n_failed) == (2, 1)


# Verdicts


@pytest.mark.parametrize(
    ("low", "high", "margin", "verdict"),
    [
        (0.1, 0.3, None, "better"),
        (0.1, 0.3, 0.5, "better"),
        (-0.1, 0.3, None, "undecided"),
        (-0.1, 0.3, 0.2, "no worse"),
        (-0.1, -0.05, 0.2, "no worse"),  # a little worse, but within the margin
        (-0.1, 0.3, 0.05, "undecided"),
        (-0.3, -0.1, None, "worse"),
        (-0.3, -0.1, 0.2, "worse, margin undecided"),
        (-0.3, -0.25, 0.2, "worse"),
        (0.0, 0.0, 0.0, "no worse"),
        (0.0, 0.0, None, "undecided"),
        (math.nan, math.nan, 0.5, "undecided"),
        (-0.1, math.nan, 0.5, "undecided"),
    ],
)
def test_verdicts_in_both_directions(low, high, margin, verdict):
    up = Estimate((low + high) / 2, low, high, 9, 0)
    down = Estimate(-up.mean, -high, -low, 9, 0)
    assert judge(up, better="higher", margin=margin) == verdict
    assert judge(down, better="lower", margin=margin) == verdict


def test_bad_directions_and_margins_are_refused():
    estimate = bootstrap_mean([1.0, 2.0])
    with pytest.raises(ValueError, match="known are higher, lower"):
        judge(estimate, better="up")
    for margin in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"margin {margin}"):
            judge(estimate, better="lower", margin=margin)


def test_losses_at_the_margin_rarely_pass():
    rng, passed, trials = make_rng(7), 0, 800
    for trial in range(trials):
        difference = rng.normal(-0.2, 1, 100)  # worse by exactly the margin
        estimate = bootstrap_mean(difference.tolist(), seed=trial, n_resamples=400)
        passed += judge(estimate, better="higher", margin=0.2) in ("no worse", "better")
    assert 0.01 < passed / trials < 0.045


# Correlation


def test_pearson_with_the_interval_of_fisher():
    x, y = [0.1, 0.2, 0.35, 0.5, 0.9], [4.0, 3.9, 2.0, 2.5, 1.0]
    r, low, high = pearson(x, y)
    assert r == pytest.approx(np.corrcoef(x, y)[0, 1])
    half = scipy.stats.norm.ppf(0.975) / math.sqrt(5 - 3)
    wanted = math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)
    assert (low, high) == pytest.approx(wanted)
    assert all(map(math.isnan, pearson([1, 2], [2, 1])))
    assert all(map(math.isnan, pearson([1, 1, 1], [1, 2, 3])))
    r, low, high = pearson([1, 2, 3], [3, 2, 2])
    assert r < 0 and math.isnan(low) and math.isnan(high)
