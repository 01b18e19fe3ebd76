"""A prediction in a few lines of text."""

from collections.abc import Iterator

from mtcp_serve.clients import Prediction


def describe(maps: Prediction) -> Iterator[str]:
    """What is in each map."""
    for task, values in maps.items():
        about = maps.about(task)
        found = f"{values.min():.2f} to {values.max():.2f} {about.get('unit', '')}".rstrip()
        if about["kind"] == "labels":
            names = {label["id"]: label["name"] for label in about["labels"]}
            found = ", ".join(names[label] for label in about["present"])
        yield f"{task}: {values.dtype} {'x'.join(map(str, values.shape))}: {found}"
