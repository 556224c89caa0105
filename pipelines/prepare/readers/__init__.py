"""Raw logs: recognise the format of a file, folder or archive, and read it as blocks of checked interactions.

A source reads its file in pieces of bounded size, so a log larger than memory can be streamed, and can be divided
for several workers. Ids are strings (surrounding blanks removed), ratings finite, timestamps in seconds.
"""

from pipelines.prepare.readers.formats import FORMATS as _FORMATS
from pipelines.prepare.readers.listed import Listed
from pipelines.prepare.readers.log import listed, sources
from pipelines.prepare.readers.source import Source

FORMATS = {name: format_.description for name, format_ in _FORMATS.items()}
"""What each format is, by its name."""

__all__ = ["FORMATS", "Listed", "Source", "listed", "sources"]
