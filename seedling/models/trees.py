"""Decision trees as plain arrays: a fitted forest or boosting of scikit-learn is taken apart, checked and evaluated here.

Nothing but arrays of numbers is kept of an estimator, so that a model file holds no objects whose loading could run code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit

from seedling.stats.statistics import Floats

LEAF = -1  # the feature of a node that asks for none
MAX_DENSE_VALUES = 2**23  # of sparse features that are made dense together
Arrays = Mapping[str, NDArray[Any]]


def forest_arrays(estimator: Any) -> dict[str, NDArray[Any]]:
    """The arrays of a fitted RandomForestClassifier.

    Nodes of all trees stand behind one another, tree after tree. Of the leaves' class shares those above zero are kept,
    as node, class and share.
    """
    trees = [tree.tree_ for tree in estimator.estimators_]
    shares = np.concatenate([tree.value[:, 0, :] for tree in trees])
    arrays = _nodes(
        feature=[np.where(tree.children_left < 0, LEAF, tree.feature) for tree in trees],
        threshold=[tree.threshold for tree in trees],
        left=[tree.children_left for tree in trees],
        right=[tree.children_right for tree in trees],
    )
    nodes, places = np.nonzero(shares * (arrays["feature"] == LEAF)[:, None])
    arrays |= {
        "share_node": nodes.astype(np.int32),
        "share_class": places.astype(np.int32),
        "share": shares[nodes, places].astype(np.float64),
        "classes": np.asarray(estimator.classes_, dtype=np.int64),
    }
    return arrays


def boosting_arrays(estimator: Any) -> dict[str, NDArray[Any]]:
    """The arrays of a fitted HistGradientBoostingClassifier without categorical features.

    Nodes of all trees stand behind one another, step after step, and in a step class after class.
    """
    nodes = [tree.nodes for step in estimator._predictors for tree in step]
    leaves = [tree["is_leaf"].astype(bool) for tree in nodes]
    arrays = _nodes(
        feature=[np.where(leaf, LEAF, tree["feature_idx"]) for tree, leaf in zip(nodes, leaves, strict=True)],
        threshold=[np.where(leaf, 0.0, tree["num_threshold"]) for tree, leaf in zip(nodes, leaves, strict=True)],
        left=[tree["left"] for tree in nodes],
        right=[tree["right"] for tree in nodes],
    )
    values = [np.where(leaf, tree["value"], 0.0) for tree, leaf in zip(nodes, leaves, strict=True)]
    arrays |= {
        "value": np.concatenate(values).astype(np.float64),
        "baseline": np.asarray(estimator._baseline_prediction, dtype=np.float64).reshape(-1),
        "classes": np.asarray(estimator.classes_, dtype=np.int64),
    }
    return arrays


def _nodes(
    feature: list[NDArray[Any]], threshold: list[NDArray[Any]], left: list[NDArray[Any]], right: list[NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """The nodes of all trees; a leaf has itself as both children. left, right: counted within the tree."""
    starts = np.cumsum([0, *(len(tree) for tree in feature)])
    joined = np.concatenate(feature).astype(np.int32)
    itself = np.arange(len(joined), dtype=np.int32)
    children = {}
    for name, parts in (("left", left), ("right", right)):
        absolute = np.concatenate([part + start for part, start in zip(parts, starts[:-1], strict=True)])
        children[name] = np.where(joined == LEAF, itself, absolute).astype(np.int32)
    thresholds = np.where(joined == LEAF, 0.0, np.concatenate(threshold)).astype(np.float64)
    return {"tree_start": starts.astype(np.int64), "feature": joined, "threshold": thresholds, **children}


def check_trees(arrays: Arrays) -> None:
    """Raises ValueError where the arrays are not those of trees: an index out of range, or a node that leads back."""
    starts, feature = arrays["tree_start"], arrays["feature"]
    many, itself = len(feature), np.arange(len(feature))
    if len(starts) < 2 or starts[0] != 0 or starts[-1] != many or (np.diff(starts) <= 0).any():
        raise ValueError("tree_start does not divide the nodes into trees")
    leaf = feature == LEAF
    if (feature < LEAF).any():
        raise ValueError("a feature is below zero")
    ends = np.repeat(starts[1:], np.diff(starts))
    for name in ("left", "right"):
        child = arrays[name]
        # Children stand behind their parent, so every walk ends.
        if not np.where(leaf, child == itself, (child > itself) & (child < ends)).all():
            raise ValueError(f"{name} leads out of its tree, or back")
    if "share" in arrays:
        nodes, places = arrays["share_node"], arrays["share_class"]
        outside = (nodes < 0) | (nodes >= many) | (places < 0) | (places >= len(arrays["classes"]))
        if outside.any():
            raise ValueError("a share belongs to no node or no class")
    elif (len(starts) - 1) % len(arrays["baseline"]):
        raise ValueError("the trees cannot be shared among the classes")


def leaf_shares(arrays: Arrays) -> Floats:
    """(n_nodes, n_classes): the class shares of a forest's leaves; zeros at inner nodes."""
    shares = np.zeros((len(arrays["feature"]), len(arrays["classes"])))
    shares[arrays["share_node"], arrays["share_class"]] = arrays["share"]
    return shares


def depth_of(arrays: Arrays) -> int:
    """The number of questions on the longest way to a leaf."""
    nodes, depth = arrays["tree_start"][:-1], 0
    while len(nodes := nodes[arrays["feature"][nodes] != LEAF]):
        nodes = np.unique(np.concatenate([arrays["left"][nodes], arrays["right"][nodes]]))
        depth += 1
    return depth


def forest_probabilities(arrays: Arrays, features: Any, shares: Floats) -> Floats:
    """(n_rows, n_classes present): the mean of the trees' class shares. shares: from `leaf_shares`."""
    result = np.zeros((features.shape[0], shares.shape[1]))
    for rows, leaves in _leaves(arrays, features, np.float32):
        for tree in range(leaves.shape[1]):  # one after another, as scikit-learn sums them
            result[rows] += shares[leaves[:, tree]]
    result /= len(arrays["tree_start"]) - 1
    return result


def boosting_probabilities(arrays: Arrays, features: Any) -> Floats:
    """(n_rows, n_classes present): the softmax of the trees' summed values, of two classes the logistic function."""
    outputs = len(arrays["baseline"])
    scores = np.zeros((features.shape[0], outputs), order="F")
    scores += arrays["baseline"]
    for rows, leaves in _leaves(arrays, features, np.float64):
        for tree in range(leaves.shape[1]):
            scores[rows, tree % outputs] += arrays["value"][leaves[:, tree]]
    if outputs > 1:
        from sklearn.utils.extmath import softmax

        return np.asarray(softmax(scores))
    second = expit(scores[:, 0])
    return np.stack([1 - second, second], axis=1)


def _leaves(arrays: Arrays, features: Any, precision: type) -> Any:
    """By block of rows, (slice, (n_rows, n_trees)): the leaf that each row comes to in each tree."""
    if sparse.issparse(features):  # of the columns those that a node asks for
        asked = np.unique(arrays["feature"][arrays["feature"] != LEAF])
        column = np.searchsorted(asked, arrays["feature"])
        shown = sparse.csr_matrix(features)[:, asked]
    else:
        column, shown = np.maximum(arrays["feature"], 0), features
    at_once = max(1, min(2_048, MAX_DENSE_VALUES // max(1, shown.shape[1])))
    for first in range(0, shown.shape[0], at_once):
        block = shown[first : first + at_once]
        dense: NDArray[Any] = np.asarray(block.toarray() if sparse.issparse(block) else block, dtype=precision)
        yield slice(first, first + len(dense)), _walk(arrays, column, dense)


def _walk(arrays: Arrays, column: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.int64]:
    inner = arrays["feature"] != LEAF
    starts = arrays["tree_start"][:-1]
    node = np.tile(starts, len(rows))
    walking = np.flatnonzero(inner[node])
    while len(walking):
        here = node[walking]
        below = rows[walking // len(starts), column[here]] <= arrays["threshold"][here]
        there = np.where(below, arrays["left"][here], arrays["right"][here])
        node[walking] = there
        walking = walking[inner[there]]
    return node.reshape(len(rows), len(starts)).astype(np.int64)
