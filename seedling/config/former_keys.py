"""Keys, values and columns that earlier pipeline versions had, for errors and for `seedling migrate`."""

from __future__ import annotations

FORMER_KEYS = {  # dotted names in params.yaml
    "line": "pipeline_version",
    "validate.doubtful_labels": "validate.label_issues",
    "validate.items_a_minute": "validate.items_per_minute",
    "augment.children": "augment.augmentations_per_row",
    "augment.adversarial_way": "augment.adversarial_attack",
    "train.encoder": "encoder",
    "train.wanted_accuracy": "train.target_selective_accuracy",
    "train.surely_worse_probability": "train.reject_if_p_accuracy_worse",
    "pseudo_label.neighbours": "pseudo_label.neighbors",
}
# Dotted names whose keys are gone → why. Those of version 15 are removed before the others are renamed.
_DECISION = "a round is accepted by train.accept_if_p_better"
REMOVED_KEYS = {
    "train.verdict_seeds": _DECISION,
    "train.worse_probability": _DECISION,
    "train.decision_seeds": _DECISION,
    "train.reject_if_p_worse": _DECISION,
    "train.margin": _DECISION,
}
FORMER_SOURCE_KEYS = {"licence": "license"}  # of each item of scrape.sources
FORMER_VALUES = {  # key → former value → value; also of each item of a list, and of keys within such items
    "augment.policy": {"colour_rotation": "color_rotation", "grey": "gray"},
    "train.candidates": {"nearest_neighbours": "nearest_neighbors"},
    "train.losses": {"trusted": "label_weighted", "strictly_trusted": "label_weighted_twice"},
    "pseudo_label.filter": {
        "top_a_class": "top_per_class",
        "without_doubted_classes": "without_unreliable_classes",
    },
    "evaluate.slices": {"licence": "license", "nearest_labelled": "nearest_labeled"},
}
FORMER_COLUMNS = {  # of generations, which expectations in gates.yaml name
    "parents": "parent_ids",
    "licence": "license",
    "nearest_labelled": "nearest_labeled",
    "health": "quality",
    "p_wrong": "p_label_error",
    "suggested": "suggested_label",
    "doubtful": "is_label_issue",
    "given": "original_label",
    "lineage_labels": "pseudo_label_by_fold",
    "lineage_weights": "pseudo_weight_by_fold",
    "lineage_agreement": "fold_agreement",
    "neighbours_agree": "neighbor_agreement",
    "dropout_spread": "dropout_std",
    "rows_a_parent": "rows_per_parent",
    "right": "correct",
}


def present_name(key: str) -> str | None:
    """The present name of a renamed key of params.yaml; None for any other key. Items of lists have their number."""
    parts = key.split(".")
    if parts[:2] == ["scrape", "sources"] and parts[-1] in FORMER_SOURCE_KEYS:
        return ".".join([*parts[:-1], FORMER_SOURCE_KEYS[parts[-1]]])
    return FORMER_KEYS.get(key)
