import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from red_lightning.metrics.tokenization import mteval_tokens, ptb_tokens

# ruff: noqa: RUF001 (the ambiguous characters are the point)
HARD = r"""
The colour of the centre; favourite organise travelling theatre
cannot gonna gotta wanna lemme gimme more'n 'tis 'twas
don't can't won't isn't They're you'll I'm I'd he's John's kids' DON'T didn't.
5of5 river,there rating.. 20s. 20-25£ £20-£25. £20-25 20£. $5.99 €20 ¥100 5/5 3.5/5 1/2 5,000 -5 +5 20-
"The Eagle" 'Eagle' ‘quoted’ “quoted” it’s don’t l'eau d'oeuvres o'clock rock'n'roll 'n' 'em 'cause y'all
U.S. is big. The U.S.A. It is in the U.K. He left. Mr. Smith Dr. Who e.g. this i.e. that etc. And etc. etc
a.m. 5 p.m. It 5p.m. 10:30am 10am Ph.D. Inc. Co. St. No. 5 no. 5 Jan. 5 Oct. He vs. them
wait... what…  no.... yes . . . ok !? ?! !!! ??
(parentheses) [brackets] {braces} <angle> <b>bold</b> & &amp; A&B AT&T R&B
http://www.foo.com/bar?x=1 www.foo.com foo.com foo@bar.com @user #tag hello@ 50% 100% 3*4 5+5 x=y a_b
family-friendly non-family-friendly well-- known --- a--b – — a—b 2010–2011 well-known. 3-star, 1-5 e-mail
half-price,cheap good.bad good.It Café.The riverside.It 5.It 5.the It.is a.b A.B.C x.
:) :-( ;-) :D <3 ... -> == = ~ ^ \ | ||| / // a/b and/or he/she
1st 2nd 20th 1990s '90s 80's 5'10" 12" 6ft 100m2 3pm. 01223 555555 (01223) 555-1234 123.456.7890
naïve café über Ångström 中文 日本語 emoji 😀 ½ ⅓ m² ™ © ® ° 20°C
French,family-friendly food,low-priced, 'Strada' is 'a 'ab I. The x B. It was G. a
5 1/2 cups 1 1/2. (555) 123-4567 555 123 4567 call 555-123-4567 now
café-style Ångström-like non-café x-é a.b-c U.S.-based 5.5-inch three-4.5 mid-1990s pre-U.S. d'Avignon-like
"" '' `` ` ´ « » „x“ ‚x’ ''x'' "x" "x
word. Word word.Word word.5 5.word 5.5.5 5,000.00 1.2.3.4 24/7 9am–5pm a/b/c/d 5/b non-a/b-c
O’Neil’s d’Avignon l’eau Dunkin’ ’em rock’n’roll soft­hyphen
It costs 50¢ or £20–£25 (approx. €30) per person—not bad!
""".strip().splitlines()


def stanford(sentences: list[str], folder: Path) -> list[list[str]]:
    """Tokenize as pycocoevalcap does, with a neutral line between sentences: Java reads across lines."""
    package = find_spec("pycocoevalcap")
    assert package is not None and package.submodule_search_locations
    jar = Path(package.submodule_search_locations[0]) / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    source = folder / "sentences.txt"
    source.write_text("".join(f"{' '.join(s.splitlines())}\nzz\n" for s in sentences), encoding="utf-8")
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    output = subprocess.run(
        [*command, "-preserveLines", "-lowerCase", str(source)], capture_output=True, check=True
    ).stdout
    lines = output.decode("utf-8").split("\n")[:-1][::2]
    assert len(lines) == len(sentences)
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    return [[token for token in line.split(" ") if token and token not in PUNCTUATIONS] for line in lines]


def assert_agree(sentences: list[str], folder: Path) -> None:
    expected = stanford(sentences, folder)
    wrong = [
        (sentence, tokens, ptb_tokens(sentence))
        for sentence, tokens in zip(sentences, expected, strict=True)
        if list(ptb_tokens(sentence)) != tokens
    ]
    assert wrong == []


@pytest.mark.usefixtures("java")
def test_equals_stanford_on_all_of_e2e(e2e_sentences: list[str], tmp_path: Path) -> None:
    assert len(e2e_sentences) > 40_000
    assert_agree(e2e_sentences, tmp_path)


@pytest.mark.usefixtures("java")
def test_equals_stanford_on_hard_sentences(tmp_path: Path) -> None:
    assert_agree(HARD, tmp_path)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", ""),
        (" . , ! ", ""),
        ("It's family-friendly, isn't it?", "it 's family-friendly is n't it"),
        ("£20-25 (cheap)", "# 20-25 -lrb- cheap -rrb-"),
        ("two\nlines\r\nhere", "two lines here"),
    ],
)
def test_ptb_tokens(text: str, tokens: str) -> None:
    assert list(ptb_tokens(text)) == tokens.split()


def test_mteval_tokens_split_all_punctuation_but_inside_numbers() -> None:
    assert mteval_tokens("The £3.50 (Pub), isn't &amp;") == (
        "the",
        "£3.50",
        "(",
        "pub",
        ")",
        ",",
        "isn't",
        "&",
    )
