"""A check, within two seconds, of whether the Hugging Face hub can be reached.

The hub's own client tries for 23 seconds if a name cannot be resolved, and for a minute behind a firewall that drops
packets: fine for a stage, too long for someone waiting for one line.
"""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from threading import Thread

from posttrain.core.errors import UserError

TIMEOUT = 2.0  # seconds


def check(model: str, revision: str | None, file: str = "config.json") -> bool:
    """Whether to read this model from the cache alone because the hub cannot be reached; False for a local folder.

    file: of the model, which is in the cache if the model is.

    Raises `UserError` if the hub cannot be reached and the model is not in the cache.
    """
    if Path(model).is_dir() or model.startswith((".", "/", "~")) or model.count("/") > 1:
        return False
    reason = unreachable()
    if reason is None:
        return False
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(model, file, revision=revision), str):
        return True
    at = f" at revision {revision}" if revision else ""
    raise UserError(
        f"model {model}{at} cannot be reached: {reason}; set HF_HOME to a cache that has it, or give a local folder"
    )


def unreachable() -> str | None:
    """The reason why the hub cannot be reached; None if it answers."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            return f"{name} is set"
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    answers: list[str | None] = []
    # In a thread, because no timeout ends the resolution of a name.
    asking = Thread(target=lambda: answers.append(_ask(endpoint)), daemon=True)
    asking.start()
    asking.join(TIMEOUT)
    reason = answers[0] if answers else f"nothing for {TIMEOUT:g} s"
    return None if reason is None else f"{endpoint} does not answer ({reason})"


def _ask(endpoint: str) -> str | None:
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT).close()
    except urllib.error.HTTPError:
        return None  # an error status is an answer too
    except OSError as error:
        reason = getattr(error, "reason", error)
        # The hub's own client may accept other certificates.
        return None if isinstance(reason, ssl.SSLError) else str(reason)
    return None
