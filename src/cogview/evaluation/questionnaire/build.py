"""Creation of a questionnaire's folder."""

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from cogview.errors import UsageError
from cogview.evaluation.questionnaire.folder import FORMAT, KEY, MAX_SYSTEMS, PICTURES, QUESTIONS
from cogview.evaluation.questionnaire.systems import Caption, System, find_pictures
from cogview.files import atomic_write_json
from cogview.folders import atomic_folder, refuse_taken
from cogview.image.picture_reading import read_image, resize_and_crop


def build_questionnaire(
    out: Path,
    systems: Sequence[System],
    captions: Sequence[Caption],
    *,
    title: str = "Which picture is best?",
    questions_per_rater: int | None = None,
    size_pixels: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Create a questionnaire's folder, whole or not at all.

    So that nothing reveals the system, pictures get random names, no metadata, and the same size.

    Args:
        out: folder to create; must be empty or not exist.
        systems: two or more systems.
        captions: captions, one question each.
        title: heading of the questions.
        questions_per_rater: number of random questions for each rater; None for all.
        size_pixels: side of the squares that pictures are resized and cropped to; None for the largest short side.
        progress: called with (pictures done, pictures in all), in two passes.

    Returns:
        Number of each system's pictures that belong to no caption and were left out.

    Raises:
        UsageError: a number is out of range, or `out` is not empty.
        CogViewError: a caption lacks a picture, or one cannot be read.
    """
    if not 2 <= len(systems) <= MAX_SYSTEMS:
        raise UsageError(f"a questionnaire compares 2 to {MAX_SYSTEMS} systems, got {len(systems)}")
    if questions_per_rater is not None and not 1 <= questions_per_rater <= len(captions):
        raise UsageError(
            f"questions_per_rater must be 1 to the {len(captions)} captions, got {questions_per_rater}"
        )
    if size_pixels is not None and size_pixels < 1:
        raise UsageError(f"size_pixels must be 1 or more, got {size_pixels}")
    refuse_taken(out)
    pictures = [find_pictures(system, captions) for system in systems]
    num_pictures = len(systems) * len(captions)
    report = progress if progress is not None else lambda done, total: None
    largest = 0
    for number, path in enumerate((path for paths, _ in pictures for path in paths), start=1):
        largest = max(largest, min(read_image(path).size))
        report(number, 2 * num_pictures)
    size_pixels = size_pixels or largest
    questions: list[dict[str, str | list[str]]] = []
    system_of: dict[str, str] = {}
    with atomic_folder(out) as folder:
        (folder / PICTURES).mkdir()
        for number, caption in enumerate(captions):
            names: list[str] = []
            for system, (paths, _) in zip(systems, pictures, strict=True):
                name = secrets.token_hex(16)
                picture = resize_and_crop(read_image(paths[number]), size_pixels)
                picture.info.clear()  # or Pillow would save some of the metadata
                picture.save(folder / PICTURES / f"{name}.png", "PNG")
                system_of[name] = system.name
                names.append(name)
                report(num_pictures + len(system_of), 2 * num_pictures)
            questions.append({"caption": caption.text, "pictures": sorted(names)})
        content = {
            "format": FORMAT,
            "identity": secrets.token_hex(8),
            "secret": secrets.token_hex(16),
            "title": title,
            "questions_per_rater": questions_per_rater,
            "questions": questions,
        }
        atomic_write_json(folder / QUESTIONS, content)
        key = {"systems": [system.name for system in systems], "system_of": dict(sorted(system_of.items()))}
        atomic_write_json(folder / KEY, key)
    return {system.name: unused for system, (_, unused) in zip(systems, pictures, strict=True)}
