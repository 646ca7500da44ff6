"""References by the name of their data set: which splits, which feature network.

A new data set with figures of its own adds one function here and its feature network to
features.py; the rest of the metrics know none by name.
"""

from genkit.metrics.features import digits_features
from genkit.metrics.suite import Reference


def digits_reference() -> Reference:
    """Digits: the test split (899) as real samples, the train split (898) as training set."""
    from genkit.data import digits

    return Reference.of(digits.load("train"), digits.load("test"), digits_features())


REFERENCES = {"digits": digits_reference}


def reference(name: str) -> Reference:
    """The reference of the data set `name`; ValueError where there is none."""
    if name not in REFERENCES:
        known = ", ".join(REFERENCES)
        raise ValueError(f"no features are known for data {name!r}; there are those of: {known}")
    return REFERENCES[name]()
