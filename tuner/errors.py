"""The two ways a study can refuse: the request is wrong, or one candidate cannot be had."""

from typing import Literal, get_args

Kind = Literal["unsupported_op", "timeout", "out_of_memory", "crash", "killed", "numerics", "compile", "error"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class RequestError(Exception):
    """What was asked for is wrong; the message names the key or file and the mend. Exit code 2."""


class CandidateError(Exception):
    """One candidate cannot be had; the study records it and goes on.

    `kind` is what reviewers filter by, `sentence` is for a person: what failed and, where known, the mend.
    Plugins raise it; the worker boundary raises it for crashes, time-outs and memory blow-ups.
    """

    def __init__(self, kind: Kind, sentence: str) -> None:
        super().__init__(kind, sentence)
        self.kind: Kind = kind
        self.sentence = sentence

    def __str__(self) -> str:
        return f"{self.kind}: {self.sentence}"
