"""The one name of `fvcore.nn` that is used; what needs it is refused when it is used, not when it is imported."""

from typing import Any

from searchkit.errors import BackendUnavailableError


class FlopCountAnalysis:
    """Refuses to count."""

    def __init__(self, *_: Any) -> None:
        raise BackendUnavailableError("operations cannot be counted here: fvcore is missing", fix="pip install fvcore")
