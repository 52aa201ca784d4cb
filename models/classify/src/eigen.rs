//! Directions in which healthy runs differ: the eigenvectors of a covariance matrix, by
//! Jacobi's rotations (1846). Exact, small, and quick enough for some hundred events.

/// Sweeps over all pairs: some eight suffice for any matrix of this size.
const SWEEPS_MAX: usize = 30;

/// The eigenvalues of a symmetric matrix of `size` rows, largest first, each with its
/// eigenvector of length 1.
#[must_use]
pub fn eigen(mut matrix: Vec<f64>, size: usize) -> Vec<(f64, Vec<f64>)> {
    let at = |row: usize, column: usize| row * size + column;
    // Row `i` is the `i`-th eigenvector: rows lie together in memory.
    let mut vectors = vec![0.0; size * size];
    (0..size).for_each(|i| vectors[at(i, i)] = 1.0);
    let total: f64 = matrix.iter().map(|value| value * value).sum();
    for _ in 0..SWEEPS_MAX {
        let off: f64 = (0..size)
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .map(|(i, j)| matrix[at(i, j)] * matrix[at(i, j)])
            .sum();
        if off <= total * 1e-24 {
            break;
        }
        for p in 0..size {
            for q in p + 1..size {
                let apq = matrix[at(p, q)];
                if apq * apq <= total * 1e-30 {
                    continue;
                }
                let theta = (matrix[at(q, q)] - matrix[at(p, p)]) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                let turn = |values: &mut [f64], one: usize, other: usize| {
                    let (a, b) = (values[one], values[other]);
                    values[one] = c * a - s * b;
                    values[other] = s * a + c * b;
                };
                for k in 0..size {
                    turn(&mut matrix, at(k, p), at(k, q));
                }
                for k in 0..size {
                    turn(&mut matrix, at(p, k), at(q, k));
                    turn(&mut vectors, at(p, k), at(q, k));
                }
            }
        }
    }
    let mut found: Vec<(f64, Vec<f64>)> = vectors
        .chunks(size.max(1))
        .enumerate()
        .map(|(i, vector)| (matrix[at(i, i)], vector.to_vec()))
        .collect();
    found.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_its_eigenvectors_stretched_by_its_eigenvalues() {
        let size = 12;
        let mut rng = fastrand::Rng::with_seed(5);
        let mut matrix = vec![0.0; size * size];
        for i in 0..size {
            for j in 0..=i {
                let value = rng.f64() - 0.5;
                matrix[i * size + j] = value;
                matrix[j * size + i] = value;
            }
        }
        let found = eigen(matrix.clone(), size);
        assert!(found.windows(2).all(|pair| pair[0].0 >= pair[1].0));
        for (value, vector) in &found {
            let length: f64 = vector.iter().map(|x| x * x).sum();
            assert!((length - 1.0).abs() < 1e-9);
            for i in 0..size {
                let product: f64 = (0..size).map(|j| matrix[i * size + j] * vector[j]).sum();
                assert!((product - value * vector[i]).abs() < 1e-9);
            }
        }
        assert!(eigen(Vec::new(), 0).is_empty());
    }
}
