"""The one name of `pydantic_core` that is used."""


class PydanticCustomError(ValueError):
    """An error with a type of its own."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.type = kind
