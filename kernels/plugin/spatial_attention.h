// CMSpatialAttention: x * sigmoid(conv3x3([mean over C, max over C])).
//
//   x [R, C, H, W] float32, float16 or int8; weight [1, 2, 3, 3] float32 or float16 -> y as x
//
// Layouts of x and y: NCHW, HWC8 for float16, CHW4 and CHW32 for int8; both one.
#pragma once

#include "centermask/spatial_attention.h"
#include "fields.h"

namespace cm_plugin {

struct SpatialAttention {
  static constexpr const char* kName = "CMSpatialAttention";
  static constexpr int kInputs = 2, kOutputs = 1;

  struct Values {
    float x_scale, y_scale;
  };
  static constexpr Attribute kAttributes[] = {
      {"x_scale", Kind::number, 1, offsetof(Values, x_scale), false, 0, 1e30, true},
      {"y_scale", Kind::number, 1, offsetof(Values, y_scale), false, 0, 1e30, true},
  };

  static bool types(const Label& label, const DataType* in, DataType* out);
  static bool shapes(const Label& label, const Values& values, const Dims* in);
  static void output(const Values& values, int index, const nvinfer1::DimsExprs* in,
                     nvinfer1::DimsExprs& out, nvinfer1::IExprBuilder& builder);
  static bool offers(const Values& values, int position, const PluginTensorDesc* tensors);
  static bool ready(const Label& label, const Values& values, const PluginTensorDesc* tensors);
  static size_t workspace(const Values&, const PluginTensorDesc*) { return 0; }
  static int enqueue(const Values& values, const PluginTensorDesc* tensors, const void* const* in,
                     void* const* out, void* workspace, void* stream);
};

}  // namespace cm_plugin
