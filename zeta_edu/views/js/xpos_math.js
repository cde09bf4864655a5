// The formulas of xpos_data.py: what rotation and xPos leave of a product at a distance.

export function xposFrequencies(dim, base) {
  return Float64Array.from({ length: dim / 2 }, (_, i) => base ** ((-2 * i) / dim));
}

export function xposZetas(dim, gamma) {
  return Float64Array.from({ length: dim / 2 }, (_, i) => (2 * i + gamma * dim) / ((1 + gamma) * dim));
}

const XPOS_MEASURES = {
  sum: (strengths, angles) => xposAverage(strengths.map((left, i) => left * Math.cos(angles[i]))),
  ceiling: xposAverage,
  // The mean size of the partial sums of strength · exp(i angle).
  bound(strengths, angles) {
    let [real, imaginary, sizes] = [0, 0, 0];
    for (let i = 0; i < strengths.length; i++) {
      real += strengths[i] * Math.cos(angles[i]);
      imaginary += strengths[i] * Math.sin(angles[i]);
      sizes += Math.hypot(real, imaginary);
    }
    return sizes / ((strengths.length * (strengths.length + 1)) / 2);
  },
};

function xposAverage(numbers) {
  let sum = 0;
  for (const number of numbers) sum += number;
  return sum / numbers.length;
}

// What rotation alone and xPos leave at each distance, by the measure that is called `name`.
export function xposCurves(name, distances, { frequencies, zetas, scaleBase }) {
  const measure = XPOS_MEASURES[name];
  const ones = zetas.map(() => 1);
  const [rope, xpos] = [new Float64Array(distances.length), new Float64Array(distances.length)];
  distances.forEach((distance, at) => {
    const angles = frequencies.map((frequency) => distance * frequency);
    rope[at] = measure(ones, angles);
    xpos[at] = measure(zetas.map((zeta) => zeta ** (distance / scaleBase)), angles);
  });
  return { rope, xpos };
}

// The pairs in groups from fast to slow: what xPos leaves of each, as a share of all pairs.
export function xposBands(distances, groups, { zetas, scaleBase }) {
  return groups.map(([first, last]) =>
    Float64Array.from(distances, (distance) => {
      let sum = 0;
      for (let pair = first; pair <= last; pair++) sum += zetas[pair] ** (distance / scaleBase);
      return sum / zetas.length;
    }),
  );
}

// A head's own products: `parts` holds (real, imaginary) for each distance and pair.
export function xposModelCurves(distances, parts, { frequencies, zetas, scaleBase }) {
  const half = zetas.length;
  const [rope, xpos] = [new Float64Array(distances.length), new Float64Array(distances.length)];
  distances.forEach((distance, at) => {
    for (let i = 0; i < half; i++) {
      const [real, imaginary] = parts.subarray(2 * (at * half + i));
      const angle = distance * frequencies[i];
      const turned = real * Math.cos(angle) - imaginary * Math.sin(angle);
      rope[at] += turned;
      xpos[at] += zetas[i] ** (distance / scaleBase) * turned;
    }
  });
  return { rope, xpos };
}

// The first position at which a key's factor is infinite, for each dtype, with one fixed origin.
export function xposOverflows(limits, zeta, scaleBase) {
  const grows = -Math.log(zeta) / scaleBase;
  return limits.map(({ name, log }) => ({ name, position: Math.ceil(log / grows) }));
}
