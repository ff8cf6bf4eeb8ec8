"""The eigenvalues of a power, and the direction of its products.

$M$ is symmetric, with eigenvalues in `values` and orthonormal eigenvectors in the columns of
`vectors`, as `np.linalg.eigh(M)` returns them. Without computing $M^k$, return the eigenvalues of
$M^k$, and the unit vector to whose direction, up to the sign, $M^k x$ tends for almost all $x$ as
$k$ grows. Eigenvalues can be negative.
"""

import numpy as np


def stub(values, vectors, k):
    """Return the eigenvalues of the k-th power, in any order, and the limit direction."""
    return values, vectors[:, 0]


def solution(values, vectors, k):
    """Take the power of each, and the eigenvector of the largest modulus."""
    return values**k, vectors[:, np.abs(values).argmax()]


def wrong(values, vectors, k):
    """Take the largest eigenvalue rather than the one of the largest modulus."""
    return values**k, vectors[:, values.argmax()]


def check(answer):
    """Compare with the power itself, and with the direction of a product after 400 steps."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    for largest in (1.1, -1.1):
        M = basis * [0.9, largest, -0.5, 0.3, -0.8] @ basis.T
        values, vectors = np.linalg.eigh(M)
        for k in (1, 2, 3, 10):
            got, direction = answer(values, vectors, k)
            expected = np.linalg.eigvalsh(np.linalg.matrix_power(M, k))
            assert np.allclose(np.sort(got), expected, atol=1e-10), (
                f"the eigenvalues of M^{k} are {expected.round(4)}, got {np.sort(got).round(4)}: "
                "apply M to an eigenvector k times"
            )
            x = np.linalg.matrix_power(M, 400) @ rng.normal(size=5)
            cosine = abs(x @ direction) / np.linalg.norm(x) / np.linalg.norm(direction)
            assert cosine > 1 - 1e-9, (
                f"after 400 steps the cosine of the angle to your vector is {cosine:.4f}, not 1: "
                f"for the eigenvalues {values.round(1)}, which of the vectors "
                "c_i λ_i^k v_i is the longest?"
            )
