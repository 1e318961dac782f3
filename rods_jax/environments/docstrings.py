"""What a docstring says of a method and of its parameters, in Google's, NumPy's, Sphinx's or Epydoc's style.

The styles are docstring_parser's.  Added here: more titles of Google's sections (`Keyword Args:`, `Warning:`).
"""

import re
from collections.abc import Iterator

from docstring_parser import Docstring, DocstringStyle, ParseError, parse
from docstring_parser.google import GoogleParser, Section, SectionType

_OF_PARAMETERS = r"(?:\w+ )?(?:[Aa]rg(?:ument)?s|[Pp]aram(?:eter)?s)"
_OTHERS = (
    "Attention|Attributes|Caution|Danger|Error|Examples?|Except(?:ion)?s?|Hint|Important|Methods|Notes?|Raises?|"
    "References|Returns?|See Also|Tip|Todo|Warnings?|Warns?|Yields?"
)
_SECTION = re.compile(rf"^({_OF_PARAMETERS}|{_OTHERS}):[ \t]*\n((?:[ \t]+\S.*\n|[ \t]*\n)*)", re.MULTILINE)
_UNREAD = re.compile(r"^\s*[:@](param|arg|key)", re.MULTILINE)


def read_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """(text before the first section, parameter -> description). ValueError: its sections cannot be read.

    doc: without the indentation of the code around it.
    """
    found, errors = [], []
    try:
        found.append(_google(doc))
    except ParseError as error:
        raise ValueError(error) from error
    for style in (DocstringStyle.NUMPYDOC, DocstringStyle.REST, DocstringStyle.EPYDOC):
        try:
            found.append(parse(doc, style))
        except ParseError as error:
            errors.append(error)
    best = max(found, key=lambda one: (len(one.params), len(one.meta)))
    description = best.description or ""
    if _UNREAD.search(description):
        raise ValueError(errors[0] if errors else "it is of no style that is known")
    return " ".join(description.split()), dict(_parameters(best))


def _google(doc: str) -> Docstring:
    """Only a section of parameters is taken apart: the library wants a colon in each line that it takes apart."""
    sections = [
        Section(title, "param", SectionType.MULTIPLE)
        if re.fullmatch(_OF_PARAMETERS, title) and ":" in body
        else Section(title, "text", SectionType.SINGULAR)
        for title, body in _SECTION.findall(f"{doc}\n")
    ]
    return GoogleParser(sections).parse(doc)


def _parameters(parsed: Docstring) -> Iterator[tuple[str, str]]:
    for parameter in parsed.params:
        for name in parameter.arg_name.split(","):  # NumPy's `x, y : int`
            if parameter.description:
                yield name.strip(" *"), " ".join(parameter.description.split())
