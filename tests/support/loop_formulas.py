"""The formulas of the papers, written as loops over Python floats: no torch, no autograd.

Values follow the papers' equations term by term. Gradients are derived by hand, from the derivative
of the loss by a cosine through `cosine_chain`; `slope` checks both against differences of values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch

Rows: TypeAlias = list[list[float]]


def rows(tensor: torch.Tensor) -> Rows:
    """Returns a matrix as nested lists of Python floats."""
    return tensor.detach().to(torch.float64).tolist()


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def softmax(logits: Sequence[float]) -> list[float]:
    largest = max(logits)
    weights = [math.exp(value - largest) for value in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def similarity_distribution(a: Rows, b: Rows, temperature: float) -> Rows:
    """DoGo's figure: P = softmax over the second view of cos(a_i, b_j) / tau."""
    return [softmax([cosine(row, other) / temperature for other in b]) for row in a]


def kl(teacher: Rows, student: Rows) -> float:
    """KL(teacher || student), summed over columns, mean over rows, in nats."""
    terms = [
        q * (math.log(q) - math.log(p))
        for teacher_row, student_row in zip(teacher, student, strict=True)
        for q, p in zip(teacher_row, student_row, strict=True)
        if q > 0.0
    ]
    return math.fsum(terms) / len(teacher)


def nt_xent(a: Rows, b: Rows, temperature: float) -> float:
    """SimCLR's equation 1, mean over all 2N anchors."""
    z = a + b
    losses = []
    for i in range(len(z)):
        positive = (i + len(a)) % len(z)
        others = [math.exp(cosine(z[i], z[k]) / temperature) for k in range(len(z)) if k != i]
        numerator = math.exp(cosine(z[i], z[positive]) / temperature)
        losses.append(-math.log(numerator / math.fsum(others)))
    return math.fsum(losses) / len(losses)


def negative_cosine(p: Rows, z: Rows) -> float:
    """SimSiam's equation 1, mean over the images."""
    return -math.fsum(cosine(*pair) for pair in zip(p, z, strict=True)) / len(p)


def distance_of_units(p: Rows, target: Rows) -> float:
    """BYOL's equation 2: |p / |p| - t / |t||^2, mean over the images."""
    total = []
    for row, other in zip(p, target, strict=True):
        unit, unit_other = normalised(row), normalised(other)
        total.append(math.fsum((x - y) ** 2 for x, y in zip(unit, unit_other, strict=True)))
    return math.fsum(total) / len(total)


def normalised(row: Sequence[float]) -> list[float]:
    length = math.sqrt(dot(row, row))
    return [x / length for x in row]


def columns(matrix: Rows) -> Rows:
    return [list(column) for column in zip(*matrix, strict=True)]


def centred(column: Sequence[float]) -> list[float]:
    mean = math.fsum(column) / len(column)
    return [x - mean for x in column]


def barlow_twins(a: Rows, b: Rows, weight: float, epsilon: float) -> float:
    """Barlow Twins' equations 1 and 2; `epsilon` is added to the variances, 0 in the paper."""
    columns_a, columns_b = ([centred(one) for one in columns(z)] for z in (a, b))
    n = len(a)
    total = []
    for i, one in enumerate(columns_a):
        for j, other in enumerate(columns_b):
            by = math.sqrt((dot(one, one) + n * epsilon) * (dot(other, other) + n * epsilon))
            c = dot(one, other) / by
            total.append((1 - c) ** 2 if i == j else weight * c**2)
    return math.fsum(total)


def vicreg_terms(a: Rows, b: Rows) -> tuple[float, float, float]:
    """VICReg's equations 5, 1 and 4, the last two summed over the views; gamma 1, epsilon 1e-4."""
    n, d = len(a), len(a[0])
    invariance = math.fsum(
        math.fsum((x - y) ** 2 for x, y in zip(*pair, strict=True))
        for pair in zip(a, b, strict=True)
    )
    variance, covariance = [], []
    for z in (a, b):
        around = [centred(one) for one in columns(z)]
        for i, one in enumerate(around):
            variance.append(max(0.0, 1.0 - math.sqrt(dot(one, one) / (n - 1) + 1e-4)) / d)
            covariance += [
                (dot(one, other) / (n - 1)) ** 2 / d for j, other in enumerate(around) if j != i
            ]
    return invariance / n, math.fsum(variance), math.fsum(covariance)


def queue_contrast(query: Rows, key: Rows, queue: Rows, temperature: float) -> float:
    """MoCo's equation 1 (InfoNCE), mean over the queries; the sum is over the positive and the queue."""
    losses = []
    for q, positive in zip(query, key, strict=True):
        numerator = math.exp(cosine(q, positive) / temperature)
        others = [math.exp(cosine(q, other) / temperature) for other in queue]
        losses.append(-math.log(numerator / (numerator + math.fsum(others))))
    return math.fsum(losses) / len(losses)


def batch_contrast(query: Rows, key: Rows, temperature: float) -> float:
    """MoCo v3's equation 1 with the batch's other keys as negatives, times algorithm 1's 2 tau."""
    losses = [
        queue_contrast([q], [key[i]], [k for j, k in enumerate(key) if j != i], temperature)
        for i, q in enumerate(query)
    ]
    return 2 * temperature * math.fsum(losses) / len(losses)


def cosine_chain(a: Rows, b: Rows, by_cosine: Rows) -> tuple[Rows, Rows]:
    """Returns the gradients by `a` and `b`, given the derivative by cos(a_i, b_j) for all i, j."""
    grad_a = [[0.0] * len(row) for row in a]
    grad_b = [[0.0] * len(row) for row in b]
    for i, row in enumerate(a):
        for j, other in enumerate(b):
            c, norms = cosine(row, other), math.sqrt(dot(row, row) * dot(other, other))
            for d in range(len(row)):
                grad_a[i][d] += by_cosine[i][j] * (other[d] / norms - c * row[d] / dot(row, row))
                grad_b[j][d] += by_cosine[i][j] * (
                    row[d] / norms - c * other[d] / dot(other, other)
                )
    return grad_a, grad_b


def kl_gradients(a: Rows, b: Rows, teacher: Rows, temperature: float) -> tuple[Rows, Rows]:
    """Gradients of KL(teacher || P(a, b)) by `a` and `b`: d/dS_ij = (P_ij - Q_ij) / (N tau)."""
    student = similarity_distribution(a, b, temperature)
    by_cosine = [
        [(p - q) / (len(a) * temperature) for p, q in zip(*pair, strict=True)]
        for pair in zip(student, teacher, strict=True)
    ]
    return cosine_chain(a, b, by_cosine)


def nt_xent_gradients(a: Rows, b: Rows, temperature: float) -> tuple[Rows, Rows]:
    """Gradients of NT-Xent by `a` and `b`: softmax minus one at the positive, 0 at the anchor."""
    z = a + b
    by_cosine = [[0.0] * len(z) for _ in z]
    for i in range(len(z)):
        others = [k for k in range(len(z)) if k != i]
        share = softmax([cosine(z[i], z[k]) / temperature for k in others])
        for k, weight in zip(others, share, strict=True):
            is_positive = k == (i + len(a)) % len(z)
            by_cosine[i][k] = (weight - is_positive) / (len(z) * temperature)
    as_anchor, as_other = cosine_chain(z, z, by_cosine)
    grad = [
        [x + y for x, y in zip(*pair, strict=True)]
        for pair in zip(as_anchor, as_other, strict=True)
    ]
    return grad[: len(a)], grad[len(a) :]


def negative_cosine_gradient(p: Rows, z: Rows) -> Rows:
    """Gradient of SimSiam's equation 1 by `p`; there is none by `z` (equation 3)."""
    n = len(p)
    only_diagonal = [[-1.0 / n if i == j else 0.0 for j in range(n)] for i in range(n)]
    return cosine_chain(p, z, only_diagonal)[0]


def slope(value: Callable[[Rows], float], at: Rows, i: int, d: int, width: float = 1e-5) -> float:
    """Returns the derivative of `value` by `at[i][d]`, from a central difference."""
    up, down = [list(row) for row in at], [list(row) for row in at]
    up[i][d] += width
    down[i][d] -= width
    return (value(up) - value(down)) / (2 * width)
