"""What is said where nobody gets to a Ray cluster."""

import re
import socket

from tuner.errors import RequestError
from tuner.system.said import first_line

_ANSWER_S = 5.0  # for an address to answer


def require_answer(address: str) -> None:
    """Ray itself would try for half a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
    except OSError as error:
        raise RequestError(
            f"executor.address={address}: nothing answers there ({error.strerror or error}); `ray start --head` starts "
            "a cluster and prints its address"
        ) from error


def explained(error: Exception) -> str:
    """Why Ray did not connect, with the mend, in one sentence."""
    text = str(error)
    if "ersion mismatch" in text:
        # each of the two says what it has: first the cluster, then this process
        (ray_there, ray_here), (python_there, python_here) = (
            [*re.findall(rf"{name}: *([\w.]+)", text), "?", "?"][:2] for name in ("Ray", "Python")
        )
        return (
            f"it runs Ray {ray_there} on Python {python_there}, this machine Ray {ray_here} on Python {python_here}; "
            "install the same versions on both"
        )
    if type(error).__name__ == "AuthenticationError" or "UNAUTHENTICATED" in text:
        return "it asks for a token; put it in RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token"
    if isinstance(error, ConnectionError) or "Could not find any running Ray" in text:
        return (
            f"no cluster that this machine may use ({first_line(error)}); `ray start --address=HOST:PORT` makes it a "
            "node, executor.address=ray://HOST:10001 needs none; one that asks for a token wants RAY_AUTH_MODE=token "
            "and the same ~/.ray/auth_token"
        )
    return f"{type(error).__name__}: {first_line(error)}"
