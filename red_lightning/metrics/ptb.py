"""Penn Treebank tokenization of the caption metrics, without Java.

The behaviour is that of Stanford's ``PTBTokenizer`` (CoreNLP 3.4.1, options ``-preserveLines -lowerCase``): a
lexer that tries every rule where it stands and takes the longest match, what a rule looks at behind its token
included; of equally long ones the earliest rule wins. ``RULES`` is that table for English text, each pattern
with the token as its group 1 and the trailing context after it.
"""

import re
from collections.abc import Callable

Rule = tuple[re.Pattern[str], Callable[[str], str]]

# `\w` also holds superscripts, fractions and circled digits, which are symbols here, and letters beyond the
# Basic Multilingual Plane, which the lexer drops.
_LETTER = (
    r"(?:[^\W\d_\xb2\xb3\xb9\xbc-\xbe\u2070\u2074-\u2089\u2150-\u2189\u2460-\u24ff\U00010000-\U0010ffff]"
    r"|[\xad\u0300-\u036f])"
)
_ALNUM = rf"(?:{_LETTER}|\d)"
_SPACE = r"[ \t\xa0\u2000-\u200a\u3000]"
_APOSTROPHE = r"(?:['\x92\u2019]|&apos;)"
_ANY_APOSTROPHE = r"(?:['\x92\u2019`\x91\u2018\u201b]|&apos;)"
_CLITIC = rf"{_APOSTROPHE}(?:[msdMSD]|(?i:re|ve|ll))"
_NEGATION = rf"(?i:n{_ANY_APOSTROPHE}t)"
_WORD = rf"{_LETTER}{_ALNUM}*(?:[.!?]{_LETTER}{_ALNUM}*)*"
_NUMERAL = r"(?:\d*(?:[.:,\xad\u066b\u066c]\d+)+|\d+)"
_IN_SENTENCE = r"[,;:\u3001]"
_ACRONYM = r"(?:[A-Za-z](?:\.[A-Za-z])*|(?i:(?:canada|sino|korean|eu|japan|non)-u\.s|u\.s\.-u\.(?:k|s\.s\.r)))"
_NOT_IN_URL = r" \t\n\f\r\"<>|(){}"

_USUALLY_BEFORE_LOWER_CASE = (
    r"(?i:jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tues?|wed|thu|thurs|fri"
    r"|ala|ariz|calif|colo|conn|ct|dak|fla|ga|ind|kans?|ky|md|mich|minn|mo|mont|neb|nev|okla|penn|tenn|va|vt|wisc?|wyo"
    r"|inc|cos?|corp|ltd|plc|rt|bancorp|bhd|assn|univ|intl|sys|tel|est|ext|sq|jr|bros|(?:ed|ph)\.d|esq|etc|al|seq)"
    r"|A[Zz]|A(?i:rk)|D(?i:el)|I(?i:ll)|L(?i:a)|M(?i:ass|iss)|O(?i:re)|P(?i:a)|T(?i:ex)|W(?i:ash)|[Pp]p?t[ye]s?"
)
_USUALLY_BEFORE_UPPER_CASE = (
    r"(?i:mr|mrs|ms|drs?|profs?|sens?|reps?|attys?|lt|col|gen|messrs|govs?|adm|rev|maj|sgt|cpl|pvt|capt|ste?|ave|pres"
    r"|lieut|hon|brig|co?mdr|pfc|spc|supts?|det|mt|ft|adj|adv|asst|assoc|ens|insp|mlle|mme|msgr|sfc|sr|vs|alex|wm|jos"
    r"|cie|a\.k\.a|cf|treas|ph|invt|elec|natl|dept|blvd|bldg|rd)|[Mm][ft]g"
)
_BEFORE_NUMBERS = r"(?i:ca|figs?|prop|nos?|art|bldg|pp|op)"
_SENTENCE_OPENERS = (
    r"(?:A(?:bout|ccording|dditionally|fter|n|s|t)?|But|Did|During|Earlier|He|Her|Here|How|However|If|In|It|Last"
    r"|Many|More|Mr\.|Ms\.|Now|Once|One|Other|Our|She|Since|So|Some|Such|That|The|Their|Then|There|These|They|This"
    r"|We|When|While|What|Who|Why|Yet|You)"
)
_APOSTROPHE_WORDS = (
    rf"{_APOSTROPHE}n{_APOSTROPHE}?|[lLdDjJ]{_APOSTROPHE}|(?i:dunkin|somethin|ol){_APOSTROPHE}"
    rf"|{_APOSTROPHE}(?i:em|till?|cause)|{_APOSTROPHE}[2-9]0(?i:s)|[A-HJ-XZn]{_ANY_APOSTROPHE}{_LETTER}{{2,}}"
    rf"|{_LETTER}+[aeiouyAEIOUY]{_ANY_APOSTROPHE}[aeiouA-Z]{_LETTER}*"
    r"|(?i:cont'd\.?|'twas|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l|cap'n)"
)
_HYPHENATED = r"[A-Za-z0-9][A-Za-z0-9.,\xad]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9\xad]+))+"
_ARTICLE = rf"(?:[dDoOlL]{_ANY_APOSTROPHE}{_ALNUM})"
_COMPOUND = rf"{_ARTICLE}?{_ALNUM}+(?:[-_\u058a\u2010\u2011]{_ARTICLE}?{_ALNUM}+)*"
_SLASHED_PART = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_SLASHED = rf"{_SLASHED_PART}(?:\\?/{_SLASHED_PART}){{1,2}}"
_AMPERSANDED = r"[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+"
_PHONE = (
    r"(?:\([0-9]{2,3}\)[ \xa0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \xa0])?[0-9]{2,4}[- \xa0])"
    r"[0-9]{3,4}[- \xa0]?[0-9]{3,5}"
    r"|(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}"
)
_TAG = (
    r"<(?:[!?][A-Za-z-][^>\r\n]*|/[A-Za-z][A-Za-z0-9_:.-]*"
    r"|[A-Za-z][A-Za-z0-9_:.-]*(?: +[A-Za-z][A-Za-z0-9_:.-]*"
    r"(?: *= *(?:'[^'\r\n]*'|\"[^\"\r\n]*\"|[A-Za-z][\w:.-]*))?)* */?)"
    r" *>"
)
_SYMBOL = (
    r"[+%&~^|\\\xa1\xa6-\xa9\xac\xae-\xba\xbf\xd7\xf7=./<>\u2016\u2017\u2020-\u2023\u2030-\u2038"
    r"\u203b\u203e-\u2042\u2044"
    r"\u207a-\u207f\u208a-\u208e\u2100-\u214f\u2190-\u2bff\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20"
    r"\uff3b-\uff40\uff5b-\uff65]"
)

_BRACKETS = {"(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"}
_CURRENCIES = {"\xa2": "cents", "\xa3": "#", "\x80": "$", "\u20a0": "$", "\u20ac": "$", "\xa4": "$"}
_QUOTES = {
    **dict.fromkeys("\x91\u2018\u201b\u2039", "`"),
    **dict.fromkeys("\x92\u2019\u203a", "'"),
    **dict.fromkeys("\x93\u201c\xab", "``"),
    **dict.fromkeys("\x94\u201d\xbb", "''"),
}
_FRACTIONS = {"\xbc": "1/4", "\xbd": "1/2", "\xbe": "3/4", "\u2153": "1/3", "\u2154": "2/3"}


def _as_is(token: str) -> str:
    return token


def _straight(token: str) -> str:
    return re.sub("[\x92\u2019]|&apos;", "'", token)


def _quote(token: str) -> str:
    """Curly quotes become the ASCII pairs of TeX."""
    return "".join(_QUOTES.get(character, character) for character in token)


def _glued(token: str) -> str:
    """Spaces inside a token become no-break ones, and round brackets their names."""
    return token.replace(" ", "\xa0").replace("(", "-LRB-").replace(")", "-RRB-")


def _rule(pattern: str, norm: Callable[[str], str] = _as_is) -> Rule:
    return re.compile(pattern), norm


RULES: tuple[Rule, ...] = (
    _rule(r"((?i:can))(?i:not)"),
    _rule(r"('(?i:t))(?i:is|was)"),
    _rule(r"((?i:gon|wan))(?i:na)"),
    _rule(r"((?i:got))(?i:ta)"),
    _rule(r"((?i:lem|gim))(?i:me)"),
    _rule(rf"({_TAG})", _glued),
    _rule(r"(&(?i:md|mdash|ndash);|[\x96\x97\u2013-\u2015])", lambda token: "--"),
    _rule(r"(&(?i:amp);)", lambda token: "&"),
    _rule(rf"({_WORD}){_CLITIC}"),
    _rule(rf"([A-Za-z\xad]*[A-MO-Za-mo-z]\xad*){_NEGATION}"),
    _rule(rf"({_WORD})"),
    _rule(rf"({_APOSTROPHE_WORDS})"),
    _rule(rf"([yY]{_APOSTROPHE}){_LETTER}"),
    _rule(rf"((?i:ftp|svn|https?|mailto)://[^{_NOT_IN_URL}]+[^{_NOT_IN_URL}.!?,-])"),
    _rule(
        rf"((?:www\.(?:[^{_NOT_IN_URL}.!?,]+\.)+[a-zA-Z]{{2,4}}|(?:[^{_NOT_IN_URL}`'.!?,-_$]+\.)+(?:com|net|org|edu))"
        rf"(?:/[^{_NOT_IN_URL}]+[^{_NOT_IN_URL}.!?,-])?)"
    ),
    _rule(
        rf"((?:&lt;|<)?[a-zA-Z0-9][^ \t\n\f\r\"<>|()\xa0]*@"
        rf"(?:[^{_NOT_IN_URL}.\xa0]+\.)*[^{_NOT_IN_URL}.\xa0]+(?:&gt;|>)?)"
    ),
    _rule(rf"(@[a-zA-Z_][a-zA-Z_0-9]*|#{_LETTER}+)"),
    _rule(rf"({_CLITIC}|{_NEGATION})[^A-Za-z]", _straight),
    _rule(r"(\d{1,2}[-/]\d{1,2}[-/]\d{2,4})"),
    _rule(rf"([-+]?{_NUMERAL})"),
    _rule(r"([\u207a\u207b\u208a\u208b]?(?:[\u2070\xb9\xb2\xb3\u2074-\u2079]+|[\u2080-\u2089]+))"),
    _rule(r"((?:\d{1,4}[- \xa0])?\d{1,4}(?:\\?/|\u2044)\d{1,4})", _glued),
    _rule(r"([\xbc-\xbe\u2153-\u215e])", lambda token: _FRACTIONS.get(token, token)),
    _rule(r"(-(?i:rrb|lrb|rcb|lcb|rsb|lsb)-|(?i:c\.d\.s|pro-|anti-)|S(?:&|&amp;)P-500|S(?:&|&amp;)Ls)"),
    _rule(rf"({_SLASHED})"),
    _rule(r"([A-Z]*\$|#)"),
    _rule(
        r"([\xa2-\xa5\x80\u20a0\u20a4\u20ac\uffe0\uffe1\uffe5\uffe6])",
        lambda token: _CURRENCIES.get(token, token),
    ),
    _rule(rf"([A-Za-z])\.{_SPACE}+{_SENTENCE_OPENERS}(?:{_SPACE}|[?!])"),
    _rule(rf"({_BEFORE_NUMBERS}\.){_SPACE}?\d"),
    _rule(rf"((?i:so|no)\.){_SPACE}+(?i:africa|korea|cal)"),
    _rule(rf"((?i:pt[ey]|co)\.){_SPACE}(?i:ltd|lim)"),
    _rule(rf"((?:{_USUALLY_BEFORE_LOWER_CASE})\.)[^\r\n]{{2}}"),
    _rule(rf"((?:{_USUALLY_BEFORE_LOWER_CASE}|{_USUALLY_BEFORE_UPPER_CASE}|{_ACRONYM})\.)"),
    _rule(rf"({_APOSTROPHE}\d\d)\s"),
    _rule(rf"({_WORD}\.){_IN_SENTENCE}"),
    _rule(rf"({_PHONE})", _glued),
    _rule(r"([<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]])[^A-Za-z0-9]", _glued),
    _rule(r"([(){}\[\]])", _BRACKETS.__getitem__),
    _rule(r"(-+)", lambda token: "--" if len(token) in (3, 4) else token),
    _rule(r"(\.\.\.+|[\x85\u2026]|\.[ \xa0](?:\.[ \xa0])+\.)", lambda token: "..."),
    _rule(r"(@+|\#+|_+|\*+)"),
    _rule(rf"({_IN_SENTENCE}|[?!]+)"),
    _rule(rf"({_HYPHENATED})"),
    _rule(rf"({_HYPHENATED}\.){_IN_SENTENCE}"),
    _rule(rf"({_COMPOUND})"),
    _rule(rf"({_COMPOUND}\.){_IN_SENTENCE}"),
    _rule(rf"({_AMPERSANDED})"),
    _rule(rf"({_AMPERSANDED}\.){_IN_SENTENCE}"),
    _rule(r"(')[A-Za-z][^ \t\r\n\xa0]"),
    _rule(rf"({_CLITIC}|{_NEGATION})", _straight),
    _rule(r"(\"|&quot;|'')", lambda token: "''"),
    _rule(r"('|&apos;)", lambda token: "'"),
    _rule(r"([`\x91-\x94\u2018-\u201f\u2039\u203a\xab\xbb]{1,2})", _quote),
    _rule(rf"(<<|>>|&lt;|&gt;|{_SYMBOL})"),
)

_SKIPPED = re.compile(r"[\s\u200b\u200e\u200f\ufeff]+")
# most tokens of most texts, where no other rule can take more: spares them the table
_PLAIN = re.compile(r"[A-Za-z]{2,}(?=[,;]? )|[.,](?=[ \n](?![ .]))")
_SPLIT_WORDS = frozenset(("cannot", "gonna", "gotta", "lemme", "gimme", "wanna"))


def lex(text: str) -> list[str]:
    """Cut one line into Penn Treebank tokens, punctuation included, in their original case.

    Args:
        text: One sentence or several; line breaks count as spaces.

    Returns:
        The tokens. A character that no rule knows (an emoji) is dropped, as Stanford drops it.
    """
    text = " ".join(text.splitlines()) + "\n"  # the rules look at the end of the line as at any character
    tokens, position = [], 0
    while position < len(text):
        if skipped := _SKIPPED.match(text, position):
            position = skipped.end()
            continue
        plain = _PLAIN.match(text, position)
        if plain and plain.group().lower() not in _SPLIT_WORDS:
            tokens.append(plain.group())
            position = plain.end()
            continue
        matches = [(m, norm) for pattern, norm in RULES if (m := pattern.match(text, position))]
        if not matches:
            position += 1  # a character of no rule (an emoji) is dropped
            continue
        match, norm = max(matches, key=lambda candidate: candidate[0].end())
        tokens.append(norm(match.group(1)).replace("\xad", ""))  # soft hyphens only break lines
        position = match.end(1)
    return [token for token in tokens if token]
