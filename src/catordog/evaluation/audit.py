"""Audit a photo folder: copies, contradictions, wrong labels, and photos of no class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from catordog.evaluation.evaluate import Model, model_name
from catordog.evaluation.judging import GENERAL, Judgement, judge_by_backbone, judge_by_model
from catordog.evaluation.labels import Suspect
from catordog.model.classifier import Classifier, load
from catordog.photos.datasets import open_dataset
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.findings import Findings
from catordog.photos.findings import audit as find


@dataclass(frozen=True, slots=True)
class Audit:
    """The problems that an audit has found.

    Attributes:
        findings: those that need no model.
        model: the name of the network that judged labels; None if none did.
        suspects: photos whose label is probably wrong, the highest score first.
        wrong: an estimate of how many labels are wrong: that many of the first suspects.
        ood: indices of photos that seem to show none of the classes, each with its score in robust
            standard deviations, the highest first.
        unjudged: classes with too few photos for their labels to be judged.
    """

    findings: Findings
    model: str | None = None
    suspects: list[Suspect] = field(default_factory=list)
    wrong: int = 0
    ood: list[tuple[int, float]] = field(default_factory=list)
    unjudged: tuple[str, ...] = ()

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
            "classes_unjudged": list(self.unjudged),
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
    labels: bool = True,
    decisions: str | None = None,
    rules: DecodeRules = DEFAULT_RULES,
    name: str | None = None,
) -> Audit:
    """Find problems in a dataset.

    Args:
        data: as in `open_dataset`.
        model: its features judge the labels, and find photos that show no class: a path,
            `bundled`, or a `Classifier`; None: the general backbone does.
        labels: False: neither is done, and no network runs.
        decisions: a file of decisions: labels to replace, photos to leave out. Photos whose label
            was given or confirmed there are not doubted again.
        rules: which photos are decoded.
        name: what reports call the model; None: its path.

    Raises:
        CatordogError: the data or the model can't be opened, or a class has too few photos for the
            model to judge its labels.
    """
    dataset = open_dataset(data, rules=rules, decisions=decisions, labels="optional")
    dataset = dataset.without_excluded()
    if model is None:
        findings = find(dataset)
        if not labels:
            return Audit(findings)
        return _judged(findings, GENERAL, judge_by_backbone(findings, rules))
    classifier = model if isinstance(model, Classifier) else load(model)  # before photos are read
    findings = find(dataset)
    return _judged(findings, name or model_name(model), judge_by_model(findings, classifier))


def _judged(findings: Findings, model: str, found: Judgement) -> Audit:
    return Audit(findings, model, found.suspects, found.wrong, found.ood, found.unjudged)
