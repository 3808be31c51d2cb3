// Resize, normalise and pad a frame in one launch, by the training resize's own arithmetic.
//
// Training resizes 8-bit pictures (Pillow, bilinear with antialiasing) in two passes, each an
// integer dot product with 22-bit weights and rounded to 8 bits. The weights depend on the sizes
// alone: the CPU makes them in double precision once, and both passes here are the same integer
// sums, rows first. The difference to the training resize: none where it takes rows first, too
// (Pillow before 13 always does); one grey level at most where it takes columns first (Pillow 13,
// where it finds that cheaper: not for the usual camera sizes). NV12 frames also differ by their
// conversion to BGR: one level from OpenCV's for BT.601.
//
// A block makes kColumns x tile_rows outputs: the first pass of the source rows it needs goes to
// shared memory as bytes, the second reads it from there. Bytes: the source once, and what two
// tiles share once more (6 % of the rows and 2 % of the columns, at 1080 to 562 rows and 16 rows a
// tile); the output once. Arithmetic: about a hundred integer operations an output pixel at that
// size. Tile sizes come from counting: no GPU has timed this kernel yet; figures go to
// bench/results/.
#include "checks.h"
#include "common.h"

#include "centermask/preprocess.h"

namespace cm {
namespace pre {

constexpr int kColumns = 64, kMostRows = 16, kPrecision = 22;
constexpr unsigned kThreads = 256;
constexpr size_t kShared = 48 * 1024;

// The weight table of one axis: `size` outputs of at most `taps` inputs each. First come pairs of
// the first input and their number, then the weights.
struct Axis {
  int taps, size;
  CM_BOTH int integers() const { return size * (2 + taps); }
};

struct Job {
  cm_preprocess_params p;
  Axis x, y;
  int tile_rows;
  int yuv[6];  // luma offset; weights of Y, V in R, U in G, V in G, U in B with 16-bit fraction
};

}  // namespace pre
}  // namespace cm

#if CM_DEVICE_CODE

namespace cm {
namespace pre {

__device__ __forceinline__ int clip8(int v) { return v < 0 ? 0 : v > 255 ? 255 : v; }

// B, G and R of one source pixel.
template <int kFormat>
__device__ __forceinline__ void fetch(const Job& job, int image, int row, int column, int bgr[3]) {
  const cm_preprocess_params& p = job.p;
  const uint8_t* line = p.source + image * p.source_stride + row * p.source_pitch;
  if (kFormat != CM_NV12) {
    const uint8_t* pixel = line + 3 * column;
    bgr[0] = pixel[kFormat == CM_BGR ? 0 : 2];
    bgr[1] = pixel[1];
    bgr[2] = pixel[kFormat == CM_BGR ? 2 : 0];
    return;
  }
  const uint8_t* pair = p.chroma + image * p.chroma_stride + row / 2 * p.chroma_pitch;
  const int u = pair[column / 2 * 2] - 128, v = pair[column / 2 * 2 + 1] - 128;
  const int above = int(line[column]) - job.yuv[0];
  const int y = (above < 0 ? 0 : above) * job.yuv[1] + (1 << 15);
  bgr[0] = clip8((y + job.yuv[5] * u) >> 16);
  bgr[1] = clip8((y - job.yuv[3] * u - job.yuv[4] * v) >> 16);
  bgr[2] = clip8((y + job.yuv[2] * v) >> 16);
}

// Rows [first, last) of the source, resized across, as bytes in shared memory.
template <int kFormat>
__device__ __forceinline__ void across(const Job& job, const Axis& axis, int image, int left,
                                       int first, int last, unsigned char* shared) {
  const int* place = job.p.tables;
  const int* weights = place + 2 * axis.size;
  for (int item = int(threadIdx.x); item < (last - first) * kColumns; item += int(blockDim.x)) {
    const int x = left + item % kColumns;
    if (x >= axis.size) continue;
    int sum[3] = {1 << (kPrecision - 1), 1 << (kPrecision - 1), 1 << (kPrecision - 1)};
    for (int i = 0; i < place[2 * x + 1]; ++i) {
      int bgr[3];
      fetch<kFormat>(job, image, first + item / kColumns, place[2 * x] + i, bgr);
      for (int c = 0; c < 3; ++c) sum[c] += bgr[c] * weights[x * axis.taps + i];
    }
    for (int c = 0; c < 3; ++c)
      shared[item * 3 + c] = static_cast<unsigned char>(clip8(sum[c] >> kPrecision));
  }
}

template <class T, int kFormat>
__device__ __forceinline__ void run(const Job& job, unsigned char* shared) {
  const cm_preprocess_params& p = job.p;
  const int image = int(blockIdx.z), left = int(blockIdx.x) * kColumns;
  const int top = int(blockIdx.y) * job.tile_rows;
  const Axis x_axis = job.x, y_axis = job.y;
  const int* place = p.tables + x_axis.integers();
  const int* weights = place + 2 * y_axis.size;
  const int end = top + job.tile_rows < y_axis.size ? top + job.tile_rows : y_axis.size;
  const bool inside = top < y_axis.size && left < x_axis.size;
  const int first = inside ? place[2 * top] : 0;
  const int last = inside ? place[2 * (end - 1)] + place[2 * (end - 1) + 1] : 0;
  across<kFormat>(job, x_axis, image, left, first, last, shared);
  __syncthreads();
  T* out = static_cast<T*>(p.output);
  const size_t plane = size_t(p.padded_height) * p.padded_width;
  for (int item = int(threadIdx.x); item < job.tile_rows * kColumns; item += int(blockDim.x)) {
    const int column = item % kColumns, x = left + column, y = top + item / kColumns;
    if (x >= p.padded_width || y >= p.padded_height) continue;
    const bool picture = x < p.resized_width && y < p.resized_height;
    for (int c = 0; c < 3; ++c) {
      float value = 0.0f;
      if (picture) {
        const int source = p.rgb_output ? 2 - c : c;
        int sum = 1 << (kPrecision - 1);
        for (int i = 0; i < place[2 * y + 1]; ++i) {
          const int row = place[2 * y] + i - first;
          sum += int(shared[(row * kColumns + column) * 3 + source]) * weights[y * y_axis.taps + i];
        }
        value = __fsub_rn(float(clip8(sum >> kPrecision)), p.mean[c]);
        if (p.std[c] != 1.0f) value = __fdiv_rn(value, p.std[c]);
      }
      store(out + (size_t(image) * 3 + c) * plane + size_t(y) * p.padded_width + x, value, 1.0f);
    }
  }
}

}  // namespace pre
}  // namespace cm

#define CM_PREPROCESS(name, type, format)               \
  CM_KERNEL(name)(const cm::pre::Job job) {             \
    CM_SHARED(shared);                                  \
    cm::pre::run<type, format>(job, shared);            \
  }
CM_PREPROCESS(cm_preprocess_bgr_f32, float, CM_BGR)
CM_PREPROCESS(cm_preprocess_bgr_f16, __half, CM_BGR)
CM_PREPROCESS(cm_preprocess_rgb_f32, float, CM_RGB)
CM_PREPROCESS(cm_preprocess_rgb_f16, __half, CM_RGB)
CM_PREPROCESS(cm_preprocess_nv12_f32, float, CM_NV12)
CM_PREPROCESS(cm_preprocess_nv12_f16, __half, CM_NV12)

#endif  // CM_DEVICE_CODE

#if CM_LAUNCH_CODE

namespace cm {
namespace pre {

inline Axis make_axis(int source, int resized) {
  const double support = std::fmax(double(source) / resized, 1.0);
  return {2 * int(std::ceil(support)) + 1, resized};
}

// Most source rows that `rows` neighbouring outputs need.
inline size_t source_rows(const cm_preprocess_params& p, int rows) {
  const double scale = double(p.source_height) / p.resized_height;
  const double support = scale > 1 ? scale : 1;
  const size_t bound = size_t(std::ceil((rows - 1) * scale + 2 * support)) + 2;
  return bound < size_t(p.source_height) ? bound : size_t(p.source_height);
}

inline size_t shared_bytes(const cm_preprocess_params& p, int rows) {
  return source_rows(p, rows) * kColumns * 3;
}

inline int check_sizes(const cm_preprocess_params& p) {
  if (p.source_height < 1 || p.source_width < 1) return CM_BAD_SHAPE;
  if (p.resized_height < 1 || p.resized_width < 1) return CM_BAD_SHAPE;
  if (p.padded_height < p.resized_height || p.padded_width < p.resized_width) return CM_BAD_SHAPE;
  if (p.source_height > 1 << 15 || p.source_width > 1 << 15) return CM_OVER_LIMIT;
  if (p.padded_height > 1 << 15 || p.padded_width > 1 << 15) return CM_OVER_LIMIT;
  return shared_bytes(p, 1) > kShared ? CM_OVER_LIMIT : CM_OK;
}

inline int check(const cm_preprocess_params& p) {
  if (p.type != CM_FLOAT32 && p.type != CM_FLOAT16) return CM_BAD_TYPE;
  if (p.source_format < CM_BGR || p.source_format > CM_NV12) return CM_BAD_TYPE;
  if (p.matrix != CM_BT601 && p.matrix != CM_BT709) return CM_BAD_TYPE;
  if (p.images < 1 || p.images > 65535) return CM_BAD_SHAPE;
  if (const int code = check_sizes(p)) return code;
  const bool nv12 = p.source_format == CM_NV12;
  if (nv12 && (p.source_height % 2 || p.source_width % 2)) return CM_BAD_SHAPE;
  if (p.source_pitch < int64_t(p.source_width) * (nv12 ? 1 : 3)) return CM_BAD_SHAPE;
  if (nv12 && p.chroma_pitch < p.source_width) return CM_BAD_SHAPE;
  for (int c = 0; c < 3; ++c)
    if (!std::isfinite(p.mean[c]) || !usable_scale(p.std[c])) return CM_BAD_VALUE;
  if (!p.source || !p.tables || !p.output || (nv12 && !p.chroma)) return CM_NULL_POINTER;
  return CM_OK;
}

// Triangle filter over the outputs of one axis (a resize with antialiasing: where it shrinks, the
// triangle widens with the scale), normalised and in integers.
inline void fill_axis(int source, int resized, int32_t* table) {
  const Axis axis = make_axis(source, resized);
  const double scale = double(source) / resized, support = scale > 1 ? scale : 1;
  std::memset(table, 0, size_t(axis.integers()) * sizeof(int32_t));
  int32_t* weights = table + 2 * resized;
  for (int x = 0; x < resized; ++x) {
    const double centre = (x + 0.5) * scale, narrow = 1.0 / support;
    const int low = int(centre - support + 0.5), high = int(centre + support + 0.5);
    const int first = low > 0 ? low : 0, last = high < source ? high : source;
    double total = 0;
    for (int i = first; i < last; ++i) {
      const double far = std::fabs((i - centre + 0.5) * narrow);
      total += far < 1 ? 1 - far : 0;
    }
    table[2 * x] = first;
    table[2 * x + 1] = last - first;
    for (int i = first; i < last; ++i) {
      const double far = std::fabs((i - centre + 0.5) * narrow), w = far < 1 ? 1 - far : 0;
      const double share = total != 0 ? w * (1.0 / total) : w;
      weights[x * axis.taps + i - first] = int32_t(0.5 + share * (1 << kPrecision));
    }
  }
}

// Weights of ITU-R BT.601 / 709 with 16 bits of fraction, from their Kr and Kb.
inline void fill_matrix(const cm_preprocess_params& p, int* yuv) {
  const double kr = p.matrix == CM_BT601 ? 0.299 : 0.2126;
  const double kb = p.matrix == CM_BT601 ? 0.114 : 0.0722, kg = 1 - kr - kb;
  const double luma = p.full_range ? 1 : 255.0 / 219, chroma = p.full_range ? 1 : 255.0 / 224;
  const double weight[5] = {luma, 2 * (1 - kr) * chroma, 2 * (1 - kb) * kb / kg * chroma,
                            2 * (1 - kr) * kr / kg * chroma, 2 * (1 - kb) * chroma};
  yuv[0] = p.full_range ? 0 : 16;
  for (int i = 0; i < 5; ++i) yuv[1 + i] = int(std::lround(weight[i] * 65536));
}

}  // namespace pre
}  // namespace cm

CM_API size_t cm_preprocess_params_size(void) { return sizeof(cm_preprocess_params); }

CM_API size_t cm_preprocess_table_bytes(const cm_preprocess_params* params) {
  if (!params || cm::pre::check_sizes(*params)) return 0;
  const cm::pre::Axis x = cm::pre::make_axis(params->source_width, params->resized_width);
  const cm::pre::Axis y = cm::pre::make_axis(params->source_height, params->resized_height);
  return size_t(x.integers() + y.integers()) * sizeof(int32_t);
}

CM_API int cm_preprocess_fill_tables(const cm_preprocess_params* params, void* host_memory) {
  if (!params || !host_memory) return CM_NULL_POINTER;
  if (const int code = cm::pre::check_sizes(*params)) return code;
  int32_t* table = static_cast<int32_t*>(host_memory);
  cm::pre::fill_axis(params->source_width, params->resized_width, table);
  table += cm::pre::make_axis(params->source_width, params->resized_width).integers();
  cm::pre::fill_axis(params->source_height, params->resized_height, table);
  return CM_OK;
}

CM_API int cm_preprocess(const cm_preprocess_params* params, void* stream) {
  if (!params) return CM_NULL_POINTER;
  if (const int code = cm::pre::check(*params)) return code;
  cm::pre::Job job;
  job.p = *params;
  job.x = cm::pre::make_axis(job.p.source_width, job.p.resized_width);
  job.y = cm::pre::make_axis(job.p.source_height, job.p.resized_height);
  job.tile_rows = cm::pre::kMostRows;
  while (cm::pre::shared_bytes(job.p, job.tile_rows) > cm::pre::kShared) job.tile_rows /= 2;
  cm::pre::fill_matrix(job.p, job.yuv);
  const unsigned columns = cm::pre::kColumns, rows = unsigned(job.tile_rows);
  const cm_dim grid = {(unsigned(job.p.padded_width) + columns - 1) / columns,
                       (unsigned(job.p.padded_height) + rows - 1) / rows, unsigned(job.p.images)};
  const size_t shared = cm::pre::shared_bytes(job.p, job.tile_rows);
  const unsigned threads = cm::pre::kThreads;
  const bool half = job.p.type == CM_FLOAT16;
  if (job.p.source_format == CM_BGR)
    return half ? CM_LAUNCH(cm_preprocess_bgr_f16, grid, threads, shared, stream, job)
                : CM_LAUNCH(cm_preprocess_bgr_f32, grid, threads, shared, stream, job);
  if (job.p.source_format == CM_RGB)
    return half ? CM_LAUNCH(cm_preprocess_rgb_f16, grid, threads, shared, stream, job)
                : CM_LAUNCH(cm_preprocess_rgb_f32, grid, threads, shared, stream, job);
  return half ? CM_LAUNCH(cm_preprocess_nv12_f16, grid, threads, shared, stream, job)
              : CM_LAUNCH(cm_preprocess_nv12_f32, grid, threads, shared, stream, job);
}

#endif  // CM_LAUNCH_CODE
