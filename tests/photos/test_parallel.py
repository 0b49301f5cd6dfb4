"""Work is divided among threads once."""

from __future__ import annotations

import contextlib
import threading

import pytest

from catordog.photos.parallel import in_parallel, is_one_of_many, threads


def test_results_come_in_order_and_items_are_taken_as_needed():
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    results = in_parallel(lambda number: 2 * number, items(), ahead=10)
    assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert len(taken) <= 20
    results.close()


@pytest.mark.parametrize("alone", [False, True])
def test_work_that_keeps_a_core_busy_is_not_divided_further(alone):
    def work(_):
        inner = in_parallel(lambda _: threading.get_ident(), range(20))
        return is_one_of_many(), set(inner) == {threading.get_ident()}

    assert set(in_parallel(work, range(8), alone=alone)) == {(alone, alone)}
    assert not is_one_of_many()


def test_an_exception_is_raised_where_its_result_is_due():
    results = in_parallel(lambda number: 1 // number, [2, 1, 0, 1], alone=True)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("end", ["close", "error"])
def test_what_has_not_begun_is_never_done_after_the_end(end):
    begun, go_on = [], threading.Event()

    def work(number):
        begun.append(number)
        if end == "error" and number == 0:
            raise KeyError(number)
        go_on.wait(0.05)

    results = in_parallel(work, range(200))
    with contextlib.suppress(KeyError):
        next(results)
    results.close()
    assert len(begun) <= 3 * threads()


def test_the_environment_sets_the_number_of_threads(monkeypatch):
    monkeypatch.setenv("CATORDOG_THREADS", "3")
    assert threads() == 3
