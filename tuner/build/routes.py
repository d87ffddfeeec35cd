"""From the form that a model has to one that a backend or a transform takes."""

from collections.abc import Sequence

from tuner import catalog
from tuner.candidate import Candidate
from tuner.model import Form
from tuner.plugin import Conversion


def conversions(form: Form, accepted: Sequence[Form]) -> tuple[Conversion, ...] | None:
    """The fewest conversions after which a model of that form has an accepted one, of which the first is the best;
    none where it has one already, and None where no way leads there."""
    kinds: tuple[type[Conversion], ...] = catalog.members(Conversion)
    reached: dict[Form, tuple[Conversion, ...]] = {form: ()}
    latest = [form]
    while latest:
        for wanted in accepted:
            if wanted in latest:
                return reached[wanted]
        before, latest = latest, []
        for start in before:
            for kind in kinds:
                if kind.takes == start and kind.gives not in reached:
                    reached[kind.gives] = (*reached[start], kind())
                    latest.append(kind.gives)
    return None


def obstacle(form: Form, candidate: Candidate) -> str | None:
    """Why the candidate cannot start from a model of that form, in one line; None where it can."""
    for transform in candidate.transforms:
        if conversions(form, (transform.takes,)) is None:
            return f"{transform.label} needs the model as {transform.takes}, and has it as {form}"
        form = transform.gives
    if conversions(form, candidate.backend.accepts) is None:
        return f"{candidate.backend.label} takes {' or '.join(map(str, candidate.backend.accepts))}, not {form}"
    return None
