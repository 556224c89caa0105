"""What is known of a public data set: an entry of ``pipelines/public/datasets.yaml``."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.settings.base import Settings
from pipelines.settings.prepare import Columns

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PublicSource(Settings):
    """Where a raw file can be had: an address, or a public Python package that carries it."""

    url: str | None = Field(default=None, pattern=r"^https?://")
    pip: str | None = None
    """Requirement of the package (``recbole==1.2.1``); its wheel is downloaded by the user's own pip."""
    member: str | None = None
    """The file inside, where the download is a zip or a wheel."""
    skip_lines: int = Field(default=0, ge=0)
    """Lines before the data that the original file does not have."""
    bytes: int | None = None
    """Size of the download."""
    sha256: Sha256 | None = None
    """Of the download."""

    @property
    def name(self) -> str:
        """For messages."""
        return self.url or f"pip download {self.pip}"

    @property
    def archive(self) -> str | None:
        """Name of the downloaded zip; none where the download is the file itself or a package."""
        return self.url.rpartition("/")[2] if self.url and self.member else None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.url is None) == (self.pip is None):
            raise ValueError("a source is either a 'url' or a 'pip' requirement")
        if self.pip and not self.member:
            raise ValueError(f"the source {self.name!r} needs the 'member' to take")
        return self


class PublicDataset(Settings):
    """A public data set: where its raw file comes from, its terms, and how ``prepare`` reads it."""

    title: str
    homepage: str
    licence: str
    """The terms of use in a sentence; shown whenever the data set is fetched."""
    cite: str
    format: str
    """``--format`` of prepare."""
    columns: Columns | None = None
    """The columns to name, where the format does not know them."""
    file: str
    """Name of the raw file in the cache."""
    bytes: int | None = None
    sha256: Sha256 | None = None
    """Of the raw file, where it is stable and was seen; else that of the fetched file is recorded."""
    sources: tuple[PublicSource, ...] = ()
    """In the order they are tried; none where a form must be filled in."""
    by_hand: str = ""
    """What to do where there is no source."""
    checked: Literal["file", "copies", "address"] = "address"
    """What was compared when this entry was written: the file itself with its checksum; the checksums that several
    public projects state; the address alone, as others use it."""

    @model_validator(mode="after")
    def _obtainable(self) -> Self:
        if not self.sources and not self.by_hand:
            raise ValueError("a data set needs 'sources' or 'by_hand'")
        return self
