"""Cancellations."""

from odestop.explorer.jobs import MOST_CHANNELS, Jobs


def test_a_cancellation_is_for_a_job_and_those_before_it():
    jobs = Jobs()
    first, second = jobs.watch("a", 1), jobs.watch("a", 2)
    assert not first()
    jobs.cancel("a", 1)
    assert first()
    assert not second()
    jobs.cancel("a", 2)
    assert second()


def test_an_old_cancellation_does_not_take_a_new_one_back():
    jobs = Jobs()
    jobs.cancel("a", 5)
    jobs.cancel("a", 2)
    assert jobs.watch("a", 5)()


def test_channels_do_not_know_of_each_other_and_are_forgotten_in_the_end():
    jobs = Jobs()
    jobs.cancel("first", 1)
    assert not jobs.watch("second", 1)()
    for number in range(MOST_CHANNELS):
        jobs.cancel(f"channel {number}", 1)
    assert not jobs.watch("first", 1)()


def test_at_the_end_everything_is_cancelled():
    jobs = Jobs()
    under_way = jobs.watch("a", 1)
    jobs.close()
    assert under_way()
    assert jobs.watch("b", 1)()
