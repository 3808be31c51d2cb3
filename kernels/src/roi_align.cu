// RoIAlign whose level follows equation 2: a RoI above half of its picture's area reads P5, above a
// quarter P4, else P3. Aligned, adaptive sampling (ONNX RoiAlign-16, half_pixel, sampling_ratio 0).
//
// The average of bilinear samples is separable: a bin is a short run of rows and columns with one
// weight each. A block first makes both weight tables of its RoI in shared memory; then every
// thread sums (rows x columns) of its cell for several channels at once, so a bin of g x g samples
// costs (g + 1)^2 reads instead of 4 g^2, and the reads of the channels are independent of each
// other and in flight together.
//
// Bytes: each covered cell of each channel at least once (neighbouring bins share them through L1),
// each output element once. Arithmetic: two operations a read: the kernel waits for memory.
// Layouts: NCHW takes a cell a thread and eight channels; packed ones take 16 bytes of channels of
// a cell a thread, in storage order, so that a warp reads whole lines.
// Tile sizes come from counting, not from a GPU: bench/results/ says which figures exist.
#include "checks.h"
#include "common.h"

#include "centermask/roi_align.h"

#if CM_DEVICE_CODE

namespace cm {
namespace roi {

using Params = cm_roi_align_params;

constexpr int kSpan = 16;            // cells a bin may cover on one axis in the weight table
constexpr int kTooWide = kSpan + 1;
constexpr int kChannels = 8;         // channels a thread sums in NCHW
constexpr float kFarthest = 0x1p24f;  // cells; beyond, positions are more than a cell apart

// One axis of a RoI: where it starts and how long it is, in cells, and its samples per bin.
struct Axis {
  float start, length, samples;
  int extent, side;
};

__device__ __forceinline__ Axis make_axis(float low, float high, float scale, int extent,
                                          int side) {
  Axis axis;
  const float end = __fsub_rn(__fmul_rn(high, scale), 0.5f);
  axis.start = __fsub_rn(__fmul_rn(low, scale), 0.5f);
  axis.length = __fsub_rn(end, axis.start);
  axis.extent = extent;
  axis.side = side;
  const bool placeable = fabsf(axis.start) <= kFarthest && axis.length <= kFarthest;
  axis.samples = placeable ? ceilf(__fdiv_rn(axis.length, float(side))) : 0.0f;
  return axis;
}

// The sample's position in cells, rounded as the reference rounds it: at the border of [-1, extent]
// the last bit decides whether a sample counts.
__device__ __forceinline__ float position(const Axis& axis, int bin, float sample) {
  const float size = __fdiv_rn(axis.length, float(axis.side));
  const float inside = __fdiv_rn(__fmul_rn(__fadd_rn(sample, 0.5f), size), axis.samples);
  return __fadd_rn(__fadd_rn(axis.start, __fmul_rn(float(bin), size)), inside);
}

// Samples [first, last) of a bin that may lie on the level. A huge RoI has millions beyond it.
__device__ __forceinline__ void near_samples(const Axis& axis, int bin, float* first,
                                             float* last) {
  *first = 0.0f;
  *last = axis.samples;
  if (axis.samples <= float(kSpan)) return;  // cheap enough to try all
  const double size = double(axis.length) / axis.side, step = size / double(axis.samples);
  const double start = double(axis.start) + bin * size;
  const double slack = 2.0 + 1e-6 * (fabs(double(axis.start)) + double(axis.length)) / step;
  const double low = floor((-1.0 - start) / step - slack);
  const double high = ceil((double(axis.extent) - start) / step + slack);
  if (low > 0.0) *first = float(low < double(axis.samples) ? low : double(axis.samples));
  if (high < double(axis.samples)) *last = float(high > 0.0 ? high : 0.0);
}

struct Tap {
  int low, high;
  float fraction;
  bool valid;
};

__device__ __forceinline__ Tap make_tap(const Axis& axis, float where) {
  Tap tap;
  tap.valid = where >= -1.0f && where <= float(axis.extent);
  const float clamped = fminf(fmaxf(where, 0.0f), float(axis.extent - 1));
  tap.low = int(clamped);
  tap.high = tap.low + 1 < axis.extent ? tap.low + 1 : axis.extent - 1;
  tap.fraction = __fsub_rn(clamped, float(tap.low));
  return tap;
}

// Weight tables of both axes, in shared memory.
struct Tables {
  float* weight;  // [2, side, kSpan]
  int* first;     // [2, side] first cell of the bin
  int* count;     // [2, side] cells of the bin; kTooWide: more than kSpan
};

__device__ __forceinline__ Tables tables(unsigned char* shared, int side) {
  Tables t;
  t.weight = reinterpret_cast<float*>(shared);
  t.first = reinterpret_cast<int*>(t.weight + 2 * side * kSpan);
  t.count = t.first + 2 * side;
  return t;
}

__device__ __forceinline__ void fill_bin(const Axis& axis, int bin, float* weight, int* first,
                                         int* count) {
  for (int i = 0; i < kSpan; ++i) weight[i] = 0.0f;
  *first = 0;
  *count = 0;
  float sample, last;
  near_samples(axis, bin, &sample, &last);
  const float share = __fdiv_rn(1.0f, axis.samples);
  for (; sample < last; sample += 1.0f) {
    const Tap tap = make_tap(axis, position(axis, bin, sample));
    if (!tap.valid) continue;
    if (*count == 0) *first = tap.low;
    const int low = tap.low - *first, high = tap.high - *first;
    if (high >= kSpan) {
      *count = kTooWide;
      return;
    }
    weight[low] += (1.0f - tap.fraction) * share;
    weight[high] += tap.fraction * share;
    *count = high + 1;
  }
}

struct Roi {
  int image, level;
  bool empty;
  Axis x, y;
};

__device__ __forceinline__ Roi make_roi(const Params& p, int r) {
  Roi roi;
  roi.image = p.roi_image ? read_index(p.roi_image, r, p.index_bytes) : r / p.rois_per_image;
  const bool known = roi.image >= 0 && roi.image < p.images;
  roi.image = known ? roi.image : 0;
  roi.empty = !known;
  if (p.count) roi.empty |= r % p.rois_per_image >= read_index(p.count, roi.image, p.index_bytes);
  const float x0 = p.rois[4 * r], y0 = p.rois[4 * r + 1];
  const float x1 = p.rois[4 * r + 2], y1 = p.rois[4 * r + 3];
  const float area = __fmul_rn(__fsub_rn(x1, x0), __fsub_rn(y1, y0));
  const float picture = __fmul_rn(p.image_size[2 * roi.image], p.image_size[2 * roi.image + 1]);
  const bool half = area > __fmul_rn(picture, 0.5f), quarter = area > __fmul_rn(picture, 0.25f);
  roi.level = half ? 2 : quarter ? 1 : 0;
  const float scale = 1.0f / float(8 << roi.level);
  roi.x = make_axis(x0, x1, scale, p.width[roi.level], p.side);
  roi.y = make_axis(y0, y1, scale, p.height[roi.level], p.side);
  roi.empty |= !(roi.x.samples > 0.0f && roi.y.samples > 0.0f);
  return roi;
}

__device__ __forceinline__ void fill_tables(const Roi& roi, const Tables& t, int side) {
  for (unsigned i = threadIdx.x; i < 2u * unsigned(side); i += blockDim.x) {
    const bool down = i >= unsigned(side);
    Axis axis = roi.x;
    if (down) axis = roi.y;
    fill_bin(axis, down ? int(i) - side : int(i), t.weight + i * kSpan, t.first + i, t.count + i);
  }
}

// Calls visit(cell of the level, weight) for everything that bin (row, column) averages.
template <class Visit>
__device__ __forceinline__ void visit_bin(const Roi& roi, const Tables& t, int row, int column,
                                          const Visit& visit) {
  const int side = roi.x.side, width = roi.x.extent;
  const int rows = t.count[side + row], columns = t.count[column];
  if (rows != kTooWide && columns != kTooWide) {
    const float* wy = t.weight + (side + row) * kSpan;
    const float* wx = t.weight + column * kSpan;
    for (int y = 0; y < rows; ++y) {
      const int line = (t.first[side + row] + y) * width + t.first[column];
      for (int x = 0; x < columns; ++x) visit(line + x, wy[y] * wx[x]);
    }
    return;
  }
  // A bin too wide for the table: every sample by itself.
  float y0, y1, x0, x1;
  near_samples(roi.y, row, &y0, &y1);
  near_samples(roi.x, column, &x0, &x1);
  const float share = __fdiv_rn(1.0f, roi.x.samples) * __fdiv_rn(1.0f, roi.y.samples);
  for (float sy = y0; sy < y1; sy += 1.0f) {
    const Tap down = make_tap(roi.y, position(roi.y, row, sy));
    if (!down.valid) continue;
    for (float sx = x0; sx < x1; sx += 1.0f) {
      const Tap across = make_tap(roi.x, position(roi.x, column, sx));
      if (!across.valid) continue;
      const float low = (1.0f - down.fraction) * share, high = down.fraction * share;
      visit(down.low * width + across.low, low * (1.0f - across.fraction));
      visit(down.low * width + across.high, low * across.fraction);
      visit(down.high * width + across.low, high * (1.0f - across.fraction));
      visit(down.high * width + across.high, high * across.fraction);
    }
  }
}

template <class T>
struct Sum {  // kChannels planes of one cell at a time
  const T* plane;
  size_t cells;
  int channels;
  float* total;
  __device__ __forceinline__ void operator()(int cell, float weight) const {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const int plane_index = c < channels ? c : channels - 1;
      total[c] += weight * load(plane + plane_index * cells + cell, 1.0f);
    }
  }
};

// Block: one RoI and kChannels channels, a thread a cell. Grid: RoIs x channel groups.
template <class T>
__device__ __forceinline__ void run_linear(const Params& p, unsigned char* shared) {
  const int r = int(blockIdx.x), channel = int(blockIdx.y) * kChannels;
  const int cells_out = p.side * p.side, cell = int(threadIdx.x);
  const Roi roi = make_roi(p, r);
  const Tables t = tables(shared, p.side);
  if (!roi.empty) fill_tables(roi, t, p.side);
  __syncthreads();
  if (cell >= cells_out) return;
  float total[kChannels];
#pragma unroll
  for (int c = 0; c < kChannels; ++c) total[c] = 0.0f;
  const int left = p.channels - channel;
  if (!roi.empty) {
    const size_t cells = size_t(roi.x.extent) * roi.y.extent;
    const T* planes = static_cast<const T*>(p.features[roi.level]);
    planes += (size_t(roi.image) * p.channels + channel) * cells;
    visit_bin(roi, t, cell / p.side, cell % p.side, Sum<T>{planes, cells, left, total});
  }
  T* out = static_cast<T*>(p.output) + (size_t(r) * p.channels + channel) * cells_out + cell;
#pragma unroll
  for (int c = 0; c < kChannels; ++c)
    if (c < left)
      store(out + size_t(c) * cells_out, total[c] * p.feature_scale[roi.level], p.output_scale);
}

template <class T, int kCount>
struct VectorSum {  // kCount neighbouring channels of one cell
  const T* plane;
  int pack;
  float* total;
  __device__ __forceinline__ void operator()(int cell, float weight) const {
    const Vector<T, kCount> v =
        *reinterpret_cast<const Vector<T, kCount>*>(plane + size_t(cell) * pack);
#pragma unroll
    for (int c = 0; c < kCount; ++c) total[c] += weight * load(v.value + c, 1.0f);
  }
};

// Block: one RoI and as many output vectors, in storage order, as it has threads.
template <class T, int kCount>
__device__ __forceinline__ void run_packed(const Params& p, unsigned char* shared) {
  const int r = int(blockIdx.x), cells_out = p.side * p.side, vectors = p.pack / kCount;
  const Roi roi = make_roi(p, r);
  const Tables t = tables(shared, p.side);
  if (!roi.empty) fill_tables(roi, t, p.side);
  __syncthreads();
  const int item = int(blockIdx.y * blockDim.x + threadIdx.x);
  if (item >= cells_out * (p.channels / kCount)) return;
  const int cell = item / vectors % cells_out;
  const int channel = item / vectors / cells_out * p.pack + item % vectors * kCount;
  float total[kCount];
#pragma unroll
  for (int c = 0; c < kCount; ++c) total[c] = 0.0f;
  if (!roi.empty) {
    const int cells = roi.x.extent * roi.y.extent;
    const T* plane = static_cast<const T*>(p.features[roi.level]);
    plane += packed_offset(roi.image, channel, 0, p.channels, cells, p.pack);
    visit_bin(roi, t, cell / p.side, cell % p.side, VectorSum<T, kCount>{plane, p.pack, total});
  }
  Vector<T, kCount> out;
#pragma unroll
  for (int c = 0; c < kCount; ++c)
    store(out.value + c, total[c] * p.feature_scale[roi.level], p.output_scale);
  T* where = static_cast<T*>(p.output) +
             packed_offset(r, channel, cell, p.channels, cells_out, p.pack);
  *reinterpret_cast<Vector<T, kCount>*>(where) = out;
}

}  // namespace roi
}  // namespace cm

#define CM_ROI_ALIGN(name, run)                       \
  CM_KERNEL(name)(const cm_roi_align_params p) {      \
    CM_SHARED(shared);                                \
    cm::roi::run(p, shared);                          \
  }
CM_ROI_ALIGN(cm_roi_align_linear_f32, run_linear<float>)
CM_ROI_ALIGN(cm_roi_align_linear_f16, run_linear<__half>)
CM_ROI_ALIGN(cm_roi_align_linear_i8, run_linear<signed char>)
#define CM_ROI_ALIGN_PACKED(name, type, count)        \
  CM_KERNEL(name)(const cm_roi_align_params p) {      \
    CM_SHARED(shared);                                \
    cm::roi::run_packed<type, count>(p, shared);      \
  }
CM_ROI_ALIGN_PACKED(cm_roi_align_packed4_f32, float, 4)
CM_ROI_ALIGN_PACKED(cm_roi_align_packed4_f16, __half, 4)
CM_ROI_ALIGN_PACKED(cm_roi_align_packed8_f16, __half, 8)
CM_ROI_ALIGN_PACKED(cm_roi_align_packed4_i8, signed char, 4)
CM_ROI_ALIGN_PACKED(cm_roi_align_packed16_i8, signed char, 16)

#endif  // CM_DEVICE_CODE

#if CM_LAUNCH_CODE

namespace cm {
namespace roi {

constexpr unsigned kPackedThreads = 256;
constexpr size_t kTableBytes = 16 * sizeof(float) + 2 * sizeof(int);  // a bin of one axis

inline int check(const cm_roi_align_params& p) {
  if (p.type != CM_FLOAT32 && p.type != CM_FLOAT16 && p.type != CM_INT8) return CM_BAD_TYPE;
  if (p.images < 1 || p.channels < 1 || p.rois_count < 0 || p.side < 1) return CM_BAD_SHAPE;
  if (p.side > CM_ROI_ALIGN_MAX_SIDE) return CM_OVER_LIMIT;
  if (p.rois_count == 0) return CM_OK;
  if (!p.roi_image || p.count)
    if (p.rois_per_image < 1 || int64_t(p.rois_per_image) * p.images < p.rois_count)
      return CM_BAD_SHAPE;
  if (!usable_pack(p.pack, p.channels)) return CM_BAD_LAYOUT;
  if ((p.roi_image || p.count) && !usable_index(p.index_bytes)) return CM_BAD_TYPE;
  for (int l = 0; l < 3; ++l) {
    if (p.height[l] < 1 || p.width[l] < 1) return CM_BAD_SHAPE;
    if (int64_t(p.height[l]) * p.width[l] > INT32_MAX) return CM_OVER_LIMIT;
    if (p.type == CM_INT8 && !usable_scale(p.feature_scale[l])) return CM_BAD_VALUE;
  }
  if (p.type == CM_INT8 && !usable_scale(p.output_scale)) return CM_BAD_VALUE;
  if (!p.rois || !p.image_size || !p.output) return CM_NULL_POINTER;
  for (const void* f : p.features) {
    if (!f) return CM_NULL_POINTER;
    if (p.pack > 1 && !aligned16(f)) return CM_MISALIGNED;
  }
  return p.pack > 1 && !aligned16(p.output) ? CM_MISALIGNED : CM_OK;
}

}  // namespace roi
}  // namespace cm

CM_API size_t cm_roi_align_params_size(void) { return sizeof(cm_roi_align_params); }

CM_API int cm_roi_align(const cm_roi_align_params* params, void* stream) {
  if (!params) return CM_NULL_POINTER;
  cm_roi_align_params p = *params;
  if (const int code = cm::roi::check(p)) return code;
  if (p.rois_count == 0) return CM_OK;
  if (p.type != CM_INT8)
    p.feature_scale[0] = p.feature_scale[1] = p.feature_scale[2] = p.output_scale = 1.0f;
  const unsigned cells = unsigned(p.side * p.side), rois = unsigned(p.rois_count);
  const size_t shared = 2 * size_t(p.side) * cm::roi::kTableBytes;
  if (p.pack == 1) {
    const cm_dim grid = {rois, unsigned(p.channels + 7) / 8, 1};
    const unsigned threads = (cells + 31) / 32 * 32;
    if (p.type == CM_FLOAT32)
      return CM_LAUNCH(cm_roi_align_linear_f32, grid, threads, shared, stream, p);
    if (p.type == CM_FLOAT16)
      return CM_LAUNCH(cm_roi_align_linear_f16, grid, threads, shared, stream, p);
    return CM_LAUNCH(cm_roi_align_linear_i8, grid, threads, shared, stream, p);
  }
  const unsigned widest = p.type == CM_FLOAT32 ? 4 : p.type == CM_FLOAT16 ? 8 : 16;
  const unsigned count = unsigned(p.pack) % widest == 0 ? widest : 4;
  const unsigned threads = cm::roi::kPackedThreads;
  const unsigned vectors = cells * (unsigned(p.channels) / count);
  const cm_dim grid = {rois, (vectors + threads - 1) / threads, 1};
  if (p.type == CM_FLOAT32)
    return CM_LAUNCH(cm_roi_align_packed4_f32, grid, threads, shared, stream, p);
  if (p.type == CM_FLOAT16)
    return count == 8 ? CM_LAUNCH(cm_roi_align_packed8_f16, grid, threads, shared, stream, p)
                      : CM_LAUNCH(cm_roi_align_packed4_f16, grid, threads, shared, stream, p);
  return count == 16 ? CM_LAUNCH(cm_roi_align_packed16_i8, grid, threads, shared, stream, p)
                     : CM_LAUNCH(cm_roi_align_packed4_i8, grid, threads, shared, stream, p);
}

#endif  // CM_LAUNCH_CODE
