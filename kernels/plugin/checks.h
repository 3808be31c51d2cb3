// Checks of tensor types, ranks and layouts that the three ops make. -1 is a size not known yet.
#pragma once

#include <cmath>

#include "centermask/types.h"
#include "report.h"

namespace cm_plugin {

inline bool is_real(DataType type) { return type == DataType::kFLOAT || type == DataType::kHALF; }

inline bool has_rank(const Label& label, const char* input, const Dims& dims, int rank) {
  if (dims.nbDims == rank) return true;
  return refuse(label, "input %s is %s; %d dimensions are wanted", input, DimsText(dims).text,
                rank);
}

inline bool agree(int64_t a, int64_t b) { return a < 0 || b < 0 || a == b; }

inline bool has_size(const Label& label, const char* input, const Dims& dims, int axis,
                     int64_t wanted) {
  if (agree(dims.d[axis], wanted)) return true;
  return refuse(label, "input %s is %s; %lld is wanted at dimension %d", input,
                DimsText(dims).text, static_cast<long long>(wanted), axis);
}

// The `pack` of the kernels for a layout of C channels; 0 where they do not have it. The
// channels must fill the layout, since the kernels know no padding.
inline int pack_of(DataType type, TensorFormat format, int64_t channels) {
  const bool half = type == DataType::kHALF, codes = type == DataType::kINT8;
  if (format == TensorFormat::kLINEAR) return 1;
  if (half && format == TensorFormat::kHWC8 && channels > 0 && channels % 8 == 0)
    return int(channels);
  if (codes && format == TensorFormat::kCHW4 && channels > 0 && channels % 4 == 0) return 4;
  if (codes && format == TensorFormat::kCHW32 && channels > 0 && channels % 32 == 0) return 32;
  return 0;
}

// The scale of int8 codes: the attribute, else what the tensor says, else 0. A tensor that says
// exactly 1 says nothing: strongly typed networks report 1 whatever QuantizeLinear was given.
inline float scale_of(float attribute, const PluginTensorDesc& tensor) {
  if (attribute > 0) return attribute;
  return std::isfinite(tensor.scale) && tensor.scale > 0 && tensor.scale != 1 ? tensor.scale : 0;
}

}  // namespace cm_plugin
