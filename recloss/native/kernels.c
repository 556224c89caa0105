/* The inner loops of training and evaluation, for CPUs. Each has a twin in torch that gives the same values: the module
   that calls it says which. Rows are contiguous; every function takes the number of threads last. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
#define omp_get_thread_num() 0
#define omp_get_num_threads() 1
#endif

#define PREFETCH 8

#define REAL float
#define NAME(f) f##_float32
#include "real.inc"
#undef REAL
#undef NAME
#define REAL double
#define NAME(f) f##_float64
#include "real.inc"

/* ---- uniform negatives (recloss.sampling.outside) ---------------------------------------------------------------- */

#define GAMMA 0x9E3779B97F4A7C15ull
#define REDRAWS 16

static inline uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

static inline int64_t draw(uint64_t state, uint64_t counter, uint64_t high) {
  return (int64_t)(((mix(state + counter * GAMMA) >> 32) * high) >> 32);
}

/* out (B, N): items outside each user's positives, which are items[offsets[u] .. offsets[u + 1]), ascending.
   Returns 1 if memory ran out. */
int uniform_negatives(const int64_t *users, const int64_t *positions, const int64_t *offsets, const int64_t *items,
                      int64_t *out, int64_t key, int64_t n_items, int64_t B, int64_t N, int64_t threads) {
  int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
  {
    uint64_t *seen = calloc((n_items + 63) / 64, sizeof *seen); /* the row's positives, as bits */
    failed = !seen;
#pragma omp for schedule(static)
    for (int64_t b = 0; b < B; b++) {
      if (!seen) continue;
      const int64_t low = offsets[users[b]], high = offsets[users[b] + 1];
      for (int64_t p = low; p < high; p++) seen[items[p] >> 6] |= 1ull << (items[p] & 63);
      const uint64_t state = mix((uint64_t)positions[b] * GAMMA + (uint64_t)key);
      int64_t *row = out + b * N;
      for (int64_t j = 0; j < N; j++) row[j] = draw(state, j, n_items);
      for (int64_t j = 0; j < N; j++) {
        int64_t item = row[j];
        for (uint64_t attempt = 1; seen[item >> 6] >> (item & 63) & 1; attempt++) {
          if (attempt <= REDRAWS) {
            item = draw(state, j + (attempt << 32), n_items);
            continue;
          }
          item = draw(state, j + (attempt << 32), n_items - (high - low)); /* by rank among the negatives */
          for (int64_t p = low; p < high && items[p] <= item; p++) item++;
          break;
        }
        row[j] = item;
      }
      for (int64_t p = low; p < high; p++) seen[items[p] >> 6] = 0;
    }
    free(seen);
  }
  return failed;
}

/* ---- logsumexp of rows (recloss.rowwise) ------------------------------------------------------------------------- */

/* exp(x) for x <= 0, relative error below 2e-7; below -87 it is exp(-87). Coefficients of Cephes' expf. */
static inline float exp_of_negative(float x) {
  x = x < -87.0f ? -87.0f : x;
  const float n = __builtin_rintf(x * 1.44269504088896341f);
  const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const union { int32_t i; float f; } power = {.i = ((int32_t)n + 127) << 23};
  return p * power.f;
}

/* log(1 + x) for 0 <= x <= 1, relative error below 2e-7. Coefficients of Cephes' logf. */
static inline float log1p_of_share(float x) {
  const int large = x > 0.41421356f;
  const float z = large ? 0.5f * x - 0.5f : x;
  const float y = z * z;
  float p = 7.0376836292e-2f;
  p = p * z - 1.1514610310e-1f;
  p = p * z + 1.1676998740e-1f;
  p = p * z - 1.2420140846e-1f;
  p = p * z + 1.4249322787e-1f;
  p = p * z - 1.6668057665e-1f;
  p = p * z + 2.0000714765e-1f;
  p = p * z - 2.4999993993e-1f;
  p = p * z + 3.3333331174e-1f;
  const float e = large ? 1.0f : 0.0f;
  return z + (p * z * y - 0.5f * y - e * 2.12194440e-4f) + e * 0.693359375f;
}

/* out[b] = log sum_j exp(x[b, j] / tau); weight[b, j] = its derivative in x[b, j] */
void logsumexp_rows(const float *x, float *out, float *weight, double tau, int64_t B, int64_t N, int64_t threads) {
  const float rate = (float)(1 / tau);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t b = 0; b < B; b++) {
    const float *row = x + b * N;
    float *w = weight + b * N, top = -INFINITY, sum = 0;
#pragma omp simd reduction(max : top)
    for (int64_t j = 0; j < N; j++) top = row[j] > top ? row[j] : top;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < N; j++) {
      w[j] = exp_of_negative((row[j] - top) * rate);
      sum += w[j];
    }
    const float scale = rate / sum;
#pragma omp simd
    for (int64_t j = 0; j < N; j++) w[j] *= scale;
    out[b] = top * rate + logf(sum);
  }
}

/* out[b] = log sum_j sigmoid(x[b, j] - shift[b])^(1 / tau); weight[b, j] = its derivative in x[b, j] */
void logsigmoid_rows(const float *x, const float *shift, float *out, float *weight, double tau, int64_t B, int64_t N,
                     int64_t threads) {
  const float rate = (float)(1 / tau);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t b = 0; b < B; b++) {
    const float *row = x + b * N, s = shift[b];
    float *w = weight + b * N, top = -INFINITY, sum = 0;
#pragma omp simd reduction(max : top)
    for (int64_t j = 0; j < N; j++) top = row[j] > top ? row[j] : top;
    top = fminf(top - s, 0.0f) - log1pf(expf(-fabsf(top - s)));
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < N; j++) {
      const float d = row[j] - s, e = exp_of_negative(-fabsf(d));
      const float log_sigmoid = (d < 0 ? d : 0.0f) - log1p_of_share(e);
      const float term = exp_of_negative((log_sigmoid - top) * rate);
      sum += term;
      w[j] = term * ((d > 0 ? e : 1.0f) / (1.0f + e));
    }
    const float scale = rate / sum;
#pragma omp simd
    for (int64_t j = 0; j < N; j++) w[j] *= scale;
    out[b] = top * rate + logf(sum);
  }
}

/* out[b] = sum_j rho(x[b, j] - beta[b]), rho(d) = (1 - share) max(d, 0) + share max(-d, 0); slope[b] = d out / d beta */
void pinball_rows(const float *x, const float *beta, float *out, float *slope, double share, int64_t B, int64_t N,
                  int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t b = 0; b < B; b++) {
    const float *row = x + b * N, s = beta[b];
    float above = 0, below = 0;
    int32_t n_above = 0, n_below = 0;
#pragma omp simd reduction(+ : above, below, n_above, n_below)
    for (int64_t j = 0; j < N; j++) {
      const float d = row[j] - s;
      above += d > 0 ? d : 0.0f;
      below -= d < 0 ? d : 0.0f;
      n_above += d > 0;
      n_below += d < 0;
    }
    out[b] = (float)((1 - share) * above + share * below);
    slope[b] = (float)(share * n_below - (1 - share) * n_above);
  }
}

/* ---- the k best of each row (recloss.evaluation) ----------------------------------------------------------------- */

/* Min-heap of the best so far: its root is the worst of them, of equal ones the rightmost column. */
static inline int worse(float a, int64_t i, float b, int64_t j) { return a < b || (a == b && i > j); }

static void sift_down(float *value, int64_t *column, int64_t n, int64_t at) {
  for (;;) {
    int64_t least = at;
    for (int64_t child = 2 * at + 1; child <= 2 * at + 2 && child < n; child++)
      if (worse(value[child], column[child], value[least], column[least])) least = child;
    if (least == at) return;
    const float v = value[at];
    const int64_t c = column[at];
    value[at] = value[least], column[at] = column[least];
    value[least] = v, column[least] = c;
    at = least;
  }
}

/* columns (B, k) of the k largest scores, from the best; equal scores in ascending order of column */
void top_columns(const float *scores, float *value, int64_t *column, int64_t B, int64_t I, int64_t k, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t b = 0; b < B; b++) {
    const float *x = scores + b * I;
    float *v = value + b * k;
    int64_t *c = column + b * k;
    for (int64_t i = 0; i < k; i++) v[i] = x[i], c[i] = i;
    for (int64_t i = k / 2 - 1; i >= 0; i--) sift_down(v, c, k, i);
    for (int64_t start = k; start < I; start += 64) {
      const int64_t stop = start + 64 < I ? start + 64 : I;
      const float worst = v[0];
      int better = 0;
#pragma omp simd reduction(| : better)
      for (int64_t i = start; i < stop; i++) better |= x[i] > worst;
      if (!better) continue;
      for (int64_t i = start; i < stop; i++)
        if (x[i] > v[0]) {
          v[0] = x[i], c[0] = i;
          sift_down(v, c, k, 0);
        }
    }
    for (int64_t n = k - 1; n > 0; n--) { /* heap sort: the worst goes last */
      const float worst = v[0];
      const int64_t of = c[0];
      v[0] = v[n], c[0] = c[n];
      v[n] = worst, c[n] = of;
      sift_down(v, c, n, 0);
    }
  }
}
