// Singular values of a matrix (rows × columns, row by row), the largest first: the square roots of
// the eigenvalues of its smaller Gram matrix, brought to three diagonals by Householder reflections
// and found by bisection (Golub and Van Loan, Matrix Computations, sections 8.3 and 8.4).

export function singularValues(matrix, rows, columns) {
  const { diagonal, beside } = tridiagonal(gram(matrix, rows, columns));
  const size = diagonal.length;
  const radius = (i) => Math.abs(beside[i - 1] ?? 0) + Math.abs(beside[i] ?? 0);
  const top = Math.max(...diagonal.map((value, i) => value + radius(i)), 0);
  const found = [];
  for (let wanted = 0; wanted < size; wanted++) {
    let [low, high] = [0, found[wanted - 1] ?? top * (1 + 1e-12)];
    for (let i = 0; i < 60 && high - low > 1e-15 * top; i++) {
      const middle = (low + high) / 2;
      if (size - below(middle, diagonal, beside) > wanted) low = middle;
      else high = middle;
    }
    found.push(high);
  }
  return found.map((value) => Math.sqrt(Math.max(0, value)));
}

function gram(matrix, rows, columns) {
  const [size, length] = [Math.min(rows, columns), Math.max(rows, columns)];
  const at = rows <= columns ? (i, k) => matrix[i * columns + k] : (i, k) => matrix[k * columns + i];
  const product = Array.from({ length: size }, () => new Float64Array(size));
  for (let i = 0; i < size; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = 0;
      for (let k = 0; k < length; k++) sum += at(i, k) * at(j, k);
      product[i][j] = product[j][i] = sum;
    }
  }
  return product;
}

// A symmetric matrix with the same eigenvalues that is zero beyond the diagonal's neighbours.
function tridiagonal(a) {
  const size = a.length;
  for (let k = 0; k < size - 2; k++) {
    let norm = 0;
    for (let i = k + 1; i < size; i++) norm = Math.hypot(norm, a[i][k]);
    if (norm === 0) continue;
    const alpha = a[k + 1][k] > 0 ? -norm : norm;
    const mirror = new Float64Array(size);
    for (let i = k + 1; i < size; i++) mirror[i] = a[i][k];
    mirror[k + 1] -= alpha;
    reflect(a, mirror, k);
  }
  return { diagonal: a.map((row, i) => row[i]), beside: a.slice(1).map((row, i) => row[i]) };
}

// a becomes H a H, with H = 1 − 2 v vᵀ / vᵀv, for a v that is zero up to and with k.
function reflect(a, v, k) {
  const size = a.length;
  let square = 0;
  for (let i = k + 1; i < size; i++) square += v[i] * v[i];
  const p = new Float64Array(size);
  for (let i = k; i < size; i++) {
    for (let j = k + 1; j < size; j++) p[i] += (2 * a[i][j] * v[j]) / square;
  }
  let inner = 0;
  for (let i = k + 1; i < size; i++) inner += (p[i] * v[i]) / square;
  for (let i = k; i < size; i++) p[i] -= inner * v[i];
  for (let i = k; i < size; i++) {
    for (let j = k; j < size; j++) a[i][j] -= v[i] * p[j] + p[i] * v[j];
  }
}

// How many eigenvalues lie below x: the negative terms of a Sturm sequence.
function below(x, diagonal, beside) {
  let [count, q] = [0, 1];
  for (let i = 0; i < diagonal.length; i++) {
    q = diagonal[i] - x - (i ? beside[i - 1] ** 2 / (q || 1e-300) : 0);
    if (q < 0) count++;
  }
  return count;
}
