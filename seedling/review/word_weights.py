"""The words of a text that speak for the class that the model predicts.

A logistic regression on the words (TF-IDF) is fitted to the model's predictions of up to MAX_TEXTS rows. The weight of
a word is its TF-IDF value times its coefficient for the class: its part in the regression's score. The regression
imitates the model, so the weights explain its predictions approximately.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

MAX_TEXTS = 5_000
MIN_TEXTS = 20


class WordWeights:
    """Gives the weights of words after `fit`, and none before."""

    def __init__(self) -> None:
        self._vectorizer: Any = None
        self._regression: Any = None

    def fit(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        """Fit the regression to predicted labels. Fewer than MIN_TEXTS texts or two classes give no weights."""
        if len(texts) < MIN_TEXTS or len(set(labels)) < 2:
            return
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        vectorizer = TfidfVectorizer(max_features=20_000, sublinear_tf=True)
        try:
            features = vectorizer.fit_transform(texts)
        except ValueError:  # no text has a word
            return
        regression = LogisticRegression(C=10.0, max_iter=200).fit(features, list(labels))
        self._vectorizer, self._regression = vectorizer, regression

    def of(self, text: str, label: str) -> list[tuple[str, float]]:
        """The words of the text with their weights for the class, the largest absolute weight first."""
        if self._regression is None or label not in set(self._regression.classes_.tolist()):
            return []
        values = self._vectorizer.transform([text]).tocoo()
        coefficients = self._regression.coef_
        classes = self._regression.classes_.tolist()
        row = coefficients[classes.index(label)] if len(coefficients) > 1 else coefficients[0]
        sign = -1.0 if len(coefficients) == 1 and classes.index(label) == 0 else 1.0
        words = self._vectorizer.get_feature_names_out()
        weighted = [
            (str(words[column]), float(sign * value * row[column]))
            for column, value in zip(values.col, values.data, strict=True)
        ]
        return sorted(weighted, key=lambda item: (-abs(item[1]), item[0]))


def predicted_labels(probabilities: np.ndarray[Any, Any], classes: Sequence[str]) -> list[str]:
    """The likeliest class per row. probabilities: (n, n_classes) without NaN."""
    return [classes[int(index)] for index in probabilities.argmax(axis=1)]
