"""The losses over one list, written down from their formulas: plain loops over Python numbers, no padding."""

from math import exp, inf, log, log2


def gain(grade):
    return 2.0**grade - 1


def listnet(s, y):
    z_y, z_s = sum(exp(v) for v in y), sum(exp(v) for v in s)
    return -sum(exp(a) / z_y * log(exp(b) / z_s) for a, b in zip(y, s, strict=True))


def listmle(s, y):
    order = sorted(range(len(s)), key=lambda i: -y[i])
    return sum(log(sum(exp(s[j]) for j in order[p:])) - s[order[p]] for p in range(len(s)))


def ranknet_pairs(s, y):
    n = range(len(s))
    return [log(1 + exp(s[j] - s[i])) for i in n for j in n if y[i] > y[j]]


def idcg(y, k):
    best = sorted((gain(v) for v in y), reverse=True)
    return sum(g / log2(2 + r) for r, g in enumerate(best[:k]))


def lambdalossatk(s, y, k=5):
    if max(y) == 0:
        return 0.0
    n, total = range(len(s)), 0.0
    rank = [1 + sum(other > v for other in s) for v in s]
    for i in n:
        for j in n:
            d, m = abs(rank[i] - rank[j]), max(rank[i], rank[j])
            if y[i] <= y[j] or d == 0:
                continue
            eta = 1 / log2(1 + d) - 1 / log2(2 + d)
            mu = 1 / (1 - 1 / log2(1 + m)) if m > k else 1
            total += (gain(y[i]) - gain(y[j])) * mu * eta * log(1 + exp(s[j] - s[i]))
    return total / idcg(y, k)


def slatk(s, y, k=5, tau=1.0, tau_weight=10.0):
    if max(y) == 0:
        return 0.0
    beta = sorted(s, reverse=True)[min(k, len(s)) - 1]
    total = 0.0
    for si, yi in zip(s, y, strict=True):
        weight = 1 if tau_weight == inf else 1 / (1 + exp(-(si - beta) / tau_weight))
        total += gain(yi) * weight * log(sum(exp((sj - si) / tau) for sj in s))
    return total / sum(map(gain, y))


def sl(s, y, tau=1.0):
    return slatk(s, y, k=1, tau=tau, tau_weight=inf)


def neuralndcg(s, y, tau=1.0, k=None):
    if max(y) == 0:
        return 0.0
    n = range(len(s))
    matrix = []
    for r in range(1, len(s) + 1):
        logits = [((len(s) + 1 - 2 * r) * s[j] - sum(abs(s[j] - v) for v in s)) / tau for j in n]
        z = [exp(v - max(logits)) for v in logits]
        matrix.append([v / sum(z) for v in z])
    for _ in range(50):
        columns = [sum(row[j] for row in matrix) for j in n]
        matrix = [[v / columns[j] for j, v in enumerate(row)] for row in matrix]
        matrix = [[v / sum(row) for v in row] for row in matrix]
        if all(abs(sum(row[j] for row in matrix) - 1) < 1e-6 for j in n):
            break
    k = len(s) if k is None else k
    dcg = sum(sum(matrix[r][j] * gain(y[j]) for j in n) / log2(2 + r) for r in range(min(k, len(s))))
    return -dcg / idcg(y, k)
