"""Which of the model's classes each class of a dataset is."""

from __future__ import annotations

from catordog.errors import CatordogError


def match_classes(data: tuple[str, ...], model: tuple[str, ...], name: str) -> list[int]:
    """For each class of the data, its index among the model's classes; cats are cat."""

    def plain(label: str) -> str:
        label = label.casefold()
        return label[:-1] if label.endswith("s") else label

    known = {label.casefold(): index for index, label in enumerate(model)}
    known |= {plain(label): index for index, label in enumerate(model)}
    places = [known.get(label.casefold(), known.get(plain(label))) for label in data]
    strange = [label for label, place in zip(data, places, strict=True) if place is None]
    if strange:
        raise CatordogError(
            f"{name} has the class {' and '.join(map(repr, strange))}, which the model doesn't "
            f"know; it knows {', '.join(model)}"
        )
    return [place for place in places if place is not None]
