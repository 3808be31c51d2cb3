// Checks of the arguments that every launcher makes before it queues anything.
#pragma once

#include "shim.h"

#if CM_LAUNCH_CODE

#include <cmath>

namespace cm {

inline bool aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }
inline bool usable_pack(int pack, int channels) {
  return pack == 1 || (pack > 1 && pack % 4 == 0 && channels % pack == 0);
}
inline bool usable_scale(float scale) { return std::isfinite(scale) && scale > 0; }
inline bool usable_index(int bytes) { return bytes == 4 || bytes == 8; }

}  // namespace cm

#endif  // CM_LAUNCH_CODE
