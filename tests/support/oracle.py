"""GECO written a second time, as in the papers: float64 and autograd. It shares no code with the package."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

# What constraints that compare number by number measure of a difference d = x_hat - x, float64.


def squared_difference(d):
    return d.square()


def absolute_difference(d, eps=1e-3):
    return (d.square() + eps**2).sqrt() - eps


def average(elements, tolerance, reduction="mean"):
    """The mean (or sum) of an example's elements, averaged over the batch."""
    of_examples = elements.reshape(len(elements), -1)
    return (of_examples.mean(1) if reduction == "mean" else of_examples.sum(1)).mean() - tolerance


def weighted(elements, weight, tolerance, reduction="mean"):
    """The weighted mean (or sum) of an example's elements, averaged over the examples that have weights."""
    of_examples = []
    for error, w in zip(elements, weight.double().expand_as(elements), strict=True):
        if w.sum() > 0:
            total = (error[w > 0] * w[w > 0]).sum()
            of_examples.append(total / w.sum() if reduction == "mean" else total)
    return torch.stack(of_examples).mean() - tolerance


def squared_error(x_hat, x, kappa, reduction="mean"):
    return average(squared_difference((x_hat - x).double()), kappa**2, reduction)


def squared_error_per_channel(x_hat, x, kappa):
    return torch.stack([squared_error(x_hat[:, c], x[:, c], kappa) for c in range(x.shape[1])])


def feature_error(maps_hat, maps, kappa):
    return torch.stack([squared_error(a, b, 0.0) for a, b in zip(maps_hat, maps, strict=True)]).mean() - kappa**2


def class_probability(scores, labels, kappa, from_logits=True):
    probabilities = scores.double().softmax(1) if from_logits else scores.double()
    return kappa - probabilities[torch.arange(len(labels)), labels].mean()


def patches(x, patch, stride, per_channel=False):
    """[B, groups, numbers of a patch, positions]"""
    unfolded = F.unfold(x.double(), patch, stride=stride)
    groups = x.shape[1] if per_channel else 1
    return unfolded.view(x.shape[0], groups, -1, unfolded.shape[-1])


def patch_ncc(x_hat, x, kappa, patch, stride=1, eps=1e-5, per_channel=False):
    """The inner product of unit vectors: the centred patch with one more coordinate, sqrt(n eps)."""

    def whiten(image):
        p = patches(image, patch, stride, per_channel)
        centred = p - p.mean(2, keepdim=True)
        extra = torch.full_like(centred[:, :, :1], math.sqrt(centred.shape[2] * eps))
        return F.normalize(torch.cat([centred, extra], 2), dim=2)

    return kappa - (whiten(x_hat) * whiten(x)).sum(2).mean()


def local_statistics(x_hat, x, kappa, patch, stride=1, eps=1e-5):
    p_hat, p = patches(x_hat, patch, stride), patches(x, patch, stride)
    mean_gap = p_hat.mean(2) - p.mean(2)
    deviation_gap = (p_hat.var(2, unbiased=False) + eps).sqrt() - (p.var(2, unbiased=False) + eps).sqrt()
    return ((mean_gap**2 + deviation_gap**2) / 2).mean() - kappa**2


def structural_similarity(x_hat, x, kappa, patch, stride=1, data_range=1.0):
    """As it is written in the paper: window by window, every channel by itself."""
    p_hat, p = patches(x_hat, patch, stride, per_channel=True), patches(x, patch, stride, per_channel=True)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    m_hat, m = p_hat.mean(2), p.mean(2)
    covariance = ((p_hat - m_hat[:, :, None]) * (p - m[:, :, None])).mean(2)
    luminance = (2 * m_hat * m + c1) / (m_hat**2 + m**2 + c1)
    structure = (2 * covariance + c2) / (p_hat.var(2, unbiased=False) + p.var(2, unbiased=False) + c2)
    return kappa - (luminance * structure).mean()


class Algorithm1:
    """Moving average and multipliers of a criterion, in Python floats."""

    def __init__(
        self, scales, natural, alpha, lr, proportional, violation, max_violation, start="auto", bounds="auto", every=1
    ):
        self.scales, self.alpha, self.lr, self.proportional = scales, alpha, lr, proportional
        self.violation, self.max_violation, self.every = violation, max_violation, every
        self.natural, self.bounds, self.follows = natural, bounds, "natural" not in (start, bounds)
        # None: not resolved yet
        self.log_lambda = [None if isinstance(start, str) else math.log(start)] * len(scales)
        self.opening = [0.0 if self.follows else math.log(3)] * len(scales)
        self.average = self.previous = None
        self.sums, self.examples, self.calls, self.steps, self.skipped = [0.0] * len(scales), 0, 0, 0, 0

    def __call__(self, c_hat, kl, batch):
        """The loss of one call (floats); moves the state."""
        multipliers = [
            (n / 1000 if self.follows else n) if value is None else math.exp(value)
            for n, value in zip(self.natural, self.log_lambda, strict=True)
        ]
        finite = math.isfinite(kl) and all(map(math.isfinite, c_hat))
        self.calls += 1
        if finite:
            self.sums = [s + c * batch for s, c in zip(self.sums, c_hat, strict=True)]
            self.examples += batch
        else:
            self.skipped += 1
        if self.calls == self.every:
            if self.examples:
                self._update([s / self.examples for s in self.sums])
            self.sums, self.examples, self.calls = [0.0] * len(self.scales), 0, 0
        shown = c_hat if not finite or self.average is None else self.average
        return kl + sum(m * c for m, c in zip(multipliers, shown, strict=True))

    def _update(self, step):
        average_before = step if self.average is None else self.average
        if self.average is None:
            self.average = step
        else:
            self.average = [self.alpha * a + (1 - self.alpha) * c for a, c in zip(self.average, step, strict=True)]
        v = [self._violation(a, s) for a, s in zip(self.average, self.scales, strict=True)]
        previous = v if self.previous is None else self.previous
        for index, natural in enumerate(self.natural):
            # The natural multiplier of the average error, and how far above it the multiplier may be.
            beside = min(step[index], average_before[index])  # of an outlier no more than twice what is beside it
            excess = min(self._excess(self.average[index], index), self._excess(beside, index) + math.log(2))
            line = math.log(natural) - (excess if self.follows else 0.0)
            before = line if self.log_lambda[index] is None else self.log_lambda[index]
            moved = before + self.lr * v[index] + self.proportional * (v[index] - previous[index])
            if not isinstance(self.bounds, str):
                low, high = map(math.log, self.bounds)
            else:
                if moved > line + self.opening[index]:
                    self.opening[index] = min(self.opening[index] + 0.002, math.log(3))
                low, high = line - math.log(1000), line + self.opening[index]
            self.log_lambda[index] = min(max(moved, low), high)
        self.previous = v
        self.steps += 1

    def _excess(self, average, index):
        return math.log(max(1 + average / self.scales[index], 1.0))

    def _violation(self, average, scale):
        value = {
            "log": lambda: math.log(max(1 + average / scale, 1e-12)),
            "relative": lambda: average / scale,
            "raw": lambda: average,
        }[self.violation]()
        return min(max(value, -self.max_violation), self.max_violation)
