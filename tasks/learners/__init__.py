"""Learners: what turns rows into probabilities.

features   pictures → pixels, HOG and colour; texts → TF-IDF of words and characters
encoder    a pretrained encoder's features, made once a row
heads      logistic regression, SVM and random forest on features, with soft labels and weights
network    a small convolutional network, with soft labels and weights
graph      labels spread over a nearest-neighbour graph
saving     models as files that run no code when loaded
"""
