"""The one catalogue of what pages say: a file for each page, a line for each sentence, so that a language is a folder."""

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files

LANGUAGE = "en"


class Words(Mapping[str, str]):
    """Sentences by name: `file.key`. A name that is not there is an error at once, not an empty place on a page."""

    def __init__(self, sentences: Mapping[str, str]) -> None:
        self._sentences = dict(sentences)

    def __getitem__(self, name: str) -> str:
        return self._sentences[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sentences)

    def __len__(self) -> int:
        return len(self._sentences)

    def say(self, name: str, /, **values: object) -> str:
        """The sentence with its values. Where `n` is given and there is a `name_one`, that one is said of 1."""
        if values.get("n") == 1 and f"{name}_one" in self._sentences:
            name = f"{name}_one"
        return self._sentences[name].format(**values)

    def part(self, *prefixes: str) -> dict[str, str]:
        """The sentences whose names begin so, for scripts."""
        return {name: text for name, text in self._sentences.items() if name.startswith(prefixes)}


@cache
def words(language: str = LANGUAGE) -> Words:
    """The catalogue of a language."""
    found: dict[str, str] = {}
    for file in sorted(files(__package__).joinpath(language).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            _flatten(file.name.removesuffix(".toml"), tomllib.loads(file.read_text("utf-8")), found)
    return Words(found)


def _flatten(prefix: str, tree: Mapping[str, object], into: dict[str, str]) -> None:
    for key, value in tree.items():
        name = f"{prefix}.{key}"
        if isinstance(value, Mapping):
            _flatten(name, value, into)
        else:
            into[name] = str(value)
