"""An evaluation as CSV: a row for each photo."""

from __future__ import annotations

from catordog.escaping import csv_row, path_cell, text_cell
from catordog.evaluation.evaluate import Evaluation


def evaluation_csv(result: Evaluation) -> str:
    """The content of `catordog evaluate --csv`.

    The columns are path, label, predicted, confidence, each class's logit and confidence, and the
    error of an unreadable photo.
    """
    classes = result.classes
    rows: list[list[object]] = [
        [
            *("path", "label", "predicted", "confidence"),
            *(f"logit_{name}" for name in classes),
            *(f"confidence_{name}" for name in classes),
            "error",
        ]
    ]
    for index, photo in enumerate(result.photos):
        predicted = int(result.predicted[index])
        names = (classes[int(result.labels[index])], classes[predicted])
        rows.append(
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
        rows.append([path_cell(failure.path), *blank, text_cell(failure.reason)])
    return "".join(map(csv_row, rows))
