"""Learners: models from features to class probabilities.

model, predictor       a trained model, and its predictions for new rows
heads, trees           logistic regression, random forest and boosted trees, with soft labels and weights
instance_based         support vector machine and nearest neighbors
training, device       gradient training with checkpoints; GPU or CPU
network                a small residual network, trained from scratch
fine_tuned             the fine-tuned encoder
losses                 class imbalance and label noise
label_propagation      labels propagated on a nearest-neighbor graph
image_flow             a generator of small images
masked_words           replacement words from a masked language model
portable*, gradients   a model as a torch module, for ONNX export and gradients
saving, model_arrays   model files that run no code when they are loaded
"""
