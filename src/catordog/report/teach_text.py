"""What a taught model is worth, as text."""

from __future__ import annotations

from catordog.confidence.ood import ACCEPT
from catordog.confidence.ood_general import GeneralOodDetector
from catordog.confidence.softmax import format_percent
from catordog.escaping import printable
from catordog.model.taught_file import MOST_KEPT
from catordog.model.teach import Hard, Taught
from catordog.terminal import table

_SHOWN = 5
_MANY_CLASSES = 12
_FEW = 5
"""Photos a class below which the accuracy is called rough."""


def teach_text(result: Taught) -> str:
    """A taught model's classes, accuracy, and what would improve it.

    Args:
        result: of `catordog.teach`.
    """
    lines = [_counts(result)]
    if result.copies:
        lines.append(f"{result.copies:,} left out: others have the same content")
    if result.contradictions:
        shown = ", ".join(printable(path) for path in result.contradictions[:_SHOWN])
        lines.append(
            f"{len(result.contradictions):,} left out: the same picture is in two classes ({shown})"
        )
    lines += [*_accuracy(result), *_more_photos(result), _neither(result), *_hardest(result)]
    lines.append(_features(result))
    return "\n".join(lines)


def _counts(result: Taught) -> str:
    total = sum(result.counts.values())
    shown = [f"{count:,} {printable(name)}" for name, count in result.counts.items()]
    more = f", … {len(shown) - _MANY_CLASSES:,} more" if len(shown) > _MANY_CLASSES else ""
    classes = "class" if len(shown) == 1 else "classes"
    listed = ", ".join(shown[:_MANY_CLASSES]) + more
    return f"learnt {len(shown):,} {classes} from {total:,} photos: {listed}"


def _accuracy(result: Taught) -> list[str]:
    learned = result.learned
    if learned is None:
        return [
            "one class: the verdict is this class, 'not sure' or 'neither'; its confidence assumes "
            "that every second photo shows it"
        ]
    few = [name for name, count in result.counts.items() if count == 1]
    lines = []
    if learned.accuracy is None:
        lines.append(
            "accuracy: unknown. It takes two different photos a class; with one, cats and dogs are "
            "told apart 8 times in 10"
        )
    else:
        low, high = learned.interval
        lines.append(
            f"accuracy by cross-validation: {_percent(learned.accuracy)}, on new photos "
            f"{_percent(low)} to {_percent(high)} (95 % interval)"
        )
        if few:
            names = ", ".join(printable(name) for name in few[:_SHOWN])
            lines.append(f"one photo each, so not part of the accuracy: {names}")
    if min(result.counts.values()) < _FEW:
        lines.append("few photos: treat accuracy and confidence as rough")
    return lines


def _more_photos(result: Taught) -> list[str]:
    learned = result.learned
    if learned is None or learned.accuracy is None or not learned.curve:
        return []
    each = sum(result.counts.values()) / len(result.counts)
    points = [(point.photos, point.accuracy) for point in learned.curve]
    shown = ", ".join(f"{_percent(accuracy)} with {photos:.0f}" for photos, accuracy in points)
    lines = [f"photos a class: {shown}, {_percent(learned.accuracy)} with {each:.0f}"]
    expected = learned.expected_with(2)
    if expected is None:
        return lines
    gain = expected - learned.accuracy
    if gain < 0.003:
        return [*lines, "more photos of the same kind would hardly help"]
    return [*lines, f"twice as many would bring about {100 * gain:.1f} points more"]


def _neither(result: Taught) -> str:
    detector = result.classifier.model.ood
    if detector is None:
        return "no photo will be called 'neither': that takes 3 different photos"
    rough = ", roughly: that takes about 100 photos" if sum(result.counts.values()) < 100 else ""
    rate = f"(--accept {ACCEPT} by default)"
    if isinstance(detector, GeneralOodDetector) and detector.specialty is not None:
        group = detector.specialty.name
        return (
            f"photos of anything but {group} are called 'neither' {rate}, "
            f"and so are photos unlike these{rough}"
        )
    return f"photos unlike these are called 'neither' {rate}{rough}"


def _hardest(result: Taught) -> list[str]:
    hard = [photo for photo in result.hardest[:_SHOWN] if _is_hard(photo)]
    if not hard:
        return []
    rows = [["hardest photos", "is in", "looks like", "confidence in its class"]]
    rows += [
        [
            printable(photo.photo.path),
            printable(photo.label),
            printable(photo.predicted),
            format_percent(photo.confidence),
        ]
        for photo in hard
    ]
    return [table(rows, right=frozenset({3}))]


def _is_hard(photo: Hard) -> bool:
    return photo.predicted != photo.label or photo.confidence < 0.9


def _features(result: Taught) -> str:
    size = len(result.data) / 1e6
    if not result.examples_bytes:
        return (
            f"model file: {size:.1f} MB, without features of the photos: --add-to can't extend it"
        )
    bounded = (
        f" (at most {MOST_KEPT:,} of each class)" if max(result.counts.values()) > MOST_KEPT else ""
    )
    return (
        f"model file: {size:.1f} MB; {result.examples_bytes / 1e6:.2f} MB of it are features of "
        f"{result.examples:,} photos{bounded}, for --add-to; --forget leaves them out"
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
