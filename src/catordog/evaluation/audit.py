"""`catordog audit`: the truth about a photo folder, before anyone trains on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from catordog.errors import CatordogError, PhotoError
from catordog.evaluation.labels import Suspect
from catordog.photos.findings import Findings
from catordog.photos.photo import Photo
from catordog.terminal import info, progress

STRANGE = 5.0
"""A photo is strange if its distance from its neighbours is this many times the usual spread above
the usual distance (medians)."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit has found.

    Attributes:
        findings: what needs no model.
        model: the model that judged labels; None if none did.
        suspects: photos whose labels the model disagrees with, worst first.
        wrong: how many labels are wrong by estimate: so many of the first suspects probably are.
        neither: places of photos that seem to show no class, with a score, worst first.
    """

    findings: Findings
    model: str | None = None
    suspects: list[Suspect] = field(default_factory=list)
    wrong: int = 0
    neither: list[tuple[int, float]] = field(default_factory=list)

    @property
    def agreement(self) -> float:
        """The share of readable photos on whose labels the model agrees, 0…1."""
        return 1 - len(self.suspects) / max(
            1, sum(look is not None for look in self.findings.facts)
        )

    def to_dict(self) -> dict[str, Any]:
        """The keys of `catordog audit --json`."""
        found, classes = self.findings, self.findings.dataset.classes
        return {
            **found.to_dict(),
            "model": self.model,
            "wrong_labels_estimated": self.wrong,
            "suspect_labels": [
                {
                    "path": found.path(suspect.place),
                    "label": found.label(suspect.place),
                    "suggested": classes[suspect.suggested],
                    "score": round(suspect.score, 6),
                }
                for suspect in self.suspects
            ],
            "neither": [
                {"path": found.path(place), "score": round(score, 6)}
                for place, score in self.neither
            ],
        }

    def proposals(self) -> Iterator[tuple[str, str, str, str]]:
        """Photos to leave out, each once, worst first: path, label, suggested label, reason."""
        found, classes = self.findings, self.findings.dataset.classes
        seen: set[str] = set()

        def row(
            place: int, reason: str, suggested: str = ""
        ) -> Iterator[tuple[str, str, str, str]]:
            path = found.path(place)
            if path not in seen:
                seen.add(path)
                yield path, found.label(place), suggested, reason

        places = {photo.path: place for place, photo in enumerate(found.photos)}
        for error in found.unreadable:
            yield from row(places[error.path], f"can't be read: {error.reason}")
        for group in found.contradictions:
            for place in group:
                others = sorted({found.label(other) for other in group})
                yield from row(place, f"the same picture is labelled {' and '.join(others)}")
        for suspect in self.suspects[: self.wrong]:
            suggested = classes[suspect.suggested]
            yield from row(
                suspect.place, f"probably a wrong label (score {suspect.score:.3f})", suggested
            )
        for place, score in self.neither:
            yield from row(place, f"seems to show no class (score {score:.2f})")
        for place, reason in found.suspicious:
            if not reason.startswith("misnamed"):
                yield from row(place, reason)
        for kind, groups in (("copy", found.exact_copies), ("near copy", found.near_copies)):
            for group in groups:
                for place in group[1:]:
                    yield from row(place, f"{kind} of {found.path(group[0])}")


def judge_labels(findings: Findings, classifier: Any, model: str) -> Audit:
    """Let a model look for wrong labels, and for photos that show no class."""
    from catordog.evaluation.labels import cross_validated, ood_scores, suspect_labels

    readable = [place for place, seen in enumerate(findings.facts) if seen]
    kept, features = _features(classifier, findings.photos, readable)
    labels = np.array([findings.photos[place].label for place in kept], dtype=np.int64)
    groups = [findings.groups[place] for place in kept]
    for label, name in enumerate(findings.dataset.classes):
        if len({group for group, own in zip(groups, labels, strict=True) if own == label}) < 5:
            raise CatordogError(
                f"--model: {findings.dataset.name} has fewer than 5 different readable photos "
                f"of {name}, too few to judge labels by: audit it without --model"
            )
    info("judging labels")
    confidences = cross_validated(features, labels, groups)
    ranked, wrong = suspect_labels(confidences, labels)
    suspects = [replace(suspect, place=kept[suspect.place]) for suspect in ranked]
    return Audit(findings, model, suspects, wrong, _strange(ood_scores(features), kept))


def _features(
    classifier: Any, photos: Sequence[Photo], places: Sequence[int]
) -> tuple[list[int], Any]:
    """The places of the photos that could be read again, and their features `[N, D]`.

    Those of a photo and of its mirror image are averaged: what a network sees in only one of them
    is no feature of the animal.
    """
    from catordog.photos.reading import decoded

    kept: list[int] = []
    rows = []
    pixels = decoded((photos[place] for place in places), classifier.model.preprocess)
    stream = zip(places, pixels, strict=True)
    with progress("running the model", len(places)) as done:
        while batch := list(islice(stream, 64)):
            good = [(place, one) for place, one in batch if not isinstance(one, PhotoError)]
            if good:
                batch_pixels = np.stack([one for _, one in good])
                both = (batch_pixels, batch_pixels[:, :, ::-1])
                rows.append(np.mean([classifier.features_of_pixels(x)[1] for x in both], axis=0))
                kept += [place for place, _ in good]
            done(len(kept))
    return kept, np.concatenate(rows) if rows else np.zeros((0, 1), np.float32)


def _strange(scores: Any, places: Sequence[int]) -> list[tuple[int, float]]:
    """Photos that are unlike any other: far out by the measure of the others."""
    usual = float(np.median(scores))
    spread = 1.4826 * float(np.median(np.abs(scores - usual))) or 1e-12
    out = (scores - usual) / spread
    return [(places[i], float(out[i])) for i in np.argsort(-out) if out[i] > STRANGE]
