"""A document that pycrdt itself writes: the model that our own encoding is held to."""

from collections.abc import Iterable

from pycrdt import Array, Doc

from crdt.delta import root_name
from crdt.document import Document


class WritingDocument(Document):
    """Appends as one writer and deletes by text, each operation in one pycrdt transaction."""

    def __init__(self, writer: int) -> None:
        super().__init__()
        self._doc = Doc(client_id=writer)
        self._writer = writer

    def write(self, texts: Iterable[str], deleted: Iterable[str] = ()) -> bytes:
        """Return the update that pycrdt makes of it."""
        updates: list[bytes] = []
        subscription = self._doc.observe(lambda event: updates.append(bytes(event.update)))
        own = self._doc.get(root_name(self._writer), type=Array)
        arrays = [self._doc.get(name, type=Array) for name in sorted(self._doc.keys())]
        doomed = set(deleted)
        with self._doc.transaction():
            for array in arrays:
                content = array.to_py() or []
                for index in range(len(content) - 1, -1, -1):
                    if content[index] in doomed:
                        del array[index]
            fresh = list(texts)
            for text in fresh or [""]:
                own.append(text)
            if not fresh:
                del own[len(own) - 1]
        self._doc.unobserve(subscription)
        return updates[-1]
