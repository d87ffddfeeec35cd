"""How a study is written down in Optuna: the names of what stands beside its trials."""

import json
from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial

from tuner.trial import Outcome

ABOUT = "about"  # of a study: what is tuned for what
OUTCOME = "outcome"  # of a trial: what became of its candidate
OWNER = "owner"  # of a trial: the process that is at it
_BASELINE = "baseline "  # of a study: what was measured beside its trials, by candidate


def outcome_of(trial: FrozenTrial) -> Outcome:
    """Raises RequestError where it names a plugin that is not here."""
    return Outcome.from_json(json.loads(trial.user_attrs[OUTCOME]))


def written(outcome: Outcome) -> str:
    return json.dumps(outcome.to_json())


def baseline_name(outcome: Outcome) -> str:
    return _BASELINE + outcome.candidate.key


def baselines_of(attributes: Mapping[str, Any]) -> list[Outcome]:
    """Those among the attributes of a study."""
    kept = (value for name, value in attributes.items() if name.startswith(_BASELINE))
    return [Outcome.from_json(json.loads(value)) for value in kept]
