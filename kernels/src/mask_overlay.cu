// Masks drawn where they are: every pixel samples the maps of the boxes over it.
//
// A block owns a tile of 32 x 8 pixels and first lists the boxes that touch it; a tile under none
// leaves the frame unread. A pixel is set where the bilinear sample of the map at its centre is at
// least one half, with zeros beyond the map, as centermask_edge/masks.py has it. Colours blend in
// float32, rounded half to even; the drawing in live/draw.py computes in double, which differs by
// one level where the exact result lies half way between two (266 of 65536 pairs at 0.45), nowhere
// else.
//
// Bytes: the pixels under boxes, read and written once however many masks lie over them; the maps
// (3 KB each) come from L1. Arithmetic: some forty operations a pixel and box, five times that
// with an outline. A run-length encoding on the GPU does not pay: what leaves the GPU are the maps
// themselves, 160 KB for fifty instances. Areas are what a zone needs, and cost one atomic a warp
// and box. Tile sizes come from counting: no GPU has timed this kernel yet; figures go to
// bench/results/.
#include "checks.h"
#include "common.h"

#include "centermask/mask_overlay.h"

#if CM_DEVICE_CODE

namespace cm {
namespace overlay {

using Params = cm_mask_overlay_params;

constexpr int kColumns = 32, kRows = 8;

// Where a pixel centre falls in cells of the map, rounded as the reference rounds it.
__device__ __forceinline__ float cell_at(int pixel, float low, float high, int side) {
  const float along = __fdiv_rn(__fsub_rn(float(pixel) + 0.5f, low), __fsub_rn(high, low));
  const float grid = __fsub_rn(__fmul_rn(along, 2.0f), 1.0f);
  return __fdiv_rn(__fsub_rn(__fmul_rn(__fadd_rn(grid, 1.0f), float(side)), 1.0f), 2.0f);
}

__device__ __forceinline__ bool is_set(const Params& p, int instance, int x, int y) {
  const float* box = p.boxes + 4 * instance;
  if (!(box[2] > box[0] && box[3] > box[1])) return false;
  if (!(float(x) >= floorf(box[0]) && float(x) < ceilf(box[2]))) return false;
  if (!(float(y) >= floorf(box[1]) && float(y) < ceilf(box[3]))) return false;
  const float across = cell_at(x, box[0], box[2], p.side);
  const float down = cell_at(y, box[1], box[3], p.side);
  if (!(across > -1.0f && across < float(p.side))) return false;
  if (!(down > -1.0f && down < float(p.side))) return false;
  const float* mask = p.masks + size_t(instance) * p.side * p.side;
  const int column = int(floorf(across)), row = int(floorf(down));
  float value = 0.0f;
  for (int dx = 0; dx < 2; ++dx) {
    if (column + dx < 0 || column + dx >= p.side) continue;
    float along = 0.0f;
    for (int dy = 0; dy < 2; ++dy) {
      if (row + dy < 0 || row + dy >= p.side) continue;
      const float weight = __fsub_rn(1.0f, fabsf(__fsub_rn(down, float(row + dy))));
      along = __fadd_rn(along, __fmul_rn(weight, mask[(row + dy) * p.side + column + dx]));
    }
    const float weight = __fsub_rn(1.0f, fabsf(__fsub_rn(across, float(column + dx))));
    value = __fadd_rn(value, __fmul_rn(along, weight));
  }
  return value >= 0.5f;
}

__device__ __forceinline__ bool is_outline(const Params& p, int instance, int x, int y) {
  const int t = p.outline;
  return t > 0 && !(is_set(p, instance, x - t, y) && is_set(p, instance, x + t, y) &&
                    is_set(p, instance, x, y - t) && is_set(p, instance, x, y + t));
}

// The boxes over the tile, in their order; how many is left in list[0].
__device__ __forceinline__ void list_boxes(const Params& p, int left, int top, int* list) {
  const int lane = int(threadIdx.x);
  int drawn = p.count ? read_index(p.count, 0, p.index_bytes) : p.instances;
  drawn = drawn < p.instances ? drawn : p.instances;
  int found = 0;
  for (int start = 0; start < drawn; start += kWarpSize) {
    const int i = start + lane;
    bool over = false;
    if (i < drawn) {
      const float* box = p.boxes + 4 * i;
      over = box[0] < float(left + kColumns) && box[2] > float(left) &&
             box[1] < float(top + kRows) && box[3] > float(top);
    }
    const unsigned who = __ballot_sync(full_warp(), over);
    if (over) list[1 + found + __popc(who & ((1u << lane) - 1u))] = i;
    found += __popc(who);
  }
  if (lane == 0) list[0] = found;
}

__device__ __forceinline__ void run(const Params& p, unsigned char* shared) {
  int* list = reinterpret_cast<int*>(shared);
  const int left = int(blockIdx.x) * kColumns, top = int(blockIdx.y) * kRows;
  if (threadIdx.x < kWarpSize) list_boxes(p, left, top, list);
  __syncthreads();
  const int boxes = list[0];
  if (boxes == 0) return;  // the whole block
  const int x = left + int(threadIdx.x) % kColumns, y = top + int(threadIdx.x) / kColumns;
  const bool inside = x < p.width && y < p.height;
  uint8_t* pixel = p.frame + y * p.pitch + 3 * x;
  int value[3] = {0, 0, 0};
  if (inside)
    for (int c = 0; c < 3; ++c) value[c] = pixel[c];
  bool changed = false;
  for (int i = boxes; i > 0; --i) {
    const int instance = list[i];
    const bool set = inside && is_set(p, instance, x, y);
    if (p.area) {
      const unsigned who = __ballot_sync(full_warp(), set);
      if (threadIdx.x % kWarpSize == 0 && who) atomicAdd(p.area + instance, __popc(who));
    }
    if (!set) continue;
    const float opacity = is_outline(p, instance, x, y) ? 1.0f : p.opacity;
    for (int c = 0; c < 3; ++c) {
      const float old = __fmul_rn(float(value[c]), __fsub_rn(1.0f, opacity));
      const float ink = __fmul_rn(float(p.colors[3 * instance + c]), opacity);
      value[c] = __float2int_rn(__fadd_rn(old, ink));
    }
    changed = true;
  }
  if (changed)
    for (int c = 0; c < 3; ++c) pixel[c] = static_cast<uint8_t>(value[c]);
}

}  // namespace overlay
}  // namespace cm

CM_KERNEL(cm_mask_overlay_u8)(const cm_mask_overlay_params p) {
  CM_SHARED(shared);
  cm::overlay::run(p, shared);
}

#endif  // CM_DEVICE_CODE

#if CM_LAUNCH_CODE

namespace cm {
namespace overlay {

inline int check(const cm_mask_overlay_params& p) {
  if (p.height < 1 || p.width < 1 || p.instances < 0 || p.side < 1) return CM_BAD_SHAPE;
  if (p.outline < 0 || p.pitch < 3 * int64_t(p.width)) return CM_BAD_SHAPE;
  if (p.instances > CM_MASK_OVERLAY_MAX_INSTANCES || p.side > 4096) return CM_OVER_LIMIT;
  if (p.height > 1 << 18 || p.width > 1 << 18 || p.outline > 1 << 10) return CM_OVER_LIMIT;
  if (!(p.opacity >= 0 && p.opacity <= 1)) return CM_BAD_VALUE;
  if (p.count && !usable_index(p.index_bytes)) return CM_BAD_TYPE;
  if (p.instances == 0) return CM_OK;
  return p.frame && p.masks && p.boxes && p.colors ? CM_OK : CM_NULL_POINTER;
}

}  // namespace overlay
}  // namespace cm

CM_API size_t cm_mask_overlay_params_size(void) { return sizeof(cm_mask_overlay_params); }

CM_API int cm_mask_overlay(const cm_mask_overlay_params* params, void* stream) {
  if (!params) return CM_NULL_POINTER;
  const cm_mask_overlay_params& p = *params;
  if (const int code = cm::overlay::check(p)) return code;
  if (p.instances == 0) return CM_OK;
  if (p.area)
    if (const int code = cm::zero(p.area, size_t(p.instances) * sizeof(int32_t), stream))
      return code;
  const cm_dim grid = {(unsigned(p.width) + 31) / 32, (unsigned(p.height) + 7) / 8, 1};
  const size_t shared = (size_t(p.instances) + 1) * sizeof(int);
  return CM_LAUNCH(cm_mask_overlay_u8, grid, 256u, shared, stream, p);
}

#endif  // CM_LAUNCH_CODE
