"""Decision trees as plain arrays: scikit-learn forests and gradient boosting are converted, checked and evaluated here.

Only arrays of numbers are kept of an estimator, so a model file contains no objects whose loading could run code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit

from seedling.features.sparsity import is_sparse
from seedling.stats.statistics import Floats

LEAF = -1  # the feature index of a leaf
MAX_DENSE_VALUES = 2**23  # of sparse features, converted to dense per block
Arrays = Mapping[str, NDArray[Any]]


def forest_arrays(estimator: Any) -> dict[str, NDArray[Any]]:
    """Return the arrays of a fitted RandomForestClassifier.

    The nodes of all trees are concatenated. The positive class shares of the leaves are stored as (node, class, share).
    """
    trees = [tree.tree_ for tree in estimator.estimators_]
    shares = np.concatenate([tree.value[:, 0, :] for tree in trees])
    arrays = _nodes(
        feature=[np.where(tree.children_left < 0, LEAF, tree.feature) for tree in trees],
        threshold=[tree.threshold for tree in trees],
        left=[tree.children_left for tree in trees],
        right=[tree.children_right for tree in trees],
    )
    nodes, classes = np.nonzero(shares * (arrays["feature"] == LEAF)[:, None])
    arrays |= {
        "share_node": nodes.astype(np.int32),
        "share_class": classes.astype(np.int32),
        "share": shares[nodes, classes].astype(np.float64),
        "classes": np.asarray(estimator.classes_, dtype=np.int64),
    }
    return arrays


def boosting_arrays(estimator: Any) -> dict[str, NDArray[Any]]:
    """Return the arrays of a fitted HistGradientBoostingClassifier without categorical features.

    The nodes of all trees are concatenated by boosting iteration, and within an iteration by class.
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
    """Return the nodes of all trees; a leaf is its own left and right child.

    left, right: node numbers within the tree.
    """
    starts = np.cumsum([0, *(len(tree) for tree in feature)])
    joined = np.concatenate(feature).astype(np.int32)
    node_numbers = np.arange(len(joined), dtype=np.int32)
    children = {}
    for name, parts in (("left", left), ("right", right)):
        absolute = np.concatenate([part + start for part, start in zip(parts, starts[:-1], strict=True)])
        children[name] = np.where(joined == LEAF, node_numbers, absolute).astype(np.int32)
    thresholds = np.where(joined == LEAF, 0.0, np.concatenate(threshold)).astype(np.float64)
    return {"tree_start": starts.astype(np.int64), "feature": joined, "threshold": thresholds, **children}


def check_trees(arrays: Arrays) -> None:
    """Raise ValueError if the arrays are not those of trees: an index out of range, or a cycle."""
    starts, feature = arrays["tree_start"], arrays["feature"]
    n_nodes, node_numbers = len(feature), np.arange(len(feature))
    if len(starts) < 2 or starts[0] != 0 or starts[-1] != n_nodes or (np.diff(starts) <= 0).any():
        raise ValueError("tree_start does not divide the nodes into trees")
    leaf = feature == LEAF
    if (feature < LEAF).any():
        raise ValueError("a feature index is negative")
    ends = np.repeat(starts[1:], np.diff(starts))
    for name in ("left", "right"):
        child = arrays[name]
        # Children come after their parent, so every traversal ends.
        if not np.where(leaf, child == node_numbers, (child > node_numbers) & (child < ends)).all():
            raise ValueError(f"{name} points outside its tree or to an earlier node")
    if "share" in arrays:
        nodes, classes = arrays["share_node"], arrays["share_class"]
        outside = (nodes < 0) | (nodes >= n_nodes) | (classes < 0) | (classes >= len(arrays["classes"]))
        if outside.any():
            raise ValueError("a share has an unknown node or class")
    elif (len(starts) - 1) % len(arrays["baseline"]):
        raise ValueError("the number of trees is not a multiple of the number of outputs")


def leaf_shares(arrays: Arrays) -> Floats:
    """(n_nodes, n_classes): the class shares of a forest's leaves; zeros for inner nodes."""
    shares = np.zeros((len(arrays["feature"]), len(arrays["classes"])))
    shares[arrays["share_node"], arrays["share_class"]] = arrays["share"]
    return shares


def depth_of(arrays: Arrays) -> int:
    """Return the depth of the deepest tree."""
    nodes, depth = arrays["tree_start"][:-1], 0
    while len(nodes := nodes[arrays["feature"][nodes] != LEAF]):
        nodes = np.unique(np.concatenate([arrays["left"][nodes], arrays["right"][nodes]]))
        depth += 1
    return depth


def forest_probabilities(arrays: Arrays, features: Any, shares: Floats) -> Floats:
    """(n_rows, number of present classes): the mean of the trees' class shares. shares: from `leaf_shares`."""
    result = np.zeros((features.shape[0], shares.shape[1]))
    for rows, leaves in _leaves(arrays, features, np.float32):
        for tree in range(leaves.shape[1]):  # summed in scikit-learn's order
            result[rows] += shares[leaves[:, tree]]
    result /= len(arrays["tree_start"]) - 1
    return result


def boosting_probabilities(arrays: Arrays, features: Any) -> Floats:
    """(n_rows, number of present classes): softmax of the summed tree values; the logistic function for two classes."""
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
    """Yield (slice, (n_rows, n_trees)) per block of rows: the leaf that each row reaches in each tree."""
    if is_sparse(features):  # only the columns that some node uses
        used_features = np.unique(arrays["feature"][arrays["feature"] != LEAF])
        column = np.searchsorted(used_features, arrays["feature"])
        columns = sparse.csr_matrix(features)[:, used_features]
    else:
        column, columns = np.maximum(arrays["feature"], 0), features
    rows_per_block = max(1, min(2_048, MAX_DENSE_VALUES // max(1, columns.shape[1])))
    for first in range(0, columns.shape[0], rows_per_block):
        block = columns[first : first + rows_per_block]
        dense: NDArray[Any] = np.asarray(block.toarray() if is_sparse(block) else block, dtype=precision)
        yield slice(first, first + len(dense)), _traverse(arrays, column, dense)


def _traverse(arrays: Arrays, column: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.int64]:
    is_inner = arrays["feature"] != LEAF
    starts = arrays["tree_start"][:-1]
    node = np.tile(starts, len(rows))
    active = np.flatnonzero(is_inner[node])
    while len(active):
        current = node[active]
        goes_left = rows[active // len(starts), column[current]] <= arrays["threshold"][current]
        next_nodes = np.where(goes_left, arrays["left"][current], arrays["right"][current])
        node[active] = next_nodes
        active = active[is_inner[next_nodes]]
    return node.reshape(len(rows), len(starts)).astype(np.int64)
