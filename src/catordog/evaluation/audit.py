"""Audit a photo folder: copies, contradictions, and with a model also wrong labels."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from catordog.errors import CatordogError, PhotoError
from catordog.evaluation.evaluate import Model, model_name
from catordog.evaluation.labels import Suspect, cross_validated, ood_scores, suspect_labels
from catordog.model.classifier import Classifier, load
from catordog.photos.datasets import open_dataset
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.findings import Findings
from catordog.photos.findings import audit as find
from catordog.photos.photo import Photo
from catordog.photos.reading import decoded
from catordog.terminal import info, progress

OOD_DEVIATIONS = 5.0
"""A photo counts as out-of-distribution if its ood score is this many robust standard deviations
above the median."""

LEAST_PHOTOS = 5
"""Cross-validation needs this many different photos of each class."""


@dataclass(frozen=True, slots=True)
class Audit:
    """The problems that an audit has found.

    Attributes:
        findings: those that need no model.
        model: the name of the model that checked labels; None if none did.
        suspects: photos whose label is probably wrong, the highest score first.
        wrong: an estimate of how many labels are wrong: that many of the first suspects.
        ood: indices of photos that seem to show none of the classes, each with its score in robust
            standard deviations, the highest first.
    """

    findings: Findings
    model: str | None = None
    suspects: list[Suspect] = field(default_factory=list)
    wrong: int = 0
    ood: list[tuple[int, float]] = field(default_factory=list)

    @property
    def agreement(self) -> float:
        """The fraction of readable photos whose label the model predicts, 0…1."""
        readable = sum(facts is not None for facts in self.findings.facts)
        return 1 - len(self.suspects) / max(1, readable)

    def to_dict(self) -> dict[str, Any]:
        """The content of `catordog audit --json`."""
        found, classes = self.findings, self.findings.dataset.classes
        return {
            **found.to_dict(),
            "model": self.model,
            "wrong_labels_estimated": self.wrong,
            "suspect_labels": [
                {
                    "path": found.path(suspect.index),
                    "label": found.label(suspect.index),
                    "suggested": classes[suspect.suggested],
                    "score": round(suspect.score, 6),
                }
                for suspect in self.suspects
            ],
            "neither": [
                {"path": found.path(index), "score": round(score, 6)} for index, score in self.ood
            ],
        }

    def proposals(self) -> Iterator[tuple[str, str, str, str]]:
        """Photos to leave out, each once, worst first: path, label, suggested label, reason."""
        seen: set[str] = set()
        for index, suggested, reason in self._reasons():
            path = self.findings.path(index)
            if path not in seen:
                seen.add(path)
                yield path, self.findings.label(index), suggested, reason

    def _reasons(self) -> Iterator[tuple[int, str, str]]:
        """Photos to leave out: index, suggested label, reason. A photo may come twice."""
        found, classes = self.findings, self.findings.dataset.classes
        indices = {photo.path: index for index, photo in enumerate(found.photos)}
        for error in found.unreadable:
            yield indices[error.path], "", f"unreadable: {error.reason}"
        for group in found.contradictions:
            labels = " and ".join(sorted({found.label(index) for index in group}))
            for index in group:
                yield index, "", f"the same picture is labelled {labels}"
        for suspect in self.suspects[: self.wrong]:
            reason = f"probably a wrong label (score {suspect.score:.3f})"
            yield suspect.index, classes[suspect.suggested], reason
        for index, score in self.ood:
            yield index, "", f"seems to show no class (score {score:.2f})"
        for index, reason in found.suspicious:
            if not reason.startswith("misnamed"):
                yield index, "", reason
        for kind, groups in (("copy", found.exact_copies), ("near copy", found.near_copies)):
            for first, *others in groups:
                for index in others:
                    yield index, "", f"{kind} of {found.path(first)}"


def audit(
    data: str,
    model: Model = None,
    *,
    decisions: str | None = None,
    rules: DecodeRules = DEFAULT_RULES,
    name: str | None = None,
) -> Audit:
    """Find problems in a dataset.

    Args:
        data: as in `open_dataset`.
        model: checks the labels, and finds photos that show no class: a path, `bundled`, or a
            `Classifier`; None: neither is done.
        decisions: a file of decisions: labels to replace, photos to leave out. Photos whose label
            was given or confirmed there are not doubted again.
        rules: which photos are decoded.
        name: what reports call the model; None: its path.

    Raises:
        CatordogError: the data or the model can't be opened, or a class has too few photos for its
            labels to be checked.
    """
    dataset = open_dataset(data, rules=rules, decisions=decisions, labels="optional")
    dataset = dataset.without_excluded()
    if model is None:
        return Audit(find(dataset))
    classifier = model if isinstance(model, Classifier) else load(model)  # before photos are read
    return check_labels(find(dataset), classifier, name or model_name(model))


def check_labels(findings: Findings, classifier: Classifier, model: str) -> Audit:
    """Add wrong labels, and photos that show no class, to the findings.

    Args:
        findings: what was found without a model.
        classifier: its features are used, and not its predictions.
        model: its name.

    Raises:
        CatordogError: a class has fewer than 5 different readable photos.
    """
    readable = [index for index, facts in enumerate(findings.facts) if facts]
    indices, features = _features(classifier, findings.photos, readable)
    if len(findings.dataset.classes) < 2:  # no label can be wrong
        outliers = []
        if len(indices) > 1:
            outliers = _outliers(ood_scores(features), indices, findings.confirmed)
        return Audit(findings, model, ood=outliers)
    labels = np.array([findings.photos[index].label for index in indices], dtype=np.int64)
    groups = [findings.groups[index] for index in indices]
    for label, class_name in enumerate(findings.dataset.classes):
        different = {group for group, own in zip(groups, labels, strict=True) if own == label}
        if len(different) < LEAST_PHOTOS:
            raise CatordogError(
                f"--model: {findings.dataset.name} has only {len(different)} different readable "
                f"photos of {class_name}, and checking labels needs {LEAST_PHOTOS}: audit it "
                "without --model"
            )
    info("checking labels")
    ranked, wrong = suspect_labels(cross_validated(features, labels, groups), labels)
    suspects = [replace(suspect, index=indices[suspect.index]) for suspect in ranked]
    confirmed = findings.confirmed
    return Audit(
        findings,
        model,
        [suspect for suspect in suspects if suspect.index not in confirmed],
        sum(suspect.index not in confirmed for suspect in suspects[:wrong]),
        _outliers(ood_scores(features), indices, confirmed),
    )


def _features(
    classifier: Classifier, photos: Sequence[Photo], indices: Sequence[int]
) -> tuple[list[int], npt.NDArray[np.float32]]:
    """The indices of the photos that are still readable, and their features `[N, D]`.

    Features of a photo and of its horizontal flip are averaged: what the network finds in only one
    of them doesn't belong to the animal.
    """
    found: list[int] = []
    rows = []
    pixels = decoded((photos[index] for index in indices), classifier.model.preprocess)
    stream = zip(indices, pixels, strict=True)
    with progress("running the model", len(indices)) as done:
        while batch := list(islice(stream, 64)):
            good = [(index, one) for index, one in batch if not isinstance(one, PhotoError)]
            if good:
                batch_pixels = np.stack([one for _, one in good])
                both = (batch_pixels, batch_pixels[:, :, ::-1])
                rows.append(np.mean([classifier.features_of_pixels(x)[1] for x in both], axis=0))
                found += [index for index, _ in good]
            done(len(found))
    return found, np.concatenate(rows) if rows else np.zeros((0, 1), np.float32)


def _outliers(
    scores: npt.NDArray[np.float64], indices: Sequence[int], confirmed: Container[int]
) -> list[tuple[int, float]]:
    """Photos whose ood score is far above the others', in robust standard deviations."""
    median = float(np.median(scores))
    # The median absolute deviation, scaled so that it estimates a normal standard deviation.
    deviation = 1.4826 * float(np.median(np.abs(scores - median))) or 1e-12
    out = (scores - median) / deviation
    far = [(indices[i], float(out[i])) for i in np.argsort(-out) if out[i] > OOD_DEVIATIONS]
    return [(index, score) for index, score in far if index not in confirmed]
