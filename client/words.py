"""Splits what people type after a command into words; quotes hold a word with spaces together."""

from __future__ import annotations

from dataclasses import dataclass

QUOTES = "\"'"


@dataclass(frozen=True)
class Words:
    """The words of a line; `starts` says where each began, so that the rest of the line can be taken as it is."""

    line: str
    words: tuple[str, ...]
    starts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> str:
        return self.words[index]

    def rest(self, index: int) -> str:
        """Everything from a word on; where it is one word, without its quotes."""
        if index >= len(self.words):
            return ""
        if index == len(self.words) - 1:
            return self.words[index]
        return self.line[self.starts[index] :].strip()

    def without_first(self) -> Words:
        """All but the first word."""
        return Words(self.line, self.words[1:], self.starts[1:])


def split(line: str) -> Words:
    """Splits a line. A quote counts where it begins a word and another one ends it; anywhere else it is a character."""
    words: list[str] = []
    starts: list[int] = []
    position = 0
    while position < len(line):
        if line[position].isspace():
            position += 1
            continue
        starts.append(position)
        end = _closing_quote(line, position)
        if end is not None:
            words.append(line[position + 1 : end])
            position = end + 1
        else:
            end = next((index for index in range(position, len(line)) if line[index].isspace()), len(line))
            words.append(line[position:end])
            position = end
    return Words(line, tuple(words), tuple(starts))


def _closing_quote(line: str, start: int) -> int | None:
    quote = line[start]
    if quote not in QUOTES:
        return None
    end = line.find(quote, start + 1)
    while end != -1 and end + 1 < len(line) and not line[end + 1].isspace():
        end = line.find(quote, end + 1)
    return None if end == -1 else end


def quoted(word: str) -> str:
    """A word as it has to be typed to be taken as one."""
    if word and not any(character.isspace() for character in word) and word[0] not in QUOTES:
        return word
    return f"'{word}'" if '"' in word else f'"{word}"'
