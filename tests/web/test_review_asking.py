"""`catordog review --unlabelled`: labels are asked for a dozen at a time; each dozen teaches."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from catordog.cli import main
from catordog.commands.review import _unlabelled
from catordog.evaluation.asking import Asking
from catordog.model.active_learning import DOZEN
from catordog.photos.datasets import open_dataset
from catordog.photos.decisions import apply, read_decisions
from catordog.photos.decode import DEFAULT_RULES
from catordog.web.review_session import Choice, ReviewSession
from catordog.web.review_work import ReviewWork
from conftest import jpeg, named, wait_until, write_folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`start` has six labelled photos, `more` has 17 unlabelled ones and a broken one."""
    root = tmp_path_factory.mktemp("asking")
    write_folder(root / "start", {f"{name[:3]}/{name}": data for name, data in named(6).items()})
    more = {f"photo {index}.jpg": jpeg(index) for index in range(6, 23)}
    write_folder(root / "more", {**more, "broken.jpg": b"no photo"})
    return root


def truth(session: ReviewSession, index: int) -> str:
    number = int(session.dataset.photos.names[index].split()[1].removesuffix(".jpg"))
    return ("cat", "dog")[number % 2]


def test_each_dozen_of_labels_teaches_and_the_next_one_follows(folders, tmp_path):
    start = open_dataset(str(folders / "start"))
    ask, dataset = _unlabelled(str(folders / "more"), start, DEFAULT_RULES)
    session = ReviewSession(dataset, tmp_path / "decisions.jsonl")
    work = ReviewWork(session, ask=ask)
    work.start()
    try:
        wait_until(lambda: session.counts()[0]["name"] == "next", "the first dozen")
        first = [item.index for item in session.queue("next")]
        assert len(set(first)) == DOZEN
        assert work.rounds[0].labels == 6
        session.decide(Choice(i, "relabel", truth(session, i), "next") for i in first[:-1])
        assert len(work.rounds) == 1  # the dozen is not complete
        session.decide([Choice(first[-1], "skip", queue="next")])
        wait_until(lambda: len(session.queue("next")) > DOZEN, "the second dozen")
        assert work.rounds[1].labels == 6 + DOZEN - 1  # nobody labelled the last one
        rest = [item.index for item in session.queue("next")[DOZEN:]]
        assert len({*first, *rest}) == 17  # all but the broken one, and each once
        session.decide(Choice(i, "relabel", truth(session, i), "next") for i in rest)
        wait_until(lambda: not work.running, "all are labelled")
        assert work.rounds[-1].labels == 6 + 17 - 1
        assert session.estimate() is None  # no label was there that could be wrong
    finally:
        work.stop()
    labelled, summary = apply(dataset, read_decisions(session.file), session.file, new_classes=True)
    assert len(summary.relabelled) == 16
    assert {truth(session, i) for i in range(1, 18)} == set(labelled.classes)


def test_a_class_with_too_few_photos_is_said_on_the_page(folders, tmp_path):
    files = {"cat/1.jpg": jpeg(0), "dog/1.jpg": jpeg(1)}
    start = open_dataset(str(write_folder(tmp_path / "few", files)))
    ask, dataset = _unlabelled(str(folders / "more"), start, DEFAULT_RULES)
    work = ReviewWork(ReviewSession(dataset, tmp_path / "d.jsonl"), ask=partial(ask))
    work.start()
    wait_until(lambda: not work.running, "it ends")
    assert "give at least 3 of each class to start with" in work.progress.notes[0]
    work.stop()


def test_a_start_without_two_classes_is_refused_in_a_line(folders, capsys):
    words = ["--data", str(folders / "start" / "cat"), "--unlabelled", str(folders / "more")]
    assert main(["review", *words]) == 2
    err = capsys.readouterr().err
    assert "--unlabelled needs a few labelled photos of two classes or more" in err
    assert len(err.splitlines()) == 1


def test_copies_of_a_photo_do_not_raise_the_stated_accuracy(tmp_path):
    by_chance = {f"{('cat', 'dog')[index // 2 % 2]}/{index}": jpeg(index) for index in range(20)}
    copies = {f"{path}-{turn}.jpg": data for path, data in by_chance.items() for turn in range(4)}
    dataset = open_dataset(str(write_folder(tmp_path / "copies", copies)))
    more = open_dataset(
        str(write_folder(tmp_path / "more", {"a.jpg": jpeg(50)})), labels="optional"
    )
    asked = Asking(dataset, more.photos, DEFAULT_RULES).next({})
    assert asked.round.labels == 80
    assert asked.round.accuracy < 0.8  # each copy would reveal the label of the others
