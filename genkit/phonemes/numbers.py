"""Numbers as English words: cardinals, ordinals, decimals, years, money, percent, clock times."""

from __future__ import annotations

import re

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
THOUSANDS = ("", " thousand", " million", " billion", " trillion")
ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
MONEY = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
NUMBER = r"\d+(?:,\d{3})*"


def cardinal(n: int) -> str:
    """n as words; from a thousand trillion on digit by digit."""
    if n < 0:
        return f"minus {cardinal(-n)}"
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10] + (f" {ONES[n % 10]}" if n % 10 else "")
    if n < 1000:
        rest = n % 100
        return f"{ONES[n // 100]} hundred" + (f" and {cardinal(rest)}" if rest else "")
    if n >= 1000 ** len(THOUSANDS):
        return digits(str(n))
    parts, place = [], 0
    while n:
        n, part = divmod(n, 1000)
        if part:
            parts.append(cardinal(part) + THOUSANDS[place])
        place += 1
    return " ".join(reversed(parts))


def ordinal(n: int) -> str:
    """n as an ordinal: 21 is twenty first."""
    head, _, last = cardinal(n).rpartition(" ")
    if last in ORDINALS:
        last = ORDINALS[last]
    else:
        last = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return f"{head} {last}".strip()


def digits(text: str) -> str:
    """Digits one by one."""
    return " ".join(ONES[int(each)] for each in text)


def year(n: int) -> str:
    """A year as it is said: nineteen eighty four, two thousand and five."""
    if 2000 <= n < 2010 or n % 1000 == 0:
        return cardinal(n)
    head, rest = divmod(n, 100)
    if rest == 0:
        return f"{cardinal(head)} hundred"
    return f"{cardinal(head)} " + (f"oh {ONES[rest]}" if rest < 10 else cardinal(rest))


def _decimal(match: re.Match[str]) -> str:
    return f"{cardinal(_whole(match[1]))} point {digits(match[2])}"


def _whole(text: str) -> int:
    return int(text.replace(",", ""))


def _money(match: re.Match[str]) -> str:
    large, small = MONEY[match[1]]
    n, cents = _whole(match[2]), int((match[3] or "0").ljust(2, "0")[:2])
    said = f"{cardinal(n)} {large}" + ("" if n == 1 else "s")
    many = "pence" if small == "penny" else small + "s"
    return said + (f" and {cardinal(cents)} {small if cents == 1 else many}" if cents else "")


def _clock(match: re.Match[str]) -> str:
    hour, minute = int(match[1]), int(match[2])
    if minute == 0:
        return f"{cardinal(hour)} o'clock"
    return f"{cardinal(hour)} " + (f"oh {ONES[minute]}" if minute < 10 else cardinal(minute))


def _plain(match: re.Match[str]) -> str:
    text = match[0]
    n = _whole(text)
    if "," in text:
        return cardinal(n)
    if text[0] == "0" and len(text) > 1:
        return digits(text)
    return year(n) if len(text) == 4 and 1100 <= n < 2100 else cardinal(n)


RULES = (
    (rf"([$£€])({NUMBER})(?:\.(\d{{1,2}}))?\b", _money),
    (r"\b(\d{1,2}):([0-5]\d)\b", _clock),
    (rf"({NUMBER})(?:st|nd|rd|th)\b", lambda m: ordinal(_whole(m[1]))),
    (rf"({NUMBER})\.(\d+)", _decimal),
    (r"%", lambda m: " percent"),
    (r"(?<![\w.])-(?=\d)", lambda m: "minus "),
    (NUMBER, _plain),
)


def read_out(text: str) -> str:
    """The text with every number in words."""
    for pattern, said in RULES:
        text = re.sub(pattern, lambda m, said=said: f" {said(m)} ", text)
    return re.sub(r" +([.,;:!?])", r"\1", re.sub(r"\s+", " ", text)).strip()
