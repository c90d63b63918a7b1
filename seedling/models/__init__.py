"""Learners: what turns rows into probabilities.

features   images → pixels, HOG and color; texts → TF-IDF of words and characters
encoder    a pretrained encoder as a function from rows to features; encoded_features: what learners see of it; feature_cache: once a row
heads      logistic regression, SVM, trees and nearest neighbors on features, with soft labels and weights
training   learning by gradients: steps, checkpoints, resuming; network: a small residual one; fine_tuned: the encoder itself
losses     class imbalance and doubtful labels
graph      labels spread over a nearest-neighbor graph
saving     models as files that run no code when loaded
"""
