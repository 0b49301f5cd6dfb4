"""`catordog evaluate`: measure a model on held-out photos."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from catordog.evaluation.evaluate import ERROR_RATES, against_truth, evaluate
from catordog.evaluation.ood import against_neither, ood_unavailable
from catordog.evaluation.robustness import robustness
from catordog.files import write_text
from catordog.model.checkpoint import run_folder
from catordog.model.classifier import Classifier, load
from catordog.photos.decode import DEFAULT_RULES, DecodeRules
from catordog.photos.photo import Photo
from catordog.photos.reading import report_failures
from catordog.photos.splits import Split
from catordog.report.evaluation_text import report, rows_csv


def run(
    model: str,
    data: str,
    split: str,
    json_file: str | None,
    csv_file: str | None,
    html_file: str | None = None,
    exclude: str | None = None,
    error_rate: float | None = None,
    neither: str | None = None,
    rules: DecodeRules = DEFAULT_RULES,
) -> int:
    """`catordog evaluate`. Returns 1 if a photo could not be read, else 0."""
    which: Split | Literal["all"] = split  # type: ignore[assignment]  # the parser has checked it
    classifier = load(model)
    if error_rate is not None:
        classifier.quantile_for(error_rate)  # says what is wrong with it before any photo is read
    if neither and classifier.model.ood is None:
        raise ood_unavailable()
    result = evaluate(
        classifier,
        data,
        which,
        model=model,
        exclude=exclude,
        error_rates=ERROR_RATES if error_rate is None else (error_rate,),
        rules=rules,
    )
    truth = against_truth(result)
    strangers = against_neither(classifier, result, [neither]) if neither else None
    harm = robustness(classifier, result) if html_file else None
    if json_file:
        figures = result.to_dict()
        figures["truth"] = truth and truth.error
        figures["damage"] = harm and harm.to_dict()
        figures["neither"] = strangers and asdict(strangers)
        write_text(Path(json_file), json.dumps(figures, indent=2, allow_nan=False) + "\n")
    if html_file:
        from catordog.report.evaluation_page import evaluation_page

        page = evaluation_page(
            result, classifier.model.threshold, harm, truth, strangers, partial(_looked, classifier)
        )
        write_text(Path(html_file), page)
    if csv_file:
        write_text(Path(csv_file), rows_csv(result))
    print(report(result, truth, strangers))
    report_failures(result.failures, run_folder(Path(model)) / f"unreadable-{split}.txt")
    return 1 if result.failures else 0


def _looked(classifier: Classifier, photo: Photo, label: int) -> Image.Image:
    """Where the network looked on a photo, for a class. Raises `PhotoError`."""
    from catordog.evaluation.explain import explain
    from catordog.report.explanation import heat

    preprocess = classifier.model.preprocess
    image = photo.image(near=preprocess.size)
    found = explain(classifier, image).maps[classifier.classes[label]]
    image.thumbnail((320, 320))
    return heat(image, found / (float(np.abs(found).max()) or 1.0), preprocess)
