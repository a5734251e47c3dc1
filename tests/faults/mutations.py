"""Documents of which a few values or letters were changed, for property tests of their readers."""

import copy
import json
import os

from hypothesis import strategies as st

DOCUMENTS = int(os.environ.get("SE_NAS_DOCUMENTS", "40"))
"""How many of each kind are tried."""
TRIED = {
    "max_examples": DOCUMENTS,
    "deadline": None,
    "database": None,
    # A sample is always the same, so that a fault is found by whoever looks for it and not by chance in CI.
    "derandomize": "SE_NAS_DOCUMENTS" not in os.environ,
}
"""Settings of hypothesis."""
JUNK = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**63 - 1,
        2**64,
        10**400,
        0.5,
        -0.0,
        1e308,
        1e-320,
        float("nan"),
        float("inf"),
    ),
    *("", "text", "1", "\x1b[31m", "\x00", "\ud800", "../../x", "x" * 5000),
    *([], {}, [[]], [None], [0], {"": None}, {"schema": 1}, [[[[[]]]]]),
)


def places(value, path=()):
    """Paths of all values in a document."""
    yield path
    for key, item in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from places(item, (*path, key))


@st.composite
def mutated(draw, document):
    """The text of a document of which a few values were replaced, deleted or doubled, or some letters changed."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(changed))))
        junk = copy.deepcopy(draw(st.sampled_from(JUNK)))
        if not path:
            continue
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        how = draw(st.sampled_from(("replace", "delete", "double", "rename")))
        if how == "replace":
            parent[path[-1]] = junk
        elif how == "delete":
            del parent[path[-1]]
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[path[-1]]))
        else:
            parent[str(junk)[:20]] = parent.pop(path[-1]) if how == "rename" else parent[path[-1]]
    text = json.dumps(changed)
    if draw(st.booleans()):
        place, letters = (
            draw(st.integers(0, len(text))),
            draw(st.sampled_from(("", "[", "}", '"', "1", "e9", "\\", ","))),
        )
        text = text[:place] + letters + text[place + draw(st.integers(0, 2)) :]
    return text
