"""What may be shown of an address: everything but its password."""

import re


def masked(text: str) -> str:
    """The text, with stars for the password of an address in each of its lines (`://user:***@`, `password=***`)."""
    text = re.sub(r"(://[^:/@\s]*):.*@", r"\1:***@", text)  # up to the last @: it may be part of the password
    return re.sub(r"(?i)(password=)[^&\s'\"]+", r"\1***", text)
