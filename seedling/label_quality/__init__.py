"""How likely each label is wrong: one model of label errors, which all stages share.

**The question.** Row i has the features x_i, the given label l_i and the unknown true class y_i, one of K. A model that
was not fitted on row i gives p_i(k), the probability of class k (out_of_fold.py). How likely is y_i != l_i, and how
many labels are wrong?

**Noise process.** A share s of the labels is wrong. Each row's true class is drawn from its probabilities, and its
label from the true class:

    P(y_i = k) = p_i(k; T),   p_i(k; T) proportional to p_i(k)^(1 / T)
    P(l | y_i = k) = 1 - s_k if l = k,   s_k q_i(l | k) otherwise.

T corrects how sharp the probabilities are. s_k = s, or one share per class. q_i(l | k) says which class a wrong label
names: any class with the same probability, a class that the row resembles, a few classes that are specific to k, or a
mixture of these (noise_model.py).

**Prior.** s ~ Beta(1, 1 / MEAN_NOISE_RATE - 1), defined once in prior.py. The prior of T says how sharp such
predictions are for correct labels, so it belongs to the predictions: validate weights likely errors down before it fits
its last models, whose predictions are nearly calibrated. A model in evaluate may have learned from wrong labels, which
makes it less confident, so its prior is wider.

**Posterior.** For one model m = (T, s, type of q), by Bayes' rule,

    P_m(y_i = k | l_i) = p_i(k; T) P(l_i | k) / sum_j p_i(j; T) P(l_i | j).

**Average.** No m is known to be the true one. Each has the weight w(m), proportional to its prior times the likelihood
of all labels, prod_i sum_j p_i(j; T) P(l_i | j) (Bayesian model averaging):

    p_label_error_i = 1 - sum_m w(m) P_m(y_i = l_i | l_i).

**Number of wrong labels.** Its expected value is sum_i p_label_error_i. Its 95 % interval contains the expected number
under each model, from the 2.5 % to the 97.5 % quantile of w, widened by 15 % on either side since no m is the true one.
It reaches 0 unless some wrong labels are more likely than none by three nats.

**Who asks.**

- validate: `find_label_issues`, with several learners and refits in which likely errors count less.
- augment: `label_error_probabilities`, with the logits of one learner. Likely errors do not count as hard rows.
- evaluate: `label_errors` (test_label_errors.py), for the share of wrong test labels and the accuracy against the true
  classes, with uniform errors only. See there for the reason.

**Other questions**, which look similar:

- train: `estimate_label_weights` (label_weights.py). How well do the features support a label, if the label itself is
  no evidence? Weights by the posterior make models less accurate. See there for the measured reason.
- pseudo_label: its filters estimate how often the *teacher's* labels are wrong. Held-out rows with given labels answer
  this directly, as a binomial share with a Wilson interval. No hidden class has to be inferred, so no noise model and
  no prior are involved. Wrong given labels lower the measured precision of every filter.
"""
