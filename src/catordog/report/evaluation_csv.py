"""An evaluation as CSV: a row for each photo."""

from __future__ import annotations

import csv
import io

from catordog.escaping import path_cell, text_cell
from catordog.evaluation.evaluate import Evaluation


def evaluation_csv(result: Evaluation) -> str:
    """The content of `catordog evaluate --csv`.

    The columns are path, label, predicted, confidence, each class's logit and confidence, and the
    error of an unreadable photo.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = result.classes
    writer.writerow(
        [
            *("path", "label", "predicted", "confidence"),
            *(f"logit_{name}" for name in classes),
            *(f"confidence_{name}" for name in classes),
            "error",
        ]
    )
    for index, photo in enumerate(result.photos):
        predicted = int(result.predicted[index])
        names = (classes[int(result.labels[index])], classes[predicted])
        writer.writerow(
            [
                path_cell(photo.path),
                *map(text_cell, names),
                result.confidences[index, predicted],
                *result.logits[index].tolist(),
                *result.confidences[index].tolist(),
                "",
            ]
        )
    for failure in result.failures:
        blank = [""] * (3 + 2 * len(classes))
        writer.writerow([path_cell(failure.path), *blank, text_cell(failure.reason)])
    return text.getvalue()
