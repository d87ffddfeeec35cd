"""The two ways a study can refuse (the request is wrong, or one candidate cannot be had), and how a command ends."""

from enum import IntEnum
from typing import Literal, get_args

Kind = Literal["unsupported_op", "timeout", "out_of_memory", "crash", "killed", "numerics", "compile", "error"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OF_THE_MACHINE: tuple[Kind, ...] = ("timeout", "out_of_memory", "killed")
"""Failures of a machine and its limits: they say nothing of what failed."""


class ExitCode(IntEnum):
    """How a command ends, in the words of a study."""

    OK = 0  # a study: it found a champion; a sweep: every member did
    BUG = 1  # a sweep: every member failed
    WRONG_REQUEST = 2
    INFEASIBLE = 3  # finished, and nothing is within the limits; a sweep: for no member
    REGRESSION = 4  # the watched champion has regressed, whatever else was found
    PARTLY = 5  # a sweep: some members found a champion
    TIMED_OUT = 124  # a schedule's run, as timeout(1) has it
    INTERRUPTED = 130  # the same command goes on

    @property
    def finished(self) -> bool:
        """Whether the command came to its end, and answered."""
        return self in (self.OK, self.INFEASIBLE, self.REGRESSION, self.PARTLY)


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
