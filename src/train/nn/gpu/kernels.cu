// The parts of a training step that are not matrix products, each in one pass over memory. Composed of
// candle's operations a layer takes several times as many launches, most of them with their shapes to be
// sent along; and candle sums columns, and everything at once, in single blocks.

#define ALL 0xffffffffu

__device__ float warp_sum(float value) {
    for (int other = 16; other > 0; other /= 2) {
        value += __shfl_xor_sync(ALL, value, other);
    }
    return value;
}

__device__ float warp_max(float value) {
    for (int other = 16; other > 0; other /= 2) {
        value = fmaxf(value, __shfl_xor_sync(ALL, value, other));
    }
    return value;
}

// One warp a row: the row of this warp, and its place within the warp.
#define ROW_OF_WARP \
    const unsigned int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; \
    const unsigned int lane = threadIdx.x % 32; \
    if (row >= rows) { \
        return; \
    }

// Mean and 1 / deviation of a row, to the whole warp.
__device__ float2 moments(const float *x, const unsigned int lane, const unsigned int cols, const float eps) {
    float sum = 0.0f;
    for (unsigned int c = lane; c < cols; c += 32) {
        sum += x[c];
    }
    const float mean = warp_sum(sum) / cols;
    float squares = 0.0f;
    for (unsigned int c = lane; c < cols; c += 32) {
        squares += (x[c] - mean) * (x[c] - mean);
    }
    return make_float2(mean, 1.0f / sqrtf(warp_sum(squares) / cols + eps));
}

extern "C" __global__ void layer_norm(
    const float *x, const float *weight, const float *bias, float *out, const unsigned int rows,
    const unsigned int cols, const float eps
) {
    ROW_OF_WARP
    x += (size_t)row * cols;
    out += (size_t)row * cols;
    const float2 m = moments(x, lane, cols, eps);
    for (unsigned int c = lane; c < cols; c += 32) {
        out[c] = (x[c] - m.x) * m.y * weight[c] + bias[c];
    }
}

// The gradient of x, then mean and 1 / deviation of each row.
extern "C" __global__ void layer_norm_grad(
    const float *x, const float *weight, const float *grad, float *out, const unsigned int rows,
    const unsigned int cols, const float eps
) {
    ROW_OF_WARP
    float *kept = out + (size_t)rows * cols + 2 * (size_t)row;
    x += (size_t)row * cols;
    grad += (size_t)row * cols;
    out += (size_t)row * cols;
    const float2 m = moments(x, lane, cols, eps);
    float along = 0.0f, sum = 0.0f;
    for (unsigned int c = lane; c < cols; c += 32) {
        const float g = grad[c] * weight[c];
        sum += g;
        along += g * (x[c] - m.x) * m.y;
    }
    sum = warp_sum(sum) / cols;
    along = warp_sum(along) / cols;
    for (unsigned int c = lane; c < cols; c += 32) {
        out[c] = m.y * (grad[c] * weight[c] - sum - along * (x[c] - m.x) * m.y);
    }
    if (lane == 0) {
        kept[0] = m.x;
        kept[1] = m.y;
    }
}

// Sums over a part of the rows: of grad · normalized x, then of grad.
extern "C" __global__ void layer_norm_sums(
    const float *x, const float *grad, const float *kept, float *out, const unsigned int rows,
    const unsigned int cols, const unsigned int part
) {
    const unsigned int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= cols) {
        return;
    }
    float along = 0.0f, sum = 0.0f;
    const unsigned int end = min(rows, (blockIdx.y + 1) * part);
    for (unsigned int r = blockIdx.y * part; r < end; r++) {
        const float g = grad[(size_t)r * cols + c];
        along += g * (x[(size_t)r * cols + c] - kept[2 * r]) * kept[2 * r + 1];
        sum += g;
    }
    out[(size_t)blockIdx.y * 2 * cols + c] = along;
    out[((size_t)blockIdx.y * 2 + 1) * cols + c] = sum;
}

// Sums of columns over a part of the rows.
extern "C" __global__ void column_sums(
    const float *x, float *out, const unsigned int rows, const unsigned int cols, const unsigned int part
) {
    const unsigned int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= cols) {
        return;
    }
    float sum = 0.0f;
    const unsigned int end = min(rows, (blockIdx.y + 1) * part);
    for (unsigned int r = blockIdx.y * part; r < end; r++) {
        sum += x[(size_t)r * cols + c];
    }
    out[(size_t)blockIdx.y * cols + c] = sum;
}

extern "C" __global__ void add_bias(
    const float *x, const float *bias, float *out, const unsigned int n, const unsigned int cols
) {
    const unsigned int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at < n) {
        out[at] = x[at] + bias[at % cols];
    }
}

// GELU by the error function, of x + bias.
extern "C" __global__ void add_bias_gelu(
    const float *x, const float *bias, float *out, const unsigned int n, const unsigned int cols
) {
    const unsigned int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at < n) {
        const float z = x[at] + bias[at % cols];
        out[at] = 0.5f * z * (1.0f + erff(z * 0.70710678118654752f));
    }
}

extern "C" __global__ void add_bias_gelu_grad(
    const float *x, const float *bias, const float *grad, float *out, const unsigned int n,
    const unsigned int cols
) {
    const unsigned int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at < n) {
        const float z = x[at] + bias[at % cols];
        const float below = 0.5f * (1.0f + erff(z * 0.70710678118654752f));
        out[at] = grad[at] * (below + z * 0.39894228040143268f * expf(-0.5f * z * z));
    }
}

// Softmax of scale · x + hide, where hide has a row for every `rows_each` rows.
extern "C" __global__ void softmax(
    const float *x, const float *hide, float *out, const unsigned int rows, const unsigned int cols,
    const unsigned int rows_each, const float scale
) {
    ROW_OF_WARP
    x += (size_t)row * cols;
    out += (size_t)row * cols;
    hide += (size_t)(row / rows_each) * cols;
    float largest = -3.0e38f;
    for (unsigned int c = lane; c < cols; c += 32) {
        largest = fmaxf(largest, x[c] * scale + hide[c]);
    }
    largest = warp_max(largest);
    float sum = 0.0f;
    for (unsigned int c = lane; c < cols; c += 32) {
        const float value = expf(x[c] * scale + hide[c] - largest);
        out[c] = value;
        sum += value;
    }
    const float inverse = 1.0f / warp_sum(sum);
    for (unsigned int c = lane; c < cols; c += 32) {
        out[c] *= inverse;
    }
}

// From softmax's result and the gradient of it.
extern "C" __global__ void softmax_grad(
    const float *p, const float *grad, float *out, const unsigned int rows, const unsigned int cols,
    const float scale
) {
    ROW_OF_WARP
    p += (size_t)row * cols;
    grad += (size_t)row * cols;
    out += (size_t)row * cols;
    float sum = 0.0f;
    for (unsigned int c = lane; c < cols; c += 32) {
        sum += p[c] * grad[c];
    }
    sum = warp_sum(sum);
    for (unsigned int c = lane; c < cols; c += 32) {
        out[c] = scale * p[c] * (grad[c] - sum);
    }
}

__device__ unsigned int mixed(unsigned int x, unsigned int key) {
    unsigned int h = ((x + key) * 0x9e3779b9u) ^ key;
    h ^= h >> 16;
    h *= 0x7feb352du;
    h ^= h >> 15;
    h *= 0x846ca68bu;
    return h ^ (h >> 16);
}

// As `Mask::factor` in ops/dropout.rs.
extern "C" __global__ void dropout(
    const float *x, float *out, const unsigned int n, const unsigned int key,
    const unsigned int threshold, const float scale
) {
    const unsigned int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at < n) {
        out[at] = mixed(at, key) < threshold ? 0.0f : x[at] * scale;
    }
}

// Rows rounded to the run time's activations, to the bit as ops/fake_quant.rs.
extern "C" __global__ void round_activations(
    const float *x, float *out, const unsigned int rows, const unsigned int cols, const float levels
) {
    ROW_OF_WARP
    x += (size_t)row * cols;
    out += (size_t)row * cols;
    float least = 0.0f, largest = 0.0f;
    for (unsigned int c = lane; c < cols; c += 32) {
        least = fminf(least, x[c]);
        largest = fmaxf(largest, x[c]);
    }
    least = -warp_max(-least);
    largest = warp_max(largest);
    const float range = largest - least;
    if (range < 1e-30f) {
        for (unsigned int c = lane; c < cols; c += 32) {
            out[c] = 0.0f;
        }
        return;
    }
    const float inverse = levels / range, scale = range / levels;
    const float zero = rintf(__fmul_rn(-least, inverse));
    for (unsigned int c = lane; c < cols; c += 32) {
        const float q = fminf(fmaxf(rintf(__fmul_rn(x[c], inverse)) + zero, 0.0f), levels);
        out[c] = __fmul_rn(q - zero, scale);
    }
}

// Rows rounded to −limit … limit, likewise.
extern "C" __global__ void round_symmetric(
    const float *x, float *out, const unsigned int rows, const unsigned int cols, const float limit
) {
    ROW_OF_WARP
    x += (size_t)row * cols;
    out += (size_t)row * cols;
    float largest = 0.0f;
    for (unsigned int c = lane; c < cols; c += 32) {
        largest = fmaxf(largest, fabsf(x[c]));
    }
    largest = warp_max(largest);
    const float scale = largest / limit;
    for (unsigned int c = lane; c < cols; c += 32) {
        out[c] = largest < 1e-30f
            ? 0.0f
            : __fmul_rn(fminf(fmaxf(rintf(x[c] / scale), -limit), limit), scale);
    }
}

// Adam with decoupled weight decay, as `Update::apply` in optim.rs.
extern "C" __global__ void adamw(
    float *weights, float *first, float *second, const float *gradient, const unsigned int n,
    const float grad_scale, const float beta1, const float beta2, const float step_size,
    const float second_scale, const float eps, const float shrink
) {
    const unsigned int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= n) {
        return;
    }
    const float g = gradient[at] * grad_scale;
    const float m = beta1 * first[at] + (1.0f - beta1) * g;
    const float v = beta2 * second[at] + (1.0f - beta2) * g * g;
    first[at] = m;
    second[at] = v;
    weights[at] = weights[at] * shrink - step_size * m / (sqrtf(v) * second_scale + eps);
}

// total += Σ values². In double precision, so that the order of the blocks does not show.
extern "C" __global__ void add_squares(const float *values, double *total, const unsigned int n) {
    __shared__ double parts[256];
    double sum = 0.0;
    for (unsigned int at = blockIdx.x * 256 + threadIdx.x; at < n; at += gridDim.x * 256) {
        sum += (double)values[at] * (double)values[at];
    }
    parts[threadIdx.x] = sum;
    for (unsigned int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            parts[threadIdx.x] += parts[threadIdx.x + half];
        }
    }
    if (threadIdx.x == 0) {
        atomicAdd(total, parts[0]);
    }
}
